"""`etl backfill` fetches again and replaces: test by test, resumable, and nothing paid twice."""

import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.cli.dates import span_of
from etl.errors import LakeError
from etl.lake.local import LocalLake
from etl.lake.verify import verify
from etl.ledger.afresh import Span
from etl.plan.orders import Asked
from etl.report.values import PipelineReport, RunReport
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.crash.backfills import TABLES, backfill_under_kills
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import Project, open_project
from tests.test_replacing import sound, tables_of
from tests.test_sessions import ClockAhead

DETAILS = "    tables: [sessions, session_details, tasks]\n"

Opened = Callable[..., AbstractAsyncContextManager[Project]]


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look at files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return what opens a project that has landed once."""

    @asynccontextmanager
    async def opening(*sizes: int, extra: str = DETAILS) -> AsyncIterator[Project]:
        async with open_project(tmp_path, *sizes, extra=extra) as project:
            await project.export()
            project.sandbox.requests.clear()
            yield project

    return opening


async def backfill(
    project: Project,
    *tests: str,
    span: Span | None = None,
    requests: int | None = None,
) -> RunReport:
    """Run a backfill of the pipeline, as the command does."""
    asked = Asked(tests=tests, max_requests=requests, span=span or Span())
    report, _ = await project.export_with_codes(asked, Limits(max_requests=requests))
    return report


def edit_all(project: Project, kind: str = "OF_TOMORROW") -> None:
    """Let every session's tasks say something else from now on."""
    for test in project.tests:
        for session in project.sandbox.session_ids(test):
            project.sandbox.edit_details(session, {"/tasks/*/type": kind})


def asked(project: Project) -> Counter[str]:
    """Return how often each endpoint has been asked since the project was opened."""
    return Counter(request.endpoint for request in project.sandbox.requests)


def kinds(project: Project) -> Counter[Any]:
    """Return how many tasks of each type are in the lake."""
    return Counter(row["type"] for row in project.lake_rows("tasks"))


def details_once(project: Project) -> None:
    """Assert that each session's details are in the lake once, as they are served now."""
    sandbox = project.sandbox
    sessions = sorted(one for test in project.tests for one in sandbox.session_ids(test))
    landed = project.lake_rows("session_details")
    assert sorted(row["session_id"] for row in landed) == sessions
    expected = sorted(
        (session, place, task["uuid"], task["type"])
        for session in sessions
        for place, task in enumerate(sandbox.details(session)["tasks"])
    )
    found = [
        (row["session_id"], row["position"], row["task_id"], row["type"])
        for row in project.lake_rows("tasks")
    ]
    assert sorted(found) == expected


def status_of(project: Project) -> dict[str, Any]:
    """Return what `etl status --json` tells of the pipeline."""
    told: dict[str, Any] = json.loads(project.process("status", "--json").stdout)["pipelines"][0]
    return told


def only(report: RunReport) -> PipelineReport:
    (found,) = report.pipelines
    return found


async def test_everything_is_fetched_again_and_what_differs_is_replaced(opened: Opened):
    async with opened(12, 5) as project:
        tasks = len(project.lake_rows("tasks"))
        edit_all(project)
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        report = only(await backfill(project))
        assert report.replaced == {"sessions": 1, "tasks": tasks}
        assert report.rows == {"sessions": 0, "session_details": 0, "tasks": 0}
        assert asked(project) == {"page": 2, "details": 17}
        assert "The backfill is done." in report.notes
        details_once(project)
        sound(project)


async def test_equal_answers_replace_nothing(opened: Opened):
    async with opened(12) as project:
        before = {path: path.stat().st_ino for path in project.lake.rglob("part-*.parquet")}
        report = only(await backfill(project))
        assert report.replaced == {}
        assert before == {path: path.stat().st_ino for path in project.lake.rglob("part-*.parquet")}
        assert asked(project)["details"] == 12


async def test_a_paused_backfill_goes_on_beside_the_nightly_run_and_pays_nothing_twice(
    opened: Opened,
):
    async with opened(12, 5, 9) as project:
        edit_all(project)
        for _ in range(20):
            report = only(await backfill(project, requests=4))
            if "The backfill is done." in report.notes:
                break
            assert any("The backfill is not done" in note for note in report.notes)
            before = len(project.sandbox.requests)
            await project.export()
            assert len(project.sandbox.requests) - before <= 3, "a look at each test, no more"
        details_once(project)
        assert asked(project)["details"] == 26
        sound(project)


async def test_it_goes_test_by_test_the_newest_session_first(opened: Opened):
    async with opened(12, 5) as project:
        await backfill(project, requests=6)
        details = [one for one in project.sandbox.requests if one.endpoint == "details"]
        assert {one.test_id for one in details} == {project.tests[0]}
        newest = project.sandbox.session_ids(project.tests[0])[: len(details)]
        assert {one.session_id for one in details} == set(newest)


