"""A lake on a disk: files appear whole or not at all, and every trouble is told with its place."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.errors import LakeError
from etl.lake.batch import Batch, shape_of
from etl.lake.local import LocalLake
from etl.lake.loose import LooseRows
from etl.lake.partitions import Layout
from etl.tables.values import Cells, Column

COLUMNS = (Column("test_id", pa.string(), "Test."), Column("n", pa.int64(), "Number."))
SHAPE = shape_of(Layout("sessions", ("test_id",), None), COLUMNS)
FULL = OSError(28, "No space left on device")


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return LocalLake(tmp_path / "lake")


def rows(*numbers: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"test_id": "a", "n": n} for n in numbers], schema=SHAPE.full_schema
    )


def batch_of(lake: LocalLake, *numbers: int) -> Batch:
    batch = Batch(lake, "nightly", 1)
    batch.add(SHAPE, rows(*numbers), (0, 0))
    return batch


def files_of(lake: LocalLake) -> list[str]:
    return sorted(path.name for path in lake.root.rglob("*") if path.is_file())


# Its id.


def test_a_lake_is_founded_once_whoever_tries_again(lake):
    assert lake.identity() is None
    identity = lake.found()
    assert lake.found() == lake.identity() == identity
    assert files_of(lake) == ["lake.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"id'])
def test_a_lake_whose_id_cannot_be_read_is_refused(lake, content):
    lake.found()
    (lake.root / "_etl" / "lake.json").write_bytes(content)
    with pytest.raises(LakeError, match="record is damaged"):
        lake.identity()


def test_nothing_is_written_once_another_lake_is_in_its_place(lake):
    lake.bind(lake.found())
    (lake.root / "_etl" / "lake.json").write_text('{"id": "another"}')
    for write in (
        lambda: lake.unfinished("sessions/part.parquet"),
        lambda: lake.publish(["sessions/part.parquet"]),
        lambda: lake.commit("nightly", 1, b"commit"),
    ):
        with pytest.raises(LakeError, match="another one is in its place"):
            write()
    assert files_of(lake) == ["lake.json"]


# Commits.


def test_a_commit_is_made_once(lake):
    assert lake.commit("nightly", 7, b"first")
    assert not lake.commit("nightly", 7, b"second")
    assert lake.commit_path("nightly", 7).read_bytes() == b"first"
    assert (lake.commits("nightly"), lake.pipelines()) == ([7], ["nightly"])
    assert (lake.commits("weekly"), LocalLake(lake.root / "none").pipelines()) == ([], [])


def test_what_is_no_commit_is_not_taken_for_one(lake):
    lake.commit("nightly", 7, b"first")
    folder = lake.commit_path("nightly", 7).parent
    for name in ("7.parquet", ".00000008.parquet.ab.unfinished", "notes.txt"):
        (folder / name).touch()
    (folder.parent / "notes").touch()
    assert (lake.commits("nightly"), lake.pipelines()) == ([7], ["nightly"])
    lake.remove_unfinished_commits("nightly")
    assert files_of(lake) == ["00000007.parquet", "7.parquet", "notes", "notes.txt"]


def test_what_a_death_left_of_the_lakes_id_is_tidied_up(lake):
    lake.found()
    (lake.root / "_etl" / ".lake.json.0badcafe.unfinished").touch()
    lake.remove_unfinished_commits("nightly")
    assert files_of(lake) == ["lake.json"]


@pytest.mark.parametrize(("taken", "created"), [(True, False), (False, None)])
def test_a_commit_that_someone_tidied_up_is_known_by_whether_it_is_there(
    lake, monkeypatch, taken, created
):
    """Another run may make the commit and then remove ours, still under its hidden name."""

    def tidied(hidden: Path, path: Path) -> None:
        hidden.unlink()
        if taken:
            path.write_bytes(b"theirs")
        raise FileNotFoundError(2, "No such file or directory", str(hidden))

    lake.found()
    monkeypatch.setattr(os, "link", tidied)
    if created is None:
        with pytest.raises(LakeError, match="No such file"):
            lake.commit("nightly", 1, b"ours")
    else:
        assert lake.commit("nightly", 1, b"ours") is created
    assert not [name for name in files_of(lake) if "unfinished" in name]


# Data files.


def test_links_and_what_vanishes_meanwhile_are_not_data(lake, monkeypatch):
    assert lake.data_files() == {}
    (lake.root / "sessions").mkdir(parents=True)
    (lake.root / "top.parquet").touch()
    (lake.root / "sessions" / "part.parquet").write_bytes(b"12345")
    (lake.root / "_etl").mkdir()
    (lake.root / "_etl" / "part.parquet").touch()
    assert lake.data_files() == {"sessions/part.parquet": 5}
    (lake.root / "sessions" / "link.parquet").symlink_to("/etc/hostname")
    with pytest.raises(LakeError, match="symbolic link"):
        lake.data_files()


def test_a_folder_that_is_a_link_is_not_written_through(lake, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    lake.root.mkdir()
    (lake.root / "sessions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="symbolic link"):
        lake.unfinished("sessions/part.parquet")


def test_a_file_that_is_put_aside_is_out_of_sight_and_one_that_is_gone_no_trouble(lake):
    (lake.root / "sessions" / "test_id=a").mkdir(parents=True)
    path = "sessions/test_id=a/part.parquet"
    (lake.root / path).write_bytes(b"damaged")
    aside = lake.put_aside(path)
    assert (lake.root / aside).read_bytes() == b"damaged"
    assert lake.put_aside(path) == aside
    assert lake.data_files() == {}


def test_doubts_are_kept_until_they_are_settled(lake):
    lake.found()
    assert lake.doubted("nightly") == set()
    lake.doubt("nightly", ["b", "a"])
    assert lake.doubted("nightly") == {"a", "b"}
    lake.doubt("nightly", [])
    assert lake.doubted("nightly") == set()
    for content in ("{", "7"):
        (lake.root / "_etl" / "doubted-nightly.json").write_text(content)
        assert lake.doubted("nightly") == set(), "only a hint"


def test_a_probe_leaves_nothing_and_says_if_no_file_can_be_made(lake, monkeypatch):
    lake.probe()
    assert files_of(lake) == []

    def refuse(*_: object) -> None:
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LakeError, match="could not be created"):
        lake.probe()
    assert files_of(lake) == []


# Batches.


def test_a_batch_is_hidden_until_it_is_published(lake):
    (file,) = batch_of(lake, 1, 2, 3).finish()
    assert (file.rows, file.batch) == (3, 1)
    assert not (lake.root / file.path).exists()
    lake.publish([file.path])
    assert pq.read_table(lake.root / file.path, partitioning=None)["n"].to_pylist() == [1, 2, 3]
    assert (lake.root / file.path).stat().st_size == file.bytes
    assert lake.digest(lake.root / file.path) == file.xxh3


def test_a_row_group_that_is_full_is_written_at_once_and_the_rest_in_order(lake, monkeypatch):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 3)
    batch = Batch(lake, "nightly", 1)
    full = []
    for order, some in ((1, rows(3, 4)), (0, rows(1, 2)), (2, rows(5))):
        batch.add(SHAPE, some, (order, 0))
        full.append(batch.has_full_row_group)
    assert full == [False, True, True]
    assert batch.bytes_waiting == 5 * 8
    batch.write_full()
    assert (batch.has_full_row_group, batch.bytes_waiting, batch.rows) == (False, 0, 5)
    (file,) = batch.finish()
    lake.publish([file.path])
    landed = pq.ParquetFile(lake.root / file.path)
    assert landed.read()["n"].to_pylist() == [1, 2, 3, 4, 5]


def test_loose_rows_become_arrow_before_they_are_too_many(lake, monkeypatch):
    monkeypatch.setattr("etl.lake.batch._MOST_LOOSE_ROWS", 3)
    batch = Batch(lake, "nightly", 1)
    waiting = []
    for order, numbers in ((1, [5]), (0, [1, 2]), (1, [6]), (0, [3, 4])):
        cells = {"n": Cells(pa.int64(), numbers)}
        loose = LooseRows(cells, None, range(len(numbers)), {"test_id": "a"})
        batch.add(SHAPE, loose, (order, 0))
        waiting.append(batch.bytes_waiting)
    assert waiting == [0, 3 * 8, 3 * 8, 6 * 8]
    (file,) = batch.finish()
    lake.publish([file.path])
    assert pq.ParquetFile(lake.root / file.path).read()["n"].to_pylist() == [1, 2, 3, 4, 5, 6]


def test_what_loose_rows_show_of_themselves_is_how_many_they_are():
    cells = {"email": Cells(pa.string(), ["ann@example.com", "bob@example.com"])}
    loose = LooseRows(cells, None, range(2), {"test_id": "secret"})
    assert "ann@" not in f"{cells}{loose}" and "secret" not in repr(loose)
    assert repr(loose) == "LooseRows(2)" and repr(cells["email"]) == "Cells(string, 2)"


def test_loose_rows_of_several_days_go_each_into_the_folder_of_its_day(lake):
    kind = pa.timestamp("us", "UTC")
    days = [Column(name, kind, "") for name in ("start", "finish")]
    layout = Layout("visits", ("test_id", "start_date"), ("start", "finish"))
    shape = shape_of(layout, [Column("test_id", pa.string(), ""), *days])
    batch = Batch(lake, "nightly", 1)
    moments = [0, 86_400_000_000, None, 1]
    cells = {name: Cells(kind, moments) for name in ("start", "finish")}
    batch.add(shape, LooseRows(cells, None, range(4), {"test_id": "a"}), (0, 0))
    found = {file.path.rsplit("/", 1)[0]: file.rows for file in batch.finish()}
    assert found == {
        "visits/test_id=a/start_date=1970-01-01": 2,
        "visits/test_id=a/start_date=1970-01-02": 1,
        "visits/test_id=a/start_date=__HIVE_DEFAULT_PARTITION__": 1,
    }


def test_row_groups_of_a_partition_follow_one_another_in_one_file(lake, monkeypatch):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 2)
    batch = Batch(lake, "nightly", 1)
    for page in range(3):
        batch.add(SHAPE, rows(2 * page, 2 * page + 1), (0, page))
        batch.write_full()
    (file,) = batch.finish()
    lake.publish([file.path])
    landed = pq.ParquetFile(lake.root / file.path)
    assert (landed.num_row_groups, file.rows) == (3, 6)
    assert landed.read()["n"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_an_abandoned_batch_leaves_nothing_whether_it_was_begun_full_or_finished(lake, monkeypatch):
    monkeypatch.setattr("etl.lake.batch.ROW_GROUP_ROWS", 2)
    batch_of(lake, 1).abandon()
    begun = batch_of(lake, 1, 2)
    begun.write_full()
    assert files_of(lake)
    begun.abandon()
    assert files_of(lake) == []
    finished = batch_of(lake, 1, 2)
    lake.publish([file.path for file in finished.finish()])
    finished.abandon()
    assert files_of(lake) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [(FULL, "No space left on device"), (pa.ArrowInvalid("value 'Ann Smith'"), "ArrowInvalid")],
)
@pytest.mark.parametrize("method", ["write_table", "close"])
def test_a_file_that_cannot_be_written_is_named_and_its_values_are_not(
    lake, monkeypatch, method, error, told
):
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    batch = batch_of(lake, 1, 2)
    monkeypatch.setattr(pq.ParquetWriter, method, refuse)
    with pytest.raises(LakeError, match=told) as failed:
        batch.finish()
    assert "Ann Smith" not in str(failed.value)
    assert "sessions/test_id=a/part-nightly-00000001-" in str(failed.value)
    batch.abandon()
    assert files_of(lake) == []


def test_what_is_removed_durably_may_have_gone_with_its_folder(tmp_path: Path):
    lake = LocalLake(tmp_path)
    here = tmp_path / "sessions" / "part.parquet"
    here.parent.mkdir()
    here.touch()
    lake.remove_durably(["sessions/part.parquet", "gone/part.parquet"])
    assert not here.exists()
