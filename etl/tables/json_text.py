"""Reads JSON that the strict decoder refuses, so that one bad value costs one row.

NaN, numbers without end, lone surrogates and bytes that are not UTF-8 are read here
and left to the table to reject; only a body that is no JSON at all is unreadable.
"""

import json
from typing import TypeAlias

from etl.client.values import UnreadableBodyError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


def lenient(body: bytes) -> Json:
    """Return what the body says; raises UnreadableBodyError for what is no JSON."""
    try:
        parsed: Json = json.loads(
            body.decode("utf-8", errors="surrogateescape"), strict=False, parse_int=_integer
        )
    except RecursionError:
        raise UnreadableBodyError("the JSON is nested too deeply to be read") from None
    except ValueError as error:
        raise UnreadableBodyError(f"it is not JSON ({_place(error)})") from None
    return parsed


def text_of(value: Json) -> str:
    """Return a value as JSON text that Parquet can hold, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def plain(value: Json) -> bool:
    """Say whether a value holds only what JSON can say: no NaN, no endless number."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def storable(value: Json) -> bool:
    """Say whether a string can be written as UTF-8 and holds no NUL; others always can."""
    return not isinstance(value, str) or ("\0" not in value and _encodes(value))


def _integer(digits: str) -> int | float:
    """Read an integer; one longer than Python converts is as good as endless."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _place(error: ValueError) -> str:
    """Say where parsing stopped, without the text, which may be personal data."""
    position = getattr(error, "pos", None)
    return "empty" if position is None else f"at character {position}"