async def test_a_lost_state_directory_costs_a_backfill_nothing(opened: Opened):
    async with opened(12, 5) as project:
        edit_all(project)
        await backfill(project, requests=6)
        shutil.rmtree(project.state)
        report = only(await backfill(project))
        assert any("is gone on with" in note for note in report.notes)
        assert asked(project)["details"] == 17
        details_once(project)
        sound(project)


async def test_once_done_it_begins_anew(opened: Opened):
    async with opened(6) as project:
        await backfill(project)
        edit_all(project)
        await backfill(project)
        assert asked(project)["details"] == 12
        details_once(project)


async def test_other_options_begin_anew_and_say_so(opened: Opened):
    async with opened(6, 4) as project:
        edit_all(project)
        await backfill(project, requests=3)
        report = only(await backfill(project, project.tests[1]))
        assert any("this one replaces it" in note for note in report.notes)
        after = tables_of(project, "tasks")
        for session in project.sandbox.session_ids(project.tests[1]):
            assert {row["type"] for row in after[session]} == {"OF_TOMORROW"}


async def test_only_sessions_of_the_span_are_asked_and_replaced(opened: Opened):
    async with opened(20) as project:
        (test,) = project.tests
        rows = sorted(project.sandbox.rows(test), key=lambda row: str(row["startTime"]))
        first, last = str(rows[5]["startTime"]), str(rows[14]["startTime"])
        edit_all(project)
        for place in range(20):
            project.sandbox.edit(test, place, status="REFUNDED")
        span = span_of(first, last)
        report = only(await backfill(project, span=span))
        within = {str(row["sessionId"]) for row in rows if first <= str(row["startTime"]) < last}
        assert asked(project)["details"] == len(within) > 3
        assert report.replaced["sessions"] == len(within)
        assert report.edited == {"sessions": 20 - len(within)}
        sessions = {row["session_id"]: row["status"] for row in project.lake_rows()}
        assert {session for session, status in sessions.items() if status == "REFUNDED"} == within
        for session, tasks in tables_of(project, "tasks").items():
            assert ({row["type"] for row in tasks} == {"OF_TOMORROW"}) is (session in within)


async def test_sessions_that_are_gone_stay_in_the_lake(opened: Opened):
    async with opened(8) as project:
        gone = project.sandbox.session_ids(project.tests[0])[3]
        tasks = tables_of(project, "tasks")[gone]
        project.sandbox.remove(project.tests[0], 3)
        await backfill(project)
        assert gone in project.landed()[project.tests[0]]
        assert tables_of(project, "tasks")[gone] == tasks
        assert asked(project)["details"] == 7


async def test_rows_of_what_is_answered_404_now_stay_and_are_counted(opened: Opened):
    async with opened(4) as project:
        before = tables_of(project, "tasks")
        absent = project.sandbox.session_ids(project.tests[0])[1]
        fault = Fault(FaultKind.STATUS, on="details", object_id=absent, value=404, times=0)
        project.sandbox.add_fault(fault)
        report = only(await backfill(project))
        assert report.absent == {"session_details": 1}
        assert tables_of(project, "tasks") == before
        assert "The backfill is done." in report.notes


async def test_rows_of_what_cannot_be_read_now_stay(opened: Opened):
    async with opened(4) as project:
        before = tables_of(project, "tasks")
        bad = project.sandbox.session_ids(project.tests[0])[1]
        fault = Fault(FaultKind.BODY, on="details", object_id=bad, value="<html>", times=0)
        project.sandbox.add_fault(fault)
        report = only(await backfill(project))
        assert tables_of(project, "tasks") == before
        assert report.rows["rejects"] == 1
        assert "The backfill is done." in report.notes


