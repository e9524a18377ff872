"""What follows from listings: each test and session that is due is asked for, by endpoint.

First what comes first in the pipeline's tables, of all tests; within it one test after
another, the one with the newest session first, its newest session first. So a run that is
cut short is fresh before it is deep.
"""

import heapq
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from etl.client.values import Answer, Endpoint, Fetched, Request, Scope, TryLater
from etl.errors import NotFound, TestFailed
from etl.ledger.afresh import is_test_left, sessions_left
from etl.ledger.due import Feeds, is_test_due, sessions_due
from etl.ledger.records import Record
from etl.ledger.values import Due
from etl.run.inbox import Key
from etl.run.queue import Queue
from etl.run.stores import Stores


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A request that a listed test or session calls for.

    `session_id` is None where it is about the test itself, `first_failed_at` while it has
    not failed.
    """

    endpoint: Endpoint[Any]
    test_id: str
    session_id: str | None = None
    attempt: int = 0
    first_failed_at: float | None = None


@dataclass(frozen=True, slots=True)
class Dues:
    """Decides what is asked.

    `of` returns what an endpoint is to be asked of a test at a time: its sessions; None is the
    test itself. `test_by_test` asks all of a test before anything of those taken in later.
    """

    of: Callable[[Record, Endpoint[Any], int], Iterable[str | None]]
    test_by_test: bool = False


def dues_of(feeds: Feeds) -> Dues:
    """Return what is due because nothing has answered it yet, or what did may have changed."""

    def dues(record: Record, endpoint: Endpoint[Any], now_us: int) -> Iterable[str | None]:
        if endpoint.scope is Scope.SESSION:
            return sessions_due(record, endpoint.name, feeds.fed[endpoint.name], now_us)
        return (None,) if is_test_due(record, endpoint.name, now_us) else ()

    return Dues(dues)


def dues_afresh(began_at_us: int) -> Dues:
    """Return what a backfill that began then has yet to ask."""

    def dues(record: Record, endpoint: Endpoint[Any], now_us: int) -> Iterable[str | None]:
        del now_us
        if endpoint.scope is Scope.SESSION:
            return sessions_left(record, endpoint.name)
        return (None,) if is_test_left(record, endpoint.name, began_at_us) else ()

    return Dues(dues, test_by_test=True)


class FollowUps:
    """The tests and sessions that are due, as a source of errands."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint[Any]],
        feeds: Feeds,
        stores: Stores,
        queue: Queue,
        *,
        in_inbox: Collection[Key],
        dues: Dues | None = None,
    ) -> None:
        """Begin with nothing asked; `endpoints` stand in the pipeline's order.

        `in_inbox` are answers that an earlier process paid.
        """
        self.failures: dict[str, Counter[str]] = {}
        self._endpoints = endpoints
        self._feeds = feeds
        self._stores = stores
        self._queue = queue
        self._to_be_listed: set[str] = set()
        self._in_inbox = in_inbox
        self._dues = dues or dues_of(feeds)
        self._places: dict[str, int] = {}
        self._to_open: list[tuple[int, int, int, str, int]] = []
        self._opening = 0
        self._leased = 0
        self._ready: deque[FollowUp] = deque()
        self._delayed: list[tuple[float, int, FollowUp]] = []
        self._delays = 0

    @property
    def is_done(self) -> bool:
        """Whether all that is due has been asked for."""
        under_way = self._opening or self._leased
        return not (
            self._to_be_listed or self._to_open or under_way or self._ready or self._delayed
        )

    def expect(self, test_ids: Iterable[str]) -> None:
        """Take in tests that this run is going to look at."""
        self._to_be_listed.update(test_ids if self._endpoints else ())

    @property
    def left(self) -> int:
        """How many requests are left, as far as it is known."""
        ready = len(self._ready) + len(self._delayed) + self._leased
        return ready + sum(requests for *_, requests in self._to_open)

    def known(self, due_by_test: Mapping[str, Due]) -> None:
        """Take in what is due of tests whose listing is known."""
        for test_id, due in due_by_test.items():
            if test_id not in self._to_be_listed:
                self._note(test_id, due)

    def listed(self, test_id: str, due: Due) -> None:
        """Take in that a test's look has ended, and what is due of it."""
        if test_id in self._to_be_listed:
            self._to_be_listed.discard(test_id)
            self._note(test_id, due)

    def not_listed(self, test_id: str) -> None:
        """Take in that a test could not be looked at: nothing more is asked of it."""
        self._to_be_listed.discard(test_id)

    def _note(self, test_id: str, due: Due) -> None:
        place = (
            self._places.setdefault(test_id, len(self._places)) if self._dues.test_by_test else 0
        )
        for rank, endpoint in enumerate(self._endpoints):
            requests = 1 if endpoint.scope is Scope.TEST else due.sessions
            if requests and self._feeds.has(test_id, endpoint.name):
                newest_first = -(due.newest_us or 0)
                heapq.heappush(self._to_open, (place, rank, newest_first, test_id, requests))

    def next(self, now: float, now_us: int) -> "FollowUpErrand | None":
        """Lease what to ask for next."""
        del now_us
        if self._delayed and self._delayed[0][0] <= now:
            follow_up = heapq.heappop(self._delayed)[2]
        elif self._ready:
            follow_up = self._ready.popleft()
        else:
            return None
        self._leased += 1
        return FollowUpErrand(self, follow_up)

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Look up what is due of the next test."""
        if self._ready or not self._to_open:
            return None
        _, rank, _, test_id, _ = heapq.heappop(self._to_open)
        self._opening += 1
        return self._open(self._endpoints[rank], test_id, now_us)

    async def _open(self, endpoint: Endpoint[Any], test_id: str, now_us: int) -> None:
        record = await self._stores.records.look_up(test_id)
        self._ready.extend(
            FollowUp(endpoint, test_id, session_id)
            for session_id in self._dues.of(record, endpoint, now_us)
            if (endpoint.name, test_id, session_id, None) not in self._in_inbox
        )
        self._opening -= 1

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next that was delayed."""
        del now_us
        return max(0.0, self._delayed[0][0] - now) if self._delayed else None

    async def hand_on(self, fetched: Fetched[Any]) -> None:
        """Pass an answer to the inbox."""
        await self._queue.put(fetched)
        self._leased -= 1

    async def hand_on_absence(self, follow_up: FollowUp) -> None:
        """Pass on that the API has nothing (404): an answer too, that was paid for."""
        now_us = self._stores.now_us()
        endpoint = follow_up.endpoint.name
        answer = Answer(endpoint, follow_up.test_id, follow_up.session_id, None, 404, now_us, b"")
        await self.hand_on(Fetched(answer, None))

    def delay(self, follow_up: FollowUp, not_before: float) -> None:
        """Ask for it again, not before this time."""
        self._delays += 1
        heapq.heappush(self._delayed, (not_before, self._delays, follow_up))
        self._leased -= 1

    def give_back(self, follow_up: FollowUp) -> None:
        """Let it be leased again."""
        self._ready.appendleft(follow_up)
        self._leased -= 1

    def fail(self, follow_up: FollowUp, why: str) -> None:
        """Leave it to the next run."""
        what = f"{follow_up.endpoint.name.replace('_', ' ')}: {why}"
        self.failures.setdefault(follow_up.test_id, Counter())[what] += 1
        self._leased -= 1


