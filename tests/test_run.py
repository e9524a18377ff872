"""Journeys of an export: what lands, what it costs, and what a person is told."""

import os
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from anyio import create_task_group, to_thread

from etl.ledger.reading import read_status
from etl.report.values import Requests, RunReport, Status
from etl.run.export import Limits, keep_last_run
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.pages import Spelling
from etl.sandbox.server import SandboxOptions
from tests.exporting import TESTS, Project, open_project

Opened = Callable[..., AbstractAsyncContextManager[Project]]
SIZES = (0, 1, 499, 500, 501, 1_700)


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return what opens a project over a sandbox whose tests have these sizes."""

    return partial(open_project, tmp_path)


async def test_tests_of_every_size_land_whole_and_are_proved(opened: Opened):
    async with opened(*SIZES) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].verified == len(SIZES)
        assert report.pipelines[0].rows["sessions"] == sum(SIZES)
        await project.exact()


async def test_an_idle_night_costs_one_request_for_one_page_and_two_for_more(opened: Opened):
    async with opened(*SIZES) as project:
        await project.export()
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 0
        assert report.requests.total == len(SIZES) + 2
        assert report.token_grants == 1
        await project.exact()


async def test_a_lost_state_directory_costs_no_request_and_doubles_nothing(opened: Opened):
    async with opened(*SIZES) as project:
        await project.export()
        with_state = await project.export()
        await to_thread.run_sync(shutil.rmtree, project.state)
        without = await project.export()
        assert without.requests.total == with_state.requests.total
        assert without.pipelines[0].rows["sessions"] == 0
        await project.exact()


@pytest.mark.parametrize(
    "partition_by",
    ["[]", "[test_id]", "[start_date]", "[finish_month]", "[test_id, start_month, finish_date]"],
)
async def test_every_partitioning_lands_every_row_once(opened: Opened, partition_by: str):
    lake = f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
    async with opened(0, 7, 501, extra=lake) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        await project.exact()
        rows = await to_thread.run_sync(project.lake_rows)
        for row in rows[:50]:
            if "start_date" in partition_by:
                assert f"{row['start_time']:%Y-%m-%d}" == row["start_date"]
            if "finish_month" in partition_by:
                assert f"{row['finish_time']:%Y-%m}" == row["finish_month"]


async def test_a_changed_partitioning_doubles_nothing(opened: Opened):
    async with opened(7, 501) as project:
        await project.export()
        lake = "    lake: {url: ./lake, partition_by: [start_month]}\n"
        await to_thread.run_sync(project.write, lake)
        project.sandbox.complete(project.tests[1], 3)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 3
        await project.exact()


async def test_rows_stand_newest_first_as_served(opened: Opened):
    async with opened(1_700) as project:
        await project.export()
        rows = await to_thread.run_sync(project.lake_rows)
        served = project.sandbox.session_ids(project.tests[0])
        assert [row["session_id"] for row in rows] == served


async def test_a_row_holds_what_the_api_said(opened: Opened):
    async with opened(5) as project:
        await project.export()
        rows = await to_thread.run_sync(project.lake_rows)
        for row, told in zip(rows, project.sandbox.rows(project.tests[0]), strict=True):
            assert row["session_id"] == told["sessionId"]
            assert row["audience_id"] == told["audienceId"]
            assert row["status"] == told["status"]
            assert f"{row['start_time']:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z" == told["startTime"]
            assert row["_run_id"] == "run-1"
            assert row["_extra"] is None


async def test_sessions_that_complete_while_one_pages_are_neither_lost_nor_doubled(opened: Opened):
    async with opened(3_000) as project:
        test = project.tests[0]
        project.sandbox.before_page(3, lambda sandbox, _: sandbox.complete(test, 2))
        project.sandbox.before_page(5, lambda sandbox, _: sandbox.finish_late(test, 100))
        report = await project.export()
        assert report.status is Status.COMPLETE
        await project.exact()


async def test_a_session_removed_while_one_pages_is_found_out(opened: Opened):
    async with opened(3_000) as project:
        test = project.tests[0]
        before = set(project.sandbox.session_ids(test))
        project.sandbox.before_page(4, lambda sandbox, _: sandbox.remove(test, 10))
        report = await project.export()
        landed = set((await to_thread.run_sync(project.landed))[test])
        assert set(project.served()[test]) <= landed <= before
        assert report.status is Status.COMPLETE


async def test_a_late_finisher_behind_known_sessions_is_found(opened: Opened):
    async with opened(2_000) as project:
        await project.export()
        project.sandbox.finish_late(project.tests[0], 1_234)
        report = await project.export()
        assert report.pipelines[0].rows["sessions"] == 1
        await project.exact()


async def test_a_removed_session_is_reported_once_and_stays_in_the_lake(opened: Opened):
    async with opened(600) as project:
        test = project.tests[0]
        await project.export()
        gone = project.sandbox.session_ids(test)[3]
        project.sandbox.remove(test, 3)
        report = await project.export()
        assert report.pipelines[0].removed == {test: 1}
        assert gone in (await to_thread.run_sync(project.landed))[test]
        assert (await project.export()).pipelines[0].removed == {}
        commit = project.lake / "_etl" / "answers" / "pipeline=nightly" / "00000002.parquet"
        told = await to_thread.run_sync(
            lambda: pq.read_table(commit, partitioning=None).to_pylist()
        )
        assert [row["session_id"] for row in told if row["endpoint"] == "removed"] == [gone]


async def test_an_edited_session_is_reported_once(opened: Opened):
    async with opened(20) as project:
        await project.export()
        project.sandbox.edit(project.tests[0], 4, status="REFUNDED")
        assert (await project.export()).pipelines[0].edited == {"sessions": 1}
        assert (await project.export()).pipelines[0].edited == {}


async def test_a_swap_deep_down_is_found_within_as_many_nights_as_pages(opened: Opened):
    async with opened(5_000) as project:
        test = project.tests[0]
        await project.export()
        project.sandbox.remove(test, 900)
        project.sandbox.finish_late(test, 4_100)
        new = project.sandbox.session_ids(test)[4_100]
        for _ in range(10):
            await project.export()
        assert new in (await to_thread.run_sync(project.landed))[test]


async def test_an_accepted_failure_is_reported_and_no_exit_4(opened: Opened):
    async with opened(5, 5, extra=f"    accept_failures: [{TESTS[1]}]\n") as project:
        project.sandbox.forbid(project.tests[1], 404)
        report, codes = await project.export_with_codes()
        assert codes == [0]
        assert report.pipelines[0].failed[0].accepted


async def test_max_requests_again_and_again_ends_complete_and_proved(opened: Opened):
    async with opened(1_700, 30, 1_200, 2_600) as project:
        clean, total, runs = 4 + 1 + 3 + 6, 0, 0
        report = await project.export(limits=Limits(max_requests=7))
        while report.status is Status.PAUSED:
            assert report.stopped_because == "max_requests"
            total, runs = total + report.requests.total, runs + 1
            assert runs < 10
            report = await project.export(limits=Limits(max_requests=7))
        assert report.status is Status.COMPLETE
        assert total + report.requests.total == clean
        await project.exact()


async def test_a_token_that_dies_in_the_middle_is_renewed_and_nothing_fails(opened: Opened):
    async with opened(3_000, 800) as project:
        project.sandbox.before_page(3, lambda sandbox, _: sandbox.revoke_tokens())
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.token_grants == 2
        await project.exact()


async def test_credentials_revoked_in_the_middle_end_the_run_after_landing(opened: Opened):
    async with opened(3_000) as project:
        project.sandbox.before_page(3, lambda sandbox, _: sandbox.revoke_credentials())
        report, codes = await project.export_with_codes()
        assert codes == [3]
        assert report.status is Status.FAILED
        assert "USERTESTING_CLIENT_ID" in (report.pipelines[0].error or "")
        assert report.pipelines[0].rows["sessions"] >= 500


@pytest.mark.parametrize("lie", [3, -600])
async def test_a_total_that_lies_is_reported_with_the_figures(opened: Opened, lie: int):
    async with opened(700) as project:
        fault = Fault(FaultKind.TOTAL, value=700 + lie, times=0)
        project.sandbox.add_fault(fault)
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert str(700 + lie) in report.pipelines[0].failed[0].error
        await project.exact()
        assert (await project.export()).requests.total <= 2


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.CUT_HEADERS])
async def test_no_request_is_sent_that_the_report_does_not_count(opened: Opened, kind: FaultKind):
    async with opened(1_200) as project:
        project.sandbox.add_fault(Fault(kind, nth=2))
        report = await project.export()
        assert report.requests.total == len(project.sandbox.requests)
        assert report.requests.retried == 1


SPELLINGS = [
    Spelling(understands=frozenset({"offset"})),
    Spelling(understands=frozenset({"page"})),
    Spelling(understands=frozenset({"page"}), first_page=0),
    Spelling(understands=frozenset({"offset"}), strict=True),
    Spelling(page_cap=100),
    Spelling(understands=frozenset({"page"}), page_cap=60),
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=[f"spelling-{number}" for number in range(6)])
async def test_every_spelling_of_pagination_is_found_out(opened: Opened, spelling: Spelling):
    options = SandboxOptions(rate_requests=None, spelling=spelling)
    async with opened(0, 26, 1_300, options=options) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE, report.pipelines[0].failed
        await project.exact()
        again = await project.export()
        await to_thread.run_sync(shutil.rmtree, project.state)
        without_state = await project.export()
        assert without_state.requests.total == again.requests.total


BAD_ROWS = {
    '{"sessionId":null}': "sessionId is missing",
    '{"status":"COMPLETE"}': "sessionId is missing",
    '{"sessionId":""}': "sessionId is missing",
    '{"sessionId":7}': "sessionId is a number, not a string",
    '{"sessionId":"a","status":3}': "status is a number, not a string",
    '{"sessionId":"a\\u0000b"}': "sessionId holds characters that cannot be stored",
    '{"sessionId":"a","status":"\\ud800"}': "status holds characters that cannot be stored",
    '{"sessionId":"a","startTime":"yesterday"}': "startTime is not an ISO 8601 timestamp",
    '{"sessionId":"a","startTime":"0000-01-01T00:00:00Z"}': "startTime is not an ISO 8601",
    '{"sessionId":"a","startTime":"0001-01-01T00:00:00+05:00"}': "startTime is not an ISO 8601",
    '{"sessionId":"a","startTime":"9999-12-31T20:00:00-05:00"}': "startTime is not an ISO 8601",
    '{"sessionId":"a","finishTime":"2024-06-30T23:59:60Z"}': "finishTime is not an ISO 8601",
    '{"sessionId":"a","score":NaN}': "a number is not finite",
    '{"sessionId":"a","score":' + "9" * 5_000 + "}": "a number is not finite",
    "[1]": "a session is a list, not an object",
    '{"sessionId":"' + "x" * 5_000_000 + '"}': "sessionId is longer than",
}


@pytest.mark.parametrize("row", BAD_ROWS, ids=lambda row: row[:50])
async def test_a_row_that_cannot_be_read_is_kept_aside_and_the_rest_lands(opened: Opened, row: str):
    async with opened(9) as project:
        project.sandbox.add_fault(Fault(FaultKind.RAW_ROW, value=row, times=0))
        for _ in range(2):
            report = await project.export()
            assert report.status is Status.COMPLETE
        rejects = await to_thread.run_sync(project.lake_rows, "rejects")
        assert [reject["endpoint"] for reject in rejects] == ["session_results"]
        assert rejects[0]["reason"].startswith(BAD_ROWS[row])
        assert rejects[0]["test_id"] == project.tests[0]
        assert len(await to_thread.run_sync(project.lake_rows)) == 8


GOOD_ROWS = [
    ({"newField": {"deep": [1, 2]}}, {"_extra": '{"newField":{"deep":[1,2]}}'}),
    ({"audienceId": "absent"}, {"audience_id": None}),
    ({"status": None}, {"status": None}),
    ({"status": "BRAND_NEW"}, {"status": "BRAND_NEW"}),
    ({"sessionId": "../../x"}, {"session_id": "../../x"}),
    ({"sessionId": "=cmd()\u202e\x1b[2J"}, {"session_id": "=cmd()\u202e\x1b[2J"}),
    ({"startTime": "2024-05-01"}, {}),
    ({"startTime": "20240501T101112Z"}, {}),
    ({"startTime": "2024-05-01T10:11:12.123456789+05:30"}, {}),
    ({"startTime": "absent", "finishTime": None}, {"start_time": None, "finish_time": None}),
]


@pytest.mark.parametrize(("fields", "expected"), GOOD_ROWS, ids=repr)
async def test_an_unusual_row_lands_with_what_it_says(
    opened: Opened, fields: dict[str, object], expected: dict[str, object]
):
    async with opened(9) as project:
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, value=fields, times=0))
        report = await project.export()
        assert report.status is Status.COMPLETE, report.pipelines[0].failed
        row = (await to_thread.run_sync(project.lake_rows))[1]
        assert expected.items() <= row.items()
        if isinstance(fields.get("startTime"), str) and fields["startTime"] != "absent":
            assert row["start_time"].year == 2024


async def test_a_body_that_can_never_be_read_is_kept_in_rejects(opened: Opened):
    async with opened(9, 9) as project:
        fault = Fault(FaultKind.BODY, value="[" * 100_000, test_id=project.tests[0], times=0)
        project.sandbox.add_fault(fault)
        report, codes = await project.export_with_codes()
        assert codes == [4]
        rejects = await to_thread.run_sync(project.lake_rows, "rejects")
        assert "nested too deeply" in rejects[0]["reason"]
        assert report.pipelines[0].rows["rejects"] == 1


async def test_the_report_says_what_the_contract_says(opened: Opened):
    async with opened(5) as project:
        report: RunReport = await project.export()
        told = await to_thread.run_sync(project.last_run)
        assert told["schema_version"] == 1
        assert told["run_id"] == report.run_id
        assert "stopped_because" not in told
        assert told["pipelines"][0].keys() >= {"name", "tests", "rows", "files", "bytes", "failed"}
        assert told["requests"].keys() == {"total", "by_status", "retried", "throttled"}
        assert told["rate_limit"].keys() == {"limit", "window_seconds", "utilisation"}


async def test_reports_of_runs_that_end_together_leave_one_that_is_whole(tmp_path):
    report = RunReport("", Status.COMPLETE, "now", 0.0, [], Requests(), 0, None)
    async with create_task_group() as group:
        for run in range(40):
            mine = msgspec.structs.replace(report, run_id=f"run-{run}" * (run + 1))
            group.start_soon(to_thread.run_sync, keep_last_run, tmp_path, mine)
    kept = await to_thread.run_sync((tmp_path / "last_run.json").read_bytes)
    assert msgspec.json.decode(kept, type=RunReport).run_id.startswith("run-")
    assert await to_thread.run_sync(os.listdir, tmp_path) == ["last_run.json"]


@pytest.mark.parametrize("size", [1_200, 60])
async def test_an_echo_that_lies_on_the_very_first_page_is_found_out_and_unlearned(
    opened: Opened, size: int
):
    async with opened(size, 40) as project:
        project.sandbox.add_fault(Fault(FaultKind.ECHO, value={"offset": 500}))
        await project.export()
        report = await project.export()
        assert report.status is Status.COMPLETE, report.pipelines[0].failed
        await project.exact()


async def test_the_ledger_notes_how_each_run_ended(opened: Opened):
    async with opened(40, 1_200) as project:
        await project.export(limits=Limits(max_requests=1))
        await project.export()
        project.sandbox.forbid(project.tests[1])
        await project.export()
        noted = await to_thread.run_sync(read_status, project.state, "nightly")
        by_id = {run.run_id: run.status for run in noted.runs}
        assert by_id == {"run-1": "paused", "run-2": "complete", "run-3": "partial"}
