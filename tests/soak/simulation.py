"""Runs seeds of the simulation, one on each core; `make sim SEED=…` tells the trace of one."""

import os
from collections.abc import Iterator

import anyio
from anyio import to_process

from tests.sim.journey import run_seed
from tests.soak.turns import Part, Turn


async def run(turn: Turn) -> None:
    """Try seeds until the turn is over or one fails."""
    seeds = turn.seeds()
    async with anyio.create_task_group() as group:
        for _ in range(os.cpu_count() or 1):
            group.start_soon(_try, seeds, turn)


async def _try(seeds: Iterator[str], turn: Turn) -> None:
    for seed in seeds:
        told = await to_process.run_sync(run_seed, int(seed))
        if told.error is not None:
            turn.case = seed  # another core has begun with the next meanwhile
            raise AssertionError(f"{told.error}\nits trace: make sim SEED={seed}")
        turn.count(
            runs=told.lives,
            kills=told.kills,
            requests=told.requests,
            faults=sum(told.struck.values()),
            virtual_hours=round(told.virtual_seconds / 3600),
        )


PART = Part("simulation", "kills, faults and changes together lose and double nothing", run)
