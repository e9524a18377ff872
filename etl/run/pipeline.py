"""Runs one pipeline: opens its stores, wires fetch → keep → land, drains and closes them."""

from collections import Counter
from collections.abc import (
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Final
from uuid import uuid4

import msgspec
from anyio import (
    CancelScope,
    create_memory_object_stream,
    create_task_group,
    to_thread,
)

from etl.client.http import Client
from etl.client.values import Answer
from etl.errors import EtlError
from etl.lake.adding import add_tables
from etl.lake.claims import refuse_shared
from etl.lake.landing import Kept, Landing
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaParts
from etl.lake.rebuilding import Rebuilt
from etl.lake.records import Records
from etl.lake.recovery import Recovery, recover
from etl.lake.rendering import Tally, landing_plan
from etl.ledger.afresh import BACKFILL, Backfill, noted
from etl.ledger.due import CLASSIC, Feeds
from etl.ledger.store import Ledger, open_ledger
from etl.ledger.threaded import LedgerThread
from etl.ledger.values import Due, Looked, Work, ended
from etl.pacing.clock import Clock, SystemClock
from etl.paging.dialect import Dialect, first_dialect, remembered
from etl.plan.catalogue import Catalogued, catalogue_need, recalled, selected
from etl.plan.kinds import hint, listing_of, misplaced, product_of
from etl.plan.orders import (
    CATALOGUE,
    CATALOGUE_UNDER_WAY,
    PRODUCTS,
    TABLES,
    Order,
    dialect_note,
    files_asked,
    lists_classic,
    recall_products,
    tables_asked,
)
from etl.report.progress import Progress
from etl.run.backfilling import Anew, begun, left_of, taken_up
from etl.run.catalogue import Catalogue, Found
from etl.run.classic import ClassicPages, Told
from etl.run.draining import Drain
from etl.run.errands import Source
from etl.run.errors import single_error
from etl.run.fetching import Fetching, Patience, Stop
from etl.run.follow_ups import dues_afresh, dues_of
from etl.run.followers import Asked, Followers, followers
from etl.run.inbox import Left, pass_on
from etl.run.keeping import keep
from etl.run.looks import Looks
from etl.run.pages import Pages
from etl.run.queue import ByteBudget, Item, Queue
from etl.run.stores import Stores
from etl.run.transfers import Transfers, Watch
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.sessions import SESSION_RESULTS

_ITEMS_UNDER_WAY: Final = 512
_FRAMES_UNDER_WAY: Final = 4


@dataclass(frozen=True, slots=True)
class World:
    """What every pipeline of a run shares: its id, time, chance and patience."""

    run_id: str
    clock: Clock
    random: Random
    patience: Patience = field(default_factory=Patience)

    def now_us(self) -> int:
        """Return the wall clock's time in microseconds since 1970."""
        return int(self.clock.time() * 1_000_000)


def this_world(patience: Patience | None = None) -> World:
    """Return the machine's own time and chance, under an id that sorts by time."""
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
    return World(run_id, SystemClock(), SystemRandom(), patience or Patience())


@dataclass(slots=True)
class Outcome:
    """What came of a pipeline: filled in as it goes, so that an error loses nothing of it.

    `failures` count, for each test, the sessions and files that were not had, by the reason.
    """

    tally: Tally = field(default_factory=Tally)
    recovery: Recovery = field(default_factory=Recovery)
    notes: list[str] = field(default_factory=list)
    stopped: Stop | None = None
    tests: int = 0
    failures: Sequence[Mapping[str, Counter[str]]] = ()


class PipelineRun:
    """One pipeline under way. `stop` may be called at any time, also before it fetches."""

    def __init__(
        self,
        order: Order,
        client: Client,
        world: World,
        progress: Progress,
        status_of: Callable[[Outcome], str],
    ) -> None:
        """Make a run of this order; nothing is opened yet.

        `status_of` says how a run ended, for the ledger to note.
        """
        self.outcome = Outcome(tests=len(order.tests))
        self._order = order
        self._client = client
        self._world = world
        self._progress = progress
        self._status_of = status_of
        self._plan = landing_plan(order, world.run_id)
        self._lake = LocalLake(order.lake_path)
        self._feeds, self._personal = self._plan.feeds, self._plan.personal
        self._fetching: Fetching | None = None
        self._classic: ClassicPages | None = None
        self._followers = Followers()
        self._transfers = Transfers(
            order.pipeline.media,
            MediaParts(self._lake, order.name, order.pipeline.media.keep_free_bytes),
            world.clock,
            world.random,
            world.patience,
        )
        self._records: Records | None = None
        self._read_catalogue: Catalogue | None = None
        self._stop_early: str | None = None
        self._backfill: Backfill | None = None
        self._added = Rebuilt()

    def stop(self, because: str) -> None:
        """Fetch nothing more, land what was fetched, and end."""
        self._stop_early = self._stop_early or because
        if self._fetching is not None:
            self._fetching.stop(because)
        self._transfers.stop(self._world.patience.grace_seconds)

    async def run(self) -> None:
        """Export the pipeline; fills `outcome` as far as it gets.

        Raises what ends a run: StateError, LakeError, AlreadyRunning. What ends only
        the fetching (refused credentials, an API out of reach, a limit) stands in
        `outcome.stopped`: then all that was fetched has landed.
        """
        async with self._stores_open() as ledger:
            records = self._records = Records(ledger)
            stores = Stores(self._world.clock, self._world.random, ledger, records, self._personal)
            noted = dialect_note(self._order.connection)
            learned = await ledger.call(ledger.ledger.note, noted)
            looks = Looks(
                (),
                remembered(learned, self._order.pipeline.pagination),
                first_dialect=first_dialect(self._order.pipeline.pagination),
                audit=self._order.audit,
                most_tests=1 if self._order.one_by_one else self._order.connection.concurrency,
                most_pages=self._order.connection.concurrency,
            )
            landing = Landing(
                self._plan,
                self._lake,
                ledger,
                records,
                self.outcome.recovery.next_batch,
                lambda: self._notes(looks),
            )
            landing.tally.rows += self._added.made
            landing.tally.files += self._added.files
            landing.tally.bytes += self._added.bytes
            self.outcome.tally = landing.tally
            self._progress.begin_pipeline(self._order.name, 0, landing.tally, self._client)
            await self._stages(looks, landing, stores)
            if self._feeds.product_of:
                await ledger.call(ledger.ledger.keep_note, PRODUCTS, _packed_products(self._feeds))
            if self._read_catalogue is not None:
                kept = self._read_catalogue.kept() if self.outcome.stopped is not None else ""
                await ledger.call(ledger.ledger.keep_note, CATALOGUE_UNDER_WAY, kept)
            if _packed(looks.dialect) != learned:
                await ledger.call(ledger.ledger.keep_note, noted, _packed(looks.dialect))
            if self._backfill is not None:
                asked = (ledger.ledger, self._order, self._feeds, self._backfill)
                self.outcome.notes.append((await ledger.call(left_of, *asked)).sentence())
            status = self._status_of(self.outcome)
            await ledger.call(ledger.ledger.end_run, self._world.run_id, status)

    def _notes(self, looks: Looks) -> dict[str, str]:
        """Return what a fresh machine needs to know beside the records."""
        notes = {**self._personal.notes(), TABLES: tables_asked(self._order.pipeline)}
        if self._feeds.product_of:
            notes[PRODUCTS] = _packed_products(self._feeds)
        if self._plan.backfill is not None:
            notes[BACKFILL] = self._plan.backfill.packed()
        return notes | {dialect_note(self._order.connection): _packed(looks.dialect)}

    async def _stages(self, looks: Looks, landing: Landing, stores: Stores) -> None:
        """Run fetch, keep and land side by side until all that was fetched has landed."""
        budget, clock = ByteBudget(), self._world.clock
        put_items, items = create_memory_object_stream[Item](_ITEMS_UNDER_WAY)
        put_kept, kept = create_memory_object_stream[Kept](_FRAMES_UNDER_WAY)
        land_every_seconds = self._lake.land_every_seconds
        drain = Drain(
            landing,
            land_every_seconds,
            clock,
            self._progress,
            self._tell_look,
            self._tell_answer,
            self._wake,
        )
        # Each stage closes its own ends; these close what an error leaves before a stage begins.
        with single_error(), put_items, items, put_kept, kept:
            async with create_task_group() as stages:
                stages.start_soon(drain.run, kept, budget)
                left = await pass_on(put_kept.clone(), stores, budget, self._transfers.parts)
                self.outcome.notes += left.sentences()
                stages.start_soon(keep, items, put_kept, stores.ledger, clock)
                queue = Queue(put_items, budget)
                sources = await self._sources(looks, stores, queue, left)
                fetching = Fetching(sources, self._client, stores, self._world.patience)
                self._fetching = fetching
                if self._stop_early is not None:
                    fetching.stop(self._stop_early)
                async with put_items, self._transfers_open():
                    await fetching.fetch(self._order.connection.concurrency)
        self.outcome.stopped = fetching.stopped
        await to_thread.run_sync(self._tidy_parts)

    @asynccontextmanager
    async def _transfers_open(self) -> AsyncIterator[None]:
        """Have files transferred while the block runs, where there may be any."""
        if not files_asked(self._order):
            yield
            return
        async with self._transfers.open(self._order.connection, Watch(self._wake, self._end_by)):
            yield

    def _tidy_parts(self) -> None:
        """After all that is due was met, forget the parts of files that are not due any more."""
        order = self._order
        if (
            self.outcome.stopped is None
            and not order.only
            and order.tables == order.pipeline.tables
        ):
            self._transfers.parts.keep_only(self._followers.files_not_had)

    async def _sources(
        self, looks: Looks, stores: Stores, queue: Queue, left: Left
    ) -> Sequence[Source]:
        """Return where errands come from, those first that go first."""
        self._followers = self._followers_of(stores, queue, left)
        self.outcome.failures = self._followers.failures
        self._progress.follow_ups_left = lambda: self._followers.left
        transfers = self._transfers
        self._progress.transfers = lambda: (transfers.under_way, transfers.bytes_received)
        pages = Pages(looks, stores, queue, left.pages, self._not_known, self._anew)
        self._classic = self._classic_pages(stores, queue, left)
        listings = (pages, self._classic)
        # A backfill ends with one test before it begins with the next.
        follow = self._followers.sources
        all_but_first = (*follow, *listings) if self._backfill else (*listings, *follow)
        kept = await stores.ledger.call(stores.ledger.ledger.note, CATALOGUE_UNDER_WAY)
        catalogue = self._catalogue(looks, stores, queue, left, kept)
        if catalogue is not None:
            self._read_catalogue = catalogue
            return (catalogue, *all_but_first)
        await self._begin(self._order.tests, looks, stores)
        return all_but_first

    def _classic_pages(self, stores: Stores, queue: Queue, left: Left) -> ClassicPages:
        """Return the looks at classic tests, of which there are none yet."""
        order, feeds = self._order, self._feeds
        told = Told(
            found=lambda test: feeds.product_of.update({test: CLASSIC}),
            hint=lambda test: hint(order, feeds, test, asked_as_classic=True),
        )
        return ClassicPages(order, stores, queue, left.pages, told, self._anew)

    def _not_known(self, test_id: str) -> str | None:
        """Have a test that today's API does not know asked for as a classic one, or say why not."""
        if lists_classic(self._order) and not self._feeds.product_of.get(test_id):
            assert self._classic is not None  # noqa: S101 - made before
            self._classic.add([Work(test_id)])
            return None
        return hint(self._order, self._feeds, test_id, asked_as_classic=False)

    def _followers_of(self, stores: Stores, queue: Queue, left: Left) -> Followers:
        """Return what follows from listings, or what a backfill asks once more."""
        backfill = self._backfill
        paid = left.others.keys() if backfill is None else left.since(backfill.began_at_us)
        dues = dues_of(self._feeds) if backfill is None else dues_afresh(backfill.began_at_us)
        return followers(self._order, self._plan, stores, queue, self._transfers, Asked(dues, paid))

    async def _begin(self, tests: Sequence[str], looks: Looks, stores: Stores) -> None:
        """Begin with these tests: listings to look at, and what is due of those known."""
        assert self._classic is not None  # noqa: S101 - made before
        ledger = stores.ledger
        if self._order.filter is not None:
            await ledger.call(self._refuse_shared, ledger.ledger, tests)
        if self._backfill is None:
            work = await ledger.call(self._work, ledger.ledger, tests)
            due = await ledger.call(ledger.ledger.tests_due)
        else:
            listed = [test for test in tests if listing_of(self._order, self._feeds, test)]
            work, due = await ledger.call(begun, ledger.ledger, self._backfill, listed)
            tests = [*(one.test_id for one in work), *due]
        self._followers.expect([test.test_id for test in work])
        kinds = {test: listing_of(self._order, self._feeds, test) for test in tests}
        looks.add(test for test in work if kinds[test.test_id] is SESSION_RESULTS)
        self._classic.add(test for test in work if kinds[test.test_id] is COMPLETED_SESSIONS)
        for test_id in tests:
            if why := misplaced(self._order, self._feeds, test_id):
                self._progress.tests += 1
                await self._classic.fail(test_id, why)
        self._followers.known({test: due.get(test, Due()) for test in tests})
        self._progress.tests += len(work)
        self.outcome.tests = len(tests)

    def _catalogue(
        self, looks: Looks, stores: Stores, queue: Queue, left: Left, kept: str | None
    ) -> Catalogue | None:
        """Return the catalogue to read first, where tests or their products are not known."""
        need = catalogue_need(self._order, self._feeds.product_of)
        if need is None:
            return None
        return Catalogue(
            queue.put,
            need,
            in_inbox=left.others,
            kept=recalled(kept, self._world.now_us()),
            on_found=lambda found: self._found(found, looks, stores),
        )

    async def _found(self, found: Found, looks: Looks, stores: Stores) -> None:
        """Go on with the tests that the catalogue has found, and their products."""
        order = self._order
        tests: Sequence[str] = order.tests
        if order.filter is not None:
            if found.failure is not None:
                self._stop_fetching("undiscovered", found)
                return
            tests = selected(order.filter, found.tests, order.pipeline.tables)
            tests = [test for test in tests if not order.only or test in order.only]
        products = {test.test_id.lower(): product_of(test) for test in found.tests}
        if found.failure is None:
            known = self._feeds.product_of
            products = {test: products.get(test) or known.get(test, "") for test in tests}
        self._feeds.product_of.update({test: products[test] for test in tests if test in products})
        ledger = stores.ledger
        await ledger.call(ledger.ledger.keep_note, PRODUCTS, _packed_products(self._feeds))
        if found.failure is None:
            catalogued = Catalogued(found.pages, tests if order.filter is not None else ())
            note = msgspec.json.encode(catalogued).decode()
            await ledger.call(ledger.ledger.keep_note, CATALOGUE, note)
        await self._begin(tests, looks, stores)

    def _stop_fetching(self, because: str, found: Found) -> None:
        if self._fetching is not None:
            self._fetching.stop(because, found.failure)

    def _tell_look(self, look: Looked) -> None:
        """Go on with a test whose look has ended, now that its pages have been read."""
        if self._records is None or ended(look) is None:
            return
        packed = self._records.packed.get(look.test_id)
        if packed is None or look.failed is not None:
            self._followers.not_listed(look.test_id)
        else:
            due = packed.due if self._backfill is None else packed.afresh
            self._followers.listed(look.test_id, Due(due, packed.newest_us))
        self._wake()

    def _tell_answer(self, answer: Answer) -> None:
        self._followers.landing(answer)  # those of now, which are none at first

    def _wake(self) -> None:
        if self._fetching is not None:
            self._fetching.wake()

    def _end_by(self, error: EtlError) -> None:
        """End the fetching by an error that one transfer has met, and any other would."""
        if self._fetching is not None:
            self._fetching.stop("failed", error)
        self._transfers.stop(0.0)

    @asynccontextmanager
    async def _stores_open(self) -> AsyncIterator[LedgerThread]:
        """Lock and open ledger and lake and put them right, without a request."""
        stack = ExitStack()
        try:
            yield LedgerThread(await to_thread.run_sync(self._open_and_recover, stack))
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(stack.close)

    def _open_and_recover(self, stack: ExitStack) -> Ledger:
        ledger = stack.enter_context(open_ledger(self._order.state_dir, self._order.name))
        stack.enter_context(self._lake.locked(self._order.name))
        if ledger.set_aside is not None:
            self.outcome.notes.append(f"An unreadable ledger was set aside: {ledger.set_aside}.")
        recall_products(self._feeds, ledger.note(PRODUCTS))
        self.outcome.recovery = recover(self._lake, ledger, self._plan)
        self.outcome.notes += self.outcome.recovery.sentences()
        recall_products(self._feeds, ledger.note(PRODUCTS))  # an adopted commit may tell more
        self._add_tables(ledger)
        self._refuse_shared(ledger, self._order.tests)
        self._take_up_backfill(ledger)
        ledger.begin_run(self._world.run_id, self._world.now_us())
        return ledger

    def _take_up_backfill(self, ledger: Ledger) -> None:
        """Go on with a backfill or begin one, where this run is to do so.

        Any other run lands what the last one has left in the inbox as that one would.
        """
        last = noted(ledger.note(BACKFILL))
        if self._order.span is not None:
            now_us = self._world.now_us()
            found = taken_up(ledger, self._order, self._order.span, now_us)
            self._backfill, said = found
            self.outcome.notes += [] if said is None else [said]
        self._plan = replace(self._plan, backfill=self._backfill or last)

    @property
    def _anew(self) -> Anew:
        return Anew(self._plan.backfill, begins=self._backfill is not None)

    def _refuse_shared(self, ledger: Ledger, tests: Sequence[str]) -> None:
        pipeline = self._order.pipeline
        refuse_shared(self._lake, ledger, pipeline.name, tests, pipeline.tables)

    def _add_tables(self, ledger: Ledger) -> None:
        """Where a table was added, fill it from kept answers, and have the rest of it asked."""
        names, known = tables_asked(self._order.pipeline), ledger.note(TABLES) or ""
        added = set(names.split()) - set(known.split())
        if added and ledger.commits_known():
            self._added = add_tables(self._lake, ledger, self._plan, added, {TABLES: names})
            self.outcome.recovery.next_batch = max(ledger.commits_known()) + 1
            self.outcome.notes += self._added.sentences()
        if names != known:
            ledger.keep_note(TABLES, names)

    def _work(self, ledger: Ledger, tests: Sequence[str]) -> list[Work]:
        """Return the tests to look at: those of the round, or those that were named."""
        tests = [test for test in tests if listing_of(self._order, self._feeds, test) is not None]
        if self._order.only or not tests:
            return [Work(test) for test in tests]
        return ledger.begin_round(
            SESSION_RESULTS.name, tests, self._world.now_us(), afresh=self._order.afresh
        )


def _packed(dialect: Dialect) -> str:
    """Return what has been learned as text; nothing while no answer has confirmed it."""
    return msgspec.json.encode(dialect).decode() if dialect.settled else ""


def _packed_products(feeds: Feeds) -> str:
    return msgspec.json.encode(feeds.product_of, order="deterministic").decode()
