"""Personal data: what is excluded or hashed never lands, and leaves the state with its batch."""

import hashlib
import hmac
import json
import os
import secrets
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from anyio import open_process, to_thread
from blockbuster import BlockBuster

from etl.client.values import Answer, Fetched
from etl.lake import commits
from etl.lake.landing import Kept
from etl.lake.personal import PersonalData
from etl.ledger.store import Ledger, open_ledger
from etl.ledger.values import Landed
from etl.report.values import Status
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.pages import page_of
from etl.sandbox.server import SandboxOptions, open_sandbox
from etl.tables.sessions import SESSION_RESULTS, TABLE, decode
from tests.exporting import TESTS, Project

KEY = "a key that nobody else has"
BOTH = "    columns: {sessions: {exclude: [audience_id, start_time], hash: [session_id, status]}}\n"
EXCLUDED = "    columns: {sessions: {exclude: [audience_id]}}\n"
HASHED = "    columns: {sessions: {hash: [session_id]}}\n"


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look into files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@dataclass
class Private(Project):
    """A project of which all can be seen that lies in its folders."""

    def everything(self) -> bytes:
        """Return all that lake and state hold: as it lies there, and Parquet also decoded."""
        found = []
        for folder in (self.lake, self.state):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                found += [str(path).encode(), path.read_bytes()]
                if path.suffix == ".parquet":
                    found.append(repr(pq.read_table(path, partitioning=None).to_pylist()).encode())
        return b"\0".join(found)


