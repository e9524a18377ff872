"""What follows from listings: each test and session that is due is asked for, by endpoint.

First what comes first in the pipeline's tables, of all tests; within it one test after
another, the one with the newest session first, its newest session first. So a run that is
cut short is fresh before it is deep.
"""

import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etl.client.values import Answer, Endpoint, Fetched, Request, Scope, TryLater
from etl.errors import NotFound, TestFailed
from etl.ledger.afresh import is_test_left, sessions_left
from etl.ledger.due import Feeds, is_test_due, sessions_due
from etl.ledger.records import Record
from etl.ledger.values import Due
from etl.run.inbox import Key
from etl.run.line import Leased, Line
from etl.run.queue import Queue
from etl.run.stores import Stores


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A request that a listed test or session calls for; without a session, about the test."""

    endpoint: Endpoint[Any]
    test_id: str
    session_id: str | None = None


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
        self._line = Line(self)

    @property
    def is_done(self) -> bool:
        """Whether all that is due has been asked for."""
        return not (self._to_be_listed or self._to_open or self._opening or self._line.left)

    def expect(self, test_ids: Iterable[str]) -> None:
        """Take in tests that this run is going to look at."""
        self._to_be_listed.update(test_ids if self._endpoints else ())

    @property
    def left(self) -> int:
        """How many requests are left, as far as it is known."""
        return self._line.left + sum(requests for *_, requests in self._to_open)

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

    def next(self, now: float, now_us: int) -> Leased[FollowUp] | None:
        """Lease what to ask for next."""
        del now_us
        return self._line.next(now)

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Look up what is due of the next test."""
        if self._line.is_ready or not self._to_open:
            return None
        _, rank, _, test_id, _ = heapq.heappop(self._to_open)
        self._opening += 1
        return self._open(self._endpoints[rank], test_id, now_us)

    async def _open(self, endpoint: Endpoint[Any], test_id: str, now_us: int) -> None:
        record = await self._stores.records.look_up(test_id)
        self._line.add(
            FollowUp(endpoint, test_id, session_id)
            for session_id in self._dues.of(record, endpoint, now_us)
            if (endpoint.name, test_id, session_id, None) not in self._in_inbox
        )
        self._opening -= 1

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next that was delayed."""
        del now_us
        return self._line.seconds_to_next(now)

    # What the errands tell.

    def request(self, wanted: FollowUp, attempt: int) -> Request[Any]:
        """Return the request."""
        test_id, session_id = wanted.test_id, wanted.session_id
        return Request(wanted.endpoint, test_id=test_id, session_id=session_id, attempt=attempt)

    async def answered(self, wanted: FollowUp, fetched: Fetched[Any]) -> None:
        """Pass the answer to the inbox."""
        del wanted
        await self._queue.put(fetched)

    async def failed(self, wanted: FollowUp, error: TestFailed) -> None:
        """Pass on that the API has nothing, an answer too; leave all else to the next run."""
        if not isinstance(error, NotFound):
            self._leave(wanted, error.what)
            return
        name, now_us = wanted.endpoint.name, self._stores.now_us()
        answer = Answer(name, wanted.test_id, wanted.session_id, None, 404, now_us, b"")
        await self._queue.put(Fetched(answer, None))

    async def gave_up(self, wanted: FollowUp, later: TryLater) -> None:
        """Keep a body that nobody can read, for the rejects; leave all else to the next run."""
        if later.answer is not None:
            await self._queue.put(Fetched(later.answer, None))
        else:
            self._leave(wanted, later.reason)

    def _leave(self, wanted: FollowUp, why: str) -> None:
        """Leave it to the next run."""
        what = f"{wanted.endpoint.name.replace('_', ' ')}: {why}"
        self.failures.setdefault(wanted.test_id, Counter())[what] += 1
