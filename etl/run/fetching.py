"""Runs errands with a bounded number of requests in flight, until none is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from anyio import CancelScope, Event, create_task_group, current_time, move_on_after

from etl.client.http import Client, RequestsSpent, Stopped
from etl.client.values import TryKind, TryLater
from etl.errors import CredentialsRefused, EtlError, TestFailed, Unreachable
from etl.pacing.clock import Clock
from etl.pacing.rules import retry_delay
from etl.run.errands import Errand, Source
from etl.run.world import Patience


class Timing(Protocol):
    """Whatever has the clock and the chance to go by."""

    @property
    def clock(self) -> Clock:
        """The clock."""

    @property
    def random(self) -> Random:
        """Chance."""

    def now_us(self) -> int:
        """Return the wall clock's time in microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why fetching ended before the work did: a limit, a signal, or an error."""

    because: str
    error: EtlError | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    """When a page was asked, and whether the last thing heard of the API was an answer."""

    at: float
    in_good_times: bool


class Fetching:
    """The fetchers of one pipeline. `sources` go first in their order."""

    def __init__(
        self, sources: Sequence[Source], client: Client, time: Timing, patience: Patience
    ) -> None:
        """Begin with nothing asked."""
        self.stopped: Stop | None = None
        self._sources = sources
        self._client = client
        self._time = time
        self._patience = patience
        self._changed = Event()
        self._answered_at = time.clock.monotonic()
        self._all_is_well = False  # nobody knows yet
        self._scope = CancelScope()

    def stop(self, because: str, error: EtlError | None = None) -> None:
        """Ask for nothing more; what has been sent may still come for a few seconds."""
        if self.stopped is None:
            self.stopped = Stop(because, error)
            self._client.stop()
            self._scope.deadline = current_time() + self._patience.grace_seconds
        self.wake()

    def wake(self) -> None:
        """Have idle fetchers look again: there may be more to do, or nothing any more."""
        self._changed.set()
        self._changed = Event()

    async def fetch(self, fetchers: int) -> None:
        """Run errands until no source has any left, or `stop` is called."""
        with self._scope:
            async with create_task_group() as group:
                for _ in range(fetchers):
                    group.start_soon(self._fetch_all)

    async def _fetch_all(self) -> None:
        while self.stopped is None and not all(source.is_done for source in self._sources):
            now, now_us = self._time.clock.monotonic(), self._time.now_us()
            for source in self._sources:
                errand = source.next(now, now_us)
                if errand is not None:
                    await self._run(errand)
                    break
                opening = source.to_open(now_us)  # before what comes after it is asked
                if opening is not None:
                    await opening
                    break
            else:
                await self._wait(now, now_us)
                continue
            self.wake()

    async def _run(self, errand: Errand) -> None:
        """Make a request and tell the errand what came of it."""
        asked = _Asked(self._time.clock.monotonic(), self._all_is_well)
        try:
            fetched = await self._client.fetch(errand.request)
            await errand.answered(fetched)
        except TryLater as later:
            await self._try_later(errand, later, asked)
        except RequestsSpent:
            errand.give_back()
            self.stop("max_requests")
        except Stopped:
            errand.give_back()
        except TestFailed as error:
            await errand.failed(error)
        except EtlError as error:
            errand.give_back()
            self.stop(_BECAUSE.get(type(error), "failed"), error)
        else:
            self._answered_at, self._all_is_well = self._time.clock.monotonic(), True

    async def _try_later(self, errand: Errand, later: TryLater, asked: _Asked) -> None:
        """Ask again after a while, unless patience with this errand or the API has ended."""
        attempt = errand.request.attempt
        delay = retry_delay(attempt, later.hint_seconds, self._time.random)
        now = self._time.clock.monotonic()
        failed_for = now - errand.first_failed_at(now)
        spent = attempt + 1 >= self._patience.attempts or self._is_outage(failed_for)
        self._all_is_well = False
        if (
            spent
            and later.kind is not TryKind.THROTTLED
            and await self._is_its_own(errand, later, asked)
        ):
            await errand.gave_up(later)
        elif self._is_outage(failed_for):
            self.stop("unreachable", _unreachable(later, failed_for))
        else:
            await errand.delay(now, delay, later)

    def _is_outage(self, failed_for: float) -> bool:
        """Say whether nothing has been answered for as long as the patience lasts."""
        silent_for = self._time.clock.monotonic() - self._answered_at
        return min(failed_for, silent_for) >= self._patience.outage_seconds

    async def _is_its_own(self, errand: Errand, later: TryLater, asked: _Asked) -> bool:
        """Tell the trouble of one test from an outage: others are answered before and after.

        A try that was asked in bad times may have met the end of an outage.
        """
        answers: bool | None = self._answered_at > asked.at
        if not answers:
            try:
                answers = await self._client.answers()
            except (RequestsSpent, Stopped, EtlError):
                return False  # whoever asks next meets it too
        if answers is None:
            return later.kind in (TryKind.UNREADABLE, TryKind.NOT_ASKED)
        if answers:
            self._answered_at, self._all_is_well = self._time.clock.monotonic(), True
        patient_no_more = errand.request.attempt + 1 >= 2 * self._patience.attempts
        return answers and (asked.in_good_times or patient_no_more)

    async def _wait(self, now: float, now_us: int) -> None:
        """Wait until an answer changes what there is to do, or what was not due by now is."""
        waits = (source.seconds_to_next(now, now_us) for source in self._sources)
        with move_on_after(min((wait for wait in waits if wait is not None), default=None)):
            await self._changed.wait()


_BECAUSE: Final[dict[type[EtlError], str]] = {
    CredentialsRefused: "credentials_refused",
    Unreachable: "unreachable",
}


def _unreachable(later: TryLater, seconds: float) -> Unreachable:
    return Unreachable(
        f"The API has answered nothing for {seconds / 60:.0f} minutes: {later.reason}.",
        advice="What was fetched has landed; the next run goes on from there.",
    )
