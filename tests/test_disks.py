"""Disks, and people who work on them: what is lost is asked again, what is there counts once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from etl.lake.commits import read_names
from tests.exporting import Project, open_project

FLAT = "    lake: {url: ./lake, partition_by: []}\n"


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests break files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


def parts(project: Project) -> Iterator[Path]:
    """Yield the data files of the lake."""
    yield from sorted((project.lake / "sessions").rglob("*.parquet"))


def notes_of(report: object) -> str:
    """Return what a run has noted of its first pipeline."""
    return "\n".join(report.pipelines[0].notes)  # type: ignore[attr-defined]


async def quiet(project: Project) -> None:
    """Assert that lake and ledger agree: a run notes nothing and asks no more than when idle."""
    idle = await project.export()
    assert notes_of(idle) == ""
    assert idle.pipelines[0].rows["sessions"] == 0
    shutil.rmtree(project.state)
    fresh = await project.export()
    assert "commits that the state did not know were adopted" in notes_of(fresh)
    assert len(fresh.pipelines[0].notes) == 1
    assert fresh.requests.total == idle.requests.total
    await project.exact()


# Files of the lake that somebody touched. The one that is gone is mended for good: the lake's
# own record says so, and a machine without state has nothing left to mend.


async def test_a_file_that_is_gone_is_mended_for_good(tmp_path: Path):
    async with open_project(tmp_path, 501, 40) as project:
        await project.export()
        next(parts(project)).unlink()
        report = await project.export()
        assert "501 rows" in notes_of(report)
        await quiet(project)


async def test_a_file_moved_to_another_folder_counts_there_and_costs_no_row(tmp_path: Path):
    async with open_project(tmp_path, 501, 40) as project:
        await project.export()
        part = next(parts(project))
        moved = part.parent / "kept" / part.name
        moved.parent.mkdir()
        part.rename(moved)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 0
        assert moved.name in notes_of(report)
        await quiet(project)
        moved.unlink()
        await project.export()
        await quiet(project)


async def test_a_file_that_is_moved_back_counts_again(tmp_path: Path):
    async with open_project(tmp_path, 501, extra=FLAT) as project:
        await project.export()
        part = next(parts(project))
        compacted = part.with_name("part-compacted.parquet")
        part.rename(compacted)
        await project.export()
        compacted.rename(part)
        assert (await project.export()).pipelines[0].rows["sessions"] == 0
        await quiet(project)
        assert part.exists()


async def test_a_copy_of_a_file_is_told_at_every_run_and_left_alone(tmp_path: Path):
    async with open_project(tmp_path, 501, 40) as project:
        await project.export()
        part, other = parts(project)
        copy = other.parent / part.name
        shutil.copy(part, copy)
        for _ in range(2):
            report = await project.export()
            assert report.pipelines[0].rows["sessions"] == 0
            assert "Readers see its rows twice" in notes_of(report)
            assert copy.exists()
        copy.unlink()
        await quiet(project)


async def test_a_file_that_lost_the_race_for_its_number_stops_no_run(tmp_path: Path):
    async with open_project(tmp_path, 501) as project:
        await project.export()
        part = next(parts(project))
        stray = part.with_name("part-nightly-00000001-0badcafe-0.parquet")
        shutil.copy(part, stray)
        report = await project.export()
        assert "of no commit was moved aside" in notes_of(report)
        assert not stray.exists()
        await quiet(project)


async def test_a_hole_in_the_record_is_said_before_any_request(tmp_path: Path):
    async with open_project(tmp_path, 501) as project:
        await project.export()
        await project.export()
        commits = sorted((project.lake / "_etl" / "answers" / "pipeline=nightly").iterdir())
        assert len(commits) == 2
        asked = len(project.sandbox.requests)
        commits[0].unlink()
        ended = await project.ended()
        assert ended.exit_code == 5
        assert "Commit 1 of the lake is missing" in ended.said
        assert len(project.sandbox.requests) == asked


async def test_a_commit_under_another_number_is_refused(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        (commit,) = (project.lake / "_etl" / "answers" / "pipeline=nightly").iterdir()
        shutil.copy(commit, commit.with_name("00000002.parquet"))
        ended = await project.ended()
        assert ended.exit_code == 5
        assert "A commit says that it is number 1" in ended.said


async def test_a_partition_behind_a_link_is_refused_before_any_request(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        asked = len(project.sandbox.requests)
        for linked in (next(parts(project)).parent, project.lake / "sessions"):
            linked.rename(tmp_path / "elsewhere")
            linked.symlink_to(tmp_path / "elsewhere")
            ended = await project.ended()
            assert ended.exit_code == 5
            assert "is a symbolic link" in ended.said
            linked.unlink()
            (tmp_path / "elsewhere").rename(linked)
        assert len(project.sandbox.requests) == asked
        await quiet(project)


async def test_each_commit_names_its_files_with_the_hash_of_their_bytes(tmp_path: Path):
    async with open_project(tmp_path, 501) as project:
        await project.export()
        (commit,) = (project.lake / "_etl" / "answers" / "pipeline=nightly").iterdir()
        (file,) = read_names(commit, "nightly").files
        assert file.bytes == (project.lake / file.path).stat().st_size
        assert file.xxh3 is not None and len(file.xxh3) == 16
