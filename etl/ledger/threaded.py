"""Calls the ledger in threads, one call at a time: its methods block."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter, to_thread

from etl.ledger.store import Ledger

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class LedgerThread:
    """The one way to the ledger from the event loop."""

    def __init__(self, ledger: Ledger) -> None:
        """Wrap an open ledger; whoever opened it closes it."""
        self.ledger = ledger
        self._one_at_a_time = CapacityLimiter(1)

    async def call(self, method: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Run a method of the ledger in a thread; it ends even if the caller is cancelled."""
        return await to_thread.run_sync(method, *arguments, limiter=self._one_at_a_time)
