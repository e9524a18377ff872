"""What a run's landing is about: where, which tables, under which layout and names."""

from collections.abc import Sequence
from dataclasses import dataclass

from etl.client.values import Scope
from etl.lake.batch import Shape, shape_of
from etl.lake.partitions import Layout
from etl.lake.personal import PersonalData, personal_data
from etl.ledger.afresh import Backfill
from etl.ledger.due import Feeds
from etl.plan.orders import Order, feeds_of
from etl.tables import rejects
from etl.tables.registry import tables
from etl.tables.values import RUN_COLUMNS, AnyTable


@dataclass(frozen=True, slots=True)
class LandingPlan:
    """What a run's landing is about: where, which tables, under which layout and names.

    `replaces` says that what the API answers differently takes the place of what has landed;
    `backfill` is the last one that was begun, by this run or another.
    """

    pipeline: str
    run_id: str
    tables: Sequence[AnyTable]
    partition_by: tuple[str, ...]
    feeds: Feeds
    personal: PersonalData
    keeps_bodies: bool = True
    replaces: bool = False
    backfill: Backfill | None = None
    downloads: frozenset[str] = frozenset()
    """The tables whose rows wait for their files."""


def landing_plan(order: Order, run_id: str) -> LandingPlan:
    """Return what the landing of an order is about; no product type is known yet."""
    pipeline = order.pipeline
    return LandingPlan(
        pipeline=pipeline.name,
        run_id=run_id,
        tables=[tables()[name] for name in pipeline.tables],
        partition_by=tuple(pipeline.lake.partition_by),
        feeds=feeds_of(pipeline),
        personal=personal_data(pipeline, order.hash_key),
        keeps_bodies=pipeline.keeps_bodies,
        replaces=pipeline.edited == "replace",
        downloads=frozenset(name for name in pipeline.tables if pipeline.files(name).download),
    )


def shapes_of(plan: LandingPlan) -> dict[str, Shape]:
    """Return how the files of each table look, by its name; those of `rejects` too."""
    shapes = {
        table.name: shape_of(
            layout_of(table, plan.partition_by), (*table.columns, *RUN_COLUMNS), table.version
        )
        for table in plan.tables
    }
    layout = Layout(rejects.NAME, plan.partition_by, None)
    shapes[rejects.NAME] = shape_of(layout, (*rejects.COLUMNS, *RUN_COLUMNS), rejects.VERSION)
    return shapes


def layout_of(table: AnyTable, partition_by: tuple[str, ...]) -> Layout:
    """Return how a table is partitioned; what is no test's is not."""
    if table.endpoint.is_of_account:
        return Layout(table.name, (), None)
    of_session = table.endpoint.scope is Scope.SESSION
    return Layout(table.name, partition_by, table.dates, of_session)
