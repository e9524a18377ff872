"""The sessions of classic tests as errands: page behind page, each asked by a cursor."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from etl.client.values import Answer, Fetched, Request, TryLater
from etl.errors import BadRequest, NotFound, TestFailed
from etl.ledger.values import Looked, Work
from etl.paging import cursors
from etl.paging.cursors import CursorAsk, CursorSweep
from etl.paging.sweep import STALE_AFTER_US, believed
from etl.paging.values import Listing, PageView
from etl.plan.kinds import ABSENT_FOR_US
from etl.plan.orders import Order
from etl.run.backfilling import Anew
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.cursor_pages import CursorPage
from etl.tables.sessions import SESSION_RESULTS

_ASKED_AGAIN: Final = "It is asked again after a week, or when it is named with --test."


@dataclass(slots=True)
class _Look:
    """A look at one test under way: at most one page of it is in flight."""

    test_id: str
    sweep: CursorSweep
    in_hand: dict[str, PageView]
    in_flight: bool = False
    attempts: int = 0
    not_before: float = 0.0
    first_failed_at: float | None = None

    def read_in_hand(self) -> None:
        """Feed the sweep every page that it wants and that an earlier process has paid."""
        while (ask := cursors.wanted(self.sweep)) is not None:
            view = self.in_hand.pop(ask.spelled(), None)
            if view is None:
                return
            self.sweep = cursors.read(self.sweep, view)


@dataclass(frozen=True, slots=True)
class Told:
    """What the pipeline is told, and tells, of tests: which are classic, and what may be wrong."""

    found: Callable[[str], None]
    hint: Callable[[str], str]


class ClassicPages:
    """The looks at the sessions of classic tests, as a source of errands."""

    def __init__(
        self,
        order: Order,
        stores: Stores,
        queue: Queue,
        left_in_inbox: Mapping[str, Mapping[str, PageView]],
        told: Told,
        anew: Anew = Anew(),  # noqa: B008 - a frozen value
    ) -> None:
        """Begin with nothing asked; `left_in_inbox` are pages that an earlier process paid.

        `anew` says which listings are read anew, whatever is known of them.
        """
        self._anew = anew
        self._stores = stores
        self._queue = queue
        self._left_in_inbox = left_in_inbox
        self._audit = order.audit
        self._most_tests = 1 if order.one_by_one else order.connection.concurrency
        self._asks_absent = order.afresh or bool(order.only)
        self._told = told
        self._to_come: deque[Work] = deque()
        self._opening = 0
        self._under_way: dict[str, _Look] = {}

    def add(self, work: Iterable[Work]) -> None:
        """Take in tests to look at."""
        self._to_come.extend(work)

    @property
    def is_done(self) -> bool:
        """Whether every test has been looked at."""
        return not (self._to_come or self._opening or self._under_way)

    def next(self, now: float, now_us: int) -> "ClassicErrand | None":
        """Lease the page to ask next."""
        for look in self._under_way.values():
            if look.in_flight or look.not_before > now:
                continue
            look.sweep = cursors.refreshed(look.sweep, now_us)
            ask = cursors.wanted(look.sweep)
            if ask is not None:  # else its verdict is just being told
                look.in_flight = True
                return ClassicErrand(self, look, ask, look.attempts)
        return None

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Begin the look at the next test; one to be tried later lets the others pass."""
        if len(self._under_way) + self._opening >= self._most_tests:
            return None
        for _ in range(len(self._to_come)):
            work = self._to_come.popleft()
            if work.not_before_us <= now_us:
                self._opening += 1
                return self._open(work)
            self._to_come.append(work)
        return None

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next delayed page or test."""
        tries = (look.not_before - now for look in self._under_way.values())
        works = ((work.not_before_us - now_us) / 1e6 for work in self._to_come)
        return min((wait for wait in (*tries, *works) if wait > 0), default=None)

    async def _open(self, work: Work) -> None:
        test_id, now_us = work.test_id, self._stores.now_us()
        record = await self._stores.records.look_up(test_id)
        absent_for_us = now_us - record.asked_at_us.get(COMPLETED_SESSIONS.name, 0)
        if 0 <= absent_for_us < ABSENT_FOR_US and not self._asks_absent:
            self._opening -= 1
            await self.fail(test_id, f"The API did not know it lately (404). {_ASKED_AGAIN}")
            return
        left = self._left_in_inbox.get(test_id, {})
        known, in_hand = await self._anew.known_of(test_id, self._stores, left)
        look = self._under_way[test_id] = self._begun(test_id, known, now_us, in_hand)
        self._opening -= 1
        if in_hand:
            await self.tell(look)

    def _begun(
        self, test_id: str, known: Listing, now_us: int, in_hand: Mapping[str, PageView]
    ) -> _Look:
        """Begin a look with the pages of it that were paid; old ones are only where to go on from.

        None counts as read later than now: somebody may have set the clock back since.
        """
        views = {
            spelled: replace(view, read_at_us=min(view.read_at_us, now_us))
            for spelled, view in in_hand.items()
        }
        began_at_us = min((view.read_at_us for view in views.values()), default=now_us)
        sweep = cursors.begin(believed(known, now_us), audit=self._audit, now_us=began_at_us)
        look = _Look(test_id, sweep, views)
        look.read_in_hand()
        proved_at_us = look.sweep.listing.read_at_us
        if look.sweep.verdict is not None and now_us - proved_at_us > STALE_AFTER_US:
            known = look.sweep.listing
            look.sweep = cursors.begin(known, audit=self._audit, now_us=now_us)
        return look

    async def hand_on(self, fetched: Fetched[Any]) -> None:
        """Pass an answer to the inbox, before anyone reads it."""
        await self._queue.put(fetched)

    async def take(self, look: _Look, fetched: Fetched[CursorPage]) -> None:
        """Pass a page on, then read it."""
        await self.hand_on(fetched)
        self._told.found(look.test_id)
        view = self._stores.personal.view(fetched.answer, fetched.content)
        look.sweep = cursors.read(look.sweep, view)
        look.read_in_hand()
        look.attempts, look.first_failed_at = 0, None
        await self.tell(look)

    async def refused(self, look: _Look) -> None:
        """Take in that a cursor is not known any more: its row has gone."""
        look.sweep = cursors.not_connected(look.sweep)
        await self.tell(look)

    async def tell(self, look: _Look) -> None:
        """Pass on what is known of a test now; a verdict ends its look."""
        sweep, look.in_flight = look.sweep, False
        if sweep.verdict is not None:
            del self._under_way[look.test_id]
        now_us = self._stores.now_us()
        await self._queue.put(Looked(look.test_id, sweep.listing, sweep.verdict, now_us))

    async def not_there(self, look: _Look, error: NotFound) -> None:
        """Note that the API knows no such classic test: it need not be asked every night."""
        now_us = self._stores.now_us()
        name = COMPLETED_SESSIONS.name
        await self.hand_on(Fetched(Answer(name, look.test_id, None, None, 404, now_us, b""), None))
        hint = self._told.hint(look.test_id)
        await self.fail(look.test_id, f"{error} {_ASKED_AGAIN}{hint}")

    async def fail(self, test_id: str, why: str) -> None:
        """End a look that cannot be made."""
        look = self._under_way.pop(test_id, None)
        listing = Listing() if look is None else look.sweep.listing
        await self._queue.put(Looked(test_id, listing, None, self._stores.now_us(), failed=why))

    async def delay(self, look: _Look, now: float, seconds: float, reason: str) -> None:
        """Ask the page again after a while; the ledger remembers when, and why."""
        look.first_failed_at = now if look.first_failed_at is None else look.first_failed_at
        look.attempts, look.not_before, look.in_flight = look.attempts + 1, now + seconds, False
        not_before_us = self._stores.now_us() + int(seconds * 1e6)
        work = Work(look.test_id, look.attempts, not_before_us)
        ledger = self._stores.ledger
        await ledger.call(ledger.ledger.postpone, SESSION_RESULTS.name, work, reason)


@dataclass(frozen=True, slots=True)
class ClassicErrand:
    """One page to ask."""

    source: ClassicPages
    look: _Look
    ask: CursorAsk
    attempt: int

    @property
    def request(self) -> Request[CursorPage]:
        """The request for the page."""
        return Request(
            COMPLETED_SESSIONS,
            test_id=self.look.test_id,
            object_id=self.ask.spelled(),
            query=self.ask.query(),
            attempt=self.attempt,
        )

    async def answered(self, fetched: Fetched[CursorPage]) -> None:
        """Take in the page."""
        await self.source.take(self.look, fetched)

    async def failed(self, error: TestFailed) -> None:
        """End the look; a cursor that is refused is only read around."""
        if self.ask.after is not None and isinstance(error, BadRequest):
            await self.source.refused(self.look)
        elif self.ask.after is None and isinstance(error, NotFound):
            await self.source.not_there(self.look, error)
        else:
            await self.source.fail(self.look.test_id, str(error))

    async def gave_up(self, later: TryLater) -> None:
        """End the look; a body that nobody can read is kept."""
        if later.answer is not None:
            await self.source.hand_on(Fetched(later.answer, None))
        error = TestFailed(
            f"A page of its sessions was asked {self.attempt + 1} times: {later.reason}.",
            where=f"test {self.look.test_id}",
            advice="The next run asks again. If it stays so, tell the vendor's support.",
        )
        await self.source.fail(self.look.test_id, str(error))

    def first_failed_at(self, now: float) -> float:
        """Return when the page first failed."""
        return now if self.look.first_failed_at is None else self.look.first_failed_at

    async def delay(self, now: float, seconds: float, later: TryLater) -> None:
        """Ask the page again after a while."""
        await self.source.delay(self.look, now, seconds, later.reason)

    def give_back(self) -> None:
        """Let the page be leased again."""
        self.look.in_flight = False
