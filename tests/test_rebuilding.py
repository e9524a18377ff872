"""Tables are made anew from the answers that the lake keeps: exactly, at once, for no request."""

import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.client.values import UnreadableBodyError
from etl.errors import AlreadyRunning, LakeError
from etl.lake.commits import SCHEMA
from etl.lake.landing_plan import landing_plan
from etl.lake.local import LocalLake
from etl.lake.rebuilding import Rebuilding
from etl.lake.recovery import recover
from etl.lake.verify import verify
from etl.ledger.afresh import Span
from etl.ledger.store import open_ledger
from etl.plan.orders import Asked, orders
from etl.report.values import Status
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions, open_sandbox
from etl.tables.registry import endpoints, tables
from etl.tables.values import Column
from tests.crash.zygote import CALLS, Run, Strike, lacking, open_zygote
from tests.crash.zygote import Fault as Death
from tests.exporting import TESTS, Project
from tests.forks import run_etl
from tests.test_sessions import ClockAhead

DETAILS = "session_details, demographics, task_groups, tasks"
ALL = f"sessions, {DETAILS}, transcripts, qx_scores, highlight_reels"
PARTITIONS = ("start_date", "start_month", "finish_date", "finish_month")

Content = Mapping[str, list[str]]


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look at files as they go."""
    blockbuster.deactivate()


@asynccontextmanager
async def opened(folder: Path, *sizes: int, written: str = ALL) -> AsyncIterator[Project]:
    """Open a project over a sandbox whose tests have these sizes: a product each in turn."""
    products = ("THINK_OUT_LOUD", "NON_THINK_OUT_LOUD", "SURVEY")
    async with open_sandbox(SandboxOptions(rate_requests=None)) as sandbox:
        project = Project(folder, sandbox, TESTS[: len(sizes)])
        for number, (test, size) in enumerate(zip(project.tests, sizes, strict=True)):
            sandbox.set_product(test, products[number % 3])
            sandbox.set_sessions(test, size)
        write(project, written)
        yield project


def write(
    project: Project, written: str = ALL, partition_by: str = "[test_id]", more: str = ""
) -> None:
    project.write(
        f"    tables: [{written}]\n    pagination: {{rows_per_page: 20}}\n"
        f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
        f"    media: {{keep_free_bytes: 0}}\n{more}"
    )


def content(project: Project) -> Content:
    """Return every row of every table, whatever file it lies in."""
    return {
        folder.name: sorted(
            repr(sorted((name, cell) for name, cell in row.items() if name not in PARTITIONS))
            for row in project.lake_rows(folder.name)
        )
        for folder in sorted(project.lake.iterdir())
        if folder.name != "_etl"
    }


async def command(project: Project, *arguments: str, code: int = 0) -> str:
    """Run a command that needs no credentials; return what it says."""
    environ = {name: text for name, text in os.environ.items() if "USERTESTING" not in name}
    environ |= project.settings

    named = ("--config", str(project.file), *arguments)
    told = await to_thread.run_sync(lambda: run_etl(named, environ=environ))
    assert told.returncode == code, told.stderr
    return told.stdout if code == 0 else told.stderr


async def sound(project: Project) -> None:
    """Assert that the lake is as its own record says, to the last byte."""
    lake = LocalLake(project.lake)
    seen = await to_thread.run_sync(lambda: verify(lake, "nightly", deep=True))
    assert seen.findings == []


async def rebuilt(project: Project, *arguments: str) -> dict[str, Any]:
    """Rebuild in a process of its own; the lake is sound after it. Return what it tells."""
    before = len(project.sandbox.requests)
    (told,) = json.loads(await command(project, "rebuild", "--json", *arguments))["pipelines"]
    await sound(project)
    assert len(project.sandbox.requests) == before, "nothing is asked"
    found: dict[str, Any] = told
    return found


async def idle(project: Project) -> None:
    """Assert that the next run has nothing to do but look."""
    report = await project.export()
    assert sum(report.pipelines[0].rows.values()) == 0 and not report.pipelines[0].edited
    assert report.requests.total <= 2 * len(project.tests) + 3, "heads, proofs, the catalogue"


async def test_every_table_is_the_same_cell_by_cell_and_nothing_is_asked(tmp_path: Path):
    async with opened(tmp_path, 30, 7, 4) as project:
        project.sandbox.add_reel(project.tests[0])
        await project.export()
        project.sandbox.complete(project.tests[0], 3)
        await project.export()
        before, files = content(project), set(project.lake.rglob("part-*"))
        assert {name for name, rows in before.items() if rows} >= set(ALL.split(", "))
        told = await rebuilt(project)
        assert content(project) == before
        assert told["rows"] == {name: len(rows) for name, rows in before.items()}
        assert told["carried_over"] == {"sessions": 44, "highlight_reels": 1}
        assert not files & set(project.lake.rglob("part-*"))
        assert len(list((project.lake / "tasks").rglob("part-*"))) == 3, "two of a test are one"
        again = await rebuilt(project)
        assert content(project) == before and again["rows"] == told["rows"]
        await idle(project)


async def test_one_table_is_made_anew_alone(tmp_path: Path):
    async with opened(tmp_path, 5, 3) as project:
        await project.export()
        before, files = content(project), set(project.lake.rglob("part-*"))
        told = await rebuilt(project, "tasks", "--pipeline", "nightly")
        assert set(told["rows"]) == {"tasks"} and content(project) == before
        gone = files - set(project.lake.rglob("part-*"))
        assert {path.parts[-3] for path in gone} == {"tasks"}
        await idle(project)


async def test_a_kept_answer_of_which_one_bit_has_turned_is_not_made_rows_of(tmp_path: Path):
    async with opened(tmp_path, 12) as project:
        await project.export()
        before, files = content(project), set(project.lake.rglob("part-*"))
        (path,) = (project.lake / "_etl" / "answers").rglob("*.parquet")
        whole = path.read_bytes()
        for place in places_of_bodies(path):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            assert "cannot be read" in await command(project, "rebuild", code=5)
            assert (content(project), set(project.lake.rglob("part-*"))) == (before, files)
        path.write_bytes(whole)
        await rebuilt(project)
        assert content(project) == before


def places_of_bodies(path: Path) -> list[int]:
    """Return some places of a commit where the bodies lie that it keeps."""
    place = SCHEMA.names.index("body")
    with pq.ParquetFile(path) as file:
        last = file.metadata.row_group(file.num_row_groups - 1).column(place)
    end = last.data_page_offset + last.total_compressed_size
    return [end - last.total_compressed_size * share // 4 for share in (1, 2, 3)]


async def test_a_state_that_was_lost_is_recovered_from_a_rebuilt_lake(tmp_path: Path):
    async with opened(tmp_path, 12, 5) as project:
        await project.export()
        await rebuilt(project)
        before = content(project)
        for path in project.state.iterdir():
            path.unlink()
        await idle(project)
        assert content(project) == before


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("[test_id]", "[]"),
        ("[]", "[start_date, test_id]"),
        ("[start_date, finish_month]", "[test_id, start_month]"),
    ],
)
@pytest.mark.parametrize("written", [ALL, f"{DETAILS}, qx_scores"], ids=["listed", "not listed"])
async def test_another_layout_is_what_an_export_under_it_would_be(
    tmp_path: Path, first: str, then: str, written: str
):
    if first == "[]" and written != ALL:
        return  # nothing tells the dates
    async with opened(tmp_path, 12, 5, written=written) as project:
        write(project, written, first)
        await project.export()
        before = content(project)
        write(project, written, then)
        await rebuilt(project)
        assert content(project) == before
        here = folders(project)
        await idle(project)
        (tmp_path / "other").mkdir()
        other = replace(project, folder=tmp_path / "other")
        write(other, written, then)
        await other.export()
        assert here == folders(other)


def folders(project: Project) -> set[str]:
    return {str(path.parent.relative_to(project.lake)) for path in project.lake.rglob("part-*")}


async def test_a_month_tells_no_date(tmp_path: Path):
    async with opened(tmp_path, 5, written=DETAILS) as project:
        write(project, DETAILS, "[start_month]")
        await project.export()
        write(project, DETAILS, "[start_date]")
        await rebuilt(project)
        assert folders(project) == {
            f"{name}/start_date=__HIVE_DEFAULT_PARTITION__"
            for name in DETAILS.split(", ")
            if project.lake_rows(name)
        }


async def test_rows_whose_answers_were_not_kept_are_carried_over(tmp_path: Path):
    async with opened(tmp_path, 8, 6) as project:
        write(project, more="    keep_bodies: false\n")
        await project.export()
        write(project)
        for test in project.tests:
            project.sandbox.complete(test, 2)
        await project.export()
        before = content(project)
        told = await rebuilt(project)
        assert content(project) == before
        assert told["carried_over"]["session_details"] == 14
        assert told["rows"]["session_details"] == 18
        assert "14 of them carried over" in await command(project, "rebuild", "session_details")
        await idle(project)


async def test_scores_of_many_days_stay_as_they_were_told(tmp_path: Path):
    async with opened(tmp_path, 2, 5, written="sessions, qx_scores, highlight_reels") as project:
        project.clock = clock = ClockAhead()
        for _ in range(3):
            project.sandbox.rescore(project.tests[1])
            clock.hours += 25
            await project.export()
            clock.hours += 25
            await project.export()
        before = content(project)
        assert len(before["qx_scores"]) > 2
        assert len({row["_fetched_at"] for row in project.lake_rows("qx_scores")}) == 3
        told = await rebuilt(project)
        assert content(project) == before
        assert "qx_scores" not in told["carried_over"]
        await idle(project)


async def test_of_scores_only_what_had_moved_was_told_anew(tmp_path: Path):
    async with opened(tmp_path, 2, 5, written="sessions, qx_scores") as project:
        test, clock = project.tests[1], ClockAhead()
        project.clock = clock
        told = project.sandbox.qx_scores(test)
        (score, *_) = told["qxScores"]
        for moved in (10.0, 20.0):
            scores = [score | {"taskGroupId": "still"}, score | {"qxScore": moved}]
            body = json.dumps(told | {"qxScores": scores})
            project.sandbox.add_fault(Fault(FaultKind.BODY, on="qx", test_id=test, value=body))
            clock.hours += 25
            await project.export()
        before = content(project)
        assert len(before["qx_scores"]) == 3
        await rebuilt(project)
        assert content(project) == before
        await idle(project)


async def test_sessions_that_were_fetched_twice_are_made_of_the_answers_they_landed_by(
    tmp_path: Path,
):
    async with opened(tmp_path, 4, 3, written="sessions, session_details, tasks") as project:
        await project.export()
        for session in project.sandbox.session_ids(project.tests[0])[:2]:
            project.sandbox.edit_details(session, {"/tasks/*/type": "OF_TOMORROW"})
        await project.export(asked=Asked(span=Span()))
        before = content(project)
        assert any("OF_TOMORROW" in row for row in before["tasks"])
        await rebuilt(project)
        assert content(project) == before
        await idle(project)


async def test_a_table_that_has_no_rows_is_left_alone(tmp_path: Path):
    async with opened(tmp_path, 2, written="sessions") as project:
        await project.export()
        commits = LocalLake(project.lake).commits("nightly")
        told = await rebuilt(project, "rejects")
        assert (told["files"], told["files_replaced"]) == (0, 0)
        assert LocalLake(project.lake).commits("nightly") == commits


async def test_a_file_that_was_lost_comes_back_from_kept_answers(tmp_path: Path):
    async with opened(tmp_path, 8, 6, written=f"sessions, {DETAILS}") as project:
        await project.export()
        before = content(project)
        next((project.lake / "tasks").rglob("part-*")).unlink()
        await rebuilt(project, "tasks")
        rows = project.lake_rows("tasks")
        assert len(rows) == len(before["tasks"])
        assert {row["session_id"] for row in rows} == {
            session for test in project.tests for session in project.sandbox.session_ids(test)
        }
        write(project, f"sessions, {DETAILS}")
        report = await project.export()
        assert report.pipelines[0].rows["tasks"] == 0


async def test_what_an_older_version_could_not_read_is_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with opened(tmp_path, 3, written="sessions, session_details, tasks") as project:
        (first, *_) = project.sandbox.session_ids(project.tests[0])
        bad = json.dumps({**project.sandbox.details(first), "tasks": "none"})
        fault = Fault(FaultKind.BODY, on="details", object_id=first, value=bad, times=0)
        project.sandbox.add_fault(fault)
        await project.export()
        assert len(project.lake_rows("rejects")) == 1
        before = content(project)
        told = await rebuilt(project)
        assert content(project) == before, "it is not read yet, and rejected once"
        assert told["rows"]["session_details"] == 3
        table = tables()["tasks"]
        told_by = table.rows_of

        def tolerant(answer: Any, details: Any) -> Any:
            value = {**details.value}
            if value["tasks"] == "none":
                value["tasks"] = [{"uuid": "1", "type": "WRITTEN", "text": "What?"}]
            return told_by(answer, replace(details, value=value))

        upgraded = replace(
            table,
            rows_of=tolerant,
            rows_of_each=None,
            columns=(*table.columns, Column("mood", pa.string(), "A column of tomorrow.")),
        )
        rebuild_with(project, upgraded, tables()["session_details"])
        rows = [row for row in project.lake_rows("tasks") if row["session_id"] == first]
        assert [(row["text"], row["_run_id"]) for row in rows] == [("What?", "again")]
        assert "mood" in project.lake_rows("tasks")[0]
        await sound(project)


def rebuild_with(project: Project, *changed: Any) -> None:
    """Rebuild the pipeline's tables as a later version has them; blocks."""
    (order,) = orders(project.config(), (), Asked())
    plan = replace(landing_plan(order, "again"), tables=changed)
    lake = LocalLake(order.lake_path)
    with open_ledger(order.state_dir, order.name) as ledger, lake.locked(order.name):
        recover(lake, ledger, plan)
        with Rebuilding(lake, ledger, plan, [table.name for table in changed]) as rebuilding:
            rebuilding.make_anew()
            rebuilding.commit({})


