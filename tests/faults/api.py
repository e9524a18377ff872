"""What the API and the network between can do: what passes, and what lasts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from etl.run.fetching import Patience
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import Sandbox
from tests.exporting import Project, open_project
from tests.faults import Case, Chapter, Ended, Provoke
from tests.virtual_time import LoopClock

BAD = 1
"""Which of three tests goes wrong."""


def patient(project: Project) -> Project:
    """Give a project the patience that users have, in time that passes at once."""
    project.clock, project.patience = LoopClock(), Patience()
    return project


async def complete(project: Project) -> Ended:
    """Run, and assert that the lake holds every row once."""
    ended = await patient(project).ended()
    await project.exact()
    return ended


def passing(kind: FaultKind, value: Any = None, **more: Any) -> Provoke:
    """Strike the second of three pages, and assert that nothing is missing in the end."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 1_200) as project:
            fault = Fault(kind, value=value, nth=2, **more)
            project.sandbox.add_fault(fault)
            ended = await complete(project)
            assert fault.struck == fault.times
            return ended

    return provoke


def changing(change: Callable[[Sandbox, str], None], pages: int = 2) -> Provoke:
    """Change a listing while it is read, and assert that nothing is missing in the end."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 1_700) as project:
            project.sandbox.before_page(pages, change)
            return await complete(project)

    return provoke


def throttled(headers: Callable[[], dict[str, str]]) -> Provoke:
    """Refuse three requests, and assert that none of them stops the run for long."""

    async def provoke(folder: Path) -> Ended:
        began_at = anyio.current_time()
        fault = passing(FaultKind.STATUS, 429, times=3, headers=headers())
        ended = await fault(folder)
        assert anyio.current_time() - began_at < 3 * 61
        return ended

    return provoke


async def only_one_fails(project: Project, *others: str) -> Ended:
    """Run, and assert that only one test of three fails, and the others land whole."""
    bad = project.tests[BAD]
    ended = await patient(project).ended()
    (report,) = (await to_thread.run_sync(project.last_run))["pipelines"]
    assert [failed["test_id"] for failed in report["failed"]] == [bad], report
    assert report["verified"] == 2
    landed, served = await to_thread.run_sync(project.landed), project.served()
    for test in (*others, project.tests[0], project.tests[2]):
        assert landed[test] == served[test]
    return ended


def lasting(kind: FaultKind, value: Any = None) -> Provoke:
    """Strike every page of one test for ever."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40, 1_200, 40) as project:
            fault = Fault(kind, value=value, test_id=project.tests[BAD], times=0)
            project.sandbox.add_fault(fault)
            return await only_one_fails(project)

    return provoke


def refusing(status: int) -> Provoke:
    """Refuse one test with this status."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 5, 5, 5) as project:
            project.sandbox.forbid(project.tests[BAD], status)
            ended = await only_one_fails(project)
            assert project.sandbox.grants <= 5
            return ended

    return provoke


def lying(kind: FaultKind, value: Any) -> Provoke:
    """Falsify every page of one test; all that is served lands all the same."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40, 1_200, 40) as project:
            fault = Fault(kind, value=value, test_id=project.tests[BAD], times=0)
            project.sandbox.add_fault(fault)
            return await only_one_fails(project, project.tests[BAD])

    return provoke


HTML, NOTHING, NULL, BUSY = "<html>login</html>", "", "null", '{"error":"busy"}'

CHAPTER = Chapter(
    "The network and the API",
    [
        Case(
            "a connection breaks before, in or after the headers of an answer, or in its body",
            "proved complete … complete in",
            0,
            [
                passing(FaultKind.RESET),
                passing(FaultKind.CUT_HEADERS),
                passing(FaultKind.CUT_BODY),
            ],
        ),
        Case(
            "an answer takes for ever, or none comes at all",
            "proved complete … complete in",
            0,
            [passing(FaultKind.SLOW_BODY), passing(FaultKind.HANG)],
        ),
        Case(
            "a body is cut short under a right length, or badly compressed",
            "proved complete … complete in",
            0,
            [passing(FaultKind.TRUNCATED_JSON), passing(FaultKind.CORRUPT_GZIP)],
        ),
        Case(
            "a small body that is a huge one when decoded: gzip, br, zstd",
            "proved complete … complete in",
            0,
            [passing(FaultKind.BOMB, encoding) for encoding in ("gzip", "br", "zstd")],
        ),
        Case(
            "a 200 that is a web page, empty, `null`, an error, or nested a hundred thousand deep",
            "proved complete … complete in",
            0,
            [
                passing(FaultKind.BODY, body)
                for body in (HTML, NOTHING, NULL, BUSY, '{"sessions":' * 100_000)
            ],
        ),
        Case(
            "500, 502, 503, 504 or 408, with or without `Retry-After`",
            "proved complete … complete in",
            0,
            [
                *(passing(FaultKind.STATUS, status) for status in (500, 502, 504, 408)),
                passing(FaultKind.STATUS, 503, headers={"Retry-After": "1"}),
                passing(FaultKind.STATUS, 503, headers={"Retry-After": "1000000000"}),
            ],
        ),
    ],
)
