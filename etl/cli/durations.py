"""Reads durations as people write them: `50m`, `1h30m`, `90s`, `90`."""

import re
from typing import Final

from etl.errors import UsageError

_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+|\d+(?:\.\d+)?")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([dhms]?)")


def seconds_of(text: str | None, option: str) -> float | None:
    """Return a duration in seconds; raises UsageError for what is none."""
    if text is None:
        return None
    if len(text) > 40 or not _DURATION.fullmatch(text.strip().lower()):
        raise UsageError(
            f"{option} {text!r} is not a duration.", advice="Write for example 50m, 1h30m or 90s."
        )
    parts = _PART.findall(text.strip().lower())
    return sum(float(number) * _SECONDS[unit or "s"] for number, unit in parts)
