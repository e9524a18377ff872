"""Decides how long to wait: pure functions of what was sent and what the server said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final

FIRST_RETRY_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 60.0
_FEWEST_ROUND_TRIPS: Final = 20


@dataclass(frozen=True, slots=True)
class RateWord:
    """What an answer's headers say of the rate limit; None where nothing believable."""

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None
    retry_after_seconds: float | None = None


def retry_delay(attempt: int, hint_seconds: float | None, random: Random) -> float:
    """Return the wait before a try, with full jitter; `attempt` counts the earlier ones.

    A server's hint is waited for, up to a minute, plus at most a second of jitter.
    Source: "Exponential Backoff and Jitter", AWS Architecture Blog.
    """
    if hint_seconds is not None and hint_seconds > 0:
        return min(hint_seconds, LONGEST_RETRY_SECONDS) + random.uniform(0.0, 1.0)
    longest = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(attempt, 16))
    return random.uniform(0.0, longest)


def guard_seconds(round_trips: Sequence[float], window_seconds: float) -> float:
    """Return what a window must be longer by, since requests take unequal time to arrive.

    It is the spread (5th to 95th percentile) of the last round trips, at least a
    thousandth and at most a fiftieth of the window, so that the limit is still used. Too few
    say nothing of it: then it is the most.
    """
    least, most = window_seconds / 1000, window_seconds / 50
    if len(round_trips) < _FEWEST_ROUND_TRIPS:
        return most
    ordered = sorted(round_trips)
    last = len(ordered) - 1
    spread = ordered[round(last * 0.95)] - ordered[round(last * 0.05)]
    return min(most, max(least, spread))


def effective_limit(configured: int, told: int | None) -> int:
    """Return the limit in force: the server may lower it, within 1 and what is configured."""
    return configured if told is None else max(1, min(configured, told))


def foreign_sends(limit: int, remaining: int | None, own_sends: int) -> int:
    """Return how many sends of the window are not ours, so that we give way to them.

    `own_sends` is the most that the server can have counted of ours.
    """
    if remaining is None:
        return 0
    return max(0, min(limit, limit - remaining - own_sends))


class Neighbours:
    """Expects of others who use the same credentials what they did lately.

    They are seen where the server counts more than we sent. Where it only refuses us, each
    refusal is one send of theirs that we did not expect, and is remembered for longer, since
    learning it again would cost as many refusals.
    """

    _SEEN_WINDOWS: Final = 2
    _REFUSED_WINDOWS: Final = 10

    def __init__(self, window_seconds: float) -> None:
        """Expect nobody yet."""
        self._window_seconds = window_seconds
        self._until: dict[int, float] = {}  # sends in a window: until when they are expected

    def expected(self, now: float) -> int:
        """Return how many of a window's sends to leave to others."""
        self._until = {sends: until for sends, until in self._until.items() if until > now}
        return max(self._until, default=0)

    def seen(self, sends: int, now: float) -> None:
        """Note that the server counted so many in a window that are not ours."""
        self._expect(sends, now + self._SEEN_WINDOWS * self._window_seconds)

    def refused_us(self, now: float) -> None:
        """Note that the server refused a send for which there should have been room."""
        self._expect(self.expected(now) + 1, now + self._REFUSED_WINDOWS * self._window_seconds)

    def _expect(self, sends: int, until: float) -> None:
        self._until[sends] = max(until, self._until.get(sends, until))


def throttle_seconds(
    word: RateWord, *, rest_of_window: float, window_seconds: float, throttled_before: int
) -> float:
    """Return for how long a 429 stops all sends.

    A hint is believed up to one window; without one the rest of our own window counts.
    At least a second, doubling with each 429 in a row.
    """
    hints = [word.retry_after_seconds, word.reset_seconds]
    hint = next((hint for hint in hints if hint is not None and hint > 0), rest_of_window)
    least = min(window_seconds, 2.0 ** min(throttled_before, 10))
    return max(least, min(hint, window_seconds))


def read_headers(headers: Mapping[str, str], now: float) -> RateWord:
    """Read the rate headers; `now` is the wall clock, for hints that name a date."""
    return RateWord(
        limit=_count(headers.get("x-ratelimit-limit")),
        remaining=_count(headers.get("x-ratelimit-remaining")),
        reset_seconds=_seconds(headers.get("x-ratelimit-reset")),
        retry_after_seconds=_seconds_or_date(headers.get("Retry-After"), now),
    )


def _count(text: str | None) -> int | None:
    digits = (text or "").strip()  # more than `int` strips: a unit separator, say
    return int(digits) if digits.isdecimal() and len(digits) <= 12 else None


def _seconds(text: str | None) -> float | None:
    """Read a number of seconds; one that looks like a date since 1970 is not believed."""
    count = _count(text)
    return None if count is None or count > 86_400 else float(count)


def _seconds_or_date(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    count = _count(text)
    if count is not None:
        return float(count)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime.fromtimestamp(now, UTC)).total_seconds()
