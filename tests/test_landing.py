"""What has been fetched lands in batches, and leaves nothing behind where it cannot."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blockbuster import BlockBuster

from etl.lake import commits
from etl.lake.commits import Commit
from etl.lake.local import LocalLake
from etl.lake.partitions import Layout
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions
from tests.exporting import open_project
from tests.faults.disks import data_files, in_a_thread


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look at files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


async def test_row_groups_are_written_as_they_fill_and_the_batch_is_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 400)
    async with open_project(tmp_path, 1_200) as project:
        await project.export()
        (file,) = data_files(project)
        assert pq.read_metadata(file).num_row_groups > 1
        await project.exact()


async def test_a_batch_that_another_writer_was_faster_with_leaves_nothing_and_is_not_repaid(
    tmp_path: Path,
):
    async with open_project(tmp_path, 40) as project:
        lake = LocalLake(project.lake)
        theirs = commits.encode(Commit("nightly", 1, "another"))
        project.sandbox.before_page(
            1, lambda *_: in_a_thread(lambda: lake.commit("nightly", 1, theirs))
        )
        ended = await project.ended()
        assert ended.exit_code == 75
        assert "Another writer has landed batch 1" in ended.said
        assert list(project.lake.rglob("*part-*")) == []
        assert (await project.ended()).exit_code == 0
        assert len(project.sandbox.requests) == 1, "the answer was kept"
        await project.exact()


async def test_pages_that_come_after_their_look_has_failed_land_all_the_same(tmp_path: Path):
    options = SandboxOptions(rate_requests=None, latency_ms=20)
    async with open_project(tmp_path, 4_000, options=options) as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, nth=2, value=404))
        report = await project.export()
        assert report.pipelines[0].failed
        assert report.pipelines[0].rows["sessions"] > 500, "the head, and what was under way"
        assert (await project.ended()).exit_code == 0
        await project.exact()


async def test_a_removed_session_is_reported_no_second_time_on_a_machine_without_state(
    tmp_path: Path,
):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        project.sandbox.remove(project.tests[0], 7)
        assert (await project.export()).pipelines[0].removed == {project.tests[0]: 1}
        shutil.rmtree(project.state)
        assert (await project.export()).pipelines[0].removed == {}


def test_rows_of_a_session_that_nobody_knows_lie_in_the_null_partition():
    layout = Layout("tasks", ("test_id", "start_date"), None, of_session=True)
    rows = pa.RecordBatch.from_pydict({"test_id": ["a"], "n": [1]})
    ((folder, some),) = layout.split(rows)
    assert folder == "tasks/test_id=a/start_date=__HIVE_DEFAULT_PARTITION__"
    assert some.schema.names == ["n"]
