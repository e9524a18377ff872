"""Runs one pipeline: wires fetch → keep → land, drains and closes them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from anyio import create_memory_object_stream, create_task_group, to_thread

from etl.client.http import Client
from etl.errors import EtlError
from etl.lake.landing import Kept, Landing
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaParts
from etl.lake.records import Records
from etl.ledger.threaded import LedgerThread
from etl.ledger.values import Looked, ended
from etl.plan.orders import Order, files_asked
from etl.report.progress import Progress
from etl.run.backfilling import left_of
from etl.run.draining import Drain
from etl.run.errors import single_error
from etl.run.fetching import Fetching
from etl.run.inbox import pass_on
from etl.run.keeping import keep
from etl.run.opening import Opened, open_stores
from etl.run.outcome import Outcome
from etl.run.queue import ByteBudget, Item, Queue
from etl.run.sources import Sources
from etl.run.stores import Stores
from etl.run.transfers import Transfers, Watch
from etl.run.world import World

_ITEMS_UNDER_WAY: Final = 512
_FRAMES_UNDER_WAY: Final = 4


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
        self._lake = LocalLake(order.lake_path)
        self._fetching: Fetching | None = None
        self._transfers = Transfers(
            order.pipeline.media,
            MediaParts(self._lake, order.name, order.pipeline.media.keep_free_bytes),
            world.clock,
            world.random,
            world.patience,
        )
        self._stop_early: str | None = None

    def stop(self, because: str) -> None:
        """Fetch nothing more, land what was fetched, and end."""
        self._stop_early = self._stop_early or because
        self._stop_fetching(because)
        self._transfers.stop(self._world.patience.grace_seconds)

    async def run(self) -> None:
        """Export the pipeline; fills `outcome` as far as it gets.

        Raises what ends a run: StateError, LakeError, AlreadyRunning. What ends only
        the fetching (refused credentials, an API out of reach, a limit) stands in
        `outcome.stopped`: then all that was fetched has landed.
        """
        async with open_stores(self._order, self._lake, self._world, self.outcome) as opened:
            ledger, personal = LedgerThread(opened.ledger), opened.plan.personal
            clock, random = self._world.clock, self._world.random
            stores = Stores(clock, random, ledger, Records(ledger), personal)
            sources = Sources(
                opened,
                stores,
                self._transfers,
                self._progress,
                self.outcome,
                lambda error: self._stop_fetching("undiscovered", error),
            )
            landing = self._landing(opened, stores, sources)
            self._progress.begin_pipeline(self._order.name, 0, landing.tally, self._client)
            await self._stages(sources, landing, stores)
            await ledger.call(self._end, opened, sources)

    def _landing(self, opened: Opened, stores: Stores, sources: Sources) -> Landing:
        """Return the landing; what was made of kept answers counts as landed by it."""
        next_batch = self.outcome.recovery.next_batch
        ledger, records = stores.ledger, stores.records
        landing = Landing(opened.plan, self._lake, ledger, records, next_batch, sources.notes)
        landing.tally.rows += opened.added.made
        landing.tally.files += opened.added.files
        landing.tally.bytes += opened.added.bytes
        self.outcome.tally = landing.tally
        return landing

    async def _stages(self, sources: Sources, landing: Landing, stores: Stores) -> None:
        """Run fetch, keep and land side by side until all that was fetched has landed."""
        budget, clock = ByteBudget(), self._world.clock
        put_items, items = create_memory_object_stream[Item](_ITEMS_UNDER_WAY)
        put_kept, kept = create_memory_object_stream[Kept](_FRAMES_UNDER_WAY)

        def on_look(look: Looked) -> None:
            if ended(look) is not None:
                sources.looked(look)
                self._wake()

        drain = Drain(
            landing,
            self._lake.land_every_seconds,
            clock,
            self._progress,
            on_look,
            sources.landing,
            self._wake,
        )
        # Each stage closes its own ends; these close what an error leaves before a stage begins.
        with single_error(), put_items, items, put_kept, kept:
            async with create_task_group() as stages:
                stages.start_soon(drain.run, kept, budget)
                left = await pass_on(put_kept.clone(), stores, budget, self._transfers.parts)
                self.outcome.notes += left.sentences()
                stages.start_soon(keep, items, put_kept, stores.ledger, clock)
                asked = await sources.begin(Queue(put_items, budget), left)
                fetching = Fetching(asked, self._client, stores, self._world.patience)
                self._fetching = fetching
                if self._stop_early is not None:
                    fetching.stop(self._stop_early)
                async with put_items, self._transfers_open():
                    await fetching.fetch(self._order.connection.concurrency)
        self.outcome.stopped = fetching.stopped
        await to_thread.run_sync(self._tidy_parts, sources)

    @asynccontextmanager
    async def _transfers_open(self) -> AsyncIterator[None]:
        """Have files transferred while the block runs, where there may be any."""
        transfers = self._transfers
        self._progress.transfers = lambda: (transfers.under_way, transfers.bytes_received)
        if not files_asked(self._order):
            yield
            return
        async with transfers.open(self._order.connection, Watch(self._wake, self._end_by)):
            yield

    def _tidy_parts(self, sources: Sources) -> None:
        """After all that is due was met, forget the parts of files that are not due any more."""
        order = self._order
        is_whole = not order.only and order.tables == order.pipeline.tables
        if self.outcome.stopped is None and is_whole:
            self._transfers.parts.keep_only(sources.files_not_had)

    def _end(self, opened: Opened, sources: Sources) -> None:
        """Note what the next run is to know, and how this one has ended. Blocks."""
        ledger = opened.ledger
        sources.keep_notes(ledger)
        if opened.backfill is not None:
            left = left_of(ledger, self._order, opened.feeds, opened.backfill)
            self.outcome.notes.append(left.sentence())
        ledger.end_run(self._world.run_id, self._status_of(self.outcome))

    def _wake(self) -> None:
        if self._fetching is not None:
            self._fetching.wake()

    def _stop_fetching(self, because: str, error: EtlError | None = None) -> None:
        if self._fetching is not None:
            self._fetching.stop(because, error)

    def _end_by(self, error: EtlError) -> None:
        """End the fetching by an error that one transfer has met, and any other would."""
        self._stop_fetching("failed", error)
        self._transfers.stop(0.0)
