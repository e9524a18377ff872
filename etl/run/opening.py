"""Opens a pipeline's ledger and lake, and puts them right before anything is asked."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from anyio import CancelScope, to_thread

from etl.lake.adding import add_tables
from etl.lake.claims import refuse_shared
from etl.lake.landing_plan import LandingPlan, landing_plan
from etl.lake.local import LocalLake
from etl.lake.rebuilding import Rebuilt
from etl.lake.recovery import recover
from etl.ledger.afresh import BACKFILL, Backfill, noted
from etl.ledger.due import Feeds
from etl.ledger.store import Ledger, open_ledger
from etl.plan.orders import PRODUCTS, TABLES, Order, dialect_note, recall_products, tables_asked
from etl.run.backfilling import Anew, taken_up
from etl.run.outcome import Outcome
from etl.run.world import World


@dataclass(frozen=True, slots=True)
class Opened:
    """A pipeline's stores, open and put right, and what a run begins with.

    `backfill` is the one that this run goes on with, `added` what was made of kept answers for
    tables that are new, `dialect` what is noted of how the API's pages are spelled.
    """

    order: Order
    lake: LocalLake
    ledger: Ledger
    plan: LandingPlan
    backfill: Backfill | None
    added: Rebuilt
    dialect: str | None

    @property
    def feeds(self) -> Feeds:
        """What is asked session by session, and which products are known."""
        return self.plan.feeds

    @property
    def anew(self) -> Anew:
        """Which listings are read anew."""
        return Anew(self.plan.backfill, begins=self.backfill is not None)


@asynccontextmanager
async def open_stores(
    order: Order, lake: LocalLake, world: World, outcome: Outcome
) -> AsyncIterator[Opened]:
    """Lock and open ledger and lake and put them right, without a request.

    What is found is told to `outcome`. Raises StateError, LakeError, ConfigError, AlreadyRunning.
    """
    stack = ExitStack()
    try:
        yield await to_thread.run_sync(_open, order, lake, world, outcome, stack)
    finally:
        with CancelScope(shield=True):
            await to_thread.run_sync(stack.close)


def _open(
    order: Order, lake: LocalLake, world: World, outcome: Outcome, stack: ExitStack
) -> Opened:
    plan = landing_plan(order, world.run_id)
    ledger = stack.enter_context(open_ledger(order.state_dir, order.name))
    stack.enter_context(lake.locked(order.name))
    if ledger.set_aside is not None:
        outcome.notes.append(f"An unreadable ledger was set aside: {ledger.set_aside}.")
    recall_products(plan.feeds, ledger.note(PRODUCTS))
    outcome.recovery = recover(lake, ledger, plan)
    outcome.notes += outcome.recovery.sentences()
    recall_products(plan.feeds, ledger.note(PRODUCTS))  # an adopted commit may tell more
    added = _tables_added(order, lake, ledger, plan, outcome)
    refuse_shared(lake, ledger, order.name, order.tests, order.pipeline.tables)
    last = noted(ledger.note(BACKFILL))
    backfill = _backfill(order, ledger, world, outcome)
    ledger.begin_run(world.run_id, world.now_us())
    # Any other run lands what the last backfill has left in the inbox as that one would.
    plan = replace(plan, backfill=backfill or last)
    dialect = ledger.note(dialect_note(order.connection))
    return Opened(order, lake, ledger, plan, backfill, added, dialect)


def _tables_added(
    order: Order, lake: LocalLake, ledger: Ledger, plan: LandingPlan, outcome: Outcome
) -> Rebuilt:
    """Where a table was added, fill it from kept answers, and have the rest of it asked."""
    rebuilt, names, known = Rebuilt(), tables_asked(order.pipeline), ledger.note(TABLES) or ""
    added = set(names.split()) - set(known.split())
    if added and ledger.commits_known():
        rebuilt = add_tables(lake, ledger, plan, added, {TABLES: names})
        outcome.recovery.next_batch = max(ledger.commits_known()) + 1
        outcome.notes += rebuilt.sentences()
    if names != known:
        ledger.keep_note(TABLES, names)
    return rebuilt


def _backfill(order: Order, ledger: Ledger, world: World, outcome: Outcome) -> Backfill | None:
    """Go on with a backfill or begin one, where this run is to do so."""
    if order.span is None:
        return None
    backfill, said = taken_up(ledger, order, order.span, world.now_us())
    outcome.notes += [] if said is None else [said]
    return backfill
