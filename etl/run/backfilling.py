"""A backfill as a run goes on with it: which one, with which tests, and what is left of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from etl.client.values import Scope
from etl.config.models import Discovery
from etl.ledger import afresh
from etl.ledger.afresh import BACKFILL, Backfill, Span
from etl.ledger.due import Feeds
from etl.ledger.store import Ledger
from etl.ledger.values import Due, Work
from etl.paging.values import Listing, PageView
from etl.plan.orders import Order, endpoints_asked
from etl.run.stores import Stores


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a backfill: tests, and requests as far as it is known which."""

    tests: int
    requests: int

    def sentence(self) -> str:
        """Say it, for the report."""
        if not self.tests:
            return "The backfill is done."
        return (
            f"The backfill is not done: {self.requests:,} requests of {self.tests:,} tests are "
            "left, as far as these are listed. The same command goes on with it."
        )


def taken_up(ledger: Ledger, order: Order, span: Span, now_us: int) -> tuple[Backfill, str | None]:
    """Return the backfill to go on with, or a new one, and what a person should know of it.

    One that is not done is gone on with if the same is asked for; else it is given up. Blocks.
    """
    last, new = afresh.noted(ledger.note(BACKFILL)), Backfill(now_us, span, order.only)
    if last is None or last.is_done:
        return new, None
    if last.began_at_us > now_us:
        return new, "The last backfill began in the future, by a wrong clock: a new one is begun."
    began = datetime.fromtimestamp(last.began_at_us / 1e6, UTC).isoformat(timespec="minutes")
    if (last.span, last.only) == (span, order.only):
        return last, f"The backfill of {began} is gone on with."
    return new, f"The backfill of {began}, of other sessions, is not done: this one replaces it."


def begun(
    ledger: Ledger, backfill: Backfill, tests: Sequence[str]
) -> tuple[list[Work], dict[str, Due]]:
    """Return a backfill's tests that are to be listed anew, and what is due of the others.

    `tests` are those that the pipeline has now; its own are noted when it begins. Blocks.
    """
    if not backfill.tests:
        backfill.tests = tuple(tests)
        ledger.keep_note(BACKFILL, backfill.packed())
    work, due = [], {}
    here = frozenset(tests)
    for test in (test for test in backfill.tests if test in here):
        record = ledger.record(test)
        if not afresh.is_listed(record, backfill) or record.afresh is None:
            work.append(Work(test))
        else:
            due[test] = Due(len(record.afresh.sessions_left()))
    return work, due


@dataclass(frozen=True, slots=True)
class Anew:
    """Which listings are read anew: those that a backfill has opened; this run, if it `begins`."""

    backfill: Backfill | None = None
    begins: bool = False

    async def known_of(
        self, test_id: str, stores: Stores, left_in_inbox: Mapping[str, PageView]
    ) -> tuple[Listing, dict[str, PageView]]:
        """Return from where a look goes on: the listing that is known, and the pages in hand.

        A backfill that has not begun with the test goes on from nothing but its own pages.
        That it has opened the test is durable before anything is asked.
        """
        backfill = self.backfill
        if backfill is not None and self.begins and test_id not in backfill.opened:
            backfill.opened.add(test_id)
            ledger = stores.ledger
            await ledger.call(ledger.ledger.keep_note, BACKFILL, backfill.packed())
        record = await stores.records.look_up(test_id)
        if backfill is not None and afresh.is_to_begin(record, backfill, test_id):
            since_us, views = backfill.began_at_us, left_in_inbox.items()
            return Listing(), {page: view for page, view in views if view.read_at_us >= since_us}
        if record.listing.whole:  # else a look goes on: they are not the last one's
            return record.listing, dict(left_in_inbox)
        return record.listing, {**record.in_hand, **left_in_inbox}


def left_of(ledger: Ledger, order: Order, feeds: Feeds, backfill: Backfill) -> Left:
    """Return what is left of a backfill, and note it if it is done. Blocks.

    A test that is known to fail is not waited for.
    """
    tests = requests = 0
    of_test = [one.name for one in endpoints_asked(order) if one.scope is Scope.TEST]
    for test in _tests_of(order, backfill):
        record = ledger.record(test)
        if test in order.pipeline.accept_failures and not afresh.is_listed(record, backfill):
            continue
        asked = [endpoint for endpoint in of_test if feeds.has(test, endpoint)]
        count = afresh.requests_left(record, backfill, asked)
        tests, requests = tests + bool(count), requests + count
    if not tests:
        backfill.is_done = True
        ledger.keep_note(BACKFILL, backfill.packed())
    return Left(tests, requests)


def _tests_of(order: Order, backfill: Backfill) -> Iterable[str]:
    """Return a backfill's tests, less those that the pipeline has no more."""
    listed = order.pipeline.tests
    return [test for test in backfill.tests if isinstance(listed, Discovery) or test in listed]