async def test_columns_that_are_hidden_from_now_on_are_hidden_in_what_has_landed(tmp_path: Path):
    written = f"sessions, {DETAILS}"
    async with opened(tmp_path, 6, written=written) as project:
        await project.export()
        project.settings["ETL_HASH_KEY"] = "0123456789abcdef" * 2
        hides = (
            "    columns:\n"
            "      sessions: {exclude: [status], hash: [audience_id]}\n"
            "      session_details:\n"
            "        {exclude: [test_plan_id], hash: [participant_id, audience_id]}\n"
            "      demographics: {hash: [participant_id]}\n"
        )
        write(project, written, more=hides)
        await rebuilt(project)
        sessions, details = project.lake_rows("sessions"), project.lake_rows("session_details")
        assert {row["status"] for row in sessions} == {None}
        assert {row["test_plan_id"] for row in details} == {None}
        hashed = {row["audience_id"] for row in sessions} - {None}
        assert hashed and all(len(text) == 64 for text in hashed)
        assert hashed == {row["audience_id"] for row in details} - {None}
        before = content(project)
        await rebuilt(project)
        assert content(project) == before, "what is hashed is not hashed again"


# Tables that are added.


async def test_a_table_added_later_is_made_of_kept_answers(tmp_path: Path):
    async with opened(tmp_path, 30, 7, written="sessions, session_details") as project:
        await project.export()
        write(project, f"sessions, {DETAILS}")
        before = len(project.sandbox.requests)
        report = await project.export()
        assert report.pipelines[0].rows["tasks"] == len(project.lake_rows("tasks")) > 0
        assert any(
            "rows of tasks were made of kept answers" in it for it in report.pipelines[0].notes
        )
        assert len(project.sandbox.requests) - before == 3, "two heads and a proof"
        assert {row["_run_id"] for row in project.lake_rows("tasks")} == {"run-2"}
        came = {
            row["session_id"]: row["_fetched_at"] for row in project.lake_rows("session_details")
        }
        assert all(
            came[row["session_id"]] == row["_fetched_at"] for row in project.lake_rows("tasks")
        )
        added = content(project)
        await sound(project)
        await rebuilt(project)
        assert content(project) == added
        await idle(project)
        (tmp_path / "whole").mkdir()
        whole = replace(project, folder=tmp_path / "whole")
        write(whole, f"sessions, {DETAILS}")
        await whole.export()
        for name in DETAILS.split(", "):
            assert told_of(project, name) == told_of(whole, name)


