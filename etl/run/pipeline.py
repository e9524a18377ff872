"""Runs one pipeline: opens its stores, wires fetch → keep → land, drains and closes them."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import msgspec
from anyio import (
    CancelScope,
    EndOfStream,
    create_memory_object_stream,
    create_task_group,
    move_on_after,
    to_thread,
)
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from etl.client.http import Client
from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.config.models import Pipeline
from etl.lake.claims import refuse_shared
from etl.lake.landing import Kept, Landing, LandingPlan, Records, Tally
from etl.lake.local import LocalLake
from etl.lake.recovery import Recovery, recover
from etl.ledger.store import Ledger, Work, open_ledger
from etl.ledger.threaded import LedgerThread
from etl.pacing.clock import Clock
from etl.paging.dialect import Dialect, first_dialect, known_dialect
from etl.paging.values import PageView
from etl.plan import Order
from etl.report.progress import Progress
from etl.run.errors import single_error
from etl.run.fetching import Fetching, Patience, Stop
from etl.run.keeping import keep
from etl.run.looks import Looks
from etl.run.queue import ByteBudget, Item, Queue, size_of
from etl.run.stores import Stores
from etl.tables.personal import personal_data
from etl.tables.registry import endpoints, tables
from etl.tables.sessions import SESSION_RESULTS, SessionsPage

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


@dataclass(slots=True)
class Outcome:
    """What came of a pipeline: filled in as it goes, so that an error loses nothing of it."""

    tally: Tally = field(default_factory=Tally)
    recovery: Recovery = field(default_factory=Recovery)
    notes: list[str] = field(default_factory=list)
    stopped: Stop | None = None


class PipelineRun:
    """One pipeline under way. `stop` may be called at any time, also before it fetches."""

    def __init__(self, order: Order, client: Client, world: World, progress: Progress) -> None:
        """Make a run of this order; nothing is opened yet."""
        self.outcome = Outcome()
        self._order = order
        self._personal = personal_data(order.pipeline, order.hash_key)
        self._client = client
        self._world = world
        self._progress = progress
        self._fetching: Fetching | None = None
        self._stop_early: str | None = None

    def stop(self, because: str) -> None:
        """Fetch nothing more, land what was fetched, and end."""
        self._stop_early = self._stop_early or because
        if self._fetching is not None:
            self._fetching.stop(because)

    async def run(self) -> None:
        """Export the pipeline; fills `outcome` as far as it gets.

        Raises what ends a run: StateError, LakeError, AlreadyRunning. What ends only
        the fetching (refused credentials, an API out of reach, a limit) stands in
        `outcome.stopped`: then all that was fetched has landed.
        """
        async with self._stores_open() as (lake, ledger, work):
            records = Records(ledger)
            stores = Stores(self._world.clock, self._world.random, ledger, records, self._personal)
            learned = await ledger.call(ledger.ledger.note, self._dialect_note)
            looks = Looks(
                work,
                _dialect(self._order.pipeline, learned),
                audit=self._order.audit,
                most_tests=1 if self._order.one_by_one else self._order.connection.concurrency,
                most_pages=self._order.connection.concurrency,
            )
            landing = Landing(
                LandingPlan(
                    pipeline=self._order.name,
                    run_id=self._world.run_id,
                    tables=[tables()[name] for name in self._order.pipeline.tables],
                    partition_by=tuple(self._order.pipeline.lake.partition_by),
                    personal=self._personal,
                ),
                lake,
                ledger,
                records,
                self.outcome.recovery.next_batch,
                lambda: self._notes(looks.dialect),
            )
            self.outcome.tally = landing.tally
            self._progress.begin_pipeline(self._order.name, len(work), landing.tally, self._client)
            await self._stages(looks, landing, stores, lake.land_every_seconds)
            if looks.dialect.settled and _packed(looks.dialect) != learned:
                await ledger.call(
                    ledger.ledger.keep_note, self._dialect_note, _packed(looks.dialect)
                )

    async def _stages(
        self, looks: Looks, landing: Landing, stores: Stores, land_every_seconds: float
    ) -> None:
        """Run fetch, keep and land side by side until all that was fetched has landed."""
        budget = ByteBudget()
        put_items, items = create_memory_object_stream[Item](_ITEMS_UNDER_WAY)
        put_kept, kept = create_memory_object_stream[Kept](_FRAMES_UNDER_WAY)
        with single_error():
            async with create_task_group() as stages:
                stages.start_soon(self._land, kept, landing, budget, land_every_seconds)
                in_hand = await self._land_the_inbox(put_kept.clone(), stores.ledger, budget)
                stages.start_soon(keep, items, put_kept, stores.ledger, self._world.clock)
                fetching = Fetching(looks, self._client, stores, self._world.patience, in_hand)
                self._fetching = fetching
                if self._stop_early is not None:
                    fetching.stop(self._stop_early)
                await fetching.run(Queue(put_items, budget), self._order.connection.concurrency)
        self.outcome.stopped = fetching.stopped

    async def _land(
        self,
        kept: MemoryObjectReceiveStream[Kept],
        landing: Landing,
        budget: ByteBudget,
        land_every_seconds: float,
    ) -> None:
        """Take kept frames in order, and close a batch when it is full, old, or the last."""
        clock = self._world.clock
        began_at = clock.monotonic()
        async with kept:
            while True:
                due_in = began_at + land_every_seconds - clock.monotonic()
                frame = None
                try:
                    with move_on_after(None if landing.is_empty else max(0.0, due_in)):
                        frame = await kept.receive()
                except EndOfStream:
                    break
                if frame is not None:
                    if landing.is_empty:
                        began_at = clock.monotonic()
                    await landing.add(frame)
                    budget.give_back(sum(size_of(item) for item in frame.items))
                if landing.is_due or frame is None:
                    await self._close_batch(landing)
        await self._close_batch(landing)

    async def _close_batch(self, landing: Landing) -> None:
        closed = await landing.close_batch()
        for row in closed.answers:
            self._progress.page_landed(row.answer.test_id or "", dict(row.rows))
        for look in closed.looks:
            self._progress.looked(look)

    async def _land_the_inbox(
        self,
        put_kept: MemoryObjectSendStream[Kept],
        ledger: LedgerThread,
        budget: ByteBudget,
    ) -> dict[str, dict[str, PageView]]:
        """Pass on what an earlier process paid for; return its pages, by test and spelling."""
        in_hand: dict[str, dict[str, PageView]] = {}
        async with put_kept:
            for number in await ledger.call(ledger.ledger.frames):
                answers = await ledger.call(ledger.ledger.frame, number)
                items = [Fetched(answer, _content(answer)) for answer in answers]
                await budget.take(sum(size_of(item) for item in items))
                await put_kept.send(Kept(number, items))
                for item in items:
                    if isinstance(item.content, SessionsPage):
                        pages = in_hand.setdefault(item.answer.test_id or "", {})
                        view = self._personal.view(item.answer, item.content)
                        pages[item.answer.object_id or ""] = view
        return in_hand

    def _notes(self, dialect: Dialect) -> dict[str, str]:
        """Return what every commit tells a fresh machine."""
        learned = {self._dialect_note: _packed(dialect)} if dialect.settled else {}
        return {**self._personal.notes(), **learned}

    @property
    def _dialect_note(self) -> str:
        return f"dialect of {self._order.connection.api_url}"

    @asynccontextmanager
    async def _stores_open(self) -> AsyncIterator[tuple[LocalLake, LedgerThread, list[Work]]]:
        """Lock and open ledger and lake and put them right, without a request."""
        stack = ExitStack()
        lake = LocalLake(self._order.lake_path)
        try:
            ledger = await to_thread.run_sync(self._open_and_recover, stack, lake)
            thread = LedgerThread(ledger)
            work = await thread.call(self._work, ledger)
            yield lake, thread, work
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(stack.close)

    def _open_and_recover(self, stack: ExitStack, lake: LocalLake) -> Ledger:
        ledger = stack.enter_context(open_ledger(self._order.state_dir, self._order.name))
        stack.enter_context(lake.locked(self._order.name))
        if ledger.set_aside is not None:
            self.outcome.notes.append(f"An unreadable ledger was set aside: {ledger.set_aside}.")
        self.outcome.recovery = recover(lake, ledger, self._order.name, self._personal)
        self.outcome.notes += self.outcome.recovery.sentences()
        order = self._order
        refuse_shared(lake, ledger, order.name, order.tests, order.pipeline.tables)
        ledger.begin_run(self._world.run_id, self._world.now_us())
        return ledger

    def _work(self, ledger: Ledger) -> list[Work]:
        """Return the tests to look at: those of the round, or those that were named."""
        if not self._order.whole:
            return [Work(test) for test in self._order.tests]
        return ledger.begin_round(
            SESSION_RESULTS.name,
            self._order.tests,
            self._world.now_us(),
            afresh=self._order.afresh,
        )


def _content(answer: Answer) -> Any:  # noqa: ANN401 - whatever its endpoint reads
    try:
        return endpoints()[answer.endpoint].decode(answer.body)
    except (KeyError, UnreadableBodyError):
        return None


def _packed(dialect: Dialect) -> str:
    return msgspec.json.encode(dialect).decode()


def _dialect(pipeline: Pipeline, learned: str | None) -> Dialect:
    """Return how to spell pages: as learned before, where the pipeline still allows it."""
    if learned is None:
        return first_dialect(pipeline.pagination)
    return known_dialect(msgspec.json.decode(learned, type=Dialect), pipeline.pagination)
