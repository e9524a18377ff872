"""Rows that the API answers differently take the place of what has landed: once, and whole."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blockbuster import BlockBuster

from etl.lake.local import LocalLake
from etl.lake.verify import verify
from tests.crash import checker
from tests.exporting import Project, open_project
from tests.faults.disks import data_files, in_a_thread

REPLACE = "    edited: replace\n"
BARE = "    keep_bodies: false\n"  # so that a table that is added has all of it asked again
LAYOUTS = ("[]", "[test_id]", "[start_date]")

Opened = Callable[..., AbstractAsyncContextManager[Project]]


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look at files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return what opens a project whose pipeline replaces."""

    @asynccontextmanager
    async def opening(
        *sizes: int, partition_by: str = "[test_id]", extra: str = REPLACE
    ) -> AsyncIterator[Project]:
        lake = f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
        async with open_project(tmp_path, *sizes, extra=lake + extra) as project:
            yield project

    return opening


def sound(project: Project) -> None:
    """Assert that every session is in the lake once as served, and all as recorded."""
    served = {test: project.sandbox.rows(test) for test in project.tests}
    assert checker.wrong_cells(project.lake, served) == []
    assert checker.disorder(project.lake, "nightly") == []
    found = verify(LocalLake(project.lake), "nightly", deep=True)
    assert found.findings == []