def told_of(project: Project, table: str) -> list[str]:
    """Return the rows of a table without what the run adds."""
    return sorted(
        repr([cell for name, cell in sorted(row.items()) if not name.startswith("_")])
        for row in project.lake_rows(table)
    )


async def test_a_table_whose_answers_were_kept_in_part_asks_for_the_others(tmp_path: Path):
    async with opened(tmp_path, 30, 7, written="sessions, session_details") as project:
        write(project, "sessions, session_details", more="    keep_bodies: false\n")
        await project.export()
        write(project, "sessions, session_details")
        project.sandbox.complete(project.tests[0], 4)
        await project.export()
        write(project, "sessions, session_details, tasks")
        before = len(project.sandbox.requests)
        await project.export()
        asked = [request.endpoint for request in project.sandbox.requests[before:]]
        assert asked.count("details") == 37 and asked.count("page") == 3
        assert len({row["session_id"] for row in project.lake_rows("tasks")}) == 41
        await sound(project)


async def test_an_added_table_outlives_the_state(tmp_path: Path):
    async with opened(tmp_path, 2, written="sessions, session_details") as project:
        await project.export()
        write(project, "sessions, session_details, tasks, transcripts")
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="transcript", value=500, times=0))
        await project.export()
        project.sandbox.faults.clear()
        for path in project.state.iterdir():
            path.unlink()
        before = len(project.sandbox.requests)
        await project.export()
        asked = [request.endpoint for request in project.sandbox.requests[before:]]
        assert asked.count("transcript") == 2 and asked.count("details") == 0
        assert len({row["session_id"] for row in project.lake_rows("transcripts")}) == 2


