"""Validates a part of the file against its model, in words that point and help."""

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from etl.config.mistakes import did_you_mean, shown
from etl.config.models import (
    Columns,
    Discovery,
    Files,
    Lake,
    Media,
    Model,
    Pagination,
    RateLimit,
)
from etl.config.yaml_source import KeyPath, Plain

_Model = TypeVar("_Model", bound=Model)

_PARTS: Final[Mapping[str, type[Model]]] = {
    "rate_limit": RateLimit,
    "pagination": Pagination,
    "lake": Lake,
    "tests": Discovery,
    "columns": Columns,
    "videos": Files,
    "clips": Files,
    "highlight_reels": Files,
    "media": Media,
}
_ACCEPTED: Final = {  # by the beginning of pydantic's name for the problem
    "bool": "true or false",
    "dict": "a mapping",
    "date_": "a date such as 2026-01-31",
    "float": "a number",
    "int_": "a whole number",
    "model": "a mapping",
    "string_too_short": "text that is not empty",
    "string_type": "text",
    "string_unicode": "text of Unicode characters",
    "too_short": "at least one item",
    "tuple": "a list",
}
_SECRETS: Final = frozenset({"client_id", "client_secret"})


def validated(
    mistake: Callable[[KeyPath, str], None],
    model: type[_Model],
    value: Plain,
    path: KeyPath,
) -> _Model | None:
    """Return the model of a named part of the file, or None after noting its mistakes.

    `path` ends in the part's name, which the model takes from there and not from a key.
    """
    told = dict(value) if isinstance(value, dict) else {}
    if "name" in told:
        mistake((*path, "name"), "unknown key; the name is the key itself")
    told["name"] = path[-1]
    try:
        return model.model_validate(told)
    except ValidationError as error:
        said: dict[KeyPath, str] = {}
        for problem in error.errors(include_url=False):
            if problem["type"] == "too_short" and problem["input"]:
                continue  # its items are wrong, and told
            within = _key_path(problem["loc"], told, missing=problem["type"] == "missing")
            what = _said(problem, model, within)
            if within in said:  # another member of a union
                what = f"{said[within]} or {what.rpartition('; accepted: ')[2]}"
            said[within] = what
        for within, what in said.items():
            mistake(path if within == ("name",) else (*path, *within), what)
        return None


def _key_path(loc: tuple[int | str, ...], value: object, *, missing: bool) -> KeyPath:
    """Return a location as keys of the file, without pydantic's names for union members."""
    keys: list[str | int] = []
    for place, key in enumerate(loc):
        inside = _inside(value, key)
        if inside is _NOTHING and not (missing and place + 1 == len(loc)):
            continue
        value = inside
        keys.append(key)
    return tuple(keys)


_NOTHING: Final = object()


def _inside(value: object, key: int | str) -> object:
    if isinstance(value, dict):
        return value.get(key, _NOTHING)
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return value[key]
    return _NOTHING


def _said(problem: ErrorDetails, model: type[Model], within: KeyPath) -> str:
    """Return what was found and what is accepted."""
    kind, found = problem["type"], problem.get("input")
    key = str(within[-1]) if within else ""
    if kind == "extra_forbidden":
        part = _PARTS.get(str(within[0]), model) if len(within) > 1 else model
        known = [name for name in part.model_fields if name != "name"]
        return f"unknown key{did_you_mean(key, known)}; accepted: {', '.join(known)}"
    if kind == "missing":
        return "is missing"
    if key in _SECRETS:
        return "is not text"
    if kind == "string_pattern_mismatch":
        return f"is {shown(found)}; accepted: letters, digits, _ and -, at most 64"
    if kind == "value_error":
        return f"is {shown(found)}; it {str(problem['msg']).removeprefix('Value error, ')}"
    if kind == "literal_error":
        accepted = str(problem.get("ctx", {}).get("expected", ""))
        hint = did_you_mean(str(found), re.findall(r"'([^']*)'", accepted))
        return f"is {shown(found)}{hint}; accepted: {accepted}"
    message = str(problem["msg"]).removeprefix("Input should be ")
    accepted = next((_ACCEPTED[name] for name in _ACCEPTED if kind.startswith(name)), message)
    return f"is {shown(found)}; accepted: {accepted}"
