"""Time that passes at once: hours of waiting take what the code itself takes.

`VirtualTimeLoop`, where it would sleep until its next timer, sets its clock there. Threads
and sockets are not known to it: it is for what waits. `PatientLoop` gives sockets a moment
and threads all they need before it leaps: a whole export with its server in the same loop.
`HastyClock` skips the sleeps of the code under test alone, on a real loop with real sockets.
"""

import asyncio
import selectors
import threading
import time
from collections.abc import Mapping
from selectors import SelectorKey
from typing import Any

import anyio
import anyio.lowlevel


class _LeapingSelector(selectors.BaseSelector):
    """Leaps over the wait that the loop asks for, unless something has happened already."""

    def __init__(self, moment: float) -> None:
        self.now = 1_000.0
        self._moment = moment
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        events = self._real.select(None if timeout is None else min(timeout, self._moment))
        if events or not timeout:
            return events
        if self._moment:
            if _threads_at_work():
                return self._real.select(_THREAD_SECONDS)  # time stands still meanwhile
            events = self._real.select(0)  # what a thread said just before it was done
        if not events:
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


_THREAD_SECONDS = 0.05


def _threads_at_work() -> bool:
    """Say whether a worker thread of anyio has something to do."""
    queues = (getattr(thread, "queue", None) for thread in threading.enumerate())
    return any(getattr(queue, "unfinished_tasks", 0) for queue in queues)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which nobody waits in vain."""

    moment_seconds = 0.0

    def __init__(self) -> None:
        self._leaping = _LeapingSelector(self.moment_seconds)
        super().__init__(self._leaping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._leaping.now


class PatientLoop(VirtualTimeLoop):
    """A virtual loop that waits in truth for sockets of its own and for threads."""

    moment_seconds = 0.002


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
    """The clock of the running loop, as the code under test takes it, also in threads."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time

    def monotonic(self) -> float:
        """Return the loop's time."""
        return self._now()

    def time(self) -> float:
        """Return it as if the loop had begun in November 2023."""
        return self._now() + 1_700_000_000.0

    async def sleep(self, seconds: float) -> None:
        """Wait, at least until the next tick that a float can tell from now."""
        await anyio.sleep(max(seconds, 1e-6))
