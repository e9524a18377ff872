"""What else disks and people do; what ends in words for the user is in `tests/faults/disks.py`."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import anyio
import pytest
from anyio import to_thread
from blockbuster import BlockBuster
from hypothesis import given
from hypothesis import strategies as st

from etl.lake.commits import read_names
from etl.lake.local import LocalLake
from etl.lake.names import partition_folder, partition_value
from etl.plan.orders import Asked
from etl.sandbox.server import SandboxOptions
from tests.exporting import open_project
from tests.faults.disks import (
    SIZES,
    comes_right,
    data_files,
    ledger,
    mounted,
    noise,
    settled,
)
from tests.test_crash import asked, run_process

SLOW = SandboxOptions(rate_requests=None, latency_ms=100)
FLAT = "    lake: {url: ./lake, partition_by: []}\n"


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests break files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


async def test_a_file_that_is_moved_back_counts_again(tmp_path: Path):
    async with open_project(tmp_path, 501, extra=FLAT) as project:
        await project.export()
        part = data_files(project)[0]
        compacted = part.with_name("part-compacted.parquet")
        part.rename(compacted)
        await project.export()
        compacted.rename(part)
        assert (await project.export()).pipelines[0].rows["sessions"] == 0
        await settled(project)
        assert part.exists()


async def test_a_file_that_lost_the_race_for_its_number_stops_no_run(tmp_path: Path):
    async with open_project(tmp_path, 501) as project:
        await project.export()
        part = data_files(project)[0]
        stray = part.with_name("part-nightly-00000001-0badcafe-0.parquet")
        shutil.copy(part, stray)
        report = await project.export()
        assert "of no commit was moved aside" in report.pipelines[0].notes[0]
        assert not stray.exists()
        await settled(project)


async def test_a_commit_under_another_number_is_refused(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        (commit,) = (project.lake / "_etl" / "answers" / "pipeline=nightly").iterdir()
        shutil.copy(commit, commit.with_name("00000002.parquet"))
        ended = await project.ended()
        assert ended.exit_code == 5
        assert "A commit says that it is number 1" in ended.said


async def test_each_commit_names_its_files_with_the_hash_of_their_bytes(tmp_path: Path):
    async with open_project(tmp_path, 501) as project:
        await project.export()
        (commit,) = (project.lake / "_etl" / "answers" / "pipeline=nightly").iterdir()
        (file,) = read_names(commit, "nightly").files
        assert file.bytes == (project.lake / file.path).stat().st_size
        assert file.xxh3 is not None and len(file.xxh3) == 16


async def test_an_unreadable_file_does_not_stop_the_search_for_a_removed_session(tmp_path: Path):
    async with open_project(tmp_path, 40, 40) as project:
        await project.export()
        noise(data_files(project)[0])
        project.sandbox.remove(project.tests[0], 3)
        assert (await project.ended()).exit_code == 0
        assert "40 rows of test" in "".join((await project.export()).pipelines[0].notes)
        await settled(project)


def test_files_that_another_pipeline_renames_meanwhile_do_not_disturb_a_listing(tmp_path: Path):
    folder = tmp_path / "sessions"
    folder.mkdir()
    for number in range(20):
        (folder / f"a{number}").touch()
    done = Event()

    def rename() -> None:
        while not done.is_set():
            for one, other in (("a", "b"), ("b", "a")):
                for number in range(20):
                    (folder / f"{one}{number}").rename(folder / f"{other}{number}")

    thread = Thread(target=rename)
    thread.start()
    try:
        for _ in range(300):
            LocalLake(tmp_path).data_files()
    finally:
        done.set()
        thread.join()


@given(st.text())
def test_any_partition_value_is_one_folder_and_comes_back(value: str):
    folder = partition_folder("test_id", value)
    assert "/" not in folder and "\0" not in folder and folder.count("=") == 1
    assert folder not in {".", ".."}
    assert partition_value(folder) == ("test_id", value)


# Backups that do not fit together.


async def test_a_ledger_copied_without_its_wal_costs_only_what_had_not_landed(tmp_path: Path):
    async with open_project(tmp_path, 3_000, options=SLOW) as project:
        async with anyio.create_task_group() as group:
            group.start_soon(run_process, project)
            await asked(project, 4)
            group.cancel_scope.cancel()  # which kills the process
        wal = ledger(project).with_name("nightly.sqlite-wal")
        assert wal.stat().st_size > 0
        wal.unlink()
        await comes_right(project)
        await settled(project)


@pytest.mark.parametrize(
    ("sizes", "more"),
    [pytest.param((501, 40), 2_000, id="within values"), pytest.param((400,) * 5, 5, id="between")],
)
async def test_a_ledger_restored_beside_the_wal_of_today_doubles_nothing(
    tmp_path: Path, sizes: tuple[int, ...], more: int
):
    async with open_project(tmp_path, *sizes) as project:
        await project.export()
        shutil.copy(ledger(project), tmp_path / "week")
        for test in project.tests[1:]:
            project.sandbox.complete(test, more)
        await project.export()
        project.sandbox.complete(project.tests[0], 3)
        with closing(sqlite3.connect(ledger(project))) as reader:
            reader.execute("BEGIN")  # so that no checkpoint empties the log at the end
            reader.execute("SELECT count(*) FROM records").fetchone()
            await project.export(asked=Asked(tests=project.tests[:1]))
            shutil.copy(ledger(project).with_name("nightly.sqlite-wal"), tmp_path / "wal")
        shutil.copy(tmp_path / "week", ledger(project))
        shutil.copy(tmp_path / "wal", ledger(project).with_name("nightly.sqlite-wal"))
        assert "set aside" in (await project.export()).pipelines[0].notes[0]
        await project.exact()


async def test_a_lake_restored_from_last_week_asks_what_it_lost(tmp_path: Path):
    async with open_project(tmp_path, 501, 40) as project:
        await project.export()
        shutil.copytree(project.lake, tmp_path / "week")
        project.sandbox.complete(project.tests[1], 3)
        await project.export()
        shutil.rmtree(project.lake)
        (tmp_path / "week").rename(project.lake)
        assert (await project.export()).pipelines[0].rows["sessions"] == 3
        await project.exact()
        await settled(project)


async def test_status_and_verify_read_what_is_mounted_read_only(tmp_path: Path):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        content = bytearray(data_files(project)[0].read_bytes())
        content[200] ^= 1
        data_files(project)[0].write_bytes(content)

        def look() -> list[subprocess.CompletedProcess[str]]:
            with mounted(tmp_path, "--bind", str(tmp_path)):
                subprocess.run(["mount", "-o", "remount,bind,ro", tmp_path], check=True)
                return [project.process("status"), project.process("verify", "--deep")]

        status, verify = await to_thread.run_sync(look)
        assert status.returncode == 0 and "541 rows landed" in status.stderr
        assert verify.returncode == 4 and "1 difference" in verify.stdout
        assert "The next run cannot be told" in verify.stderr