Opened = Callable[..., AbstractAsyncContextManager[Private]]


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return what opens a project whose pipeline has these lines, over tests of these sizes."""

    @asynccontextmanager
    async def open_project(extra: str, *sizes: int, **options: Any) -> AsyncIterator[Private]:
        async with open_sandbox(SandboxOptions(rate_requests=None, **options)) as sandbox:
            project = Private(tmp_path, sandbox, TESTS[: len(sizes)])
            project.settings["ETL_HASH_KEY"] = KEY
            for test, size in zip(project.tests, sizes, strict=True):
                sandbox.set_sessions(test, size)
            project.write(extra)
            yield project

    return open_project


def hashed(value: str, key: str = KEY) -> str:
    """Return what a value is to land as: RFC 2104 over SHA-256, in hex."""
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()


def exact(project: Private) -> None:
    """Assert that the lake holds what the sandbox lists, each row once, under its hash."""
    served = {test: sorted(map(hashed, ids)) for test, ids in project.served().items()}
    assert project.landed() == served


# What lands.


async def test_excluded_columns_land_as_null_and_hashed_ones_as_their_keyed_hash(opened: Opened):
    async with opened(BOTH, 7, 501) as project:
        project.sandbox.edit(project.tests[0], 2, status=None)
        assert (await project.export()).status is Status.COMPLETE
        rows = {row["session_id"]: row for row in project.lake_rows()}
        served = [row for test in project.tests for row in project.sandbox.rows(test)]
        assert len(rows) == len(served) == 508
        for told in served:
            row = rows[hashed(str(told["sessionId"]))]
            assert row["audience_id"] is None and row["start_time"] is None
            assert row["status"] == (told["status"] and hashed(str(told["status"])))
            assert f"{row['finish_time']:%Y-%m-%dT%H:%M:%S}" == str(told["finishTime"])[:19]
        kinds = pq.read_schema(next((project.lake / "sessions").rglob("part-*.parquet")))
        assert kinds.field("start_time").type == pa.timestamp("us", "UTC")
        assert kinds.field("session_id").type == pa.string()


async def test_the_same_session_has_the_same_name_in_every_run_and_file(opened: Opened):
    async with opened(HASHED, 40) as project:
        await project.export()
        project.sandbox.complete(project.tests[0], 3)
        project.sandbox.finish_late(project.tests[0], 20)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 4
        exact(project)


async def test_nothing_of_what_is_hidden_is_in_lake_or_state_after_the_run(opened: Opened):
    async with opened(BOTH, 30, 501) as project:
        marker = f"marker-{secrets.token_hex(12)}"
        for test in project.tests:
            project.sandbox.edit(test, 3, audienceId=marker, status=marker)
        fault = Fault(FaultKind.RAW_ROW, value=f'{{"sessionId": 7, "more": "{marker}"}}')
        project.sandbox.add_fault(fault)
        project.sandbox.add_fault(Fault(FaultKind.TOP_FIELD, nth=2, value=f"{marker}@x.org"))
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, nth=3, value={"more": marker}))
        await project.export()
        everything = project.everything()
        assert hashed(marker).encode() in everything
        assert marker.encode() not in everything
        for test in project.tests:
            assert not [name for name in project.served()[test] if name.encode() in everything]
        told = project.lake_rows("rejects") + project.lake_rows()
        assert {row["_extra"] for row in told} == {None}


async def test_a_row_that_cannot_be_read_is_told_without_its_body(opened: Opened):
    async with opened(HASHED, 5) as project:
        bad = '{"sessionId": "a-name", "startTime": "yesterday"}'
        project.sandbox.add_fault(Fault(FaultKind.RAW_ROW, times=0, value=bad))
        await project.export()
        await project.export()
        (row,) = project.lake_rows("rejects")
        assert (row["body"], row["session_id"]) == (None, hashed("a-name"))
        assert row["reason"] == "startTime is not an ISO 8601 timestamp"
        next((project.lake / "sessions").rglob("part-*.parquet")).unlink()
        report = await project.export()
        assert report.pipelines[0].rows == {"sessions": 4}
        assert len(project.lake_rows("rejects")) == 1


async def test_no_hash_of_ledger_or_lake_lets_one_guess_what_was_hidden(opened: Opened):
    async with opened(BOTH, 60) as project:
        fault = Fault(FaultKind.RAW_ROW, times=0, value='{"sessionId": "a-name", "status": 7}')
        project.sandbox.add_fault(fault)
        await project.export()
        guesses = {xxhash.xxh3_64_intdigest(b"a-name")}
        for row in project.sandbox.rows(project.tests[0]):
            guesses.add(xxhash.xxh3_64_intdigest(str(row["sessionId"]).encode()))
        test = project.tests[0]
        page = page_of(test, project.sandbox.listing(test), 500, 0)
        guesses.update(decode(page.body()).rows.hashes)
        known = numbers(project)
        assert len(known) > 60
        assert not guesses & known


def numbers(project: Private) -> set[int]:
    """Return all 64-bit hashes of the lake's record and of the ledger's."""
    found: set[int] = set()
    paths = sorted((project.lake / "_etl/answers").rglob("*.parquet"))
    records = [
        record for path in paths for record in commits.read(path, "nightly").records.values()
    ]
    with open_ledger(project.state, "nightly") as ledger:
        records += [ledger.record(test) for test in ledger.tests_known()]
    for record in records:
        found |= {*record.listing.ids, *record.removed}
        for rows in record.covered.values():
            found |= {*rows.keys(), *rows.values()}
    return found


# What may be lost, with hashed keys.


async def test_a_lost_state_directory_costs_no_request_where_ids_are_hashed(opened: Opened):
    async with opened(HASHED, 3, 501) as project:
        await project.export()
        with_state = await project.export()
        shutil.rmtree(project.state)
        report = await project.export()
        assert report.requests.total == with_state.requests.total
        assert report.pipelines[0].rows["sessions"] == 0
        exact(project)


async def test_a_lost_data_file_is_found_and_asked_again_where_ids_are_hashed(opened: Opened):
    async with opened(HASHED, 3, 501) as project:
        await project.export()
        project.sandbox.complete(project.tests[1], 2)
        await project.export()
        max((project.lake / "sessions").rglob("part-*.parquet"), key=os.path.getsize).unlink()
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 501
        exact(project)


async def test_files_that_were_compacted_are_adopted_where_ids_are_hashed(opened: Opened):
    lake = "    lake: {url: ./lake, partition_by: []}\n" + HASHED
    async with opened(lake, 3, 501) as project:
        await project.export()
        project.sandbox.complete(project.tests[1], 2)
        await project.export()
        parts = sorted((project.lake / "sessions").glob("part-*.parquet"))
        assert len(parts) == 2
        whole = pa.concat_tables(pq.read_table(part) for part in parts)
        pq.write_table(whole, project.lake / "sessions/part-compacted.parquet")
        for part in parts:
            part.unlink()
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 0
        exact(project)


async def test_a_removed_session_is_told_by_its_hash(opened: Opened):
    async with opened(HASHED, 40) as project:
        await project.export()
        gone = project.sandbox.session_ids(project.tests[0])[5]
        project.sandbox.remove(project.tests[0], 5)
        report = await project.export()
        assert report.pipelines[0].removed == {project.tests[0]: 1}
        answers = project.lake / "_etl/answers/pipeline=nightly"
        told = [row for path in answers.iterdir() for row in pq.read_table(path).to_pylist()]
        assert [row["session_id"] for row in told if row["endpoint"] == "removed"] == [hashed(gone)]


# What may change, and what may not.


async def test_another_key_is_refused_before_any_request_also_without_the_state(opened: Opened):
    async with opened("    columns: {sessions: {hash: [status]}}\n", 3) as project:
        await project.export()
        asked_before = len(project.sandbox.requests)
        project.settings["ETL_HASH_KEY"] = "another key of sixteen bytes"
        for _ in range(2):
            report, codes = await project.export_with_codes()
            assert codes == [2]
            assert "ETL_HASH_KEY is not the one" in (report.pipelines[0].error or "")
            shutil.rmtree(project.state)
        assert len(project.sandbox.requests) == asked_before
        project.settings["ETL_HASH_KEY"] = KEY
        assert (await project.export()).status is Status.COMPLETE
        assert len(project.lake_rows()) == 3


@pytest.mark.parametrize(("before", "after"), [("", HASHED), (HASHED, "")])
async def test_a_key_that_is_hashed_from_now_on_or_no_more_is_refused(
    opened: Opened, before: str, after: str
):
    async with opened(before, 3) as project:
        await project.export()
        project.write(after)
        report, codes = await project.export_with_codes()
        assert codes == [2]
        assert "known by their key" in (report.pipelines[0].error or "")
        assert len(project.lake_rows()) == 3


async def test_a_column_excluded_later_leaves_landed_rows_as_they_are_and_says_so(opened: Opened):
    async with opened("", 10) as project:
        await project.export()
        before = project.lake_rows()
        project.write(EXCLUDED)
        project.sandbox.complete(project.tests[0], 2)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 2
        assert report.pipelines[0].edited == {"sessions": 10}
        rows = project.lake_rows()
        new = [row["audience_id"] for row in rows if row not in before]
        assert (len(rows), new) == (12, [None, None])
        assert (await project.export()).pipelines[0].edited == {}


async def test_an_edit_of_what_is_excluded_is_none(opened: Opened):
    async with opened(EXCLUDED, 10) as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 3, audienceId="another")
        assert (await project.export()).pipelines[0].edited == {}
        project.sandbox.edit(project.tests[0], 3, status="ANOTHER")
        assert (await project.export()).pipelines[0].edited == {"sessions": 1}


async def test_peek_shows_rows_as_they_would_land(opened: Opened):
    async with opened(BOTH, 3) as project:
        told = await to_thread.run_sync(project.process, "peek", project.tests[0], "--json")
        rows = json.loads(told.stdout)["rows"]
        served = project.sandbox.session_ids(project.tests[0])
        assert [row["session_id"] for row in rows] == [hashed(name) for name in served]
        assert {row["audience_id"] for row in rows} == {None}


# What the state still holds.


def bodies_in(path: Path) -> list[bytes]:
    """Return pieces of all that an inbox holds: of what is in clear, and of what is packed."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT heads, bodies FROM inbox").fetchall()
        return [
            whole[start : start + 24]
            for row in rows
            for whole in row
            for start in range(0, len(whole) - 24, 500)
        ]
    return []


