"""Other processes help a rebuild: to the same end, and none outlives it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.errors import LakeError
from etl.lake.landing_plan import landing_plan
from etl.lake.local import LocalLake
from etl.lake.rebuilding import Rebuilt, rebuild
from etl.lake.remaking import Job
from etl.lake.workers import open_workers
from etl.ledger.store import open_ledger
from etl.plan.orders import Asked, orders
from tests.exporting import Project
from tests.test_rebuilding import ALL, content, opened

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(autouse=True)
def _small_lakes_are_enough(monkeypatch: pytest.MonkeyPatch, blockbuster: BlockBuster) -> None:
    """Have a small lake read by workers, a few answers at a time."""
    monkeypatch.setattr("etl.lake.workers._ENOUGH_BYTES", 1)
    monkeypatch.setattr("etl.lake.workers._JOBS_AHEAD", 1)
    monkeypatch.setattr("etl.lake.commits._ANSWERS_AT_ONCE", 2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    blockbuster.deactivate()


def rebuilt(project: Project) -> Rebuilt:
    (order,) = orders(project.config(), (), Asked())
    lake, plan = LocalLake(order.lake_path), landing_plan(order, "again")
    with open_ledger(order.state_dir, order.name) as ledger, lake.locked(order.name):
        return rebuild(lake, ledger, plan, [table.name for table in plan.tables])


def ends(job: Job) -> None:
    """End a worker as a lack of memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


async def test_what_workers_make_is_the_same_cell_by_cell(tmp_path: Path):
    async with opened(tmp_path, 9, 4, 3) as project:
        await project.export()
        before = content(project)
        told = await to_thread.run_sync(rebuilt, project)
        assert content(project) == before
        assert told.made["tasks"] == len(before["tasks"])
        assert told.carried.keys() == {"sessions"}


async def test_a_worker_that_dies_ends_the_rebuild_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with opened(tmp_path, 9, written="sessions, session_details") as project:
        await project.export()
        before, files = content(project), set(project.lake.rglob("*"))
        monkeypatch.setattr("etl.lake.workers.remake", ends)
        with pytest.raises(LakeError, match="has died"):
            await to_thread.run_sync(rebuilt, project)
        assert (content(project), set(project.lake.rglob("*"))) == (before, files)


async def test_where_something_is_hidden_the_rebuild_makes_all_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.lake.workers.remake", ends)
    async with opened(tmp_path, 3, written=ALL) as project:
        await project.export()
        project.write(
            "    tables: [sessions, session_details]\n    keep_bodies: false\n"
            "    lake: {url: ./lake, partition_by: [test_id]}\n"
            "    columns: {session_details: {exclude: [audience_id]}}\n"
        )
        await to_thread.run_sync(rebuilt, project)
        rows = project.lake_rows("session_details")
        assert [row["audience_id"] for row in rows] == [None] * 3


@pytest.mark.parametrize(("processors", "size"), [(1, 10**9), (None, 10**9), (2, 0)])
def test_one_processor_or_a_small_lake_needs_no_workers(
    processors: int | None, size: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.cpu_count", lambda: processors)
    with open_workers(size) as workers:
        assert workers is None


WORKING = """
import os, sys
from etl.lake.workers import open_workers
with open_workers(1 << 30) as workers:
    print(workers.submit(os.getpid).result(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def working() -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start a process that has workers; yield it, and the id of one of these."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", WORKING]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as started:
        assert started.stdout is not None
        yield started, int(started.stdout.readline())


def test_a_worker_ends_with_the_process_that_was_killed():
    with working() as (started, _):
        started.kill()
        # The workers hold the pipes, too: these end when the last of them has.
        assert started.communicate(timeout=60)[0] == ""


def test_what_is_typed_at_the_terminal_ends_no_worker():
    with working() as (started, worker):
        os.kill(worker, signal.SIGINT)
        assert started.communicate() == ("", "")
        assert started.returncode == 0
