"""Reads JSON that the strict decoder refuses, so that one bad value costs one row.

NaN, numbers without end, lone surrogates and bytes that are not UTF-8 are read here
and left to the table to reject; only a body that is no JSON at all is unreadable.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec

from etl.client.values import UnreadableBodyError

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

_DEEPEST: Final = 200
_TOO_DEEP: Final = "the JSON is nested too deeply to be read"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON body as read; `odd` says that it holds what JSON proper cannot say."""

    value: Json = field(repr=False)
    odd: bool = False


def document(body: bytes) -> Document:
    """Return what a body says; raises UnreadableBodyError for what is no JSON."""
    try:
        value: Json = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Document(lenient(body), odd=True)
    _check_depth(body, value)
    return Document(value)


def object_with(body: bytes, published: Collection[str], what: str) -> Document:
    """Return a body that is an object with some of the published fields.

    Raises UnreadableBodyError for any other, such as an error told with status 200.
    """
    read = document(body)
    if not isinstance(read.value, dict) or read.value.keys().isdisjoint(published):
        raise UnreadableBodyError(f"it is not {what}")
    return read


def listing_of(body: bytes, name: str, what: str) -> Document:
    """Return a body that is an object with a list of this name; raises UnreadableBodyError."""
    read = document(body)
    if not isinstance(read.value, dict) or not isinstance(read.value.get(name), list):
        raise UnreadableBodyError(f"it is not {what}")
    return read


def array_of(body: bytes, what: str) -> Document:
    """Return a body that is an array; raises UnreadableBodyError for any other."""
    read = document(body)
    if not isinstance(read.value, list):
        raise UnreadableBodyError(f"it is not {what}")
    return read


def lenient(body: bytes) -> Json:
    """Return what the body says; raises UnreadableBodyError for what is no JSON."""
    try:
        parsed: Json = json.loads(
            body.decode("utf-8", errors="surrogateescape"), strict=False, parse_int=_integer
        )
    except RecursionError:
        raise UnreadableBodyError(_TOO_DEEP) from None
    except ValueError as error:
        raise UnreadableBodyError(f"it is not JSON ({_place(error)})") from None
    _check_depth(body, parsed)
    return parsed


def text_of(value: Json) -> str:
    """Return a value as JSON text that Parquet can hold, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def canonical(value: Json) -> str:
    """Return a value as readable JSON text, the same for equal values.

    It must be `plain` and `encodable`.
    """
    return _encode(value).decode()


def encodable(value: Json) -> bool:
    """Say whether a value can be said in UTF-8: no half of a surrogate pair."""
    try:
        _encode(value)
    except UnicodeEncodeError:
        return False
    return True


def plain(value: Json) -> bool:
    """Say whether a value holds only what JSON can say: no NaN, no endless number."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


_KINDS: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def kind_of(value: Json) -> str:
    """Return what kind of value it is, to be told without the value."""
    return _KINDS.get(type(value), "null")


def storable(value: Json) -> bool:
    """Say whether a string can be written as UTF-8 and holds no NUL; others always can."""
    return not isinstance(value, str) or (
        "\0" not in value and (value.isascii() or _encodes(value))  # what is ASCII knows it
    )


def _check_depth(body: bytes, value: Json) -> None:
    """Refuse what could be read but, from a deeper stack, not be written again."""
    if body.count(b"[") + body.count(b"{") <= _DEEPEST:
        return
    level = [value]
    for _ in range(_DEEPEST):
        holders = [holder for holder in level if isinstance(holder, (dict, list))]
        if not holders:
            return
        level = [
            inner
            for holder in holders
            for inner in (holder.values() if isinstance(holder, dict) else holder)
        ]
    raise UnreadableBodyError(_TOO_DEEP)


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
