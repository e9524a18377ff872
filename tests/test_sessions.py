"""What follows from a listing: each session's answers land once, and cost one request each."""

import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.pacing.clock import SystemClock
from etl.plan.orders import Asked
from etl.report.values import RunReport, Status
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.crash.kills import run
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import TESTS, Project

DETAILS = "session_details, demographics, task_groups, tasks"
SIZES = (12, 30, 0)


class ClockAhead(SystemClock):
    """The machine's own time, but some hours later."""

    hours = 0.0

    def time(self) -> float:
        """Return the wall time, that much later."""
        return super().time() + self.hours * 3600


@asynccontextmanager
async def opened(
    folder: Path,
    sizes: tuple[int, ...] = SIZES,
    tables: str = f"sessions, {DETAILS}",
    product: str = "THINK_OUT_LOUD",
    partition_by: str = "[test_id]",
    latency_ms: float = 0.0,
) -> AsyncIterator[Project]:
    """Open a project over a sandbox whose tests have these sizes and this product type."""
    options = SandboxOptions(rate_requests=None, latency_ms=latency_ms)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, TESTS[: len(sizes)])
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_product(test, product)
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(write, project, tables, partition_by)
        yield project


def write(project: Project, tables: str, partition_by: str = "[test_id]") -> None:
    project.write(
        f"    tables: [{tables}]\n    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
    )


def sessions_of(project: Project) -> list[str]:
    return [session for test in project.tests for session in project.sandbox.session_ids(test)]


async def asked(project: Project) -> Counter[str]:
    """Return how often each endpoint has been asked so far, but for the workspaces."""
    kinds = Counter(request.endpoint for request in project.sandbox.requests)
    return Counter({kind: n for kind, n in kinds.items() if kind not in ("workspaces", "tests")})


def expected_tasks(project: Project) -> list[tuple[str, int, str]]:
    return sorted(
        (session, position, str(task["uuid"]))
        for session in sessions_of(project)
        for position, task in enumerate(project.sandbox.details(session)["tasks"])
    )


async def exact(project: Project) -> None:
    """Assert that each session's details are in the lake once, in all tables that they feed."""

    def check() -> None:
        details = sorted(row["session_id"] for row in project.lake_rows("session_details"))
        assert details == sorted(sessions_of(project))
        landed = [
            (row["session_id"], row["position"], row["task_id"])
            for row in project.lake_rows("tasks")
        ]
        assert sorted(landed) == expected_tasks(project)

    await to_thread.run_sync(check)


def counts(report: RunReport) -> dict[str, int]:
    return report.pipelines[0].rows


async def test_a_sessions_details_land_in_every_table_for_one_request(tmp_path: Path):
    async with opened(tmp_path) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert (await asked(project))["details"] == sum(SIZES)
        await exact(project)


async def test_the_next_night_asks_for_new_sessions_alone(tmp_path: Path):
    async with opened(tmp_path, tables=f"sessions, {DETAILS}, transcripts") as project:
        await project.export()
        assert (await project.export()).requests.total == len(SIZES)
        project.sandbox.complete(project.tests[0], 2)
        report = await project.export()
        assert report.requests.total == len(SIZES) + 2 * 2
        assert counts(report)["session_details"] == 2
        await exact(project)


async def test_a_lost_state_directory_costs_no_details_again(tmp_path: Path):
    async with opened(tmp_path, tables=f"{DETAILS}, transcripts") as project:
        await project.export()
        await to_thread.run_sync(shutil.rmtree, project.state)
        report = await project.export()
        assert report.requests.total == len(SIZES)
        await exact(project)


