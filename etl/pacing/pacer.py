"""Grants slots to send: at the limit, never over it, first come first served by priority."""

import heapq
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from anyio import CancelScope, Event, to_thread

from etl.config.models import RateLimit
from etl.pacing import rules
from etl.pacing.clock import Clock
from etl.pacing.send_log import SendLog, open_send_log

_ROUND_TRIPS_KEPT: Final = 100
_LOCK_RETRY_SECONDS: Final = 0.001


class RequestsSpent(Exception):
    """The run has made as many requests as it was allowed: no error, the end of a budget."""


class Stopped(Exception):
    """The pacer grants no more slots: no error, the run is ending."""


@dataclass(slots=True)
class Slot:
    """Leave to send one request. One that is never `sent` is handed back."""

    number: int
    _pacer: "Pacer"
    sent_at: float | None = None

    def sent(self) -> None:
        """Stamp the moment of the send: it is that which counts, not the grant."""
        if self.sent_at is None:
            self.sent_at = self._pacer.stamp(self.number)

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Take in what the answer's headers say of the rate limit."""
        self._pacer.heard(self, status, headers)


@dataclass(slots=True, order=True)
class _Ticket:
    rank: tuple[int, int]
    turn: Event = field(default_factory=Event, compare=False)


class Pacer:
    """The pace of one set of credentials, shared with other processes through the log."""

    def __init__(
        self, rate: RateLimit, log: SendLog, clock: Clock, max_requests: int | None = None
    ) -> None:
        """Pace by this rate; see `open_pacer`. `max_requests` is the run's budget of sends."""
        self.sends = 0
        self.throttled = 0
        self.waiting_until = 0.0
        self.first_sent_at: float | None = None
        self.last_sent_at = 0.0
        self._rate = rate
        self._log = log
        self._clock = clock
        self._budget = max_requests
        self._limit = rate.requests
        self._neighbours = rules.Neighbours(rate.seconds)
        self._round_trips: deque[float] = deque(maxlen=_ROUND_TRIPS_KEPT)
        self._guard = rules.guard_seconds((), rate.seconds)
        self._queue: list[_Ticket] = []
        self._arrivals = 0
        self._nap = CancelScope()
        self._stopped = False
        self._pioneer: Slot | None = None
        self._crowded_until = float("-inf")
        self._throttled_in_a_row = 0

    @property
    def limit(self) -> int:
        """The limit in force: as configured, or lower where the server says so."""
        return self._limit

    @property
    def window_seconds(self) -> float:
        """The length of the window in which the limit counts."""
        return self._rate.seconds

    def left_in_window(self) -> int:
        """Return how many sends the window still has room for."""
        now = self._clock.monotonic()
        return max(0, self._limit - self._log.since(now - self._rate.seconds, now))

    def stop(self) -> None:
        """Grant no more slots; whoever waits for one meets Stopped."""
        self._stopped = True
        for ticket in self._queue:
            ticket.turn.set()
        self._nap.cancel()

    @asynccontextmanager
    async def slot(self, priority: int) -> AsyncIterator[Slot]:
        """Wait for leave to send, in the order of priority and arrival.

        Raises RequestsSpent when the run's budget is used up, Stopped after `stop`.
        """
        slot = await self._granted(priority)
        try:
            yield slot
        finally:
            if slot.sent_at is None:
                self._log.take_back(slot.number)
                self.sends -= 1
            if self._pioneer is slot:
                self._pioneer = None
            self._wake_next()

    async def _granted(self, priority: int) -> Slot:
        self._arrivals += 1
        ticket = _Ticket((priority, self._arrivals))
        heapq.heappush(self._queue, ticket)
        self._nap.cancel()  # the new one may go before the one that waits for the window
        try:
            while True:
                if self._stopped:
                    raise Stopped
                if self._queue[0] is not ticket or self._pioneer is not None:
                    await ticket.turn.wait()
                    ticket.turn = Event()
                    continue
                if self._budget is not None and self.sends >= self._budget:
                    raise RequestsSpent
                slot = await self._try()
                if slot is not None:
                    return slot
        finally:
            self._queue.remove(ticket)
            heapq.heapify(self._queue)
            self._wake_next()

    async def _try(self) -> Slot | None:
        """Take a slot if one is free; else wait until one may be."""
        while not self._log.try_lock():
            await self._clock.sleep(_LOCK_RETRY_SECONDS)
        try:
            now = self._clock.monotonic()
            wait = self._seconds_until_free(now)
            if wait <= 0:
                return self._take(now)
        finally:
            self._log.unlock()
        self.waiting_until = now + wait
        with CancelScope() as self._nap:
            await self._clock.sleep(wait)
        self.waiting_until = 0.0
        return None

    def _seconds_until_free(self, now: float) -> float:
        """Return the wait after which no window holds more sends than the limit."""
        window = self._rate.seconds + self._guard
        ours = max(1, self._limit - self._neighbours.expected(now))
        oldest = self._log.at(self._log.count - ours, now)
        return max(oldest + window - now, self._log.blocked_until - now)

    def _take(self, now: float) -> Slot:
        is_empty = self._log.at(self._log.count - 1, now) < now - self._rate.seconds
        if now < self._crowded_until or is_empty:
            # Nothing is known of this window, or others use it too: one request tells how much
            # of it is left. Two who begin together would else refuse each other by the burst.
            slot = self._pioneer = Slot(self._log.append(now), self)
        else:
            slot = Slot(self._log.append(now), self)
        self.sends += 1
        return slot

    def _wake_next(self) -> None:
        if self._queue:
            self._queue[0].turn.set()

    def stamp(self, number: int) -> float:
        """Note the moment of a send in the log, and return it."""
        now = self._clock.monotonic()
        self._log.restamp(number, now)
        self.first_sent_at = now if self.first_sent_at is None else self.first_sent_at
        self.last_sent_at = now
        return now

    def heard(self, slot: Slot, status: int, headers: Mapping[str, str]) -> None:
        """Let the server's word lower the pace, within bounds."""
        now = self._clock.monotonic()
        sent_at = now if slot.sent_at is None else slot.sent_at
        self._round_trips.append(now - sent_at)
        self._guard = rules.guard_seconds(self._round_trips, self._rate.seconds)
        word = rules.read_headers(headers, self._clock.time())
        self._limit = rules.effective_limit(self._rate.requests, word.limit or None)
        if status == 429:
            self._throttle(word, now)
        else:
            self._throttled_in_a_row = 0
            self._give_way(word, sent_at, now)
        if self._pioneer is slot:
            self._pioneer = None
            self._wake_next()

    def _throttle(self, word: rules.RateWord, now: float) -> None:
        """Stop all sends, of other processes too, until the server lets us in again."""
        window = self._rate.seconds
        oldest = self._log.at(self._log.count - self._limit, now)
        wait = rules.throttle_seconds(
            word,
            rest_of_window=max(0.0, oldest + window - now),
            window_seconds=window,
            throttled_before=self._throttled_in_a_row,
        )
        self.throttled += 1
        self._throttled_in_a_row += 1
        self._neighbours.refused_us(now)
        self._crowded_until = now + window
        self._log.block_until(now + wait)

    def _give_way(self, word: rules.RateWord, sent_at: float, now: float) -> None:
        """Leave room for others who use these credentials, here or elsewhere."""
        if word.remaining is None:
            return
        window = self._rate.seconds
        # With half the guard, so that ours which took longer to arrive are not taken for theirs.
        own = self._log.since(sent_at - window - self._guard / 2, now)
        foreign = rules.foreign_sends(self._limit, word.remaining, own)
        if not foreign:
            return
        self._crowded_until = now + window
        if word.remaining == 0 and word.reset_seconds is not None:
            self._log.block_until(now + min(word.reset_seconds, window))
        if len(self._round_trips) == 1:
            # Perhaps our own, of a log that was lost: they weigh for this window alone.
            for _ in range(foreign):
                self._log.append(now)
        else:
            self._neighbours.seen(foreign, now)


@asynccontextmanager
async def open_pacer(
    rate: RateLimit,
    *,
    credentials: str,
    state_dir: Path,
    clock: Clock,
    max_requests: int | None = None,
) -> AsyncIterator[Pacer]:
    """Open the pace of one set of credentials. Raises StateError if it cannot be kept."""
    opened = open_send_log(state_dir, credentials)
    log = await to_thread.run_sync(opened.__enter__)
    try:
        while not log.try_lock():
            await clock.sleep(_LOCK_RETRY_SECONDS)
        try:
            log.begin(clock.monotonic())
        finally:
            log.unlock()
        yield Pacer(rate, log, clock, max_requests)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(opened.__exit__, None, None, None)
