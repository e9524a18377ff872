"""Fills in `${VAR}` and `${VAR:-default}`; what a variable holds is text, never syntax."""

import re
from collections.abc import Mapping
from typing import Final

_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_OPEN: Final = re.compile(r"\$\{")


class Unset(Exception):
    """A variable that has neither a value nor a default; the message names it."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Return the text with its variables filled in; raises Unset.

    What is filled in is not looked at again: a value with `${…}` or a line break in it
    stays as it is, so nothing can be cyclic. An empty variable takes the default.
    """

    def value_of(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        value = variables.get(name)
        if value or (value is not None and default is None):
            return value
        if default is not None:
            return default
        raise Unset(name)

    rest = _VARIABLE.sub(" ", text)
    if _OPEN.search(rest):
        raise Unset("")
    return _VARIABLE.sub(value_of, text)


def names_in(text: str) -> list[str]:
    """Return the variables that a text names."""
    return [match[1] for match in _VARIABLE.finditer(text)]