@dataclass(frozen=True, slots=True)
class FollowUpErrand:
    """One test or session to ask for."""

    source: FollowUps
    follow_up: FollowUp

    @property
    def request(self) -> Request[Any]:
        """The request."""
        follow_up = self.follow_up
        return Request(
            follow_up.endpoint,
            test_id=follow_up.test_id,
            session_id=follow_up.session_id,
            attempt=follow_up.attempt,
        )

    async def answered(self, fetched: Fetched[Any]) -> None:
        """Pass the answer to the inbox."""
        await self.source.hand_on(fetched)

    async def failed(self, error: TestFailed) -> None:
        """Note what is not there as a fact; leave all else to the next run."""
        if isinstance(error, NotFound):
            await self.source.hand_on_absence(self.follow_up)
        else:
            self.source.fail(self.follow_up, error.what)

    async def gave_up(self, later: TryLater) -> None:
        """Keep a body that nobody can read, for the rejects; leave all else to the next run."""
        if later.answer is not None:
            await self.source.hand_on(Fetched(later.answer, None))
        else:
            self.source.fail(self.follow_up, later.reason)

    def first_failed_at(self, now: float) -> float:
        """Return when it first failed."""
        return now if self.follow_up.first_failed_at is None else self.follow_up.first_failed_at

    async def delay(self, now: float, seconds: float, later: TryLater) -> None:
        """Ask for it again after a while; a later process asks at once."""
        del later
        first = self.first_failed_at(now)
        again = replace(self.follow_up, attempt=self.follow_up.attempt + 1, first_failed_at=first)
        self.source.delay(again, now + seconds)

    def give_back(self) -> None:
        """Let it be leased again."""
        self.source.give_back(self.follow_up)
