"""`etl verify` finds what is not as it was committed, and the next run mends it; `etl reset`."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blockbuster import BlockBuster

from etl.cli.mending import reset_command, verify_command
from etl.errors import AlreadyRunning, ConfigError, StateError, UsageError
from etl.lake import commits
from etl.lake.batch import Batch, shape_of
from etl.lake.commits import Commit
from etl.lake.keys import open_keys
from etl.lake.local import LocalLake
from etl.lake.partitions import Layout
from etl.lake.scan import rows_elsewhere
from etl.lake.verify import verify as verify_lake
from etl.ledger.records import pack
from etl.ledger.values import File
from etl.report.values import Status
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.tables.registry import tables
from etl.tables.values import RUN_COLUMNS
from tests.exporting import Project, open_project
from tests.faults import disks
from tests.faults.disks import SIZES, data_files, first
from tests.test_rebuilding import opened, places_of_bodies

CLEAN = 3
"""Requests of a first export of these sizes."""


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests break files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@dataclass
class Verify:
    """Runs `etl verify --json`."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, project: Project, *, deep: bool = False) -> tuple[int, dict[str, Any]]:
        """Return the exit code, and what is told of the first pipeline."""
        self.capsys.readouterr()
        code = verify_command(project.file, None, deep=deep, as_json=True)
        told: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return code, told["pipelines"][0]

    def kinds(self, project: Project, *, deep: bool = False) -> list[str]:
        """Return the kinds of what differs."""
        return [finding["kind"] for finding in self(project, deep=deep)[1]["findings"]]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Verify:
    """Return what runs `etl verify --json` in this process."""
    return Verify(capsys)


async def test_a_sound_lake_is_verified_without_state_credentials_or_a_request(tmp_path: Path):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        shutil.rmtree(project.state)
        asked = len(project.sandbox.requests)
        environ = {key: value for key, value in os.environ.items() if "USERTESTING" not in key}
        command = project.command("verify", "nightly", "--deep")
        done = await anyio.run_process(command, env=environ)
        assert done.stdout == (
            b"nightly: all as recorded. 1 commits, 2 files, rows: 541 in sessions\n"
        )
        assert done.stderr == b""
        assert len(project.sandbox.requests) == asked
        assert not project.state.exists()


def noise_at_the_end(project: Project) -> None:
    """Overwrite the footer of a data file, whose size stays."""
    content = first(project).read_bytes()
    first(project).write_bytes(content[:-40] + bytes(40))


def a_footer_that_lies(project: Project) -> None:
    """Let the footer claim one row more than there are; the size stays."""
    content = first(project).read_bytes()
    footer = content.rindex(b"PAR1") - 4 - int.from_bytes(content[-8:-4], "little")
    claim = content.index(b"\x16\xea\x07", footer)  # 501, as Thrift writes it
    first(project).write_bytes(content[:claim] + b"\x16\xec\x07" + content[claim + 3 :])