async def test_an_added_table_of_a_test_is_made_of_its_kept_answer_or_asked(tmp_path: Path):
    options = SandboxOptions(rate_requests=None, classic_tests=2)
    async with open_sandbox(options) as sandbox:
        project = Project(tmp_path, sandbox, sandbox.classic_ids)
        write(project, "studies")
        await project.export()
        write(project, "studies, study_tasks")
        before = len(sandbox.requests)
        report = await project.export()
        assert report.pipelines[0].rows["study_tasks"] > 0
        assert len(sandbox.requests) == before
        await sound(project)
        await rebuilt(project)
        (tmp_path / "bare").mkdir()
        bare = replace(project, folder=tmp_path / "bare")
        write(bare, "studies", more="    keep_bodies: false\n")
        await bare.export()
        write(bare, "studies, study_tasks")
        before = len(sandbox.requests)
        await bare.export()
        assert [request.endpoint for request in sandbox.requests[before:]] == ["study"] * 2
        assert told_of(project, "study_tasks") == told_of(bare, "study_tasks")


async def test_a_table_that_another_pipeline_made_of_kept_answers_is_its_own(tmp_path: Path):
    async with opened(tmp_path, 5, written="sessions, session_details") as project:
        await project.export()
        write(project, "sessions, session_details, tasks")
        await project.export()
        text = project.file.read_text()
        project.file.write_text(
            text.replace("  nightly:", "  other:").replace("sessions, session_details, ", "")
        )
        report = await project.export()
        assert "feeds the table tasks" in (report.pipelines[0].error or "")


