"""Real kills: whatever instant the process dies at, every row lands once."""

import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from subprocess import DEVNULL

import anyio
import pytest
from anyio import open_process, to_thread
from blockbuster import BlockBuster

from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.crash.kills import kill_again_and_again
from tests.crash.matrix import MODES, SIZES, Ground, Point, faults_of, open_rig
from tests.crash.zygote import Zygote, lacking, open_zygote
from tests.exporting import TESTS, Project

IN_FLIGHT = 8


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests break files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@asynccontextmanager
async def project_of(
    folder: Path, sizes: list[int], *, latency_ms: float = 0, extra: str = ""
) -> AsyncIterator[Project]:
    """Open a project over a sandbox that is slow enough to be killed in the middle."""
    options = SandboxOptions(rate_requests=None, latency_ms=latency_ms)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, TESTS[: len(sizes)])
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(project.write, extra)
        yield project


async def run_process(project: Project, *, kill_after: float | None = None) -> int:
    """Run `etl run` in a process, killed after some seconds if asked; return how it ended."""
    command = project.command("run", "--quiet")
    environ = {**os.environ, **project.environ()}
    async with await open_process(command, env=environ, stdout=DEVNULL, stderr=DEVNULL) as process:
        if kill_after is not None:
            with anyio.move_on_after(kill_after):
                return await process.wait()
            process.send_signal(signal.SIGKILL)
        return await process.wait()


async def asked(project: Project, count: int) -> None:
    """Wait until the sandbox is about to answer its n-th page."""
    reached = anyio.Event()
    project.sandbox.before_page(count, lambda _sandbox, _test: reached.set())
    await reached.wait()


SHORT = [
    *[(mode, None) for mode in MODES],
    # What the whole matrix, under `make soak`, has found.
    ("first", "first/write@-wal/12/full"),  # stages that fail together exited 1
    ("first", "first/change@nightly.lock/1/eio"),  # so did a lock that cannot be signed
    ("half-way", "half-way/change@nightly.sqlite/1/dead"),  # and a ledger of a dead disk
    ("first", "first/unlink@/answers/1/kill"),  # the commit's hidden name stayed for ever
    ("half-way", "half-way/rename@last_run/1/kill"),  # and so did a report's
]


@pytest.fixture(scope="module")
async def zygote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Zygote]:
    if lack := lacking():
        pytest.skip(f"CRASH POINTS NOT TRIED: {lack}")
    async with open_zygote(tmp_path_factory.mktemp("zygote")) as opened:
        yield opened


@pytest.mark.timeout(120)
async def test_kills_at_random_moments_lose_nothing_double_nothing_and_repay_little(
    tmp_path: Path, zygote: Zygote
):
    sizes = [1_700, 30, 2_600, 501, 1_200, 3_000]
    async with project_of(tmp_path, sizes, latency_ms=60) as project:
        await kill_again_and_again(project, zygote, kills=8, within_seconds=0.6, seed=4)


@pytest.mark.parametrize(("mode", "point"), SHORT, ids=str)
async def test_a_death_or_disk_error_at_any_call_loses_nothing_and_repays_nothing_durable(
    tmp_path: Path, zygote: Zygote, mode: str, point: str | None
):
    async with open_rig(mode, zygote, Ground(tmp_path / "project"), tmp_path / mode) as rig:
        if point is not None:
            assert (await rig.attempt(Point.named(point))).hit
            return
        for chosen in some_points(mode, await rig.calls()):
            await rig.attempt(chosen)


def some_points(mode: str, calls: Mapping[str, int]) -> list[Point]:
    """Return two calls by chance, the same every time, and a write."""
    random = Random(mode)
    others = [call for call, count in calls.items() if count and call != "write"]
    return [
        Point(mode, call, random.randint(1, calls[call]), random.choice(faults_of(call)))
        for call in [*random.sample(others, 2), "write"]
    ]


SYSTEM_CALLS = {
    "write": "write pwrite64 writev pwritev pwritev2 sendfile copy_file_range",
    "sync": "fsync fdatasync sync_file_range msync",
    "rename": "rename renameat renameat2",
    "link": "link linkat symlink symlinkat",
    "unlink": "unlink unlinkat rmdir",
    "make": "mkdir mkdirat mknod mknodat creat open openat openat2",
    "change": "ftruncate truncate fallocate chmod fchmod fchmodat fchmodat2 fchown utimensat",
}