def tables_of(project: Project, name: str) -> dict[str, list[dict[str, Any]]]:
    """Return a table's rows by session."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in project.lake_rows(name):
        rows.setdefault(row["session_id"], []).append(row)
    return rows


@pytest.mark.parametrize("partition_by", LAYOUTS)
async def test_an_edited_session_takes_the_place_of_the_one_that_has_landed(
    opened: Opened, partition_by: str
):
    async with opened(30, 12, partition_by=partition_by) as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        project.sandbox.edit(project.tests[1], 0, startTime="2020-02-03T04:05:06Z")
        report = (await project.export()).pipelines[0]
        assert report.replaced == {"sessions": 2}
        assert report.edited == {}
        assert report.rows["sessions"] == 0, "none of them is new"
        sound(project)
        assert "replaced" not in (await project.ended()).said
        sound(project)


async def test_what_is_replaced_is_told(opened: Opened):
    async with opened(5) as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        said = (await project.ended()).said
        assert "replaced   in sessions: 1 row answered differently now" in said


async def test_a_file_of_which_all_rows_are_replaced_goes_whole(opened: Opened):
    async with opened(3) as project:
        await project.export()
        (before,) = data_files(project)
        for place in range(3):
            project.sandbox.edit(project.tests[0], place, status="REFUNDED")
        await project.export()
        (after,) = data_files(project)
        assert after != before
        sound(project)


async def test_what_was_only_reported_is_replaced_once_the_pipeline_says_so(opened: Opened):
    async with opened(5, extra="") as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 2, status="REFUNDED")
        assert (await project.export()).pipelines[0].edited == {"sessions": 1}
        assert (await project.export()).pipelines[0].edited == {}
        project.write(REPLACE)
        assert (await project.export()).pipelines[0].replaced == {"sessions": 1}
        sound(project)


async def test_each_file_is_written_anew_once_and_no_other_is_touched(opened: Opened):
    async with opened(30, 30) as project:
        await project.export()
        project.sandbox.complete(project.tests[0], 3)
        await project.export()
        before = {path: path.stat().st_ino for path in data_files(project)}
        assert len(before) == 3
        for place in (0, 1, 7, 9):  # two of the new ones, and two of the old
            project.sandbox.edit(project.tests[0], place, status="REFUNDED")
        await project.export()
        after = {path: path.stat().st_ino for path in data_files(project)}
        assert len(after.keys() - before.keys()) == 3, "what is left of two, and the new rows"
        (kept,) = after.keys() & before.keys()
        assert f"test_id={project.tests[1]}" in str(kept)
        assert after[kept] == before[kept]
        sound(project)


async def test_rows_edited_again_before_their_batch_has_landed_stand_once_as_they_are_now(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 400)
    async with opened(1_400) as project:
        test = project.tests[0]

        # The row that two pages overlap in: the second has it otherwise.
        project.sandbox.before_page(
            2, lambda sandbox, _: sandbox.edit(test, 499, status="REFUNDED")
        )
        report = (await project.export()).pipelines[0]
        assert report.replaced == {"sessions": 1}
        sound(project)


async def test_rows_of_a_batch_far_larger_than_a_row_group_keep_their_values(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 100)
    monkeypatch.setattr("etl.lake.replacing.ROW_GROUP_ROWS", 100)
    async with opened(1_200, partition_by="[]") as project:
        await project.export()
        for place in (0, 99, 100, 101, 700):
            project.sandbox.edit(project.tests[0], place, status="REFUNDED")
        project.write(REPLACE + "    audit: full\n    lake: {url: ./lake, partition_by: []}\n")
        await project.export()
        sound(project)
        assert max(pq.read_metadata(path).num_row_groups for path in data_files(project)) > 10


async def test_files_of_another_version_keep_their_columns(opened: Opened):
    async with opened(6) as project:
        await project.export()
        (path,) = data_files(project)
        old = pq.read_table(path, partitioning=None).drop_columns(["audience_id"])
        old = old.append_column("of_tomorrow", pa.array(["x"] * 6)).replace_schema_metadata(
            {"etl_table_version": "7"}
        )
        pq.write_table(old, path)
        await project.export()  # which takes the file as it is
        project.sandbox.edit(project.tests[0], 2, status="REFUNDED")
        await project.export()
        schemas = [pq.read_schema(path) for path in data_files(project)]
        (kept,) = [schema for schema in schemas if "of_tomorrow" in schema.names]
        assert "audience_id" not in kept.names
        assert kept.metadata[b"etl_table_version"] == b"7"
        assert len(project.lake_rows()) == 6


async def test_a_commit_whose_writer_died_before_it_removed_anything_is_adopted(opened: Opened):
    async with opened(30, partition_by="[]") as project:
        await project.export()
        (before,) = data_files(project)
        kept = project.folder / "kept"
        shutil.copytree(project.state, project.folder / "old")
        shutil.copy(before, kept)
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        await project.export()
        shutil.copy(kept, before)  # as at the moment of the commit
        shutil.rmtree(project.state)
        (project.folder / "old").rename(project.state)
        ended = await project.ended()
        assert "were adopted" in ended.said
        assert not before.exists()
        sound(project)


async def test_a_lost_state_knows_what_has_been_replaced(opened: Opened):
    async with opened(30) as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        await project.export()
        shutil.rmtree(project.state)
        report = (await project.export()).pipelines[0]
        assert (report.replaced, report.edited, report.rows) == ({}, {}, {"sessions": 0})
        sound(project)


async def test_rows_that_a_rewritten_file_took_over_are_missed_where_it_is_lost(opened: Opened):
    async with opened(30, 20, partition_by="[]") as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        await project.export()
        max(data_files(project), key=lambda path: path.stat().st_size).unlink()
        said = (await project.ended()).said
        assert f"29 rows of test {project.tests[0]} are missing" in said
        assert f"20 rows of test {project.tests[1]} are missing" in said
        sound(project)


@pytest.mark.parametrize("column", ["session_id", "status"], ids=["its keys", "what it says"])
async def test_a_file_that_cannot_be_read_is_put_aside_by_the_next_run(opened: Opened, column: str):
    async with opened(30, 30, partition_by="[]") as project:
        await project.export()
        (path,) = data_files(project)
        noise = with_noise_in(path, column)
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        project.sandbox.before_page(1, lambda *_: in_a_thread(lambda: path.write_bytes(noise)))
        await project.export()
        assert path.exists()
        ended = await project.ended()
        assert "A data file was damaged and moved aside" in ended.said
        sound(project)


def with_noise_in(path: Path, column: str) -> bytes:
    """Return a file's bytes with those of a column overwritten; its footer is sound."""
    group = pq.read_metadata(path).row_group(0)
    (chunk,) = (
        group.column(place)
        for place in range(group.num_columns)
        if group.column(place).path_in_schema == column
    )
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    return bytes(content)


async def test_the_files_of_another_pipeline_in_the_lake_are_not_touched(opened: Opened):
    async with opened(30, 20, partition_by="[]") as project:
        text = project.file.read_text()
        one, other = project.tests
        pipelines = text.partition("pipelines:\n")[2]
        theirs = pipelines.replace("nightly:", "theirs:").replace(f"\n      - {one}", "")
        ours = pipelines.replace(f"\n      - {other}", "")
        project.file.write_text(text.partition("pipelines:\n")[0] + "pipelines:\n" + ours + theirs)
        await project.export()
        before = {path: path.stat().st_ino for path in data_files(project)}
        project.sandbox.edit(one, 4, status="REFUNDED")
        reports = (await project.export()).pipelines
        assert [report.replaced for report in reports] == [{"sessions": 1}, {}]
        kept = {path for path in data_files(project) if before.get(path) == path.stat().st_ino}
        assert [path.name[:11] for path in kept] == ["part-theirs"]
        await project.exact()


