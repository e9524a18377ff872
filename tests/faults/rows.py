"""Rows that cannot be read, fields that no table knows, tables whose answers were not kept."""

from pathlib import Path

from anyio import to_thread

from etl.sandbox.faults import Fault, FaultKind
from tests.exporting import open_project
from tests.faults import Case, Chapter, Ended
from tests.faults.disks import ran

DETAILS = "    tables: [sessions, session_details]\n"


async def unread(folder: Path) -> Ended:
    """Serve a row that cannot be read to a strict run: all others land."""
    async with open_project(folder, 9) as project:
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, value={"status": 5}, times=0))
        ended = await ran(project, "run", "--strict")
        assert len(await to_thread.run_sync(project.lake_rows)) == 8
        return ended


async def unknown(folder: Path) -> Ended:
    """Serve a field that no table knows, in one of three answers: all of them land."""
    async with open_project(folder, 3, extra=f"{DETAILS}    on_unknown_field: fail\n") as project:
        project.sandbox.add_fault(Fault(FaultKind.TOP_FIELD, on="details", value="mood"))
        ended = await project.ended()
        assert len(await to_thread.run_sync(project.lake_rows, "session_details")) == 3
        assert (await project.ended()).exit_code == 0, "it was met by that run alone"
        return ended


async def not_kept(folder: Path) -> Ended:
    """Rebuild a table of two sessions whose answers were not kept, and one whose was."""
    async with open_project(folder, 2, extra=f"{DETAILS}    keep_bodies: false\n") as project:
        await project.export()
        await to_thread.run_sync(project.write, DETAILS)
        project.sandbox.complete(project.tests[0])
        await project.export()
        requests = len(project.sandbox.requests)
        ended = await ran(project, "rebuild", "session_details")
        assert len(project.sandbox.requests) == requests
        assert len(await to_thread.run_sync(project.lake_rows, "session_details")) == 3
        return ended


async def not_there(folder: Path) -> Ended:
    """Rebuild a table that the pipeline does not have."""
    async with open_project(folder, 2) as project:
        return await ran(project, "rebuild", "clips")


CHAPTER = Chapter(
    "Rows and tables",
    [
        Case(
            "a row cannot be read, and `--strict` was given",
            "error 1 new row could not be read (--strict); see the table rejects. All has landed. "
            "Look for a newer version of etl",
            4,
            [unread],
        ),
        Case(
            "a field that no table knows, and the pipeline says `on_unknown_field: fail`",
            "error No table knows 'mood' (on_unknown_field); see the column _extra. All has "
            "landed. Look for a newer version of etl",
            4,
            [unknown],
        ),
        Case(
            "`etl rebuild` of a table of which not all answers were kept",
            "session_details: 3 rows, 2 of them carried over as they were",
            0,
            [not_kept],
        ),
        Case(
            "`etl rebuild` of a table that no pipeline has",
            "No pipeline that is to be rebuilt has a table 'clips'. … There are: …",
            2,
            [not_there],
        ),
    ],
)
