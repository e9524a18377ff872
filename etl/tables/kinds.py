"""The kinds of values that served fields hold: how each is read, and its Arrow type.

A kind reads a whole column at once, None where a row has no value, and raises Fault
for what is none of its kind: named by the caller, never quoted.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, cast

import pyarrow as pa

from etl.tables.json_text import Json, canonical, kind_of, storable
from etl.tables.times import microseconds
from etl.tables.values import TIMESTAMP, Value

LONGEST_ID: Final = 1_000
"""The most characters that an id may have."""


class Fault(Exception):
    """What is wrong with a row: names the field, what it is and should be, never its value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field may hold: an Arrow type, and how the values of many rows are read."""

    arrow: pa.DataType
    read: Callable[[Sequence[Json]], Sequence[Value]]


_STRINGS: Final = {str, type(None)}
_FLAGS: Final = {bool, type(None)}
_WHOLES: Final = {int, type(None)}
_LEAST_WHOLE: Final = -(2**63)


def _unlike(expected: str, values: Sequence[Json], types: Collection[object]) -> str:
    found = next(value for value in values if type(value) not in types)
    return f"is {kind_of(found)}, not {expected}"


def _texts(values: Sequence[Json]) -> Sequence[Value]:
    if not set(map(type, values)) <= _STRINGS:
        raise Fault(_unlike("a string", values, _STRINGS))
    texts = cast("Sequence[str | None]", values)
    if not storable("".join(filter(None, texts))):
        raise Fault("holds characters that cannot be stored")
    return texts


def _ids(values: Sequence[Json]) -> Sequence[Value]:
    ids = [value or "" for value in cast("Sequence[str | None]", _texts(values))]
    lengths = set(map(len, ids)) or {1}
    if 0 in lengths:
        raise Fault("is missing")
    if max(lengths) > LONGEST_ID:
        raise Fault(f"is longer than {LONGEST_ID} characters")
    return ids


def _flags(values: Sequence[Json]) -> Sequence[Value]:
    if not set(map(type, values)) <= _FLAGS:
        raise Fault(_unlike("a boolean", values, _FLAGS))
    return cast("Sequence[bool | None]", values)


def _each(read: Callable[[Json], Value]) -> Callable[[Sequence[Json]], Sequence[Value]]:
    return lambda values: [None if value is None else read(value) for value in values]


def _number(value: Json) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Fault(f"is {kind_of(value)}, not a number")
    if not _LEAST_WHOLE <= value < -_LEAST_WHOLE:  # NaN and endless numbers neither
        raise Fault("is out of range")
    return value


def _numbers(read: Callable[[Json], Value]) -> Callable[[Sequence[Json]], Sequence[Value]]:
    """Read each value, but where all are whole numbers or null, and small: they are as read."""
    one_by_one = _each(read)

    def read_all(values: Sequence[Json]) -> Sequence[Value]:
        if set(map(type, values)) <= _WHOLES:
            wholes = cast("Sequence[int | None]", values)
            if max(map(abs, filter(None, wholes)), default=0) < -_LEAST_WHOLE:
                return wholes
        return one_by_one(values)

    return read_all


def _whole(value: Json) -> int:
    number = _number(value)
    if number != math.floor(number):
        raise Fault("is not a whole number")
    return int(number)


def _rounded(value: Json) -> int:
    return round(_number(value))


def _real(value: Json) -> float:
    return float(_number(value))


def _moment(value: Json) -> int | None:
    if not isinstance(value, str):
        raise Fault(f"is {kind_of(value)}, not a string")
    try:
        return microseconds(value)
    except ValueError:
        raise Fault("is not an ISO 8601 timestamp") from None


def _spoken(value: Json) -> str:
    text = value if isinstance(value, str) else canonical(value)
    if not storable(text):
        raise Fault("holds characters that cannot be stored")
    return text


_YEAR_1_MS: Final = -62_135_596_800_000
_YEAR_10000_MS: Final = 253_402_300_800_000


def _moment_ms(value: Json) -> int:
    number = _number(value)
    if not _YEAR_1_MS <= number < _YEAR_10000_MS:
        raise Fault("is out of range")
    return round(number * 1000)


ID: Final = Kind(pa.string(), _ids)
"""Names a thing: a string that must be there, and not be endless."""

TEXT: Final = Kind(pa.string(), _texts)
FLAG: Final = Kind(pa.bool_(), _flags)

WHOLE: Final = Kind(pa.int64(), _numbers(_whole))
"""A whole number, also where it is written as 4.0."""

ROUNDED: Final = Kind(pa.int64(), _numbers(_rounded))
"""A number of which a fraction says nothing: milliseconds."""

REAL: Final = Kind(pa.float64(), _each(_real))

MOMENT: Final = Kind(TIMESTAMP, _each(_moment))
"""A timestamp in ISO 8601, UTC where it names no zone."""

MOMENT_MS: Final = Kind(TIMESTAMP, _each(_moment_ms))
"""A timestamp in milliseconds since 1970."""

JSON_TEXT: Final = Kind(pa.string(), _each(canonical))
"""Any value, as JSON text."""

SPOKEN: Final = Kind(pa.string(), _each(_spoken))
"""A text as it is; any other value as JSON."""