async def test_the_points_are_all_calls_that_change_a_file(tmp_path: Path):
    strace = shutil.which("strace")
    if lack := lacking() or (None if strace else "strace is not installed"):
        pytest.skip(f"CALLS NOT COMPARED: {lack}")
    trace = tmp_path / "trace"
    calls = ",".join(f"?{call}" for calls in SYSTEM_CALLS.values() for call in calls.split())
    prefix = [str(strace), "-f", "-y", "-qq", "-o", str(trace), "-e", f"trace={calls}"]
    ground = Ground(tmp_path / "project")
    async with (
        open_zygote(tmp_path, prefix) as zygote,
        open_rig("half-way", zygote, ground, tmp_path / "saved") as rig,
    ):
        ground.restore(tmp_path / "saved")
        before = len(trace.read_text())
        counted = (await rig.run(SIZES)).calls
    assert counted == seen(trace.read_text()[before:], [rig.project.lake, rig.project.state])


def seen(trace: str, roots: Sequence[Path]) -> dict[str, int]:
    """Return how many calls of each kind strace saw below these folders."""
    kinds = {name: kind for kind, names in SYSTEM_CALLS.items() for name in names.split()}
    found = dict.fromkeys(SYSTEM_CALLS, 0)
    for line in trace.splitlines():
        call = re.match(r"\d+ +(\w+)\(", line)
        if call is None or not any(f"{root}{end}" in line for root in roots for end in '/">'):
            continue
        if not call[1].startswith("open") or "O_CREAT" in line:
            found[kinds[call[1]]] += 1
    return found


async def test_a_ledger_and_a_lake_restored_from_last_week_come_right(tmp_path: Path):
    async with project_of(tmp_path, [501, 40]) as project:
        await project.export()
        shutil.copytree(project.state, tmp_path / "state-week")
        shutil.copytree(project.lake, tmp_path / "lake-week")
        project.sandbox.complete(project.tests[0], 3)
        await project.export()
        shutil.rmtree(project.state)
        (tmp_path / "state-week").rename(project.state)
        project.sandbox.complete(project.tests[1], 2)
        await project.export()
        assert await to_thread.run_sync(project.landed) == project.served()
        shutil.rmtree(project.lake)
        (tmp_path / "lake-week").rename(project.lake)
        await project.export()
        assert await to_thread.run_sync(project.landed) == project.served()


async def test_a_second_run_of_the_same_pipeline_exits_75_and_says_who_runs(tmp_path: Path):
    async with project_of(tmp_path, [3_000], latency_ms=150) as project:
        async with anyio.create_task_group() as group:
            group.start_soon(run_process, project)
            await asked(project, 1)
            report, codes = await project.export_with_codes()
            assert codes == [75]
            assert "process" in (report.pipelines[0].error or "")
        assert await to_thread.run_sync(project.landed) == project.served()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_lands_what_was_fetched_and_says_so_by_the_exit(
    tmp_path: Path, sent: signal.Signals, code: int
):
    async with project_of(tmp_path, [8_000], latency_ms=100) as project:
        environ = {**os.environ, **project.environ()}
        command = project.command("run", "--quiet")
        async with await open_process(command, env=environ, stdout=DEVNULL) as process:
            await asked(project, 3)
            process.send_signal(sent)
            assert await process.wait() == code
        landed = await to_thread.run_sync(project.lake_rows)
        assert len(landed) >= 500
        before = len(project.sandbox.requests)
        assert await run_process(project) == 0
        assert await to_thread.run_sync(project.landed) == project.served()
        assert len(project.sandbox.requests) <= 18 + 2 * IN_FLIGHT
        assert before < len(project.sandbox.requests)


async def test_a_second_signal_stops_at_once_and_still_loses_nothing(tmp_path: Path):
    async with project_of(tmp_path, [3_000], latency_ms=700) as project:
        environ = {**os.environ, **project.environ()}
        command = project.command("run", "--json")
        async with await open_process(command, env=environ, stderr=DEVNULL) as process:
            assert process.stdout is not None
            await asked(project, 2)
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGINT)
            said = b"".join([chunk async for chunk in process.stdout])
            code = await process.wait()
        report = json.loads(said)
        assert report["status"] == "paused"
        # Of two that are sent at once either may come first: each to a thread of its own.
        assert (report["stopped_because"], code) in {("SIGTERM", 143), ("SIGINT", 130)}
        assert await run_process(project) == 0
        assert await to_thread.run_sync(project.landed) == project.served()