# What stands in the way.


async def test_mistakes_change_nothing_and_say_what_there_is(tmp_path: Path):
    async with opened(tmp_path, 3) as project:
        assert "nothing has landed" in (await said(project, "rebuild"))
        assert not project.lake.exists()
        await project.export()
        before = set(project.lake.rglob("*"))
        assert "has a table 'clips'" in await command(project, "rebuild", "clips", code=2)
        assert "unknown pipeline 'x'" in await command(
            project, "rebuild", "--pipeline", "x", code=2
        )
        with LocalLake(project.lake).locked("nightly"):
            assert "Another run holds" in await command(project, "rebuild", code=75)
        assert set(project.lake.rglob("*")) == before


async def said(project: Project, *arguments: str) -> str:
    told = await to_thread.run_sync(lambda: project.process(*arguments, check=True))
    return told.stderr


async def test_a_value_that_no_longer_fits_its_column_ends_it_and_changes_nothing(tmp_path: Path):
    async with opened(tmp_path, 3, written="sessions, session_details") as project:
        await project.export()
        before, files = content(project), set(project.lake.rglob("*"))
        table = tables()["sessions"]
        columns = [
            replace(column, type=pa.int64()) if column.name == "status" else column
            for column in table.columns
        ]
        with pytest.raises(LakeError, match="cannot be read into its columns of today"):
            rebuild_with(project, replace(table, columns=tuple(columns)))
        assert content(project) == before
        assert set(project.lake.rglob("*")) == files
        assert json.loads(await command(project, "rebuild", "--json"))["pipelines"]