def found_in(folder: Path, pieces: list[bytes]) -> int:
    """Return how many of the pieces lie in the raw bytes of any file of a folder."""
    raw = b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return sum(piece in raw for piece in pieces)


def keep_some(ledger: Ledger, frames: int) -> list[int]:
    """Keep bodies that no compression makes smaller by much, of many sizes."""
    return [
        ledger.keep(
            [
                Answer(
                    *("session_results", TESTS[0], f"session-{secrets.token_hex(16)}", None),
                    *(200, number, secrets.token_bytes(1 + number * 1_997 % 40_000)),
                )
            ]
        )
        for number in range(frames)
    ]


def test_an_answer_is_gone_from_every_file_of_the_state_once_its_batch_has_landed(tmp_path: Path):
    with open_ledger(tmp_path, "nightly") as ledger:
        frames = keep_some(ledger, 30)
        ledger.commit()
        pieces = bodies_in(ledger.path)
        assert found_in(tmp_path, pieces) > 0.99 * len(pieces)
        ledger.land(Landed(1, frames=frames[:25]))
        left = bodies_in(ledger.path)
        assert left and found_in(tmp_path, left) > 0.98 * len(left)
        assert found_in(tmp_path, sorted(set(pieces) - set(left))) == 0
        ledger.land(Landed(2, frames=frames[25:]))
        assert found_in(tmp_path, pieces) == 0
    assert found_in(tmp_path, pieces) == 0


