"""`etl plan`: what a run would ask, foreseen without a request."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.lake.bodies import kept_keys
from etl.lake.local import LocalLake
from etl.lake.sizes import sizes_seen
from etl.ledger.reading import open_state
from etl.pacing.clock import SystemClock
from etl.plan.files_ahead import FilesAhead
from etl.plan.forecast import forecast
from etl.plan.orders import Asked, orders
from etl.report.figures import duration, size


def plan_command(path: Path, names: Sequence[str], *, as_json: bool) -> None:
    """Show what a run would ask, and how long that takes."""
    config = load_config(path, names, require_credentials=False)
    now_us = int(SystemClock().time() * 1_000_000)
    found = []
    for order in orders(config, names, Asked()):
        with open_state(config.state_dir, order.name) as state:
            lake = LocalLake(order.lake_path)
            kept = partial(kept_keys, lake, order.name)
            sizes = sizes_seen(lake, order.name)
            found.append(forecast(order, state, now_us, kept, sizes))
    if as_json:
        print_json({"pipelines": [asdict(plan) for plan in found]})
        return
    for plan in found:
        print_table(
            (plan.name, ""),
            [
                ("tests", plan.tests),
                *plan.requests.items(),
                ("requests", sum(plan.requests.values())),
                ("duration", duration(plan.duration_seconds)),
                ("token grants", plan.token_grants),
            ],
        )
        for files in plan.files:
            say(f"  {_estimated(files)}")
        for note in plan.notes:
            say(f"  {note}")


def _estimated(files: FilesAhead) -> str:
    """Return an estimate of the files to come as a sentence that says what it goes by."""
    kind = files.table.replace("_", " ")
    so_many = f"{files.files:,} files of {kind} are to come"
    if files.by_lists:
        so_many = f"About {so_many}, if their lists are like the {files.by_lists:,} read so far"
    if files.bytes is None:
        return f"{so_many}; none has come that would tell how large they are."
    return f"{so_many}: about {size(files.bytes)}, by the average of {files.by_files:,} that came."
