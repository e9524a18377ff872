"""An API that changes, and a lake whose tables grow: nothing is lost, and what is new is told."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from anyio import to_thread

from etl.client.values import Answer
from etl.ledger.fields import MOST_FIELDS, OTHER_FIELDS, note_field
from etl.ledger.reading import read_status
from etl.ledger.schema import MIGRATIONS
from etl.ledger.store import open_ledger
from etl.ledger.values import Landed
from etl.report.values import Status
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.tables import rejects
from etl.tables.registry import tables
from tests.exporting import Project, open_project
from tests.tables import recorded

DETAILS = "    tables: [sessions, session_details]\n"
FAIL = DETAILS + "    on_unknown_field: fail\n"


def mood(**more: Any) -> Fault:
    """Return a fault that puts a field into every session's details which no table knows."""
    return Fault(FaultKind.TOP_FIELD, on="details", value="mood", times=0, **more)


def unread(**more: Any) -> Fault:
    """Return a fault by which the second session of the listing cannot be read."""
    return Fault(FaultKind.ROW_FIELDS, value={"status": 5}, times=0, **more)


# Fields that no table knows.


async def test_an_unknown_field_is_warned_of_once_and_counted_over_runs(tmp_path: Path):
    async with open_project(tmp_path, 5, extra=DETAILS) as project:
        project.sandbox.add_fault(mood())
        first = await to_thread.run_sync(project.process, "run", "--quiet")
        project.sandbox.complete(project.tests[0], 2)
        second = await to_thread.run_sync(project.process, "run", "--json")
        assert (first.returncode, second.returncode) == (0, 0)
        (line,) = [json.loads(line) for line in first.stderr.splitlines()]
        told = {key: line[key] for key in ("level", "event", "pipeline", "field", "answers")}
        assert told == {
            "level": "warning",
            "event": "new_field",
            "pipeline": "nightly",
            "field": "mood",
            "answers": 5,
        }
        assert "new_field" not in second.stderr, "it has been told"
        (pipeline,) = json.loads(second.stdout)["pipelines"]
        assert pipeline["unknown_fields"] == {"mood": 2}

        shown = await to_thread.run_sync(project.process, "status", "--json")
        ((seen,),) = (one["unknown_fields"] for one in json.loads(shown.stdout)["pipelines"])
        assert (seen["field"], seen["answers"]) == ("mood", 7)
        assert seen["first_seen"] <= seen["last_seen"]
        plain = await to_thread.run_sync(project.process, "status")
        assert "unknown field 'mood': 7 answers, first 20" in plain.stderr


async def test_an_unknown_field_fails_a_run_that_is_told_so_and_all_lands(tmp_path: Path):
    async with open_project(tmp_path, 5, extra=FAIL) as project:
        project.sandbox.add_fault(mood(nth=2))
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "error      No table knows 'mood' (on_unknown_field); see the column _extra." in (
            ended.said
        )
        assert (await to_thread.run_sync(project.last_run))["status"] == Status.PARTIAL
        details = await to_thread.run_sync(project.lake_rows, "session_details")
        assert len(details) == 5
        assert [one["_extra"] for one in details].count('{"mood":{"a":1}}') == 4
        assert (await project.ended()).exit_code == 0, "met no more"


async def test_a_server_that_invents_names_without_end_fills_neither_report_nor_error(
    tmp_path: Path,
):
    invented = {f"field{number}": number for number in range(2 * MOST_FIELDS)}
    async with open_project(tmp_path, 9, extra=FAIL) as project:
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, value=invented))
        report = await project.export()
        (pipeline,) = report.pipelines
        assert len(pipeline.unknown_fields) == MOST_FIELDS + 1
        assert OTHER_FIELDS in pipeline.unknown_fields
        assert pipeline.error is not None and len(pipeline.error) < 400