@pytest.mark.timeout(180)
async def test_kills_of_a_backfill_leave_every_row_once_with_its_new_values(tmp_path: Path):
    if lack := lacking():
        pytest.skip(f"KILLS NOT TRIED: {lack}")
    (tmp_path / "zygote").mkdir()
    options = SandboxOptions(rate_requests=None, latency_ms=20)
    folder = tmp_path / "project"
    folder.mkdir()
    async with (
        open_project(folder, 130, options=options, extra=TABLES) as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        told = await backfill_under_kills(project, zygote, kills=8, within_seconds=0.6, seed=3)
        assert told.kills >= 3


# What is told of it.


async def test_status_tells_how_much_is_left_until_it_is_done(opened: Opened):
    async with opened(12) as project:
        await backfill(project, requests=6)
        told, left = status_of(project)["backfill"], 12 - asked(project)["details"]
        assert (told["tests"], told["tests_left"], told["requests_left"]) == (1, 1, left)
        assert f"{left} requests of 1 of its 1 tests are left" in project.process("status").stderr
        await backfill(project)
        assert status_of(project)["backfill"] is None


async def test_the_command_takes_what_a_run_takes(opened: Opened):
    async with opened(12) as project:
        edit_all(project)
        options = ("--max-requests", "5", "--fail-if-paused", "--json", "--events", "-")
        ended = await to_thread.run_sync(project.process, "backfill", "nightly", *options)
        assert ended.returncode == 6
        assert json.loads(ended.stdout)["stopped_because"] == "max_requests"
        assert '"run_finished"' in ended.stderr
        quiet = ("--max-runtime", "50m", "--wait-for-lock", "1m", "--quiet")
        ended = await to_thread.run_sync(project.process, "backfill", "nightly", *quiet)
        assert (ended.returncode, ended.stdout) == (0, "")
        assert asked(project)["details"] == 12
        details_once(project)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "yesterday"), "--since 'yesterday' is not a date"),
        (("--until", "2025-02-30"), "--until '2025-02-30' is not a date"),
        (("--since", "2025-02-02", "--until", "2025-02-01"), "is not before --until"),
        (("--test", "82629d39-c9b5-4acc-8edc-0f2e34c0b07c"), "has no test"),
    ],
)
async def test_what_it_cannot_mean_is_refused(opened: Opened, options: tuple[str, ...], said: str):
    async with opened(1) as project:
        ended = await to_thread.run_sync(project.process, "backfill", "nightly", *options)
        assert ended.returncode == 2
        assert said in ended.stderr
        assert asked(project) == {}


