"""Reads dates as people write them: `2025-01-31`, `2025-01-31T12:00`; UTC if no zone is told."""

from datetime import UTC, date, datetime, timedelta

from etl.errors import UsageError
from etl.ledger.afresh import Span


def span_of(since: str | None, until: str | None) -> Span:
    """Return the span from `since` until the end of the day `until`; raises UsageError.

    A moment given with its time is its own end.
    """
    span = Span(_us(since, "--since", whole_day=False), _us(until, "--until", whole_day=True))
    if span.since_us is not None and span.until_us is not None and span.since_us >= span.until_us:
        raise UsageError(
            f"--since {since!r} is not before --until {until!r}.", advice="Nothing was asked."
        )
    return span


def _us(text: str | None, option: str, *, whole_day: bool) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        if whole_day and _is_day(text.strip()):
            moment += timedelta(days=1)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text!r} is not a date.",
            advice="Write for example 2025-01-31, or 2025-01-31T12:00+02:00.",
        ) from None
    return since_1970 // timedelta(microseconds=1)


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
