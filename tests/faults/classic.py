"""What the older API can do, and what one may ask of it that it has not."""

from pathlib import Path

from etl.sandbox.faults import Fault, FaultKind
from tests.faults import Case, Chapter, Ended, Provoke
from tests.test_classic import TABLES, exact, mixed, opened


def answering(changes: dict[str, object]) -> Provoke:
    """Falsify every page of a test; assert that what is served lands."""

    async def provoke(folder: Path) -> Ended:
        async with opened(folder) as project:
            fault = Fault(FaultKind.FIELDS, "completed", project.tests[0], times=0, value=changes)
            project.sandbox.add_fault(fault)
            ended = await project.ended()
            if "/sessions/*/cursor" not in changes:
                await exact(project)
            return ended

    return provoke


async def not_there(folder: Path) -> Ended:
    """Hide a test."""
    async with opened(folder) as project:
        project.sandbox.forbid(project.tests[1], 404)
        return await project.ended()


def misplaced(tables: str) -> Provoke:
    """Export tests of both kinds into tables of one."""

    async def provoke(folder: Path) -> Ended:
        async with mixed(folder, tables) as project:
            return await project.ended()

    return provoke


async def in_order(folder: Path) -> Ended:
    """Export tests of both kinds, and assert that each is asked where it is."""
    async with mixed(folder, f"sessions, {TABLES}") as project:
        ended = await project.ended()
        assert project.sandbox.count(404) == 0
        return ended


CHAPTER = Chapter(
    "Classic tests",
    [
        Case(
            "tests of both kinds stand in one pipeline, with tables of both",
            "4 of 4 proved complete … complete in",
            0,
            [in_order],
        ),
        Case(
            "a classic test stands in tables that hold no classic tests",
            "failed test …: It is a classic test, of which sessions and clips hold nothing: it "
            "belongs to the tables completed_session_answers, completed_sessions, …",
            4,
            [misplaced("sessions, clips")],
        ),
        Case(
            "the API knows no such classic test (404)",
            "failed test …: The API does not know it, or does not show it … It is asked again "
            "after a week, or when it is named with --test. If it is of type STUDYV2, it belongs "
            "to the tables …",
            4,
            [not_there],
        ),
        Case(
            "the count of its sessions is wrong for good: everything served lands",
            "failed test …: The API says 125 sessions but serves 120",
            4,
            [answering({"/completedSessionCount": 125})],
        ),
        Case(
            "there is no count of its sessions, or none to be believed: everything served lands",
            "failed test …: The API gave no believable total",
            4,
            [answering({"/completedSessionCount": count}) for count in ("absent", -1, "120")],
        ),
        Case(
            "a cursor comes round again",
            "failed test …: The pages have no end: a cursor comes round again, after 51 of 120 "
            "sessions.",
            4,
            [answering({"/sessions/*/cursor": "MTIw"})],
        ),
    ],
)
