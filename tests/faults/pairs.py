"""Two of everything: runs, pipelines, processes and machines that meet."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions
from tests.exporting import Project, open_project
from tests.faults import Case, Chapter, Ended, Provoke
from tests.faults.api import PACE, patient

COMPLETE = "proved complete … complete in"


def while_one_runs(state_name: str) -> Provoke:
    """Begin a second run while the first one waits for an answer."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40) as project:
            arrived = anyio.Event()
            project.sandbox.add_fault(Fault(FaultKind.HANG))
            project.sandbox.before_page(1, lambda *_: arrived.set())
            first: list[Ended] = []

            async def export() -> None:
                first.append(await patient(project).ended())

            async with anyio.create_task_group() as group:
                group.start_soon(export)
                await arrived.wait()
                second = Project(folder, project.sandbox, project.tests)
                second.settings["ETL_STATE_DIR"] = str(folder / state_name)
                ended = await patient(second).ended()
            assert len(project.sandbox.requests) == 2, "both of the first run"
            assert first[0].exit_code == 0
            await project.exact()
            return ended

    return provoke


async def left_by_the_dead(folder: Path) -> Ended:
    """Leave locks signed by a process of this very pid, as a container before us had it."""
    async with open_project(folder, 40) as project:
        signed = json.dumps({"pid": os.getpid(), "host": "box", "since": "2020-01-01T00:00:00"})

        def leave() -> None:
            (project.lake / "_etl").mkdir(parents=True)
            project.state.mkdir(mode=0o700)
            for path in (project.state / "nightly.lock", project.lake / "_etl" / "lock-nightly"):
                path.write_text(signed)

        await to_thread.run_sync(leave)
        ended = await project.ended()
        await project.exact()
        return ended


WEEKLY = """\
    lake: {{url: ./lake}}
  weekly:
    tests: [{tests}]
    lake: {{url: ./lake}}
"""


def with_another_pipeline(tests: Callable[[Project], list[str]]) -> Provoke:
    """Let a second pipeline feed the same lake with these tests."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40, 600, 40) as project:
            every = project.tests
            project.tests = every[:2]
            weekly = WEEKLY.format(tests=", ".join(tests(project) or every[2:]))
            await to_thread.run_sync(project.write, weekly)
            await project.ended()
            asked = len(project.sandbox.requests)
            again = await project.ended()
            assert len(project.sandbox.requests) - asked <= 2 + 1 + 1
            rows = await to_thread.run_sync(project.lake_rows)
            assert len({row["session_id"] for row in rows}) == len(rows)
            return again

    return provoke


def at_once(states: int) -> Provoke:
    """Run two pipelines with the same credentials at once, in one state directory or two."""

    async def provoke(folder: Path) -> Ended:
        options = SandboxOptions(monotonic=anyio.current_time)
        ended: list[Ended] = []
        folders = [folder / "one", folder / "other"]
        for place in folders:
            await to_thread.run_sync(place.mkdir)
        async with open_project(folders[0], 9_000, 9_000, options=options) as one:
            other = Project(folders[1], one.sandbox, one.tests[1:])
            one.tests = one.tests[:1]
            for number, project in enumerate((one, other)):
                state = folder / f"state-{number * (states - 1)}"
                project.settings["ETL_STATE_DIR"] = str(state)
                await to_thread.run_sync(partial(project.write, rate=PACE))
            text = await to_thread.run_sync(other.file.read_text)
            await to_thread.run_sync(other.file.write_text, text.replace("nightly", "weekly"))

            async def export(project: Project) -> None:
                ended.append(await patient(project).ended())

            began_at = anyio.current_time()
            async with anyio.create_task_group() as group:
                group.start_soon(export, one)
                group.start_soon(export, other)
            requests = len(one.sandbox.requests)
            assert one.sandbox.count(429) <= (0 if states == 1 else 4)
            assert anyio.current_time() - began_at <= (requests // 10 + 2) * 61
            await one.exact()
            await other.exact()
        assert [end.exit_code for end in ended] == [0, 0], ended
        return ended[0]

    return provoke


CHAPTER = Chapter(
    "Two of everything",
    [
        Case(
            "two runs of one pipeline at once",
            "error Another run holds pipeline 'nightly': process … on …, since …",
            75,
            [while_one_runs(".etl")],
        ),
        Case(
            "two runs of one pipeline, from two state directories",
            "error Another run holds pipeline 'nightly' in this lake: process … on …, since …",
            75,
            [while_one_runs("elsewhere")],
        ),
        Case(
            "a lock left by a dead process, or by a container in which we had the same pid",
            COMPLETE,
            0,
            [left_by_the_dead],
        ),
        Case(
            "two pipelines feed a table of one lake with the same test",
            "error Pipeline 'nightly' feeds the table sessions of this lake with the same test: "
            "its rows would stand there twice.",
            2,
            [with_another_pipeline(lambda project: [project.tests[1]])],
        ),
        Case(
            "two pipelines feed a table of one lake with different tests",
            COMPLETE,
            0,
            [with_another_pipeline(lambda _project: [])],
        ),
        Case(
            "two runs with the same credentials at once, on one machine or on two",
            COMPLETE,
            0,
            [at_once(states=1), at_once(states=2)],
        ),
    ],
)
