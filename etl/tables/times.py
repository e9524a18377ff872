"""Reads ISO 8601 timestamps: all of a page at once, or one by one where that fails."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.tables.values import TIMESTAMP, Array

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US = -62_135_596_800_000_000


def timestamps(texts: Sequence[str | None]) -> Array:
    """Return UTC timestamps in microseconds; raises ValueError if one cannot be read.

    Arrow reads the form that the API publishes; any other ISO 8601 form, and a form
    without a zone (UTC), is read value by value.
    """
    try:
        read = pa.array(texts, pa.string()).cast(TIMESTAMP)
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return pa.array([microseconds(text) for text in texts], pa.int64()).cast(TIMESTAMP)
    earliest: int | None = pc.min(read.view(pa.int64())).as_py()
    if earliest is not None and earliest < _YEAR_1_US:
        raise ValueError("a year 0 is none that most readers know")
    return read


def readable_time(text: str | None) -> bool:
    """Say whether `timestamps` can read this value."""
    try:
        microseconds(text)
    except ValueError:
        return False
    return True


def microseconds(text: str | None) -> int | None:
    """Return an ISO 8601 timestamp in microseconds since 1970; raises ValueError."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
