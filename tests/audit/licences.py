"""Reads what packages say of their licences, and judges it by the policy in pyproject.toml."""

import re
from collections.abc import Container, Iterator
from importlib.metadata import PackageNotFoundError, metadata

from tests.audit.locks import Locked

_SPELLED = {
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "ISC License": "ISC",
    "MIT License": "MIT",
}
"""How packages without a License-Expression (PEP 639) name what SPDX has an id for."""


def licence_of(package: Locked) -> str | None:
    """Return a package's licence as an SPDX expression, or as it names it.

    None if the locked version is not installed here: another one may have another licence.

    Several classifiers might mean all of them or a choice: all is the careful reading.
    """
    try:
        told = metadata(package.name)
    except PackageNotFoundError:
        return None
    if told["Version"] != package.version:
        return None
    if "License-Expression" in told:
        return told["License-Expression"]
    text = str((told.get_all("License") or [""])[0])
    if text and "\n" not in text:
        return _SPELLED.get(text, text)
    classifiers = [line.split(" :: ") for line in told.get_all("Classifier") or ()]
    named = [parts[-1] for parts in classifiers if parts[0] == "License"]
    return " AND ".join(_SPELLED.get(one, one) for one in named) or "not told"


def permitted(expression: str, allowed: Container[str]) -> bool:
    """Return whether an SPDX expression lets one use the package under an allowed licence.

    `OR` is a choice, `AND` binds closer; what cannot be read is not permitted.
    """
    parts = re.split(r"([()])|\s+(AND|OR)\s+", expression)
    tokens = (part.strip() for part in parts if part and part.strip())
    return _any_of(tokens, allowed) and next(tokens, None) is None


def _any_of(tokens: Iterator[str], allowed: Container[str]) -> bool:
    """Read up to the closing parenthesis: a choice, each of which needs all that it names."""
    choices: list[list[bool]] = [[]]
    for token in tokens:
        match token:
            case ")":
                break
            case "OR":
                choices.append([])
            case "AND":
                pass
            case "(":
                choices[-1].append(_any_of(tokens, allowed))
            case licence:
                choices[-1].append(licence in allowed)
    return any(needed and all(needed) for needed in choices)
