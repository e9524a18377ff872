"""Time that passes at once: hours of waiting take what the code itself takes.

`VirtualTimeLoop`, where it would sleep until its next timer, sets its clock there. Threads
and sockets are not known to it: it is for what waits. `HastyClock` skips the sleeps of the
code under test alone, on a real loop with real sockets.
"""

import asyncio
import selectors
import time
from collections.abc import Mapping
from selectors import SelectorKey
from typing import Any

import anyio
import anyio.lowlevel


class _LeapingSelector(selectors.BaseSelector):
    """Leaps over the wait that the loop asks for, unless something has happened already."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        events = self._real.select(None if timeout is None else 0)
        if not events and timeout:
            self.now += timeout
        return events

    def register(self, fileobj: object, events: int, data: object = None) -> SelectorKey:
        return self._real.register(fileobj, events, data)  # type: ignore[arg-type]

    def unregister(self, fileobj: object) -> SelectorKey:
        return self._real.unregister(fileobj)  # type: ignore[arg-type]

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which nobody waits in vain."""

    def __init__(self) -> None:
        self._leaping = _LeapingSelector()
        super().__init__(self._leaping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._leaping.now


class HastyClock:
    """Real time, in which every sleep is skipped and counts all the same."""

    def __init__(self) -> None:
        self.skipped_seconds = 0.0

    def monotonic(self) -> float:
        """Return the time with what was skipped."""
        return time.monotonic() + self.skipped_seconds

    def time(self) -> float:
        """Return the wall time with what was skipped."""
        return time.time() + self.skipped_seconds

    async def sleep(self, seconds: float) -> None:
        """Let others run, and count the time as passed."""
        self.skipped_seconds += seconds
        await anyio.lowlevel.checkpoint()


class LoopClock:
    """The clock of a virtual loop, as the code under test takes it."""

    def monotonic(self) -> float:
        """Return the loop's time."""
        return anyio.current_time()

    def time(self) -> float:
        """Return it as if the loop had begun in November 2023."""
        return anyio.current_time() + 1_700_000_000.0

    async def sleep(self, seconds: float) -> None:
        """Wait, at least until the next tick that a float can tell from now."""
        await anyio.sleep(max(seconds, 1e-6))
