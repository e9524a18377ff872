"""Kills exports of every table at random moments, and checks every cell and file."""

import tempfile
from pathlib import Path

from tests.crash.whole import kill_a_whole_export, open_worst
from tests.crash.zygote import lacking, open_zygote
from tests.soak.turns import Part, Turn, Untried

KILLS_A_CASE = 30


async def run(turn: Turn) -> None:
    """Try seeds: each is a sandbox at its worst, whose export is killed again and again."""
    if lack := lacking():
        raise Untried(lack)
    with tempfile.TemporaryDirectory() as place:
        async with open_zygote(Path(place)) as zygote:
            for seed in turn.seeds():
                folder = Path(place) / seed
                folder.mkdir()
                async with open_worst(folder, int(seed), sessions=40, generating=1) as project:
                    killed = await kill_a_whole_export(
                        project, zygote, kills=KILLS_A_CASE, within_seconds=3.0, seed=int(seed)
                    )
                turn.count(kills=killed.kills, requests=killed.requests, asked_again=killed.repaid)


PART = Part("whole", "kills and the worst of servers change no cell of any table", run)
