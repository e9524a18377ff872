"""Asks the pages that the looks want, with a bounded number of requests in flight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from anyio import CancelScope, Event, create_task_group, current_time, move_on_after

from etl.client.http import Client, RequestsSpent, Stopped
from etl.client.values import Fetched, Request, TryKind, TryLater
from etl.errors import BadRequest, CredentialsRefused, EtlError, TestFailed, Unreachable
from etl.ledger.store import Looked, Work
from etl.pacing.rules import retry_delay
from etl.paging.dialect import after_bad_request, wrong_echo
from etl.paging.sweep import Sweep
from etl.paging.values import PageView
from etl.run.looks import Job, Looks
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.tables.sessions import SESSION_RESULTS, SessionsPage


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may pass is waited for.

    A page is asked `attempts` times before its test fails, while others are answered.
    Where nothing at all is answered for `outage_seconds` the run gives up, resumable.
    A stopped run waits `grace_seconds` for the answers to requests already sent.
    """

    attempts: int = 8
    outage_seconds: float = 900.0
    grace_seconds: float = 5.0


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
    """The fetchers of one pipeline: they lease a page, ask it and hand the answer on."""

    def __init__(
        self,
        looks: Looks,
        client: Client,
        stores: Stores,
        patience: Patience,
        left_in_inbox: Mapping[str, Mapping[str, PageView]],
    ) -> None:
        """Begin with nothing asked; `left_in_inbox` are pages that an earlier process paid."""
        self.stopped: Stop | None = None
        self._looks = looks
        self._client = client
        self._stores = stores
        self._patience = patience
        self._left_in_inbox = left_in_inbox
        self._changed = Event()
        self._answered_at = stores.clock.monotonic()
        self._all_is_well = False  # nobody knows yet
        self._scope = CancelScope()

    def stop(self, because: str, error: EtlError | None = None) -> None:
        """Ask for nothing more; what has been sent may still come for a few seconds."""
        if self.stopped is None:
            self.stopped = Stop(because, error)
            self._client.stop()
            self._scope.deadline = current_time() + self._patience.grace_seconds
        self._wake()

    async def run(self, queue: Queue, fetchers: int) -> None:
        """Look at every test, until all have a verdict or `stop` is called."""
        async with queue.items:
            with self._scope:
                async with create_task_group() as group:
                    for _ in range(fetchers):
                        group.start_soon(self._fetch_all, queue)

    async def _fetch_all(self, queue: Queue) -> None:
        while self.stopped is None and not self._looks.is_done:
            now, now_us = self._stores.clock.monotonic(), self._now_us()
            job = self._looks.next_job(now, now_us)
            if job is not None:
                await self._ask(job, queue)
                self._wake()
                continue
            work = self._looks.to_open(now_us)
            if work is not None:
                await self._open(work, queue)
                self._wake()
            else:
                await self._wait(now, now_us)

    async def _open(self, work: Work, queue: Queue) -> None:
        record = await self._stores.records.of(work.test_id)
        in_hand = dict(self._left_in_inbox.get(work.test_id, {}))
        if not record.listing.whole:  # a look goes on; else they are the last one's
            in_hand = {**record.in_hand, **in_hand}
        sweep = self._looks.open(work, record.listing, self._now_us(), in_hand)
        if in_hand:
            await self._tell(work.test_id, sweep, queue)

    async def _ask(self, job: Job, queue: Queue) -> None:
        """Ask one page and hand its answer on; what may pass is asked again later."""
        request = Request(
            SESSION_RESULTS,
            test_id=job.test_id,
            object_id=job.ask.spelled(),
            query=(("testId", job.test_id), *job.ask.query()),
            attempt=job.attempt,
        )
        asked = _Asked(self._stores.clock.monotonic(), self._all_is_well)
        try:
            fetched = await self._client.fetch(request)
            view = self._believed(job, fetched)
        except TryLater as later:
            await self._try_later(job, later, asked, queue)
        except RequestsSpent:
            self._looks.give_back(job)
            self.stop("max_requests")
        except Stopped:
            self._looks.give_back(job)
        except BadRequest as error:
            await self._refused(job, error, queue)
        except TestFailed as error:
            await self._fail(job.test_id, error, queue)
        except EtlError as error:
            self._looks.give_back(job)
            self.stop(_BECAUSE.get(type(error), "failed"), error)
        else:
            await self._hand_on(job, fetched, view, queue)

    def _believed(self, job: Job, fetched: Fetched[SessionsPage]) -> PageView:
        """Return the page as paging sees it; raises TryLater if it is not the one asked."""
        page = fetched.content
        if page.test_id is not None and page.test_id.lower() != job.test_id:
            raise TryLater("the answer is about another test", kind=TryKind.UNREADABLE)
        view = self._stores.personal.view(fetched.answer, page)
        wrong = wrong_echo(self._looks.dialect, job.ask, view)
        if wrong is not None:
            raise TryLater(wrong, kind=TryKind.UNREADABLE)
        return view

    async def _hand_on(
        self, job: Job, fetched: Fetched[SessionsPage], view: PageView, queue: Queue
    ) -> None:
        """Pass the answer to the inbox first, then let paging read it."""
        await queue.put(fetched)
        self._answered_at, self._all_is_well = self._stores.clock.monotonic(), True
        sweep = self._looks.answered(job, view)
        if sweep is not None:
            await self._tell(job.test_id, sweep, queue)

    async def _tell(self, test_id: str, sweep: Sweep, queue: Queue) -> None:
        """Pass on what is known of a test now; a verdict ends its look."""
        if sweep.verdict is not None:
            self._looks.close(test_id)
        await queue.put(Looked(test_id, sweep.listing, sweep.verdict, self._now_us()))

    async def _refused(self, job: Job, error: BadRequest, queue: Queue) -> None:
        """A 400 may mean that the spelling is not understood: then try the other one."""
        other = after_bad_request(self._looks.dialect)
        if other is None or job.ask.style is other.style:
            await self._fail(job.test_id, error, queue)
            return
        self._looks.dialect = other
        self._looks.give_back(job)

    async def _try_later(self, job: Job, later: TryLater, asked: _Asked, queue: Queue) -> None:
        """Ask again after a while, unless patience with this test or the API has ended."""
        delay = retry_delay(job.attempt, later.hint_seconds, self._stores.random)
        failed_for = self._looks.retry(job, self._stores.clock.monotonic(), delay)
        spent = job.attempt + 1 >= self._patience.attempts or self._is_outage(failed_for)
        self._all_is_well = False
        if (
            spent
            and later.kind is not TryKind.THROTTLED
            and await self._is_its_own(job, later, asked)
        ):
            if later.answer is not None:
                await queue.put(Fetched(later.answer, None))
            await self._fail(job.test_id, _given_up(job, later), queue)
        elif self._is_outage(failed_for):
            self.stop("unreachable", _unreachable(later, failed_for))
        else:
            work = Work(job.test_id, job.attempt + 1, self._now_us() + int(delay * 1e6))
            ledger = self._stores.ledger
            await ledger.call(ledger.ledger.postpone, SESSION_RESULTS.name, work, later.reason)

    def _is_outage(self, failed_for: float) -> bool:
        """Say whether nothing has been answered for as long as the patience lasts."""
        silent_for = self._stores.clock.monotonic() - self._answered_at
        return min(failed_for, silent_for) >= self._patience.outage_seconds

    async def _is_its_own(self, job: Job, later: TryLater, asked: _Asked) -> bool:
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
            return later.kind is TryKind.UNREADABLE
        if answers:
            self._answered_at, self._all_is_well = self._stores.clock.monotonic(), True
        patient_no_more = job.attempt + 1 >= 2 * self._patience.attempts
        return answers and (asked.in_good_times or patient_no_more)

    async def _fail(self, test_id: str, error: TestFailed, queue: Queue) -> None:
        listing = self._looks.close(test_id)
        if listing is not None:
            await queue.put(Looked(test_id, listing, None, self._now_us(), failed=str(error)))

    async def _wait(self, now: float, now_us: int) -> None:
        """Wait until an answer changes what there is to do, or what was not due by now is."""
        next_try_at = self._looks.next_try_at(now)
        next_open_at_us = self._looks.next_open_at_us(now_us)
        times = []
        if next_try_at is not None:
            times.append(next_try_at - now)
        if next_open_at_us is not None:
            times.append((next_open_at_us - now_us) / 1e6)
        with move_on_after(min(times, default=None)):
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = Event()

    def _now_us(self) -> int:
        return int(self._stores.clock.time() * 1_000_000)


_BECAUSE: Final[dict[type[EtlError], str]] = {
    CredentialsRefused: "credentials_refused",
    Unreachable: "unreachable",
}


def _given_up(job: Job, later: TryLater) -> TestFailed:
    return TestFailed(
        f"The page {job.ask.spelled()} was asked {job.attempt + 1} times: {later.reason}.",
        where=f"test {job.test_id}",
        advice="The next run asks again. If it stays so, tell the vendor's support.",
    )


def _unreachable(later: TryLater, seconds: float) -> Unreachable:
    return Unreachable(
        f"The API has answered nothing for {seconds / 60:.0f} minutes: {later.reason}.",
        advice="What was fetched has landed; the next run goes on from there.",
    )