def a_wrong_byte(project: Project) -> None:
    """Alter a byte in the middle of a data file."""
    content = bytearray(first(project).read_bytes())
    content[len(content) // 3] ^= 1
    first(project).write_bytes(content)


def unfinished(project: Project) -> None:
    """Leave what a process leaves that dies while it writes."""
    hidden = first(project).with_name(".part-nightly-00000002-0badcafe-0.unfinished")
    shutil.copy(first(project), hidden)


def uncommitted(project: Project) -> None:
    """Leave what a process leaves that dies before its commit."""
    name = "part-nightly-00000002-0badcafe-0.parquet"
    shutil.copy(first(project), first(project).with_name(name))


def beaten(project: Project) -> None:
    """Leave what a process leaves that dies after another one took its number."""
    name = "part-nightly-00000001-0badcafe-0.parquet"
    shutil.copy(first(project), first(project).with_name(name))


MENDED: list[tuple[Callable[[Project], object], list[str], list[str]]] = [
    (lambda project: first(project).unlink(), ["missing"], ["missing"]),
    (lambda project: disks.half(first(project)), ["size"], ["size"]),
    (noise_at_the_end, ["unreadable"], ["unreadable"]),
    (a_footer_that_lies, ["rows"], ["rows"]),
    (a_wrong_byte, [], ["altered"]),
    (disks.edited, ["size"], ["size"]),
    (disks.compacted, ["missing"], ["missing"]),
    (disks.moved, ["missing", "copy"], ["missing", "copy"]),
    (unfinished, ["leftover"], ["leftover"]),
    (uncommitted, ["leftover"], ["leftover", "double"]),
    (beaten, ["leftover"], ["leftover", "double"]),
]


@pytest.mark.parametrize(
    ("change", "shallow", "deep"),
    MENDED,
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_differs_is_told_and_the_next_run_mends_it(
    tmp_path: Path,
    verify: Verify,
    change: Callable[[Project], object],
    shallow: list[str],
    deep: list[str],
):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        change(project)
        assert verify.kinds(project) == shallow
        code, told = verify(project, deep=True)
        assert code == 4
        assert [finding["kind"] for finding in told["findings"]] == deep
        assert (await project.ended()).exit_code == 0
        await project.exact()
        assert verify(project, deep=True)[0] == 0


async def test_what_was_found_once_is_told_again_until_it_is_mended(tmp_path: Path, verify: Verify):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        a_wrong_byte(project)
        assert verify.kinds(project) == []
        assert verify.kinds(project, deep=True) == verify.kinds(project) == ["altered"]


async def test_a_copy_is_told_and_left_to_who_made_it(tmp_path: Path, verify: Verify):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        copy = disks.copied(project)
        code, told = verify(project, deep=True)
        assert code == 4
        assert {finding["kind"] for finding in told["findings"]} == {"copy", "double"}
        assert {finding["mended_by"] for finding in told["findings"]} == {"you"}
        copy.unlink()
        assert verify(project, deep=True)[0] == 0


REFUSED: list[tuple[Callable[[Project], object], str]] = [
    (disks.one_commit(disks.half), "A commit of the lake cannot be read"),
    (disks.a_hole, "Commit 1 is missing"),
    (lambda project: shutil.rmtree(project.lake / "_etl"), "There is no lake here"),
    (lambda project: shutil.rmtree(project.lake), "There is no lake here"),
    (lambda project: disks.half(project.lake / "_etl" / "lake.json"), "lake.json cannot be read"),
    (disks.linked, "is a symbolic link"),
]


@pytest.mark.parametrize(
    ("change", "says"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_lake_that_no_run_would_touch_is_told_with_exit_5(
    tmp_path: Path, verify: Verify, change: Callable[[Project], object], says: str
):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        change(project)
        code, told = verify(project)
        assert code == 5
        assert says in told["findings"][0]["says"]


async def test_files_of_a_run_under_way_are_no_difference(tmp_path: Path, verify: Verify):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        unfinished(project)
        uncommitted(project)
        with LocalLake(project.lake).locked("nightly"):
            assert verify.kinds(project) == []
        assert verify.kinds(project) == ["leftover", "leftover"]


async def test_rows_in_the_folder_of_another_month_are_found(tmp_path: Path):
    lake = "    lake: {url: ./lake, partition_by: [start_date]}\n"
    async with open_project(tmp_path, 400, extra=lake) as project:
        await project.export()
        one, other = data_files(project)[:2]
        paths = [str(path.relative_to(project.lake)) for path in (one, other)]
        assert [rows_elsewhere(LocalLake(project.lake), path) for path in paths] == [0, 0]
        shutil.copy(one, other)
        assert rows_elsewhere(LocalLake(project.lake), paths[1]) > 0


async def test_rows_that_are_recorded_and_nowhere_are_asked_again_after_a_reset(
    tmp_path: Path, verify: Verify
):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        lake, test = LocalLake(project.lake), project.tests[0]
        record = commits.read(lake.commit_path("nightly", 1), "nightly").records[test]
        record.covered["sessions"][12345] = 1
        wrong = Commit("nightly", 2, "wrong", records={test: pack(record)})
        assert lake.commit("nightly", 2, commits.encode(wrong))
        code, told = verify(project, deep=True)
        assert code == 4
        assert told["findings"][0]["says"].startswith("1 rows of the table 'sessions'")
        assert told["findings"][0]["mended_by"] == "etl reset"
        reset_command(project.file, "nightly", [test])
        assert verify(project, deep=True)[0] == 0
        await project.export()
        await project.exact()


async def test_verify_says_in_words_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    async with open_project(tmp_path, *SIZES) as project:
        await project.export()
        name = first(project).name
        first(project).unlink()
        assert verify_command(project.file, "nightly", deep=False, as_json=False) == 4
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("nightly: 1 difference. 1 commits, 2 files")
        assert name in said[1] and "501 rows with it. Mended by: the next run." in said[1]


# What only reading can tell: of files that were wrong when they were committed, or so long
# ago that no hash of them was kept.

ROWS = 501
DATES = Layout("sessions", ("start_date",), tables()["sessions"].dates)
SHAPE = shape_of(DATES, (*tables()["sessions"].columns, *RUN_COLUMNS))


def landed(lake: LocalLake) -> File:
    """Publish a data file, and commit nothing yet."""
    started = datetime(2024, 5, 1, 12, tzinfo=UTC)
    some = [
        {"test_id": "a", "session_id": f"session-{n}", "start_time": started} for n in range(ROWS)
    ]
    lake.found()
    batch = Batch(lake, "nightly", 1)
    batch.add(SHAPE, pa.RecordBatch.from_pylist(some, schema=SHAPE.full_schema), (0, 0))
    (file,) = batch.finish()
    lake.publish([file.path])
    return replace(file, xxh3=None)


def deeply(lake: LocalLake, *files: File) -> list[tuple[str, str]]:
    """Commit these files and return what a deep verification finds."""
    assert lake.commit("nightly", 1, commits.encode(Commit("nightly", 1, "old", files=files)))
    found = verify_lake(lake, "nightly", deep=True)
    assert found.doubted == {finding.path for finding in found.findings}
    return [(finding.kind, finding.says) for finding in found.findings]


def test_a_sound_file_without_a_hash_is_sound(tmp_path: Path):
    lake = LocalLake(tmp_path)
    assert deeply(lake, landed(lake)) == []


def test_rows_that_cannot_be_read_are_found_without_a_hash(tmp_path: Path):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    place = lake.root / file.path
    content = place.read_bytes()
    place.write_bytes(content[:4] + bytes(60) + content[64:])
    assert deeply(lake, file) == [("unreadable", "Its rows cannot be read.")]


def test_dates_that_cannot_be_read_are_found_without_a_hash(tmp_path: Path):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    place = lake.root / file.path
    undated = pq.read_table(place, partitioning=None).drop_columns(["start_time"])
    pq.write_table(undated, place)
    file = replace(file, bytes=place.stat().st_size)
    assert deeply(lake, file) == [("unreadable", "Its rows cannot be read.")]


def test_rows_count_and_not_what_commit_and_footer_say_of_them(tmp_path: Path):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    place = lake.root / file.path
    content = place.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    claim = content.index(b"\x16\xea\x07", footer)  # 501, as Thrift writes it
    place.write_bytes(content[:claim] + b"\x16\xec\x07" + content[claim + 3 :])
    assert deeply(lake, replace(file, rows=ROWS + 1)) == [
        ("rows", "It holds 501 rows; 502 were committed.")
    ]


def test_rows_that_were_committed_into_the_folder_of_another_day_are_found(tmp_path: Path):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    wrong = file.path.replace("2024-05-01", "2024-05-02")
    (lake.root / wrong).parent.mkdir()
    (lake.root / file.path).rename(lake.root / wrong)
    assert deeply(lake, replace(file, path=wrong)) == [
        ("folder", "501 of its rows belong to another folder.")
    ]


def test_a_file_of_a_table_that_this_version_does_not_know_is_not_read(tmp_path: Path):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    theirs = file.path.replace("sessions/", "table_of_tomorrow/")
    (lake.root / "sessions").rename(lake.root / "table_of_tomorrow")
    assert deeply(lake, replace(file, path=theirs)) == []


def test_a_file_that_a_run_replaces_meanwhile_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lake = LocalLake(tmp_path)
    file = landed(lake)
    listed = LocalLake.data_files

    def replaced_meanwhile(lake: LocalLake) -> dict[str, int]:
        gone = Commit("nightly", 2, "run", replaces=[file.path])
        lake.commit("nightly", 2, commits.encode(gone))
        lake.remove([file.path])
        return listed(lake)

    monkeypatch.setattr(LocalLake, "data_files", replaced_meanwhile)
    assert deeply(lake, file) == []


async def test_a_kept_answer_that_is_damaged_is_found_before_a_rebuild_needs_it(
    tmp_path: Path, verify: Verify
):
    async with opened(tmp_path, 9, written="sessions, session_details") as project:
        await project.export()
        assert verify(project, deep=True)[0] == 0
        (path,) = (project.lake / "_etl" / "answers").rglob("*.parquet")
        place, whole = places_of_bodies(path)[0], path.read_bytes()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert verify.kinds(project) == [], "a run reads no body, and goes on"
        assert verify.kinds(project, deep=True) == ["kept"]
        report = await project.export()
        assert report.status is Status.COMPLETE
        path.write_bytes(whole[: len(whole) // 2])
        kinds = verify.kinds(project, deep=True)
        assert "commit" in kinds and "kept" not in kinds, "it is told once"


async def test_rejects_are_verified_like_rows(tmp_path: Path, verify: Verify):
    async with open_project(tmp_path, 9) as project:
        project.sandbox.add_fault(Fault(FaultKind.RAW_ROW, value="7", times=0))
        await project.export()
        code, told = verify(project, deep=True)
        assert (code, told["rows"]) == (0, {"sessions": 8, "rejects": 1})
        (rejects,) = (project.lake / "rejects").rglob("part-*")
        shutil.copy(rejects, rejects.with_name("part-a-copy.parquet"))
        assert verify.kinds(project, deep=True) == ["double"]


async def test_a_file_of_a_batch_to_come_says_that_the_record_is_of_another_day(
    tmp_path: Path, verify: Verify
):
    async with open_project(tmp_path, 9) as project:
        await project.export()
        ahead = first(project).with_name("part-nightly-00000009-0badcafe-0.parquet")
        shutil.copy(first(project), ahead)
        code, told = verify(project)
        assert (code, [finding["kind"] for finding in told["findings"]]) == (5, ["unnamed"])


def test_no_room_for_the_keys_is_told_with_the_way_out():
    def fill() -> None:
        with open_keys() as keys:
            keys._database.execute("PRAGMA max_page_count = 10")  # noqa: SLF001 - a full disk
            keys.add("sessions/part.parquet", (("a", key) for key in range(100_000)))

    with pytest.raises(StateError, match="SQLITE_TMPDIR"):
        fill()


# `etl reset`.


@pytest.mark.parametrize("state_is_lost", [False, True])
async def test_after_a_reset_the_next_run_reads_the_test_again_and_lands_what_is_missing(
    tmp_path: Path, state_is_lost: bool
):
    async with open_project(tmp_path, 1_200, 40) as project:
        await project.export()
        reset_command(project.file, "nightly", [project.tests[0].upper(), project.tests[0]])
        if state_is_lost:
            shutil.rmtree(project.state)
        project.sandbox.complete(project.tests[0], 2)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 2
        assert report.pipelines[0].edited == {}
        assert report.requests.total == 3 + 1
        await project.exact()
        assert (await project.export()).requests.total == 1 + 1 + 1


async def test_a_test_that_is_done_in_a_paused_round_is_read_again_after_a_reset(tmp_path: Path):
    async with open_project(tmp_path, 40, 1_200, 1_200) as project:
        await project.export(limits=Limits(max_requests=2))
        reset_command(project.file, "nightly", [project.tests[0]])
        await project.export()
        asked = [request.test_id for request in project.sandbox.requests]
        assert asked.count(project.tests[0]) == 2
        await project.exact()


async def test_a_test_that_the_pipeline_has_no_more_can_be_reset(tmp_path: Path):
    async with open_project(tmp_path, 40, 30) as project:
        await project.export()
        gone = project.tests[1]
        project.tests = project.tests[:1]
        project.write()
        reset_command(project.file, "nightly", [gone])


async def test_what_cannot_be_reset_is_said(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await project.export()
        with pytest.raises(ConfigError, match="weekly"):
            reset_command(project.file, "weekly", project.tests)
        with pytest.raises(UsageError, match="has no test"):
            reset_command(project.file, "nightly", ["82629d39-c9b5-4acc-8edc-0f2e34c0b07c"])
        with LocalLake(project.lake).locked("nightly"), pytest.raises(AlreadyRunning):
            reset_command(project.file, "nightly", project.tests)
