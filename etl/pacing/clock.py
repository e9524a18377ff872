"""Time, as it is injected everywhere: tests bring their own and need not wait."""

import time
from typing import Protocol

import anyio


class Clock(Protocol):
    """Tells the time and waits."""

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""

    def time(self) -> float:
        """Return seconds since 1970 (UTC), which may jump."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own time."""

    def monotonic(self) -> float:
        """Return seconds that never go back, the same for all processes since boot."""
        return time.monotonic()

    def time(self) -> float:
        """Return seconds since 1970 (UTC)."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await anyio.sleep(seconds)