async def test_scores_are_appended_and_never_replaced(opened: Opened):
    tables = f"    tables: [sessions, qx_scores]\n{REPLACE}"
    async with opened(4, extra=tables) as project:
        test = project.tests[0]
        project.sandbox.set_product(test, "NON_THINK_OUT_LOUD")
        await project.export()
        before = len(project.lake_rows("qx_scores"))
        project.sandbox.rescore(test)
        project.sandbox.complete(test, 1)
        report = (await project.export()).pipelines[0]
        assert report.replaced == {}
        assert len(project.lake_rows("qx_scores")) == 2 * before > 0


async def test_a_reel_that_changes_is_replaced(opened: Opened):
    async with opened(4, extra=f"    tables: [sessions, highlight_reels]\n{REPLACE}") as project:
        test = project.tests[0]
        project.sandbox.set_product(test, "THINK_OUT_LOUD")
        project.sandbox.add_reel(test)
        await project.export()
        reels = len(project.lake_rows("highlight_reels"))
        project.sandbox.add_clip(project.sandbox.session_ids(test)[0])
        project.sandbox.complete(test, 1)
        report = (await project.export()).pipelines[0]
        assert report.replaced == {"highlight_reels": reels}
        assert len(project.lake_rows("highlight_reels")) == reels > 0


@pytest.mark.parametrize("partition_by", LAYOUTS)
async def test_what_a_session_says_is_replaced_where_a_new_table_has_it_asked_again(
    opened: Opened, partition_by: str
):
    details = "    tables: [sessions, session_details, tasks]\n"
    async with opened(6, partition_by=partition_by, extra=details + BARE + REPLACE) as project:
        await project.export()
        before = tables_of(project, "tasks")
        one, other, *_ = project.sandbox.session_ids(project.tests[0])
        project.sandbox.edit_details(one, {"/tasks/*/type": "OF_TOMORROW"})
        project.sandbox.edit_details(other, {"/tasks": []})
        tables = f"    tables: [sessions, session_details, tasks, task_groups]\n{BARE}"
        project.write(f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n{tables}{REPLACE}")
        report = (await project.export()).pipelines[0]
        assert report.replaced == {"tasks": len(before[one]) + len(before[other])}
        after = tables_of(project, "tasks")
        assert {row["type"] for row in after[one]} == {"OF_TOMORROW"}
        assert other not in after
        assert [len(rows) for rows in after.values()] == [
            len(rows) for session, rows in before.items() if session != other
        ]
        sound(project)
        assert len(project.lake_rows("session_details")) == 6


async def test_what_a_session_says_differently_is_reported_once_and_stays_else(opened: Opened):
    details = "    tables: [sessions, session_details, tasks]\n"
    async with opened(3, extra=details + BARE) as project:
        await project.export()
        before = tables_of(project, "tasks")
        edited = project.sandbox.session_ids(project.tests[0])[0]
        project.sandbox.edit_details(edited, {"/tasks/*/type": "OF_TOMORROW"})
        project.write(f"    tables: [sessions, session_details, tasks, task_groups]\n{BARE}")
        assert (await project.export()).pipelines[0].edited == {"tasks": 1}
        more = "    tables: [sessions, session_details, tasks, task_groups, demographics]\n"
        project.write(more + BARE)
        assert (await project.export()).pipelines[0].edited == {}
        assert tables_of(project, "tasks") == before


async def test_verify_tells_what_a_run_has_yet_to_remove(opened: Opened):
    async with opened(30) as project:
        await project.export()
        (before,) = data_files(project)
        kept = Path(shutil.copy(before, project.folder / "kept"))
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        await project.export()
        lake = LocalLake(project.lake)
        shutil.copy(kept, before)  # as at the moment of the commit
        (found,) = verify(lake, "nightly", deep=False).findings
        assert (found.kind, found.mended_by) == ("leftover", "the next run")
        with lake.locked("nightly"):  # a run is just about to remove it
            assert verify(lake, "nightly", deep=False).findings == []
