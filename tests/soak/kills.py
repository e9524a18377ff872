"""Kills exports at random moments, over and over, and checks every row and request."""

import tempfile
from pathlib import Path

from tests.soak.turns import Part, Turn
from tests.test_crash import kill_again_and_again, project_of

SIZES = [1_700, 30, 2_600, 501, 9_800, 3_000]
KILLS_A_CASE = 30


async def run(turn: Turn) -> None:
    """Try seeds: each is one export of `SIZES`, killed until it has come through."""
    for seed in turn.seeds():
        with tempfile.TemporaryDirectory() as place:
            async with project_of(Path(place), SIZES, latency_ms=400) as project:
                await kill_again_and_again(project, KILLS_A_CASE, int(seed))
        turn.count(kills=KILLS_A_CASE)


PART = Part("kills", "a process killed at random moments loses, doubles and repays nothing", run)
