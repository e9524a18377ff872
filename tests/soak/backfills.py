"""Kills a backfill at random moments until it has come through, and checks every cell."""

import tempfile
from pathlib import Path

from etl.sandbox.server import SandboxOptions
from tests.crash.backfills import TABLES, backfill_under_kills
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import open_project
from tests.soak.turns import Part, Turn, Untried

SESSIONS = 5_000
KILLS_A_CASE = 20


async def run(turn: Turn) -> None:
    """Try seeds: each is one backfill of a test, killed twenty times, beside nightly runs."""
    if lack := lacking():
        raise Untried(lack)
    options = SandboxOptions(rate_requests=None, latency_ms=20)
    with tempfile.TemporaryDirectory() as place:
        async with open_zygote(Path(place)) as zygote:
            for seed in turn.seeds():
                folder = Path(place) / seed
                folder.mkdir()
                async with open_project(folder, SESSIONS, options=options, extra=TABLES) as project:
                    told = await backfill_under_kills(
                        project, zygote, kills=KILLS_A_CASE, within_seconds=1.8, seed=int(seed)
                    )
                turn.count(kills=told.kills, calls=told.calls, answers=told.sessions)
                turn.highest(repaid=told.repaid)


PART = Part("backfills", "a backfill killed at random moments leaves each row once, and new", run)
