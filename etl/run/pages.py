"""The pages of listings as errands: asked one by one, believed by their echo, handed on."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from etl.client.values import Fetched, Request, TryKind, TryLater
from etl.errors import BadRequest, NotFound, TestFailed
from etl.ledger.values import Looked, Work
from etl.paging.dialect import after_bad_request, wrong_echo
from etl.paging.sweep import Sweep
from etl.paging.values import PageView
from etl.run.backfilling import Anew
from etl.run.looks import Job, Looks
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.tables.sessions import SESSION_RESULTS, SessionsPage

_DOUBT_AFTER: Final = 3


class Pages:
    """The looks at listings, as a source of errands."""

    def __init__(
        self,
        looks: Looks,
        stores: Stores,
        queue: Queue,
        left_in_inbox: Mapping[str, Mapping[str, PageView]],
        not_known: Callable[[str], str | None],
        anew: Anew = Anew(),  # noqa: B008 - a frozen value
    ) -> None:
        """Begin with nothing asked; `left_in_inbox` are pages that an earlier process paid.

        `not_known` takes a test that this API does not know elsewhere (None), or says why not.
        `anew` says which listings are read anew, whatever is known of them.
        """
        self._not_known = not_known
        self.looks = looks
        self.stores = stores
        self._queue = queue
        self._left_in_inbox = left_in_inbox
        self._anew = anew

    @property
    def is_done(self) -> bool:
        """Whether every test has been looked at."""
        return self.looks.is_done

    def next(self, now: float, now_us: int) -> "PageErrand | None":
        """Lease the page to ask next."""
        job = self.looks.next_job(now, now_us)
        return None if job is None else PageErrand(self, job)

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Begin the look at the next test."""
        work = self.looks.to_open(now_us)
        return None if work is None else self._open(work)

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next delayed page or test."""
        next_try_at = self.looks.next_try_at(now)
        next_open_at_us = self.looks.next_open_at_us(now_us)
        waits = [] if next_try_at is None else [next_try_at - now]
        if next_open_at_us is not None:
            waits.append((next_open_at_us - now_us) / 1e6)
        return min(waits, default=None)

    async def _open(self, work: Work) -> None:
        left = self._left_in_inbox.get(work.test_id, {})
        listing, in_hand = await self._anew.known_of(work.test_id, self.stores, left)
        sweep = self.looks.open(work, listing, self.stores.now_us(), in_hand)
        if in_hand:
            await self.tell(work.test_id, sweep)

    async def hand_on(self, fetched: Fetched[Any]) -> None:
        """Pass an answer to the inbox, before anyone reads it."""
        await self._queue.put(fetched)

    async def tell(self, test_id: str, sweep: Sweep) -> None:
        """Pass on what is known of a test now; a verdict ends its look."""
        if sweep.verdict is not None:
            self.looks.close(test_id)
        now_us = self.stores.now_us()
        await self._queue.put(Looked(test_id, sweep.listing, sweep.verdict, now_us))

    async def not_found(self, test_id: str, error: NotFound) -> None:
        """End the look at a test that this API does not know: another one may."""
        hint = self._not_known(test_id)
        if hint is None:
            self.looks.close(test_id)
        else:
            await self.fail(test_id, f"{error}{hint}")

    async def fail(self, test_id: str, why: str) -> None:
        """End a look that cannot be made."""
        listing = self.looks.close(test_id)
        if listing is not None:
            now_us = self.stores.now_us()
            await self._queue.put(Looked(test_id, listing, None, now_us, failed=why))


def page_request(job: Job) -> Request[SessionsPage]:
    """Return the request for a page."""
    return Request(
        SESSION_RESULTS,
        test_id=job.test_id,
        object_id=job.ask.spelled(),
        query=(("testId", job.test_id), *job.ask.query()),
        attempt=job.attempt,
    )


def check_page(job: Job, looks: Looks, page: SessionsPage, view: PageView) -> None:
    """Raise TryLater if a page is not the one that was asked."""
    if page.test_id is not None and page.test_id.lower() != job.test_id:
        raise TryLater("the answer is about another test", kind=TryKind.NOT_ASKED)
    wrong = wrong_echo(looks.dialect, job.ask, view)
    if wrong is not None:
        raise TryLater(wrong, kind=TryKind.NOT_ASKED)


@dataclass(frozen=True, slots=True)
class PageErrand:
    """One page to ask."""

    pages: Pages
    job: Job

    @property
    def request(self) -> Request[SessionsPage]:
        """The request for the page."""
        return page_request(self.job)

    async def answered(self, fetched: Fetched[SessionsPage]) -> None:
        """Pass the page to the inbox first, then let paging read it."""
        view = self._believed(fetched)
        await self.pages.hand_on(fetched)
        sweep = self.pages.looks.answered(self.job, view)
        if sweep is not None:
            await self.pages.tell(self.job.test_id, sweep)

    def _believed(self, fetched: Fetched[SessionsPage]) -> PageView:
        """Return the page as paging sees it; raises TryLater if it is not the one asked."""
        view = self.pages.stores.personal.view(fetched.answer, fetched.content)
        check_page(self.job, self.pages.looks, fetched.content, view)
        return view

    async def failed(self, error: TestFailed) -> None:
        """End the look, unless a 400 may mean that the spelling is not understood."""
        looks = self.pages.looks
        if isinstance(error, NotFound):
            await self.pages.not_found(self.job.test_id, error)
            return
        if isinstance(error, BadRequest):
            other = after_bad_request(looks.dialect)
            if other is not None and self.job.ask.style is not other.style:
                looks.dialect = other
                self.give_back()
                return
            if self.job.ask.number == 0 and looks.doubt(self.job):
                return  # pages may count from 1 after all
        await self.pages.fail(self.job.test_id, str(error))

    async def gave_up(self, later: TryLater) -> None:
        """End the look; a body that nobody can read is kept."""
        if later.answer is not None:
            await self.pages.hand_on(Fetched(later.answer, None))
        error = TestFailed(
            f"The page {self.job.ask.spelled()} was asked {self.job.attempt + 1} times: "
            f"{later.reason}.",
            where=f"test {self.job.test_id}",
            advice="The next run asks again. If it stays so, tell the vendor's support.",
        )
        await self.pages.fail(self.job.test_id, str(error))

    def first_failed_at(self, now: float) -> float:
        """Return when the page first failed."""
        return self.pages.looks.first_failed_at(self.job, now)

    async def delay(self, now: float, seconds: float, later: TryLater) -> None:
        """Ask the page again after a while; the ledger remembers when, and why.

        Other pages than were asked, again and again, cast doubt on what was learned.
        """
        self.pages.looks.retry(self.job, now, seconds)
        if later.kind is TryKind.NOT_ASKED and self.job.attempt + 1 == _DOUBT_AFTER:
            self.pages.looks.doubt(self.job)
        stores = self.pages.stores
        not_before_us = stores.now_us() + int(seconds * 1e6)
        work = Work(self.job.test_id, self.job.attempt + 1, not_before_us)
        await stores.ledger.call(
            stores.ledger.ledger.postpone, SESSION_RESULTS.name, work, later.reason
        )

    def give_back(self) -> None:
        """Let the page be leased again."""
        self.pages.looks.give_back(self.job)