async def test_another_writer_that_was_faster_ends_it_with_75(tmp_path: Path):
    async with opened(tmp_path, 3, written="sessions, session_details") as project:
        await project.export()
        (order,) = orders(project.config(), (), Asked())
        plan, lake = landing_plan(order, "again"), LocalLake(order.lake_path)
        files = set(project.lake.rglob("part-*"))
        with (
            open_ledger(order.state_dir, order.name) as ledger,
            Rebuilding(lake, ledger, plan, ["session_details"]) as rebuilding,
        ):
            rebuilding.make_anew()
            lake.commit("nightly", max(lake.commits("nightly")) + 1, b"somebody else's")
            with pytest.raises(AlreadyRunning, match="Another writer has landed"):
                rebuilding.commit({})
        assert set(project.lake.rglob("part-*")) == files


@pytest.mark.timeout(180)
async def test_a_death_at_any_call_leaves_the_old_rows_or_the_new_ones(tmp_path: Path):
    if lack := lacking():
        pytest.skip(f"CRASH POINTS NOT TRIED: {lack}")
    (tmp_path / "project").mkdir()
    (tmp_path / "zygote").mkdir()
    async with (
        opened(tmp_path / "project", 4, 2, written=f"sessions, {DETAILS}") as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        await project.export()
        before = content(project)
        roots = (str(project.lake), str(project.state))
        arguments = ["--config", str(project.file), "rebuild"]
        output = str(project.folder / "output.txt")
        random = Random(7)

        async def struck(strike: Strike) -> Any:
            return await zygote.run(Run(arguments, project.environ(), strike, output))

        calls = (await struck(Strike(roots))).calls
        points = [(call, random.randint(1, calls[call])) for call in CALLS if calls[call]]
        points += [("unlink", nth) for nth in range(1, calls["unlink"] + 1, 7)]
        points += [("link", nth) for nth in range(1, calls["link"] + 1)]
        for call, nth in points:
            ended = await struck(Strike(roots, call, nth, Death.KILL))
            assert ended.code == -9, (call, nth)
            told = content(project)
            assert all(set(rows) <= set(told[name]) for name, rows in before.items()), (call, nth)
            assert (await project.export()).status is Status.COMPLETE
            assert content(project) == before, (call, nth)
            await sound(project)


# What a large lake would do to it.


async def test_neither_files_nor_records_stay_open_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.lake.rebuilding._WAITING_BYTES", 1)
    monkeypatch.setattr("etl.lake.batch._MOST_LOOSE_ROWS", 1)
    monkeypatch.setattr("etl.lake.open_records._MOST_OPEN", 1)
    monkeypatch.setattr("etl.lake.commits._ANSWERS_AT_ONCE", 4)
    async with opened(tmp_path, 9, 6, 3, written="sessions, session_details") as project:
        await project.export()
        before = content(project)
        rebuild_with(project, tables()["sessions"], tables()["session_details"])
        assert content(project) == before
        assert len(list((project.lake / "session_details").rglob("part-*"))) > 3
        write(project, f"sessions, {DETAILS}")
        await project.export()
        await sound(project)
        assert len({row["session_id"] for row in project.lake_rows("tasks")}) == 18


async def test_a_file_that_a_rebuild_wrote_and_that_was_lost_is_asked_again(tmp_path: Path):
    async with opened(tmp_path, 5, 4, written="sessions, session_details") as project:
        await project.export()
        before = content(project)
        await rebuilt(project)
        next(
            (project.lake / "session_details").rglob(f"test_id={project.tests[0]}/part-*")
        ).unlink()
        asked = len(project.sandbox.requests)
        await project.export()
        made = [request.endpoint for request in project.sandbox.requests[asked:]]
        assert made.count("details") == 5
        assert len(project.lake_rows("session_details")) == len(before["session_details"])


async def test_an_answer_that_can_no_longer_be_read_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with opened(tmp_path, 3, 2, written="sessions, session_details, tasks") as project:
        await project.export()
        before = content(project)

        def unreadable(body: bytes) -> Any:
            raise UnreadableBodyError("it is not what it was")

        known = endpoints()
        broken = {**known, "session_details": replace(known["session_details"], decode=unreadable)}
        monkeypatch.setattr("etl.lake.remaking.endpoints", lambda: broken)
        rebuild_with(project, tables()["sessions"], tables()["session_details"], tables()["tasks"])
        assert content(project) == before


async def test_scores_that_can_no_longer_be_read_keep_their_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with opened(tmp_path, 3, 2, written="sessions, qx_scores") as project:
        await project.export()
        before = content(project)

        def unreadable(body: bytes) -> Any:
            raise UnreadableBodyError("it is not what it was")

        name = tables()["qx_scores"].endpoint.name
        broken = {**endpoints(), name: replace(endpoints()[name], decode=unreadable)}
        monkeypatch.setattr("etl.lake.rebuilding.endpoints", lambda: broken)
        rebuild_with(project, tables()["sessions"], tables()["qx_scores"])
        assert before["qx_scores"] and content(project) == before


async def test_what_an_answer_tells_twice_is_there_once(tmp_path: Path):
    async with opened(tmp_path, 3, written="sessions, task_groups") as project:
        (first, *_) = project.sandbox.session_ids(project.tests[0])
        group = {"uuid": "one", "name": "Told twice"}
        twice = json.dumps({**project.sandbox.details(first), "taskGroups": [group, group]})
        fault = Fault(FaultKind.BODY, on="details", object_id=first, value=twice, times=0)
        project.sandbox.add_fault(fault)
        await project.export()
        before = content(project)
        await to_thread.run_sync(rebuild_with, project, tables()["task_groups"])
        assert content(project) == before
        groups = [row["task_group_id"] for row in project.lake_rows("task_groups")]
        assert groups.count("one") == 1


async def test_rows_that_a_newer_version_refuses_go_to_the_rejects(tmp_path: Path):
    async with opened(tmp_path, 3, written="sessions, session_details, tasks") as project:
        await project.export()
        table = tables()["tasks"]

        def strict(answer: Any, details: Any) -> Any:
            rows = table.rows_of(answer, replace(details, value={**details.value, "tasks": "no"}))
            assert rows.rejects
            return rows

        rebuild_with(project, replace(table, rows_of=strict, rows_of_each=None))
        assert project.lake_rows("tasks") == []
        assert len(project.lake_rows("rejects")) == 3
        await sound(project)