async def test_a_lost_file_costs_the_answers_that_it_held(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()

        def lose() -> None:
            next((project.lake / "tasks").rglob(f"test_id={project.tests[1]}/part-*")).unlink()

        await to_thread.run_sync(lose)
        before = await asked(project)
        await project.export()
        assert (await asked(project) - before)["details"] == SIZES[1]
        await exact(project)


async def test_a_table_added_later_asks_for_what_it_needs_alone(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        before = await asked(project)
        await to_thread.run_sync(write, project, f"sessions, {DETAILS}, transcripts")
        report = await project.export()
        assert await asked(project) - before == {"page": len(SIZES), "transcript": sum(SIZES)}
        assert counts(report)["transcripts"] > 0
        assert (await project.export()).requests.total == len(SIZES)


async def test_a_transcript_that_a_product_has_not_is_asked_for_once(tmp_path: Path):
    async with opened(tmp_path, tables="sessions, transcripts", product="SURVEY") as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].absent == {"transcript": sum(SIZES)}
        assert (await asked(project))["transcript"] == sum(SIZES)
        assert (await project.export()).requests.total == len(SIZES)


async def test_a_transcript_that_is_not_ready_is_looked_at_again_for_a_week(tmp_path: Path):
    async with opened(tmp_path, (3,), tables="sessions, transcripts") as project:
        project.clock = clock = ClockAhead()
        (test,) = project.tests
        young = project.sandbox.session_ids(test)[1]
        finished = datetime.now(UTC) - timedelta(hours=1)
        project.sandbox.edit(test, 1, finishTime=f"{finished:%Y-%m-%dT%H:%M:%SZ}")
        project.sandbox.not_ready(young, "transcript")
        looks = []
        for hours in (0, 2, 6, 40, 80, 24 * 5, 24 * 9):
            before = await asked(project)
            clock.hours += hours
            await project.export()
            looks.append((await asked(project) - before)["transcript"])
        assert looks == [3, 0, 1, 1, 1, 1, 0]


async def test_a_transcript_that_becomes_ready_lands(tmp_path: Path):
    async with opened(tmp_path, (3,), tables="sessions, transcripts") as project:
        project.clock = clock = ClockAhead()
        (test,) = project.tests
        young = project.sandbox.session_ids(test)[0]
        project.sandbox.edit(test, 0, finishTime=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        project.sandbox.not_ready(young, "transcript")
        await project.export()
        project.sandbox.ready(young, "transcript")
        await to_thread.run_sync(shutil.rmtree, project.state)
        clock.hours = 7
        before = await asked(project)
        report = await project.export()
        assert (await asked(project) - before)["transcript"] == 1
        assert counts(report)["transcripts"] > 0


async def test_details_that_cannot_be_read_cost_their_session_alone(tmp_path: Path):
    async with opened(tmp_path, (5,)) as project:
        (bad, *_) = sessions_of(project)
        fault = Fault(FaultKind.BODY, on="details", object_id=bad, value="<html>", times=0)
        project.sandbox.add_fault(fault)
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert counts(report)["session_details"] == 4
        rejected = await to_thread.run_sync(project.lake_rows, "rejects")
        assert [(row["session_id"], row["body"]) for row in rejected] == [(bad, "<html>")]
        assert (await project.export()).requests.total == 1


async def test_a_session_that_is_never_answered_is_named_and_asked_again(tmp_path: Path):
    async with opened(tmp_path, (5,)) as project:
        (bad, *_) = sessions_of(project)
        fault = Fault(FaultKind.STATUS, on="details", object_id=bad, value=500, times=0)
        project.sandbox.add_fault(fault)
        for _ in range(40):  # the others are answered again and again while this one fails
            project.sandbox.add_fault(Fault(FaultKind.STATUS, on="details", value=503))
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert "1 of its sessions" in report.pipelines[0].failed[0].error
        assert counts(report)["session_details"] == 4
        project.sandbox.faults.clear()
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.requests.total == 2
        await exact(project)


async def test_a_budget_again_and_again_ends_complete_and_pays_nothing_twice(tmp_path: Path):
    async with opened(tmp_path, (12, 30, 5)) as project:
        total, runs = 0, 0
        report = await project.export(limits=Limits(max_requests=7))
        while report.status is Status.PAUSED:
            total, runs = total + report.requests.total, runs + 1
            assert runs < 20
            report = await project.export(limits=Limits(max_requests=7))
        assert report.status is Status.COMPLETE
        assert (await asked(project))["details"] == 47
        await exact(project)


async def test_rows_lie_where_the_date_of_their_session_says(tmp_path: Path):
    async with opened(tmp_path, partition_by="[start_date, finish_month]") as project:
        await project.export()

        def check() -> None:
            dates = {
                row["session_id"]: (row["start_date"], row["finish_month"])
                for row in project.lake_rows()
            }
            rows = project.lake_rows("tasks")
            assert rows
            for row in rows:
                assert (row["start_date"], row["finish_month"]) == dates[row["session_id"]]

        await to_thread.run_sync(check)
        await exact(project)


async def test_one_table_can_be_asked_alone(tmp_path: Path):
    async with opened(tmp_path, tables=f"sessions, {DETAILS}, transcripts") as project:
        await project.export(asked=Asked(tables=("sessions",)))
        assert set(await asked(project)) == {"page"}
        await project.export(asked=Asked(tables=("transcripts",)))
        assert await asked(project) == {"page": len(SIZES), "transcript": sum(SIZES)}


async def test_the_listing_comes_before_details_and_these_before_transcripts(tmp_path: Path):
    async with opened(tmp_path, (40,), tables=f"{DETAILS}, transcripts") as project:
        await project.export()
        kinds = [request.endpoint for request in project.sandbox.requests]
        pages, details, transcripts = (
            [place for place, kind in enumerate(kinds) if kind == wanted]
            for wanted in ("page", "details", "transcript")
        )
        assert max(pages) < min(details)
        assert max(details) <= min(transcripts) + 8, "but for those in flight"


@pytest.mark.timeout(120)
async def test_kills_lose_no_answer_and_double_none(tmp_path: Path, blockbuster: BlockBuster):
    blockbuster.deactivate()  # the killed runs are other processes; this one may wait for them
    if lack := lacking():
        pytest.skip(f"KILLS NOT TRIED: {lack}")
    (tmp_path / "project").mkdir()
    (tmp_path / "zygote").mkdir()
    random, kills = Random(11), 8
    async with (
        opened(tmp_path / "project", (160, 40), latency_ms=20) as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        for _ in range(kills):
            ended = await run(project, zygote, kill_after=random.uniform(0.0, 0.4))
            assert ended.code in (0, -9)
        assert (await run(project, zygote)).code == 0
        await exact(project)
        in_flight, of_the_last_commit = 8, 8 * 0.25 / 0.02  # 250 ms of answers, without pacing
        assert (await asked(project))["details"] <= 200 + (in_flight + of_the_last_commit) * kills


# What the workspaces tell: which tests there are, and of which product.


@asynccontextmanager
async def discovering(
    folder: Path, tests: str, tables: str = "sessions", sessions: int = 3
) -> AsyncIterator[Project]:
    """Open a project whose `tests` are a filter, over a sandbox that lists some."""
    options = SandboxOptions(rate_requests=None, tests=9, sessions=sessions)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, ())
        await to_thread.run_sync(
            project.file.write_text,
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines:\n  nightly:\n    tests: {tests}\n    tables: [{tables}]\n"
            "    lake: {url: ./lake}\n    clips: {download: false}\n"
            "    highlight_reels: {download: false}\n",
        )
        yield project


def of_product(project: Project, *products: str) -> set[str]:
    sandbox = project.sandbox
    return {test for test in sandbox.test_ids if sandbox.product(test) in products}


async def test_a_filter_finds_the_tests_of_all_workspaces(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}", "sessions, workspaces, tests") as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].tests == 9
        listed = await to_thread.run_sync(project.lake_rows, "tests")
        found = {test["uuid"] for tests in project.sandbox.tests().values() for test in tests}
        assert {row["test_id"] for row in listed} == found
        sessions = await to_thread.run_sync(project.lake_rows)
        assert {row["test_id"] for row in sessions} == set(project.sandbox.test_ids)
        assert counts(await project.export()) == {"sessions": 0, "workspaces": 0, "tests": 0}


async def test_a_filter_by_product_asks_for_no_other_test(tmp_path: Path):
    async with discovering(tmp_path, "{product_types: [SURVEY]}") as project:
        await project.export()
        sessions = await to_thread.run_sync(project.lake_rows)
        assert {row["test_id"] for row in sessions} == of_product(project, "SURVEY")


async def test_a_new_test_is_found_by_the_next_run(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        await project.export()
        new = project.sandbox.order_test()
        report = await project.export()
        assert report.pipelines[0].tests == 10
        assert counts(report)["sessions"] == len(project.sandbox.session_ids(new))


async def test_workspaces_that_cannot_be_read_end_the_run_and_say_so(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="workspaces", value=404, times=0))
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert report.stopped_because == "undiscovered"


@pytest.mark.parametrize("on", ["workspaces", "tests"])
async def test_workspaces_that_answer_at_the_second_try_cost_one_request_more(
    tmp_path: Path, on: str
):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on=on, value=503))
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert (report.pipelines[0].tests, report.requests.retried) == (9, 1)