def test_a_day_ends_with_its_last_microsecond_and_a_moment_where_it_says():
    day_us = 86_400_000_000
    assert span_of("1970-01-02", "1970-01-02") == Span(day_us, 2 * day_us)
    assert span_of(None, "1970-01-02T12:00:00") == Span(None, day_us + day_us // 2)
    assert span_of("1970-01-02T02:00+02:00", None) == Span(day_us, None)


# What happened before and beside it.


async def test_what_was_only_reported_is_replaced(opened: Opened):
    async with opened(6) as project:
        project.sandbox.edit(project.tests[0], 2, status="REFUNDED")
        assert only(await project.export()).edited == {"sessions": 1}
        assert only(await backfill(project)).replaced == {"sessions": 1}
        sound(project)


async def test_answers_that_waited_in_the_inbox_since_before_it_began_are_no_answers_to_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    async with opened(0, extra=DETAILS) as project:
        (test,) = project.tests
        project.sandbox.set_sessions(test, 6)

        with monkeypatch.context() as patch:
            patch.setattr(LocalLake, "publish", full)
            assert only(await project.export()).exit_code == 5
        waiting = asked(project)
        assert waiting["page"] == 1, "and its details wait, too"
        edit_all(project)
        project.sandbox.edit(test, 2, status="REFUNDED")
        await backfill(project)
        assert asked(project)["details"] - waiting["details"] == 6
        details_once(project)
        sound(project)


async def test_a_nightly_run_lands_what_a_backfill_left_in_the_inbox_as_that_would(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    async with opened(6) as project:
        edit_all(project)
        project.sandbox.edit(project.tests[0], 2, status="REFUNDED")
        with monkeypatch.context() as patch:
            patch.setattr(LocalLake, "publish", full)
            assert only(await backfill(project)).exit_code == 5
        assert asked(project) == {"page": 1, "details": 6}
        report = only(await project.export())
        assert report.replaced["sessions"] == 1
        assert report.replaced["tasks"] > 6
        report = only(await backfill(project))
        assert "The backfill is done." in report.notes
        assert asked(project)["details"] == 6, "none was paid twice"
        details_once(project)
        sound(project)


async def test_pages_read_again_after_a_while_ask_no_session_again_that_has_answered(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    async with opened(6) as project:
        clock = project.clock = ClockAhead()
        edit_all(project)
        with monkeypatch.context() as patch:
            patch.setattr(LocalLake, "publish", full)
            await backfill(project)
        clock.hours = 2.0
        report = only(await backfill(project))
        assert asked(project) == {"page": 2, "details": 6}
        assert "The backfill is done." in report.notes
        details_once(project)


def full(*_: object) -> None:
    """Fail as a lake does whose disk is full: what was fetched waits in the inbox."""
    raise LakeError("No space left on device")


async def test_a_nightly_run_that_ends_its_look_replaces_as_it_would(opened: Opened):
    async with opened(1_300, extra="") as project:
        (test,) = project.tests
        for place in (0, 700, 1_200):
            project.sandbox.edit(test, place, status="REFUNDED")
        report = only(await backfill(project, requests=2))
        assert any("The backfill is not done: 1 requests" in note for note in report.notes)
        assert report.replaced == {"sessions": 2}
        report = only(await project.export())
        assert (report.replaced, report.edited) == ({"sessions": 1}, {})
        assert status_of(project)["backfill"] is None, "nothing is left of it"
        asked_before = asked(project)
        assert "The backfill is done." in only(await backfill(project)).notes
        assert asked(project) == asked_before, "the nightly run has done it"
        sound(project)


async def test_tests_of_a_filter_are_those_that_it_found_when_it_began(tmp_path: Path):
    options = SandboxOptions(rate_requests=None, tests=4, sessions=3)
    async with open_sandbox(options) as sandbox:
        project = Project(tmp_path, sandbox, ())
        project.file.write_text(
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines:\n  nightly:\n    tests: {{workspaces: all}}\n{DETAILS}"
            "    lake: {url: ./lake}\n"
        )
        await project.export()
        project.tests = tuple(sandbox.test_ids)
        sandbox.requests.clear()
        edit_all(project)
        await backfill(project, requests=9)
        new = sandbox.order_test()
        await backfill(project)
        assert asked(project)["details"] == 12
        assert new not in {one.test_id for one in sandbox.requests if one.endpoint == "details"}
        details_once(project)


async def test_reels_and_scores_are_asked_once_more_too(opened: Opened):
    tables = "    tables: [sessions, highlight_reels, qx_scores]\n"
    async with opened(4, extra=tables) as project:
        (test,) = project.tests
        project.sandbox.set_product(test, "NON_THINK_OUT_LOUD")
        project.sandbox.add_reel(test)
        await backfill(project)
        reels, scores = (len(project.lake_rows(name)) for name in ("highlight_reels", "qx_scores"))
        project.sandbox.add_clip(project.sandbox.session_ids(test)[0])
        project.sandbox.rescore(test)
        project.sandbox.requests.clear()
        report = only(await backfill(project))
        assert report.replaced == {"highlight_reels": reels}
        assert (asked(project)["reels"], asked(project)["qx"]) == (1, 1)
        assert len(project.lake_rows("highlight_reels")) == reels > 0
        assert len(project.lake_rows("qx_scores")) == 2 * scores > 0


async def test_a_test_that_is_known_to_fail_is_not_waited_for(opened: Opened):
    async with opened(3, 2) as project:
        project.sandbox.forbid(project.tests[1], 404)
        report = only(await backfill(project))
        assert report.exit_code == 4
        assert any("1 requests of 1 tests are left" in note for note in report.notes)
        before = asked(project)
        report = only(await backfill(project))
        assert asked(project) - before == {"page": 1}, "the other one is done"
        project.write(f"{DETAILS}    accept_failures: [{project.tests[1]}]\n")
        report = only(await backfill(project))
        assert report.exit_code == 0
        assert "The backfill is done." in report.notes


async def test_one_that_a_wrong_clock_began_in_the_future_is_begun_anew(opened: Opened):
    async with opened(5) as project:
        clock = project.clock = ClockAhead()
        clock.hours = 9_000.0
        await backfill(project, requests=3)
        clock.hours = 0.0
        project.sandbox.requests.clear()
        report = only(await backfill(project))
        assert any("by a wrong clock" in note for note in report.notes)
        assert "The backfill is done." in report.notes
        assert asked(project)["details"] == 5


async def test_classic_tests_are_read_anew_whole(tmp_path: Path):
    options = SandboxOptions(rate_requests=None, classic_tests=1)
    async with open_sandbox(options) as sandbox:
        project = Project(tmp_path, sandbox, sandbox.classic_ids)
        sandbox.set_sessions(project.tests[0], 120)
        project.write("    tables: [completed_sessions, completed_session_answers]\n")
        await project.export()
        before = len(project.lake_rows("completed_sessions"))
        changes = {"/sessions/*/state": "REVIEWED"}
        sandbox.add_fault(Fault(FaultKind.FIELDS, on="completed", value=changes, times=0))
        asked_before = asked(project)
        await backfill(project, requests=2)
        report = only(await backfill(project))
        assert any("gone on with" in note for note in report.notes)
        assert (asked(project) - asked_before)["completed"] == 3
        rows = project.lake_rows("completed_sessions")
        assert len(rows) == before == 120
        assert {row["state"] for row in rows} == {"REVIEWED"}
        assert len(project.lake_rows("completed_session_answers")) > before
        assert verify(LocalLake(project.lake), "nightly", deep=True).findings == []
