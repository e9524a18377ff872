"""How long to wait is decided exactly: the figures of the promises, and their edges."""

from random import Random

import pytest

from etl.pacing import rules
from etl.pacing.rules import Neighbours, RateWord

NOW = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC


class Extreme(Random):
    """Chance at its lowest or highest, to see the range that is drawn from."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.share


def drawn_from(attempt: int, hint_seconds: float | None) -> tuple[float, float]:
    """Return the least and the most that a retry may wait."""
    lowest, highest = Extreme(0.0), Extreme(1.0)
    return (
        rules.retry_delay(attempt, hint_seconds, lowest),
        rules.retry_delay(attempt, hint_seconds, highest),
    )


# Retries.


@pytest.mark.parametrize(
    ("attempt", "most_seconds"),
    [(0, 1.0), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (7, 60.0), (10**9, 60.0)],
)
def test_a_retry_waits_anything_up_to_twice_the_last_wait_and_a_minute(attempt, most_seconds):
    assert drawn_from(attempt, None) == (0.0, most_seconds)
    assert drawn_from(attempt, -5.0) == (0.0, most_seconds), "a hint in the past is none"
    assert drawn_from(attempt, 0.0) == (0.0, most_seconds), "nor is `at once`"


@pytest.mark.parametrize(("hint", "waited"), [(0.5, 0.5), (7.0, 7.0), (60.0, 60.0), (1e9, 60.0)])
def test_a_hint_is_waited_for_up_to_a_minute_and_a_second_of_jitter(hint, waited):
    assert drawn_from(9, hint) == (waited, waited + 1.0)


# The guard of the window.


@pytest.mark.parametrize(
    ("round_trips", "guard"),
    [
        ([], 1.2),  # nothing is known: the most
        ([0.3] * 19, 1.2),  # too few to say anything
        ([0.3] * 20, 0.06),  # no spread: a thousandth of the window
        ([0.3] * 50 + [0.4], 0.06),  # one of 51 is beyond the 95th percentile
        ([5.0, 0.1, *[0.5] * 18], 0.06),  # so are the last and the first of 20
        ([0.1, 0.1, *[0.5] * 16, 0.9, 0.9], 0.8),
        ([0.1, 30.0] * 10, 1.2),  # a fiftieth, or the limit would lie idle
    ],
)
def test_the_guard_is_the_spread_of_the_round_trips_within_bounds(round_trips, guard):
    assert rules.guard_seconds(round_trips, 60.0) == pytest.approx(guard)


def test_the_guard_does_not_ask_in_which_order_they_came():
    times = [0.1 + number / 100 for number in range(100)]
    assert rules.guard_seconds(times, 60.0) == rules.guard_seconds(times[::-1], 60.0)
    assert rules.guard_seconds(times, 60.0) == pytest.approx(0.89)  # of rows 5 to 94


# What the server says.


@pytest.mark.parametrize(
    ("told", "limit"),
    [(None, 10), (10, 10), (3, 3), (1, 1), (0, 1), (-4, 1), (11, 10), (10**9, 10)],
)
def test_the_server_may_lower_the_limit_but_not_raise_it_nor_end_it(told, limit):
    assert rules.effective_limit(10, told) == limit


@pytest.mark.parametrize(
    ("remaining", "own", "foreign"),
    [
        (None, 3, 0),
        (7, 3, 0),  # 10 - 7 = 3, all of them ours
        (5, 3, 2),
        (0, 3, 7),
        (9, 3, 0),  # less than ours: the window is another one
        (0, 0, 10),
        (-50, 0, 10),
    ],
)
def test_what_is_used_beyond_our_own_sends_is_someone_elses(remaining, own, foreign):
    assert rules.foreign_sends(10, remaining, own) == foreign


@pytest.mark.parametrize(
    ("headers", "word"),
    [
        ({}, RateWord()),
        ({"x-ratelimit-limit": "10"}, RateWord(limit=10)),
        ({"x-ratelimit-remaining": "0"}, RateWord(remaining=0)),
        ({"x-ratelimit-remaining": " 3 "}, RateWord(remaining=3)),
        ({"x-ratelimit-reset": "42"}, RateWord(reset_seconds=42.0)),
        ({"x-ratelimit-reset": "86400"}, RateWord(reset_seconds=86_400.0)),
        ({"x-ratelimit-reset": "86401"}, RateWord()),
        ({"x-ratelimit-reset": "1700000042"}, RateWord()),  # an epoch is no wait
        ({"Retry-After": "7"}, RateWord(retry_after_seconds=7.0)),
        ({"Retry-After": "100000"}, RateWord(retry_after_seconds=100_000.0)),
        ({"x-ratelimit-limit": "ten"}, RateWord()),
        ({"x-ratelimit-limit": "-1"}, RateWord()),
        ({"x-ratelimit-limit": "999999999999"}, RateWord(limit=999_999_999_999)),
        ({"x-ratelimit-limit": "9999999999999"}, RateWord()),
        # A date without a zone is of UTC, like all others.
        ({"Retry-After": "Tue, 14 Nov 2023 22:13:50 -0000"}, RateWord(retry_after_seconds=30.0)),
        ({"Retry-After": "Tue, 14 Nov 2023 23:13:50 +0100"}, RateWord(retry_after_seconds=30.0)),
    ],
)
def test_a_rate_header_is_believed_if_it_is_a_number_that_can_be_meant(headers, word):
    assert rules.read_headers(headers, NOW) == word


# What a 429 stops.


def stopped_for(word: RateWord, before: int = 0, rest: float = 20.0) -> float:
    return rules.throttle_seconds(
        word, rest_of_window=rest, window_seconds=60.0, throttled_before=before
    )


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        (RateWord(retry_after_seconds=30.0), 30.0),
        (RateWord(reset_seconds=40.0), 40.0),
        (RateWord(reset_seconds=40.0, retry_after_seconds=30.0), 30.0),
        (RateWord(reset_seconds=40.0, retry_after_seconds=0.0), 40.0),
        (RateWord(reset_seconds=0.0, retry_after_seconds=-9.0), 20.0),
        (RateWord(), 20.0),
        (RateWord(retry_after_seconds=1e9), 60.0),
        (RateWord(retry_after_seconds=0.25), 1.0),
    ],
)
def test_a_429_stops_for_its_hint_or_for_the_rest_of_our_own_window(word, seconds):
    assert stopped_for(word) == seconds


@pytest.mark.parametrize(
    ("before", "seconds"), [(0, 1.0), (1, 2.0), (2, 4.0), (5, 32.0), (6, 60.0), (10**9, 60.0)]
)
def test_each_429_in_a_row_stops_for_twice_as_long_up_to_a_window(before, seconds):
    assert stopped_for(RateWord(), before, rest=0.0) == seconds


def test_however_long_the_window_429s_in_a_row_stop_for_17_minutes_at_most():
    wait = rules.throttle_seconds(
        RateWord(), rest_of_window=0.0, window_seconds=86_400.0, throttled_before=99
    )
    assert wait == 1024.0


# Others with the same credentials.


def test_nobody_is_expected_until_somebody_is_seen():
    assert Neighbours(60.0).expected(NOW) == 0


def test_who_is_seen_is_expected_for_two_windows():
    others = Neighbours(60.0)
    others.seen(3, NOW)
    assert (others.expected(NOW + 119.9), others.expected(NOW + 120.0)) == (3, 0)


def test_whom_a_refusal_betrays_is_expected_for_ten_windows_and_each_counts_one_more():
    others = Neighbours(60.0)
    others.refused_us(NOW)
    assert others.expected(NOW) == 1
    others.refused_us(NOW + 10)
    assert others.expected(NOW) == 2
    assert (others.expected(NOW + 609.9), others.expected(NOW + 610.0)) == (2, 0)


def test_a_refusal_beyond_who_was_seen_is_one_more():
    others = Neighbours(60.0)
    others.seen(4, NOW)
    others.refused_us(NOW)
    assert others.expected(NOW) == 5


def test_the_most_that_is_still_expected_counts_and_seeing_less_takes_nothing_back():
    others = Neighbours(60.0)
    others.seen(5, NOW)
    others.seen(2, NOW + 60)
    assert others.expected(NOW + 119) == 5
    assert others.expected(NOW + 121) == 2


def test_seeing_as_many_again_makes_them_expected_for_longer_never_shorter():
    others = Neighbours(60.0)
    others.refused_us(NOW)  # one, until NOW + 600
    others.seen(1, NOW + 30)
    assert others.expected(NOW + 599) == 1