async def test_a_page_of_tests_that_never_makes_sense_leaves_the_run_undiscovered(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="tests", value=500, times=0))
        project.patience = replace(project.patience, attempts=1, outage_seconds=60.0)
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert report.stopped_because == "undiscovered"
        assert "The workspaces could not be read" in (report.pipelines[0].error or "")


async def test_what_a_product_has_not_is_not_asked_for(tmp_path: Path):
    tables = "sessions, transcripts, qx_scores, clips, highlight_reels"
    async with discovering(tmp_path, "{workspaces: all}", tables) as project:
        await project.export()
        speaking = of_product(project, "THINK_OUT_LOUD", "LIVE_CONVERSATION")
        scored = of_product(project, "NON_THINK_OUT_LOUD")
        kinds = await asked(project)
        assert kinds["transcript"] == 3 * len(speaking)
        assert kinds["qx"] == len(scored)
        assert kinds["clips"] == 3 * len(speaking | scored)
        assert project.sandbox.count(404) == 0


async def test_scores_are_asked_after_a_change_and_appended_if_they_differ(tmp_path: Path):
    async with opened(tmp_path, (3,), "sessions, qx_scores", "NON_THINK_OUT_LOUD") as project:
        (test,) = project.tests
        first = counts(await project.export())["qx_scores"]
        assert first > 0
        assert (await project.export()).requests.total == 1
        project.sandbox.complete(test)
        project.sandbox.rescore(test)
        assert counts(await project.export())["qx_scores"] == first
        clock = project.clock = ClockAhead()
        clock.hours = 25
        before = await asked(project)
        assert counts(await project.export())["qx_scores"] == 0
        assert (await asked(project) - before)["qx"] == 1


async def test_a_catalogue_that_outgrows_the_budget_is_gone_on_with(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        total, runs = 0, 0
        report = await project.export(limits=Limits(max_requests=2))
        while report.status is Status.PAUSED:
            total, runs = total + report.requests.total, runs + 1
            assert runs < 20
            report = await project.export(limits=Limits(max_requests=2))
        assert report.status is Status.COMPLETE
        kinds = Counter(request.endpoint for request in project.sandbox.requests)
        assert kinds["workspaces"] == 1
        assert kinds["page"] == 9
        assert total + report.requests.total == kinds.total()


async def test_a_cursor_that_comes_round_again_is_no_end_of_the_tests(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}") as project:
        test = project.sandbox.test_ids[0]
        body = f'[{{"uuid": "{test}", "type": "STUDYV2", "cursor": "again"}}]'
        project.sandbox.add_fault(Fault(FaultKind.BODY, on="tests", value=body, times=0))
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert "comes round again" in (report.pipelines[0].error or "")
