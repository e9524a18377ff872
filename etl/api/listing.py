"""Reads a test's pages until they prove its listing, in memory alone."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from etl.client.values import Content, Fetched, Request
from etl.config.models import Pagination
from etl.errors import BadRequest, TestFailed
from etl.ledger.values import Work
from etl.paging.dialect import after_bad_request, first_dialect
from etl.paging.values import Listing, Verdict
from etl.run.looks import Job, Looks
from etl.run.pages import check_page, page_request
from etl.run.world import World
from etl.tables.sessions import SessionsPage, page_view

Page: TypeAlias = Fetched[SessionsPage]
Check: TypeAlias = Callable[[Fetched[Content]], None]
"""Looks at an answer; raises TryLater if it is not the one that was asked for."""
AskForPage: TypeAlias = Callable[[Request[SessionsPage], Check[SessionsPage]], Awaitable[Page]]


async def pages_of(test_id: str, world: World, ask: AskForPage) -> AsyncIterator[Page]:
    """Yield a test's pages as they come: rows that shift meanwhile are served repeatedly.

    Raises TestFailed at the end if they do not prove the listing complete.
    """
    looks = _looks(test_id, world)
    verdict = None
    while verdict is None:
        job = looks.next_job(world.clock.monotonic(), world.now_us())
        assert job is not None  # noqa: S101 - no page is in flight, and none is delayed
        page = await _asked(job, looks, ask)
        if page is not None:
            sweep = looks.answered(job, page_view(page.answer, page.content))
            verdict = None if sweep is None else sweep.verdict
            yield page
    if not verdict.verified:
        raise _not_proved(test_id, verdict)


def _looks(test_id: str, world: World) -> Looks:
    """Return a look at one test, one page at a time, begun."""
    dialect, work = first_dialect(Pagination()), Work(test_id)
    looks = Looks([work], dialect, first_dialect=dialect, audit="off", most_tests=1, most_pages=1)
    looks.to_open(world.now_us())
    looks.open(work, Listing(), world.now_us(), {})
    return looks


async def _asked(job: Job, looks: Looks, ask: AskForPage) -> Page | None:
    """Return a page, or None where the API does not understand how it was asked for."""

    def check(page: Page) -> None:
        check_page(job, looks, page.content, page_view(page.answer, page.content))

    try:
        return await ask(page_request(job), check)
    except BadRequest:
        other = after_bad_request(looks.dialect)
        if other is not None and job.ask.style is not other.style:
            looks.dialect = other
            looks.give_back(job)
        elif job.ask.number != 0 or not looks.doubt(job):
            raise
        return None


def _not_proved(test_id: str, verdict: Verdict) -> TestFailed:
    total = "no believable total" if verdict.total is None else f"{verdict.total} sessions"
    return TestFailed(
        f"The listing was not proved complete ({verdict.outcome.value}): the API says {total}, "
        f"and {verdict.seen} sessions were read.",
        where=f"test {test_id}",
        advice="What was read has been handed over. Asking again may prove it.",
    )