def test_the_fields_that_are_counted_are_bounded_over_runs_too(tmp_path: Path):
    with open_ledger(tmp_path, "nightly") as ledger:
        for run in range(3):
            noted: dict[str, Any] = {}
            for number in range(MOST_FIELDS):
                note_field(noted, f"run{run}.{number}", at_us=run)
            met = ledger.land(Landed(run + 1, unknown_fields=list(noted.values())))
            assert len(met) == (MOST_FIELDS, 1, 0)[run]
    fields = {seen.field: seen for seen in read_status(tmp_path, "nightly").unknown_fields}
    assert len(fields) == MOST_FIELDS + 1
    others = fields[OTHER_FIELDS]
    assert (others.answers, others.first_seen_us, others.last_seen_us) == (2 * MOST_FIELDS, 1, 2)


# Rows that cannot be read.


async def test_a_row_that_cannot_be_read_is_no_failure_and_counted(tmp_path: Path):
    async with open_project(tmp_path, 9) as project:
        project.sandbox.add_fault(unread())
        assert (await project.ended()).exit_code == 0
        assert (await project.ended(limits=Limits(strict=True))).exit_code == 0, "not new"
        shown = await to_thread.run_sync(project.process, "status", "--json")
        assert json.loads(shown.stdout)["pipelines"][0]["rejects"] == 1
        plain = await to_thread.run_sync(project.process, "status")
        assert "rejects: 1 rows that could not be read" in plain.stderr


@pytest.mark.parametrize("found", [5, True, ["secret"], {"secret": 1}])
async def test_a_changed_type_is_told_by_field_and_kinds_and_never_by_value(
    tmp_path: Path, found: object
):
    async with open_project(tmp_path, 3) as project:
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, value={"audienceId": found}))
        await project.export()
        (row,) = await to_thread.run_sync(project.lake_rows, "rejects")
        kind = {int: "a number", bool: "a boolean", list: "a list", dict: "an object"}[type(found)]
        assert row["reason"] == f"audienceId is {kind}, not a string"


# Files of several versions.


async def test_every_data_file_says_of_which_table_it_is_and_which_version(tmp_path: Path):
    async with open_project(tmp_path, 9, extra=DETAILS) as project:
        project.sandbox.add_fault(unread())
        await project.export()

        def told() -> dict[str, set[tuple[bytes, bytes]]]:
            found: dict[str, set[tuple[bytes, bytes]]] = {}
            for path in project.lake.glob("[!_]*/**/part-*.parquet"):
                metadata = pq.read_schema(path).metadata
                table = path.relative_to(project.lake).parts[0]
                version = metadata[b"etl_table"], metadata[b"etl_table_version"]
                found.setdefault(table, set()).add(version)
            return found

        versions = {name: tables()[name].version for name in ("sessions", "session_details")}
        versions[rejects.NAME] = rejects.VERSION
        assert await to_thread.run_sync(told) == {
            name: {(name.encode(), str(version).encode())} for name, version in versions.items()
        }


def make_older(path: Path, column: str) -> None:
    """Write a file again as a version would have that did not know a column yet."""
    older = pq.ParquetFile(path).read().drop_columns([column]).replace_schema_metadata()
    pq.write_table(older, path)


def read_by_dataset(lake: Path) -> list[dict[str, Any]]:
    """Read as pyarrow does, under the schema of today."""
    schema = tables()["sessions"].schema()
    found = ds.dataset(lake / "sessions", schema=schema, partitioning="hive")
    return found.to_table().to_pylist()


def read_by_duckdb(lake: Path) -> list[dict[str, Any]]:
    """Read as the README says."""
    query = "FROM read_parquet(?, hive_partitioning=true, union_by_name=true)"
    with duckdb.connect() as database:
        found = database.execute(query, [f"{lake}/sessions/**/part-*.parquet"])
        names = [name for name, *_ in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


@pytest.mark.parametrize("read", [read_by_dataset, read_by_duckdb])
@pytest.mark.parametrize("which", [0, 1], ids=["the first", "the last"])
async def test_files_of_before_and_after_a_column_came_are_read_together(
    tmp_path: Path, read: Any, which: int
):
    async with open_project(tmp_path, 7, 5) as project:
        await project.export()

        def age_and_read() -> tuple[Path, list[dict[str, Any]]]:
            path = sorted((project.lake / "sessions").rglob("*.parquet"))[which]
            make_older(path, "audience_id")
            return path, read(project.lake)

        path, rows = await to_thread.run_sync(age_and_read)
        assert sorted(row["session_id"] for row in rows) == sorted(
            session for sessions in project.served().values() for session in sessions
        )
        for row in rows:
            assert row["start_time"] is not None
            assert str(row["test_id"]) not in path.parent.name or row["audience_id"] is None


@pytest.mark.parametrize("name", sorted(recorded.recorded()))
def test_a_table_only_ever_grows(name: str):
    """What Spark, Delta and Iceberg take for evolution: columns are added, none changes."""
    before, now = recorded.recorded()[name], recorded.current().get(name)
    assert now is not None, "a table that has been published stays"
    if now.version == before.version:
        assert now.columns.items() >= before.columns.items()
    kept = [column for column in now.columns if column in before.columns]
    assert kept == [column for column in before.columns if column in now.columns]
    assert now.version >= before.version


def test_every_table_is_recorded_as_it_is():
    assert recorded.recorded() == recorded.current(), "python -m tests.tables.recorded --write"


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: str(table.name))
def test_every_column_may_be_null(table: Any):
    assert all(field.nullable for field in table.schema())


