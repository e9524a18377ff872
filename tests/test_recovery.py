"""At its start a run puts lake and ledger right, whatever was left, lost or put there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from etl.cli.mending import reset_command
from etl.lake import commits
from etl.lake.commits import Commit
from etl.lake.local import LocalLake
from etl.ledger.values import File
from etl.plan.orders import Asked
from etl.sandbox.faults import Fault, FaultKind
from tests.exporting import Project, open_project
from tests.faults.disks import SIZES, data_files, first

UNPARTITIONED = "    lake: {url: ./lake, partition_by: []}\n"


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests break files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


def copy_as(project: Project, name: str) -> Path:
    """Copy a data file beside itself, under this name."""
    return Path(shutil.copy(first(project), first(project).with_name(name)))


def another_commits(lake: LocalLake, batch: int) -> bool:
    """Commit a batch as another machine would."""
    return lake.commit("nightly", batch, commits.encode(Commit("nightly", batch, "another")))


# What attempts leave.


async def test_a_file_of_a_batch_to_come_stops_the_run_and_names_the_file(tmp_path: Path):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        ahead = copy_as(project, "part-nightly-00000009-0badcafe-0.parquet")
        ended = await project.ended()
        assert ended.exit_code == 5
        assert "its record, `_etl`, was damaged or restored" in ended.said
        assert ahead.name in ended.said
        assert ahead.exists()
        ahead.unlink()
        assert (await project.ended()).exit_code == 0


@pytest.mark.parametrize("batch", [0, 1])
async def test_a_whole_file_that_no_commit_ever_named_is_put_aside(tmp_path: Path, batch: int):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        stray = copy_as(project, f"part-nightly-{batch:08}-0badcafe-0.parquet")
        ended = await project.ended()
        assert ended.exit_code == 0
        assert "A data file of no commit was moved aside" in ended.said
        assert not stray.exists()
        await project.exact()


async def test_what_an_attempt_at_a_batch_long_landed_left_unfinished_needs_no_fence(
    tmp_path: Path,
):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        hidden = copy_as(project, ".part-nightly-00000001-0badcafe-0.unfinished")
        assert "1 unfinished files of an earlier run were removed" in (await project.ended()).said
        assert not hidden.exists()
        (last,) = [run for run in LocalLake(project.lake).commits("nightly") if run > 1]
        assert last == 2, "the run's own: nothing was committed to fence anybody off"
        await project.exact()


async def test_a_writer_that_commits_while_its_leftovers_are_fenced_off_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        left = copy_as(project, "part-nightly-00000002-0badcafe-0.parquet")
        commit = LocalLake.commit

        def beaten(lake: LocalLake, pipeline: str, batch: int, content: bytes) -> bool:
            monkeypatch.setattr(LocalLake, "commit", commit)
            assert another_commits(lake, batch)
            return lake.commit(pipeline, batch, content)

        monkeypatch.setattr(LocalLake, "commit", beaten)
        ended = await project.ended()
        assert ended.exit_code == 75
        assert "Another writer is landing batch 2" in ended.said
        assert left.exists()


async def test_data_files_whose_record_is_gone_are_refused_without_state_too(tmp_path: Path):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        shutil.rmtree(project.state)
        (project.lake / "_etl" / "lake.json").unlink()
        asked = len(project.sandbox.requests)
        ended = await project.ended()
        assert ended.exit_code == 5
        assert "its record, `_etl/lake.json`, is missing" in ended.said
        assert len(project.sandbox.requests) == asked


# What is lost, and what holds it instead.


def noise_at_the_end(path: Path) -> None:
    """Overwrite a file's footer; its size stays."""
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))


async def test_files_that_turn_out_damaged_while_others_are_mended_are_asked_again_too(
    tmp_path: Path,
):
    async with open_project(tmp_path, 1_200, 40) as project:
        await project.export()
        project.sandbox.complete(project.tests[0], 9)
        await project.export()
        old, new, _ = sorted(data_files(project), key=lambda path: -path.stat().st_size)[:3]
        lost, damaged = (new, old)
        lost.unlink()
        noise_at_the_end(damaged)
        ended = await project.ended()
        assert ended.exit_code == 0
        assert "A data file is gone" in ended.said
        assert "A data file was damaged and moved aside" in ended.said
        await project.exact()


def a_copy_of_what_is_left(project: Project) -> Path:
    """Copy a file under a name of one's own."""
    return copy_as(project, "part-a-copy.parquet")


def put_there(name: str) -> Callable[[Project], Path]:
    """Return what puts something into the lake that is no Parquet."""

    def put(project: Project) -> Path:
        place = first(project).with_name(name)
        place.write_bytes(b"noise")
        return place

    return put


@pytest.mark.parametrize(
    "put",
    [
        a_copy_of_what_is_left,
        *map(put_there, ("part-mine.parquet", "notes.txt", "_SUCCESS.parquet")),
    ],
)
async def test_only_files_that_hold_what_is_lost_count_in_its_stead(
    tmp_path: Path, put: Callable[[Project], Path]
):
    async with open_project(tmp_path, *SIZES, extra=UNPARTITIONED) as project:
        await project.export()
        project.sandbox.complete(project.tests[0], 9)
        await project.export_with_codes(Asked(tests=project.tests[:1]))
        lost, _ = sorted(data_files(project), key=lambda path: path.stat().st_size)
        lost.unlink()
        theirs = put(project)
        ended = await project.ended()
        assert ended.exit_code == 0
        assert f"9 rows of test {project.tests[0]} are missing" in ended.said
        assert "written by others counts" not in ended.said
        theirs.unlink()
        await project.exact()


# `etl reset`.


async def test_files_of_a_table_that_this_version_does_not_know_are_no_hindrance(tmp_path: Path):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        lake, test = LocalLake(project.lake), project.tests[0]
        path = "table_of_tomorrow/part-nightly-00000002-0badcafe-0.parquet"
        shutil.copytree(first(project).parent, (project.lake / path).parent)
        shutil.copy(first(project), project.lake / path)
        size = (project.lake / path).stat().st_size
        newer = Commit("nightly", 2, "newer", files=[File(path, 2, 501, size)])
        assert lake.commit("nightly", 2, commits.encode(newer))
        reset_command(project.file, "nightly", [test])
        (project.lake / path).unlink()
        assert (await project.ended()).exit_code == 0
        await project.exact()


async def test_what_the_api_had_nothing_for_is_asked_again_after_a_reset(tmp_path: Path):
    tables = "    tables: [sessions, session_details, transcripts]\n"
    async with open_project(tmp_path, 5, extra=tables) as project:
        absent = project.sandbox.session_ids(project.tests[0])[2]
        fault = Fault(FaultKind.STATUS, on="transcript", object_id=absent, value=404, times=0)
        project.sandbox.add_fault(fault)
        await project.export()
        assert (await project.export()).requests.total == 1
        reset_command(project.file, "nightly", [*project.tests])
        asked = len(project.sandbox.requests)
        await project.export()
        kinds = [request.endpoint for request in project.sandbox.requests[asked:]]
        assert sorted(kinds) == ["page", "transcript"], (
            "details have landed, and are not paid twice"
        )
