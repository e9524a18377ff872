"""Sends many processes, each with a state directory of its own, at one lake at once."""

import os
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from subprocess import DEVNULL

import anyio
from anyio import open_process, to_thread

from tests.exporting import Project, open_project
from tests.soak.turns import Part, Turn

PROCESSES, BATCHES = 8, 20


async def crowd_in(project: Project, processes: int, batches: int, seed: int = 0) -> dict[int, int]:
    """Land so many batches, each fought for by all processes; return how often each exit came.

    Whoever loses exits 75 and leaves nothing; after each round the lake is exact.
    """
    random, exits = Random(seed), Counter[int]()
    for _ in range(batches):
        for test in project.tests:
            project.sandbox.complete(test, random.randrange(1, 9))

        async def run(number: int) -> None:
            state = str(project.folder / f"state-{number}")
            environ = {**os.environ, **project.environ(), "ETL_STATE_DIR": state}
            command = project.command("run", "--quiet")
            async with await open_process(
                command, env=environ, stdout=DEVNULL, stderr=DEVNULL
            ) as process:
                exits[await process.wait()] += 1

        async with anyio.create_task_group() as group:
            for number in range(processes):
                group.start_soon(run, number)
        assert exits.keys() <= {0, 75}, exits
        await project.exact()
        assert not await to_thread.run_sync(unfinished, project.lake)
    assert exits[0] >= batches, "somebody wins"
    return exits


def unfinished(lake: Path) -> list[Path]:
    """Return what an attempt has left behind; blocks."""
    return [path for path in lake.rglob("*") if path.name.endswith(".unfinished")]


async def run(turn: Turn) -> None:
    """Try seeds: each is a new lake, and `BATCHES` rounds of `PROCESSES`."""
    for seed in turn.seeds():
        with tempfile.TemporaryDirectory() as place:
            async with open_project(Path(place), 700, 30) as project:
                exits = await crowd_in(project, PROCESSES, BATCHES, int(seed))
        turn.count(batches=BATCHES, won=exits[0], lost=exits[75])


PART = Part("crowd", "many processes at one lake land every row once, and losers exit 75", run)
