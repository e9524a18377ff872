"""The workspaces and their tests, as errands: asked before all else, where they are needed.

They say which tests a discovery filter means, and which product each test is of, so that
nothing is asked that a product does not have.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from etl.client.values import Endpoint, Fetched, Request, TryLater
from etl.errors import TestFailed
from etl.plan.catalogue import CatalogueNeed, CatalogueRead
from etl.run.inbox import Key
from etl.run.line import Leased, Line
from etl.tables.cursor_pages import object_id_of
from etl.tables.tests import WORKSPACE_TESTS, ListedTest, listed_tests
from etl.tables.workspaces import WORKSPACES, workspace_ids

_MOST_PAGES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Found:
    """What the workspaces hold, as far as it was asked; `failure` says why not all of it.

    `pages` counts the pages of tests that it took.
    """

    tests: Sequence[ListedTest]
    pages: int
    failure: TestFailed | None


@dataclass(frozen=True, slots=True)
class Page:
    """A request of the catalogue: the workspaces, or a page of the tests of one of them."""

    workspace_id: str | None = None
    cursor: str | None = None

    @property
    def endpoint(self) -> Endpoint[Any]:
        """What is asked."""
        return WORKSPACES if self.workspace_id is None else WORKSPACE_TESTS

    @property
    def object_id(self) -> str | None:
        """Its key in inbox and lake."""
        return None if self.workspace_id is None else object_id_of(self.workspace_id, self.cursor)


class Catalogue:
    """Reads the workspaces once, then tells what it has found."""

    def __init__(
        self,
        hand_on: Callable[[Fetched[Any]], Awaitable[None]],
        need: CatalogueNeed,
        *,
        in_inbox: Mapping[Key, Any],
        kept: CatalogueRead,
        on_found: Callable[[Found], Awaitable[None]],
    ) -> None:
        """Read what is needed; `kept` is what a run that was cut short has read of it.

        Each answer is handed on before it is read.
        """
        self._hand_on = hand_on
        self._in_inbox = in_inbox
        self._on_found = on_found
        self._enough = need.enough
        self._found: dict[str, ListedTest] = {}
        self._seen: set[str | None] = set()
        self._line = Line(self)
        self._failure: TestFailed | None = None
        self._told = False
        self._kept = kept
        for workspace_id in (None,) if need.workspaces is None else need.workspaces:
            self._want(Page(workspace_id))

    @property
    def is_done(self) -> bool:
        """Whether what was found has been told."""
        return self._told and not self._line.left

    def kept(self) -> str:
        """Return what has been read, for a run that goes on where this one is cut short."""
        return msgspec.json.encode(self._kept).decode()

    def next(self, now: float, now_us: int) -> Leased[Page] | None:
        """Lease the page to ask next."""
        del now_us
        return self._line.next(now)

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Tell what was found, once nothing is left to ask."""
        del now_us
        if self._told or self._line.left:
            return None
        self._told = True
        return self._on_found(
            Found(tuple(self._found.values()), len(self._kept.pages), self._failure)
        )

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next page that was delayed."""
        del now_us
        return self._line.seconds_to_next(now)

    def _want(self, page: Page) -> None:
        """Ask for a page, unless it was asked, or lies in the inbox already."""
        is_new = page.object_id not in self._seen
        if not is_new and page.cursor is None:
            return  # a workspace that is listed twice
        if not is_new or len(self._seen) >= _MOST_PAGES:
            self._failure = self._failure or _without_end(page, len(self._seen))
            return
        self._seen.add(page.object_id)
        content = self._in_inbox.get((page.endpoint.name, None, None, page.object_id))
        if content is not None:
            self._keep(page, content)
        if not self._read(page):
            self._line.add([page])

    def _keep(self, page: Page, content: Any) -> None:  # noqa: ANN401 - as its endpoint reads it
        """Keep what a page tells."""
        if page.object_id is None:
            self._kept.workspaces = workspace_ids(content)
        else:
            self._kept.pages[page.object_id] = (listed_tests(content), content.cursor)

    def _read(self, page: Page) -> bool:
        """Go on from what is kept of a page; return whether anything is."""
        if page.object_id is None:
            for workspace_id in self._kept.workspaces or ():
                self._want(Page(workspace_id))
            return self._kept.workspaces is not None
        if page.object_id not in self._kept.pages:
            return False
        tests, cursor = self._kept.pages[page.object_id]
        self._found.update((test.test_id.lower(), test) for test in tests)
        if self._enough is not None and self._enough <= self._found.keys():
            self._line.drop_ready()
        elif cursor is not None:
            self._want(Page(page.workspace_id, cursor))
        return True

    # What the errands tell.

    def request(self, wanted: Page, attempt: int) -> Request[Any]:
        """Return the request for a page."""
        query = () if wanted.cursor is None else (("after", wanted.cursor),)
        return Request(wanted.endpoint, object_id=wanted.object_id, query=query, attempt=attempt)

    async def answered(self, wanted: Page, fetched: Fetched[Any]) -> None:
        """Pass the answer to the inbox, then read it."""
        await self._hand_on(fetched)
        self._keep(wanted, fetched.content)
        self._read(wanted)

    async def failed(self, wanted: Page, error: TestFailed) -> None:
        """Go on without this page."""
        del wanted
        self._failure = self._failure or error

    async def gave_up(self, wanted: Page, later: TryLater) -> None:
        """Go on without this page."""
        what = f"The workspaces could not be read: {later.reason}."
        await self.failed(wanted, TestFailed(what, advice="The next run asks again."))


def _without_end(page: Page, pages: int) -> TestFailed:
    return TestFailed(
        f"The tests of a workspace have no end: after {pages} requests a page comes round again.",
        where=f"workspace {page.workspace_id}",
        advice="List the tests by their ids instead, and tell the vendor's support.",
    )
