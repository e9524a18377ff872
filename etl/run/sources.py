"""Where a pipeline's errands come from, which of them goes first, and what they have taught.

The catalogue, where it is needed, tells of which tests the listings are; these tell what
follows from them.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from etl.client.values import Answer
from etl.errors import TestFailed
from etl.lake.claims import refuse_shared
from etl.ledger.afresh import BACKFILL
from etl.ledger.due import CLASSIC
from etl.ledger.store import Ledger
from etl.ledger.values import Due, Looked, Work
from etl.paging.dialect import first_dialect, remembered
from etl.plan.catalogue import Catalogued, catalogue_need, recalled, selected
from etl.plan.kinds import hint, listing_of, misplaced, product_of
from etl.plan.orders import (
    CATALOGUE,
    CATALOGUE_UNDER_WAY,
    PRODUCTS,
    TABLES,
    dialect_note,
    lists_classic,
    tables_asked,
)
from etl.report.progress import Progress
from etl.run.backfilling import begun
from etl.run.catalogue import Catalogue, Found
from etl.run.classic import ClassicPages, Told
from etl.run.errands import Source
from etl.run.follow_ups import dues_afresh, dues_of
from etl.run.followers import Asked, Followers, followers
from etl.run.inbox import Left
from etl.run.looks import Looks
from etl.run.opening import Opened
from etl.run.outcome import Outcome
from etl.run.pages import Pages
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.run.transfers import Transfers
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.sessions import SESSION_RESULTS


class Sources:
    """The sources of one pipeline. Nothing is asked before `begin`."""

    def __init__(
        self,
        opened: Opened,
        stores: Stores,
        transfers: Transfers,
        progress: Progress,
        outcome: Outcome,
        on_undiscovered: Callable[[TestFailed], None],
    ) -> None:
        """Begin with none; `on_undiscovered` is told why a filter's tests cannot be found."""
        order = opened.order
        self._opened = opened
        self._order = order
        self._feeds = opened.feeds
        self._stores = stores
        self._transfers = transfers
        self._progress = progress
        self._outcome = outcome
        self._on_undiscovered = on_undiscovered
        self._looks = Looks(
            (),
            remembered(opened.dialect, order.pipeline.pagination),
            first_dialect=first_dialect(order.pipeline.pagination),
            audit=order.audit,
            most_tests=1 if order.one_by_one else order.connection.concurrency,
            most_pages=order.connection.concurrency,
        )
        self._followers = Followers()
        self._catalogue: Catalogue | None = None

    async def begin(self, queue: Queue, left: Left) -> Sequence[Source]:
        """Return where errands come from, those first that go first.

        `left` is what an earlier process has paid for.
        """
        self._followers = self._followers_of(queue, left)
        self._outcome.failures = self._followers.failures
        self._progress.follow_ups_left = lambda: self._followers.left
        classic = self._classic_pages(queue, left)
        not_known, anew = partial(self._not_known, classic), self._opened.anew
        pages = Pages(self._looks, self._stores, queue, left.pages, not_known, anew)
        listings = (pages, classic)
        # A backfill ends with one test before it begins with the next.
        follow = self._followers.sources
        all_but_first = (*follow, *listings) if self._opened.backfill else (*listings, *follow)
        ledger = self._stores.ledger
        kept = await ledger.call(ledger.ledger.note, CATALOGUE_UNDER_WAY)
        self._catalogue = self._catalogue_needed(classic, queue, left, kept)
        if self._catalogue is not None:
            return (self._catalogue, *all_but_first)
        await self._begin_with(classic, self._order.tests)
        return all_but_first

    def _followers_of(self, queue: Queue, left: Left) -> Followers:
        """Return what follows from listings, or what a backfill asks once more."""
        backfill = self._opened.backfill
        paid = left.others.keys() if backfill is None else left.since(backfill.began_at_us)
        dues = dues_of(self._feeds) if backfill is None else dues_afresh(backfill.began_at_us)
        plan, asked = self._opened.plan, Asked(dues, paid)
        return followers(self._order, plan, self._stores, queue, self._transfers, asked)

    def _classic_pages(self, queue: Queue, left: Left) -> ClassicPages:
        """Return the looks at classic tests, of which there are none yet."""
        order, feeds = self._order, self._feeds
        told = Told(
            found=lambda test: feeds.product_of.update({test: CLASSIC}),
            hint=lambda test: hint(order, feeds, test, asked_as_classic=True),
        )
        return ClassicPages(order, self._stores, queue, left.pages, told, self._opened.anew)

    def _not_known(self, classic: ClassicPages, test_id: str) -> str | None:
        """Have a test that today's API does not know asked for as a classic one, or say why not."""
        if lists_classic(self._order) and not self._feeds.product_of.get(test_id):
            classic.add([Work(test_id)])
            return None
        return hint(self._order, self._feeds, test_id, asked_as_classic=False)

    def _catalogue_needed(
        self, classic: ClassicPages, queue: Queue, left: Left, kept: str | None
    ) -> Catalogue | None:
        """Return the catalogue to read first, where tests or their products are not known."""
        need = catalogue_need(self._order, self._feeds.product_of)
        if need is None:
            return None
        return Catalogue(
            queue.put,
            need,
            in_inbox=left.others,
            kept=recalled(kept, self._stores.now_us()),
            on_found=partial(self._found, classic),
        )

    async def _found(self, classic: ClassicPages, found: Found) -> None:
        """Go on with the tests that the catalogue has found, and their products."""
        order = self._order
        tests: Sequence[str] = order.tests
        if order.filter is not None:
            if found.failure is not None:
                self._on_undiscovered(found.failure)
                return
            tests = selected(order.filter, found.tests, order.pipeline.tables)
            tests = [test for test in tests if not order.only or test in order.only]
        products = {test.test_id.lower(): product_of(test) for test in found.tests}
        if found.failure is None:
            known = self._feeds.product_of
            products = {test: products.get(test) or known.get(test, "") for test in tests}
        self._feeds.product_of.update({test: products[test] for test in tests if test in products})
        ledger = self._stores.ledger
        await ledger.call(ledger.ledger.keep_note, PRODUCTS, self._products())
        if found.failure is None:
            catalogued = Catalogued(found.pages, tests if order.filter is not None else ())
            note = msgspec.json.encode(catalogued).decode()
            await ledger.call(ledger.ledger.keep_note, CATALOGUE, note)
        await self._begin_with(classic, tests)

    async def _begin_with(self, classic: ClassicPages, tests: Sequence[str]) -> None:
        """Begin with these tests: listings to look at, and what is due of those known."""
        order, feeds, ledger = self._order, self._feeds, self._stores.ledger
        if order.filter is not None:
            asked = (self._opened.lake, ledger.ledger, order.name, tests, order.pipeline.tables)
            await ledger.call(refuse_shared, *asked)
        if self._opened.backfill is None:
            work = await ledger.call(self._work, ledger.ledger, tests)
            due = await ledger.call(ledger.ledger.tests_due)
        else:
            listed = [test for test in tests if listing_of(order, feeds, test)]
            work, due = await ledger.call(begun, ledger.ledger, self._opened.backfill, listed)
            tests = [*(one.test_id for one in work), *due]
        self._followers.expect([test.test_id for test in work])
        kinds = {test: listing_of(order, feeds, test) for test in tests}
        self._looks.add(test for test in work if kinds[test.test_id] is SESSION_RESULTS)
        classic.add(test for test in work if kinds[test.test_id] is COMPLETED_SESSIONS)
        for test_id in tests:
            if why := misplaced(order, feeds, test_id):
                self._progress.tests += 1
                await classic.fail(test_id, why)
        self._followers.known({test: due.get(test, Due()) for test in tests})
        self._progress.tests += len(work)
        self._outcome.tests = len(tests)

    def _work(self, ledger: Ledger, tests: Sequence[str]) -> list[Work]:
        """Return the tests to look at: those of the round, or those that were named."""
        order, now_us = self._order, self._stores.now_us()
        tests = [test for test in tests if listing_of(order, self._feeds, test) is not None]
        if order.only or not tests:
            return [Work(test) for test in tests]
        return ledger.begin_round(SESSION_RESULTS.name, tests, now_us, afresh=order.afresh)

    # What the landing tells.

    def looked(self, look: Looked) -> None:
        """Go on with a test whose look has ended, now that its pages have been read."""
        if look.failed is not None:
            self._followers.not_listed(look.test_id)
        else:
            counts = self._stores.records.counts(look.test_id)
            due = counts.due if self._opened.backfill is None else counts.afresh
            self._followers.listed(look.test_id, Due(due, counts.newest_us))

    def landing(self, answer: Answer) -> None:
        """Take in that the record knows an answer now, which may have named files."""
        self._followers.landing(answer)  # those of now, which are none at first

    # What has been learned.

    @property
    def files_not_had(self) -> Iterator[tuple[str, str]]:
        """The files, by table and name, that were met and not landed."""
        return self._followers.files_not_had

    def notes(self) -> dict[str, str]:
        """Return what a fresh machine needs to know beside the records."""
        order, plan = self._order, self._opened.plan
        notes = {**plan.personal.notes(), TABLES: tables_asked(order.pipeline)}
        if self._feeds.product_of:
            notes[PRODUCTS] = self._products()
        if plan.backfill is not None:
            notes[BACKFILL] = plan.backfill.packed()
        return notes | {dialect_note(order.connection): self._dialect()}

    def keep_notes(self, ledger: Ledger) -> None:
        """Keep what the next run is to know, now that this one has ended. Blocks."""
        if self._feeds.product_of:
            ledger.keep_note(PRODUCTS, self._products())
        if self._catalogue is not None:
            kept = self._catalogue.kept() if self._outcome.stopped is not None else ""
            ledger.keep_note(CATALOGUE_UNDER_WAY, kept)
        if self._dialect() != self._opened.dialect:
            ledger.keep_note(dialect_note(self._order.connection), self._dialect())

    def _dialect(self) -> str:
        """Return what has been learned as text; nothing while no answer has confirmed it."""
        dialect = self._looks.dialect
        return msgspec.json.encode(dialect).decode() if dialect.settled else ""

    def _products(self) -> str:
        return msgspec.json.encode(self._feeds.product_of, order="deterministic").decode()
