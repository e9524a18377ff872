"""What a source has still to ask for, in order: each is leased as an errand, and may come back.

For sources that ask for each thing by a request of its own. What a listing's next page is,
its sweep decides.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from etl.client.values import Fetched, Request, TryLater
from etl.errors import TestFailed

Wanted = TypeVar("Wanted")
Wanted_contra = TypeVar("Wanted_contra", contravariant=True)


class Asker(Protocol[Wanted_contra]):
    """The source of a line's errands, which knows what each of them means."""

    def request(self, wanted: Wanted_contra, attempt: int) -> Request[Any]:
        """Return the request; `attempt` counts its earlier tries."""

    async def answered(self, wanted: Wanted_contra, fetched: Fetched[Any]) -> None:
        """See `Errand.answered`."""

    async def failed(self, wanted: Wanted_contra, error: TestFailed) -> None:
        """See `Errand.failed`."""

    async def gave_up(self, wanted: Wanted_contra, later: TryLater) -> None:
        """See `Errand.gave_up`."""


class Line(Generic[Wanted]):
    """What waits to be asked for: those that are ready, and those whose time has not come."""

    def __init__(self, asker: Asker[Wanted], on_end: Callable[[], None] = lambda: None) -> None:
        """Begin with nothing in it; `on_end` is called as each lease ends."""
        self.asker = asker
        self._on_end = on_end
        self._ready: deque[Leased[Wanted]] = deque()
        self._delayed: list[tuple[float, int, Leased[Wanted]]] = []
        self._delays = 0
        self._leased = 0

    @property
    def left(self) -> int:
        """How many are in it or leased."""
        return len(self._ready) + len(self._delayed) + self._leased

    @property
    def is_ready(self) -> bool:
        """Whether any waits for nothing but to be leased."""
        return bool(self._ready)

    def add(self, wanted: Iterable[Wanted]) -> None:
        """Take in what is to be asked for after all that is ready."""
        self._ready.extend(Leased(self, one) for one in wanted)

    def add_later(self, wanted: Wanted, not_before: float) -> None:
        """Take in what is to be asked for once the time has come, before all that is ready."""
        self._delay(Leased(self, wanted), not_before)

    def drop_ready(self) -> None:
        """Ask for nothing of what is ready."""
        self._ready.clear()

    def next(self, now: float) -> "Leased[Wanted] | None":
        """Lease the one to ask for next, or None while there is none."""
        if self._delayed and self._delayed[0][0] <= now:
            leased = heapq.heappop(self._delayed)[2]
        elif self._ready:
            leased = self._ready.popleft()
        else:
            return None
        self._leased += 1
        return leased

    def seconds_to_next(self, now: float) -> float | None:
        """Return the wait for the next that was delayed."""
        return max(0.0, self._delayed[0][0] - now) if self._delayed else None

    # What the errands tell.

    def end(self) -> None:
        """End a lease."""
        self._leased -= 1
        self._on_end()

    def give_back(self, leased: "Leased[Wanted]") -> None:
        """Take one back, to be leased before all others that are ready."""
        self._ready.appendleft(leased)
        self.end()

    def delay(self, leased: "Leased[Wanted]", not_before: float) -> None:
        """Take one back, to be leased again once the time has come."""
        self._delay(leased, not_before)
        self.end()

    def _delay(self, leased: "Leased[Wanted]", not_before: float) -> None:
        self._delays += 1
        heapq.heappush(self._delayed, (not_before, self._delays, leased))


@dataclass(frozen=True, slots=True)
class Leased(Generic[Wanted]):
    """One of a line, as an errand: how often it was tried, and since when it has failed."""

    line: Line[Wanted]
    wanted: Wanted
    attempt: int = 0
    failing_since: float | None = None

    @property
    def request(self) -> Request[Any]:
        """The request."""
        return self.line.asker.request(self.wanted, self.attempt)

    async def answered(self, fetched: Fetched[Any]) -> None:
        """Tell the source. It may refuse the answer: then the lease goes on."""
        await self.line.asker.answered(self.wanted, fetched)
        self.line.end()

    async def failed(self, error: TestFailed) -> None:
        """Tell the source."""
        await self.line.asker.failed(self.wanted, error)
        self.line.end()

    async def gave_up(self, later: TryLater) -> None:
        """Tell the source."""
        await self.line.asker.gave_up(self.wanted, later)
        self.line.end()

    def first_failed_at(self, now: float) -> float:
        """Return when it first failed."""
        return now if self.failing_since is None else self.failing_since

    async def delay(self, now: float, seconds: float, later: TryLater) -> None:
        """Let it be leased again after a while; a later process asks at once."""
        del later
        since = self.first_failed_at(now)
        again = replace(self, attempt=self.attempt + 1, failing_since=since)
        self.line.delay(again, now + seconds)

    def give_back(self) -> None:
        """Let it be leased again."""
        self.line.give_back(self)