def test_answers_that_another_machine_has_landed_are_gone_too(tmp_path: Path):
    with open_ledger(tmp_path, "nightly") as ledger:
        frames = keep_some(ledger, 9)
        ledger.commit()
        pieces = bodies_in(ledger.path)
        ledger.drop_from_inbox(
            {
                (answer.endpoint, answer.test_id, answer.session_id, None, answer.fetched_at_us)
                for frame in frames
                for answer in ledger.frame(frame)
            }
        )
        assert pieces and found_in(tmp_path, pieces) == 0


async def test_an_answer_about_a_session_is_known_to_the_lake_by_its_hash_alone(opened: Opened):
    async with opened(HASHED, 3) as project:
        pipeline = project.config().pipelines["nightly"]
        personal = PersonalData(pipeline, [TABLE], KEY.encode())
        answer = Answer("details", TESTS[0], "a-name", None, 200, 1, b"{}")
        row = commits.answer_row(personal.answer(answer), {}, keeps_body=False)
        written = project.folder / "00000001.parquet"
        written.write_bytes(commits.encode(commits.Commit("nightly", 1, "run", answers=[row])))
        with open_ledger(project.state, "nightly") as ledger:
            frame = ledger.keep([answer, replace(answer, session_id="another")])
            ledger.drop_from_inbox(commits.read(written, "nightly").identities, personal.identity)
            assert [left.session_id for left in ledger.frame(frame)] == ["another"]
        assert b"a-name" not in written.read_bytes()
        (told,) = pq.read_table(written).to_pylist()
        assert told["session_id"] == hashed("a-name")


async def test_after_a_kill_the_next_run_leaves_nothing_of_a_body_in_the_state(opened: Opened):
    async with opened(BOTH, 3_000) as project:
        project.sandbox.add_fault(Fault(FaultKind.HANG, nth=4, times=0))
        command, environ = project.command("run", "--quiet"), {**os.environ, **project.environ()}
        async with await open_process(command, env=environ, stdout=DEVNULL) as process:
            while not (pieces := bodies_in(project.state / "nightly.sqlite")):  # noqa: ASYNC110
                await anyio.sleep(0.02)
            process.kill()
            await process.wait()
        assert found_in(project.state, pieces) > 0.9 * len(pieces)
        project.sandbox.faults.clear()
        assert (await project.export()).status is Status.COMPLETE
        assert found_in(project.state, pieces) == 0
        exact(project)


# What is seen by whom.


@pytest.mark.parametrize("mask", [0, 0o077])
async def test_state_and_logs_are_their_owners_alone_whatever_the_umask(opened: Opened, mask: int):
    async with opened(BOTH, 3_000, latency_ms=40) as project:
        shell = ("sh", "-c", f'umask {mask:o}; exec "$@"', "sh")
        events = str(project.folder / "events.jsonl")
        command = [*shell, *project.command("run", "--quiet", "--events", events)]
        reached = anyio.Event()
        project.sandbox.before_page(4, lambda _sandbox, _test: reached.set())
        environ = {**os.environ, **project.environ()}
        async with await open_process(command, env=environ) as process:
            await reached.wait()
            during = modes(project)
            assert await process.wait() == 0
        assert {"nightly.sqlite", "nightly.sqlite-wal", "nightly.sqlite-shm"} <= during.keys()
        found = {**during, **modes(project)}
        assert {".etl", "last_run.json", "nightly.lock", "events.jsonl", "lock-nightly"} <= {*found}
        assert any(name.startswith("pace-") for name in found)
        folders = {name for name, mode in found.items() if mode == 0o700}
        assert folders == {".etl", "lake"}
        assert {mode for name, mode in found.items() if name not in folders} == {0o600}


def modes(project: Private) -> dict[str, int]:
    """Return the modes of the state, of what is logged, and of the lake's root and lock."""
    lock = project.lake / "_etl/lock-nightly"
    places = [project.state, *project.state.rglob("*"), project.folder / "events.jsonl", lock]
    return {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (*places, project.lake)
        if path.exists()
    }


def test_no_repr_shows_what_an_answer_holds():
    marker = "Ada-Lovelace"
    row = f'{{"sessionId":"{marker}","audienceId":"{marker}","more":"{marker}"}}'
    bad = f'{{"sessionId":"{marker}-2","startTime":"{marker}"}}'
    body = f'{{"sessions":[{row},{bad}]}}'.encode()
    answer = Answer("session_results", TESTS[0], None, None, 200, 1, body)
    fetched = Fetched(answer, SESSION_RESULTS.decode(body))
    rows = TABLE.rows_of(answer, fetched.content)
    shown = repr([answer, fetched, Kept(1, [fetched]), fetched.content, rows])
    assert "session_results" in shown and marker not in shown
