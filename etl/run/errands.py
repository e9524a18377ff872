"""What the fetchers ask: one request each, and what its answer or its failure means."""

from collections.abc import Awaitable
from typing import Any, Protocol

from etl.client.values import Fetched, Request, TryLater
from etl.errors import TestFailed


class Errand(Protocol):
    """One request to make, leased by a fetcher, who tells what came of it."""

    @property
    def request(self) -> Request[Any]:
        """The request, with the count of its earlier tries."""

    async def answered(self, fetched: Fetched[Any]) -> None:
        """Hand the answer on; raises TryLater if it is not the one that was asked for."""

    async def failed(self, error: TestFailed) -> None:
        """Take in that the API will not answer this: the others go on."""

    async def gave_up(self, later: TryLater) -> None:
        """Take in that it has been asked as often as patience allows."""

    def first_failed_at(self, now: float) -> float:
        """Return when it first failed: now, unless it has before."""

    async def delay(self, now: float, seconds: float, later: TryLater) -> None:
        """Let it be leased again after a while."""

    def give_back(self) -> None:
        """Let it be leased again: it could not be asked at all."""


class Source(Protocol):
    """Where errands come from. `now` is monotonic, `now_us` the wall clock's time."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to ask, nor under way."""

    def next(self, now: float, now_us: int) -> Errand | None:
        """Lease the errand to run now, or None while there is none."""

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Return what prepares more errands, or None where there is nothing to prepare."""

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait until something delayed is due that is not yet, or None."""
