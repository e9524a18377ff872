"""Processes that meet at one lake: one wins, the others leave nothing or wait for their turn."""

import os
from pathlib import Path

import anyio
from anyio import to_thread
from blockbuster import BlockBuster

from etl.ledger.locks import held
from etl.sandbox.faults import Fault, FaultKind
from tests.exporting import open_project
from tests.soak.crowd import crowd_in


async def test_of_many_processes_at_one_lake_one_wins_and_the_others_leave_nothing(
    tmp_path: Path, blockbuster: BlockBuster
):
    blockbuster.deactivate()  # starting processes is not what is watched here
    async with open_project(tmp_path, 700, 30) as project:
        exits = await crowd_in(project, processes=4, batches=1)
        assert sum(exits.values()) == 4


async def test_a_run_that_may_wait_for_the_lock_takes_its_turn(
    tmp_path: Path, blockbuster: BlockBuster
):
    blockbuster.deactivate()
    async with open_project(tmp_path, 40) as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, value=503))  # the winner takes a while
        codes: list[int] = []

        async def run() -> None:
            arguments = ("run", "--quiet", "--wait-for-lock", "50s")
            done = await to_thread.run_sync(lambda: project.process(*arguments))
            codes.append(done.returncode)

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(run)
        assert codes == [0, 0]
        assert len(project.sandbox.requests) == 3
        await project.exact()


def test_a_lock_dies_with_its_holder_though_a_forked_child_lives_on(tmp_path: Path):
    path = tmp_path / "lock"
    reading, writing = os.pipe()
    child = 0
    with held(path, "it"):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # lives until the parent lets go
            os._exit(0)
    os.close(reading)
    try:
        with held(path, "it"):
            pass
    finally:
        os.close(writing)
        os.waitpid(child, 0)
