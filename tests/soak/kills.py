"""Kills exports at random moments, over and over, and checks every cell and request."""

import tempfile
from pathlib import Path

from tests.crash.kills import kill_again_and_again
from tests.crash.zygote import lacking, open_zygote
from tests.soak.turns import Part, Turn, Untried
from tests.test_crash import project_of

SIZES = [1_700, 30, 2_600, 501, 9_800, 3_000]
KILLS_A_CASE = 25


async def run(turn: Turn) -> None:
    """Try seeds: each is one export of `SIZES`, killed until it may come through."""
    if lack := lacking():
        raise Untried(lack)
    with tempfile.TemporaryDirectory() as place:
        async with open_zygote(Path(place)) as zygote:
            for seed in turn.seeds():
                folder = Path(place) / seed
                folder.mkdir()
                async with project_of(folder, SIZES, latency_ms=200) as project:
                    killed = await kill_again_and_again(
                        project, zygote, kills=KILLS_A_CASE, within_seconds=1.2, seed=int(seed)
                    )
                turn.count(kills=killed.kills, requests=killed.requests, asked_again=killed.repaid)


PART = Part("kills", "a process killed at random moments loses, doubles and repays nothing", run)
