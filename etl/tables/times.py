"""Reads ISO 8601 timestamps: all of a page at once, or one by one where that fails."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from etl.tables.values import TIMESTAMP, Array

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US = -62_135_596_800_000_000
_YEAR_10000_US = 253_402_300_800_000_000
_YEAR_2, _YEAR_9999 = "0002", "9999"


def timestamps(texts: Sequence[str | None]) -> Array:
    """Return UTC timestamps in microseconds; raises ValueError if one cannot be read.

    Arrow reads the form that the API publishes; any other ISO 8601 form, and a form
    without a zone (UTC), is read value by value.
    """
    # Sorted as text they are sorted by year. Arrow takes year 0 and, in UTC, year 10000, too.
    told = [text for text in texts if text is not None]
    if not told or (min(told) >= _YEAR_2 and max(told) < _YEAR_9999):
        try:
            return pa.array(texts, pa.string()).cast(TIMESTAMP)
        except (pa.ArrowInvalid, UnicodeEncodeError):
            pass
    return pa.array([microseconds(text) for text in texts], pa.int64()).cast(TIMESTAMP)


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
    passed_us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    if not _YEAR_1_US <= passed_us < _YEAR_10000_US:
        raise ValueError("in UTC it is a year that most readers do not know")
    return passed_us