# A ledger of another version.


def older_ledger(folder: Path) -> None:
    """Make a ledger as it was before fields were counted, with a run in it."""
    with closing(sqlite3.connect(folder / "nightly.sqlite")) as database:
        for statements in MIGRATIONS[:2]:
            database.executescript(statements)
        database.execute("INSERT INTO runs VALUES ('before', 1, 'complete', NULL)")
        database.execute("PRAGMA user_version = 2")
        database.commit()


def test_an_older_ledger_is_looked_at_as_it_is_and_migrated_by_the_next_run(tmp_path: Path):
    older_ledger(tmp_path)
    before = read_status(tmp_path, "nightly")
    assert [run.run_id for run in before.runs] == ["before"]
    assert before.unknown_fields == []
    with open_ledger(tmp_path, "nightly") as ledger:
        ledger.begin_run("after", 2)
    assert [run.run_id for run in read_status(tmp_path, "nightly").runs] == ["after", "before"]


def test_a_ledger_that_a_run_has_just_begun_to_make_says_nothing(tmp_path: Path):
    (tmp_path / "nightly.sqlite").touch()
    assert read_status(tmp_path, "nightly").tests == ()


async def test_an_answer_that_only_a_newer_version_can_read_is_kept_for_it(tmp_path: Path):
    async with open_project(tmp_path, 5) as project:
        await project.export()
        test = project.tests[0]
        strange = Answer("holograms", test, "s", None, 200, 1, b"of tomorrow")
        known = Answer("session_details", test, "s", None, 200, 2, b"{}")

        def keep_both() -> None:
            with open_ledger(project.state, "nightly") as ledger:
                ledger.keep([strange, known])
                ledger.keep([strange])

        await to_thread.run_sync(keep_both)
        for _ in range(2):
            ended = await project.ended()
            assert ended.exit_code == 0
            assert (
                "Kept in the inbox: what a newer version asked of the endpoint 'holograms' (2)"
                in (ended.said)
            )
        assert await to_thread.run_sync(kept, project) == [[strange], [strange]]


def kept(project: Project) -> list[list[Answer]]:
    """Return what lies in the inbox; blocks."""
    with open_ledger(project.state, "nightly") as ledger:
        return [ledger.frame(number) for number in ledger.frames()]


async def test_looking_at_a_ledger_at_rest_leaves_nothing_beside_it(tmp_path: Path):
    async with open_project(tmp_path, 5) as project:
        await project.export()

        def beside() -> list[str]:
            return sorted(path.name for path in project.state.iterdir())

        before = await to_thread.run_sync(beside)
        for command in ("status", "plan"):
            done = await to_thread.run_sync(project.process, command)
            assert done.returncode == 0
        assert await to_thread.run_sync(beside) == before
        assert not [name for name in before if name.endswith(("-wal", "-shm"))]


async def test_a_reset_says_that_the_rows_stay_and_the_claim_ends(tmp_path: Path):
    async with open_project(tmp_path, 5) as project:
        await project.export()
        done = await to_thread.run_sync(
            project.process, "reset", "nightly", "--test", project.tests[0]
        )
        assert "Its rows stay in the lake" in done.stdout
        assert "nothing keeps another pipeline" in done.stdout
