"""`etl plan`: what a run would ask, foreseen without a request."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.lake.bodies import kept_keys
from etl.lake.local import LocalLake
from etl.ledger.reading import open_state
from etl.pacing.clock import SystemClock
from etl.plan.forecast import forecast
from etl.plan.orders import Asked, orders
from etl.report.figures import duration


def plan_command(path: Path, names: Sequence[str], *, as_json: bool) -> None:
    """Show what a run would ask, and how long that takes."""
    config = load_config(path, names, require_credentials=False)
    now_us = int(SystemClock().time() * 1_000_000)
    found = []
    for order in orders(config, names, Asked()):
        with open_state(config.state_dir, order.name) as state:
            kept = partial(kept_keys, LocalLake(order.lake_path), order.name)
            found.append(forecast(order, state, now_us, kept))
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
        for note in plan.notes:
            say(f"  {note}")
