"""`etl rebuild`: makes tables anew from the answers that the lake keeps, without a request."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from etl.cli.output import print_json, say
from etl.cli.settings import load_config
from etl.errors import UsageError
from etl.lake.landing_plan import landing_plan
from etl.lake.local import LocalLake
from etl.lake.rebuilding import Rebuilt, rebuild
from etl.lake.recovery import recover
from etl.ledger.store import open_ledger
from etl.plan.orders import PRODUCTS, Asked, Order, orders, recall_products
from etl.run.world import this_world
from etl.tables import rejects


def rebuild_command(
    path: Path, tables: Sequence[str], pipelines: Sequence[str], *, as_json: bool
) -> None:
    """Rebuild tables of each pipeline that has them, one commit a pipeline; tell what came of it.

    Raises UsageError for a table that no chosen pipeline has, and what ends a rebuild: then the
    tables of that pipeline are as they were.
    """
    pa.set_memory_pool(pa.system_memory_pool())  # as a run does: its peak is lower
    config = load_config(path, pipelines, require_credentials=False)
    chosen = orders(config, pipelines, Asked())
    known = {name for order in chosen for name in _tables_of(order)}
    for name in tables:
        if name not in known:
            raise UsageError(
                f"No pipeline that is to be rebuilt has a table {name!r}.",
                where=str(config.path),
                advice=f"There are: {', '.join(sorted(known))}.",
            )
    told = []
    for order in chosen:
        wanted = [name for name in _tables_of(order) if name in (tables or known)]
        if wanted:
            rebuilt = _rebuilt(order, wanted)
            told.append(_as_json(order, rebuilt))
            if not as_json:
                _print(order, rebuilt)
    if as_json:
        print_json({"schema_version": 1, "pipelines": told})


def _tables_of(order: Order) -> Sequence[str]:
    return (*order.pipeline.tables, rejects.NAME)


def _rebuilt(order: Order, tables: Collection[str]) -> Rebuilt:
    lake = LocalLake(order.lake_path)
    if lake.identity() is None:
        say(f"{order.name}: nothing has landed yet.")
        return Rebuilt()
    plan = landing_plan(order, this_world().run_id)
    with open_ledger(order.state_dir, order.name) as ledger, lake.locked(order.name):
        recall_products(plan.feeds, ledger.note(PRODUCTS))
        for sentence in recover(lake, ledger, plan).sentences():
            say(sentence)
        return rebuild(lake, ledger, plan, tables)


def _as_json(order: Order, rebuilt: Rebuilt) -> dict[str, object]:
    return {
        "name": order.name,
        "rows": dict(sorted(rebuilt.rows.items())),
        "carried_over": dict(sorted(rebuilt.carried.items())),
        "answers": rebuilt.answers,
        "files": rebuilt.files,
        "bytes": rebuilt.bytes,
        "files_replaced": rebuilt.replaced,
    }


def _print(order: Order, rebuilt: Rebuilt) -> None:
    print(
        f"{order.name}: {rebuilt.answers:,} kept answers read; {rebuilt.files} files in the "
        f"place of {rebuilt.replaced}"
    )
    for name, rows in sorted(rebuilt.rows.items()):
        carried = rebuilt.carried[name]
        how = f", {carried:,} of them carried over as they were" if carried else ""
        print(f"  {name}: {rows:,} rows{how}")
