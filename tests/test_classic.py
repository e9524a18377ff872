"""Classic tests: their sessions land once, page behind page, and are proved or said not to be."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.plan.orders import Asked
from etl.report.values import Status
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.crash.kills import run
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import TESTS, Project
from tests.test_plan import foreseen
from tests.test_sessions import ClockAhead

TABLES = "completed_sessions, completed_session_answers, screener_responses"
SIZES = (120, 30, 0)


@asynccontextmanager
async def opened(
    folder: Path,
    sizes: tuple[int, ...] = SIZES,
    tables: str = TABLES,
    extra: str = "",
    latency_ms: float = 0.0,
) -> AsyncIterator[Project]:
    """Open a project whose tests are classic ones of these sizes."""
    options = SandboxOptions(rate_requests=None, classic_tests=len(sizes), latency_ms=latency_ms)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, sandbox.classic_ids)
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(write, project, tables, extra)
        yield project


def write(project: Project, tables: str, extra: str = "") -> None:
    project.write(f"    tables: [{tables}]\n{extra}")


def asked(project: Project) -> list[tuple[str | None, str | None]]:
    """Return each page of classic sessions that was asked: its test, and behind which cursor."""
    return [
        (request.test_id, request.query.get("after"))
        for request in project.sandbox.requests
        if request.endpoint == "completed"
    ]


def expected(project: Project) -> dict[str, list[dict[str, Any]]]:
    """Return what the tables are to hold of the sessions that the sandbox lists."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES.split(", ")}
    for test in project.tests:
        for session in project.sandbox.completed(test):
            ids = {"test_id": test, "session_id": session["sessionUuid"]}
            found["completed_sessions"].append(ids | session_cells(session))
            for position, answer in enumerate(session["answers"]):
                cells = {"position": position} | answer_cells(answer)
                found["completed_session_answers"].append(ids | cells)
            for position, asked_before in enumerate(session.get("screenerResponses", ())):
                cells = {"position": position, "question": asked_before["question"]}
                cells |= {"response": as_json(asked_before["response"])}
                found["screener_responses"].append(ids | cells)
    return found


def as_json(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def session_cells(session: dict[str, Any]) -> dict[str, Any]:
    demographics = session["participant"]["demographics"]
    named = {
        "session_number": session["sessionId"],
        "completed_at": session["completedDateTime"],
        "state": session["state"],
        "task_ordering_condition": session["taskOrderingCondition"],
        "form_factor_used": session.get("formFactorUsed"),
        "participant_name": session["participant"]["name"],
    }
    told = {
        "age": "age",
        "gender": "gender",
        "country": "country",
        "income": "income",
        "children": "children",
        "social_networks": "socialNetworks",
        "web_expertise": "webExpertise",
        "employment_status": "employmentStatus",
        "industry": "industry",
        "job_function": "jobFunction",
        "seniority": "seniority",
        "company_size": "companySize",
    }
    lists = {"children", "social_networks"}
    return named | {
        column: as_json(demographics.get(field)) if column in lists else demographics.get(field)
        for column, field in told.items()
    }


def answer_cells(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": answer["type"],
        "time_seconds": answer["time"],
        "duration_seconds": answer["duration"],
        "responses": as_json(answer["responses"]),
        "transcript": as_json(answer.get("transcript")),
        "url": answer.get("url"),
    }


async def exact(project: Project) -> None:
    """Assert that every cell of the classic tables is what the sandbox serves, once."""

    def check() -> None:
        for name, rows in expected(project).items():
            landed = project.lake_rows(name)
            for row in landed:
                assert row.pop("_extra") is None
                for own in ("_run_id", "_fetched_at"):
                    del row[own]
                if name == "completed_sessions":
                    row["completed_at"] = f"{row['completed_at']:%Y-%m-%dT%H:%M:%SZ}"
            assert sorted(landed, key=key) == sorted(rows, key=key), name

    await to_thread.run_sync(check)


def key(row: dict[str, Any]) -> tuple[str, int]:
    return row["session_id"], row.get("position", 0)


async def test_every_cell_of_every_classic_test_lands(tmp_path: Path):
    async with opened(tmp_path) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].verified == len(SIZES)
        assert report.requests.total == 3 + 1 + 1
        await exact(project)


async def test_an_idle_night_takes_a_request_a_test_and_proves_a_page_of_the_large(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        report = await project.export()
        assert report.pipelines[0].verified == len(SIZES)
        assert report.requests.total == len(SIZES) + 1
        await to_thread.run_sync(write, project, TABLES, "    audit: 'off'\n")
        report = await project.export()
        assert report.pipelines[0].verified == len(SIZES)
        assert report.requests.total == len(SIZES)
        assert sum(report.pipelines[0].rows.values()) == 0


async def test_new_sessions_at_the_head_cost_no_more(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        project.sandbox.complete(project.tests[0], 3)
        report = await project.export()
        assert report.requests.total == len(SIZES) + 1
        assert report.pipelines[0].rows["completed_sessions"] == 3
        await exact(project)


async def test_a_late_session_deep_down_is_found(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        project.sandbox.finish_late(project.tests[0], 90)
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].rows["completed_sessions"] == 1
        await exact(project)


async def test_a_session_that_is_listed_no_more_is_reported_and_stays(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        before = await to_thread.run_sync(project.lake_rows, "completed_sessions")
        project.sandbox.remove(project.tests[0], 70)
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].removed == {project.tests[0]: 1}
        assert await to_thread.run_sync(project.lake_rows, "completed_sessions") == before
        assert (await project.export()).pipelines[0].removed == {}


async def test_a_session_that_is_answered_anew_is_reported_once(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        edit = Fault(FaultKind.FIELDS, "completed", project.tests[1], times=0)
        edit.value = {"/sessions/3/state": "amended"}
        project.sandbox.add_fault(edit)
        assert (await project.export()).pipelines[0].edited == {"completed_sessions": 1}
        assert (await project.export()).pipelines[0].edited == {}


async def test_sessions_that_come_while_they_are_read_are_read_again(tmp_path: Path):
    async with opened(tmp_path) as project:
        test = project.tests[0]
        project.sandbox.before("completed", 2, lambda box, _: box.complete(test, 2), test)
        report = await project.export()
        assert report.status is Status.COMPLETE
        await exact(project)


async def test_a_cursor_whose_session_has_gone_is_read_around(tmp_path: Path):
    async with opened(tmp_path) as project:
        refusal = Fault(FaultKind.STATUS, "completed", project.tests[0], nth=2, value=400)
        project.sandbox.add_fault(refusal)
        assert (await project.export()).status is Status.COMPLETE
        await exact(project)


async def test_a_cursor_that_comes_round_again_is_said(tmp_path: Path):
    async with opened(tmp_path) as project:
        loop = Fault(FaultKind.FIELDS, "completed", project.tests[0], times=0)
        first = project.sandbox.completed(project.tests[0])[0]["cursor"]
        loop.value = {"/sessions/*/cursor": first}
        project.sandbox.add_fault(loop)
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "a cursor comes round again" in ended.said
        landed = await to_thread.run_sync(project.lake_rows, "completed_sessions")
        assert len(landed) == 51 + 30, "what was served before that"


async def test_a_count_that_never_fits_is_said_and_everything_lands(tmp_path: Path):
    async with opened(tmp_path) as project:
        wrong = Fault(FaultKind.FIELDS, "completed", project.tests[0], times=0)
        wrong.value = {"/completedSessionCount": 125}
        project.sandbox.add_fault(wrong)
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "The API says 125 sessions but serves 120" in ended.said
        await exact(project)
        before = len(asked(project))
        assert (await project.ended()).exit_code == 4
        assert len(asked(project)) == before + len(SIZES), (
            "nothing changed, so it is not read again"
        )
        project.sandbox.faults.clear()
        assert (await project.ended()).exit_code == 0


@pytest.mark.parametrize("count", ["absent", None, -1, "120", True])
async def test_a_count_that_is_none_proves_nothing_and_everything_lands(
    tmp_path: Path, count: object
):
    async with opened(tmp_path) as project:
        project.sandbox.add_fault(
            Fault(FaultKind.FIELDS, "completed", times=0, value={"/completedSessionCount": count})
        )
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "no believable total" in ended.said
        await exact(project)


async def test_a_test_that_is_not_there_is_asked_once_a_week(tmp_path: Path):
    async with opened(tmp_path) as project:
        project.clock = clock = ClockAhead()
        project.sandbox.forbid(project.tests[1], 404)
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "If it is of type STUDYV2, it belongs to the tables clips, demogr" in ended.said
        before = len(asked(project))
        clock.hours = 24
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "asked again after a week" in ended.said
        assert project.tests[1] not in dict(asked(project)[before:])
        await to_thread.run_sync(shutil.rmtree, project.state)
        before = len(asked(project))
        assert (await project.ended()).exit_code == 4
        assert project.tests[1] not in dict(asked(project)[before:]), "the lake knows it too"
        project.sandbox.forbidden.clear()
        assert (await project.ended(asked=Asked(tests=(project.tests[1],)))).exit_code == 0
        await exact(project)


async def test_after_a_week_a_test_that_was_not_there_is_asked_again(tmp_path: Path):
    async with opened(tmp_path) as project:
        project.clock = clock = ClockAhead()
        project.sandbox.forbid(project.tests[1], 404)
        await project.export()
        project.sandbox.forbidden.clear()
        clock.hours = 24 * 7 + 1
        assert (await project.export()).status is Status.COMPLETE
        await exact(project)


async def test_a_budget_again_and_again_ends_complete_and_pays_no_page_twice(tmp_path: Path):
    async with opened(tmp_path, (330, 120, 20)) as project:
        runs = 0
        report = await project.export(limits=Limits(max_requests=2))
        while report.status is Status.PAUSED:
            runs += 1
            assert runs < 20
            report = await project.export(limits=Limits(max_requests=2))
        assert report.status is Status.COMPLETE
        assert len(asked(project)) == len(set(asked(project))) == 7 + 3 + 1
        await exact(project)


async def test_a_lost_state_directory_costs_no_page_again(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()
        await to_thread.run_sync(shutil.rmtree, project.state)
        report = await project.export()
        assert report.requests.total == len(SIZES) + 1
        await exact(project)


async def test_a_lost_file_is_read_again(tmp_path: Path):
    async with opened(tmp_path) as project:
        await project.export()

        def lose() -> None:
            next((project.lake / "screener_responses").rglob("part-*")).unlink()

        await to_thread.run_sync(lose)
        assert (await project.export()).status is Status.COMPLETE
        await exact(project)


async def test_a_table_added_later_reads_the_pages_again(tmp_path: Path):
    async with opened(tmp_path, tables="completed_sessions") as project:
        await project.export()
        await to_thread.run_sync(write, project, TABLES)
        report = await project.export()
        assert report.pipelines[0].rows["completed_sessions"] == 0
        assert report.requests.total == 3 + 1 + 1
        await exact(project)


async def test_sessions_lie_where_their_date_of_completion_says(tmp_path: Path):
    layout = "    lake: {url: ./lake, partition_by: [start_date, finish_date, test_id]}\n"
    async with opened(tmp_path, extra=layout) as project:
        assert (await project.export()).status is Status.COMPLETE

        def check() -> None:
            rows = project.lake_rows("completed_sessions")
            assert len(rows) == sum(SIZES)
            assert len({row["finish_date"] for row in rows}) > 1
            for row in rows:
                assert row["finish_date"] == f"{row['completed_at']:%Y-%m-%d}"
                assert "start_date" not in row, "which a classic session does not tell"
            assert "finish_date" not in project.lake_rows("screener_responses")[0]
            assert project.process("verify", "--deep").returncode == 0

        await to_thread.run_sync(check)


async def test_a_body_that_cannot_be_read_fails_its_test_alone(tmp_path: Path):
    async with opened(tmp_path) as project:
        project.sandbox.add_fault(
            Fault(FaultKind.BODY, "completed", project.tests[0], times=0, value="<html>")
        )
        ended = await project.ended()
        assert ended.exit_code == 4
        rejected = await to_thread.run_sync(project.lake_rows, "rejects")
        assert [row["body"] for row in rejected] == ["<html>"]
        project.sandbox.faults.clear()
        assert (await project.ended()).exit_code == 0
        await exact(project)


async def test_hashed_sessions_are_known_by_their_hash_alone(tmp_path: Path):
    hashed = "".join(f"\n      {name}: {{hash: [session_id]}}" for name in TABLES.split(", "))
    async with opened(tmp_path, extra=f"    columns:{hashed}\n") as project:
        project.settings["ETL_HASH_KEY"] = "a key that nobody can guess"
        assert (await project.export()).status is Status.COMPLETE
        project.sandbox.complete(project.tests[0])
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert report.pipelines[0].rows["completed_sessions"] == 1
        assert report.pipelines[0].removed == {}


# Which tests are classic.


@asynccontextmanager
async def mixed(folder: Path, tables: str, tests: str | None = None) -> AsyncIterator[Project]:
    """Open a project over an account with two classic tests and two of type STUDYV2."""
    options = SandboxOptions(rate_requests=None, tests=2, classic_tests=2, sessions=5)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, (*sandbox.classic_ids, *sandbox.test_ids))
        await to_thread.run_sync(write, project, tables)
        if tests is not None:
            await to_thread.run_sync(write_filter, project, tests)
        yield project


def write_filter(project: Project, tests: str) -> None:
    """Put a filter in the place of the pipeline's tests."""
    before, _, after = project.file.read_text().partition("    tests:")
    after = after[after.index("    lake:") :]
    project.file.write_text(f"{before}    tests: {tests}\n{after}")


async def landed(project: Project, table: str) -> set[str]:
    return {row["test_id"] for row in await to_thread.run_sync(project.lake_rows, table)}


async def test_a_mixed_pipeline_asks_each_test_where_it_is(tmp_path: Path):
    async with mixed(tmp_path, f"sessions, session_details, studies, {TABLES}") as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        assert project.sandbox.count(404) == 0
        classic, others = set(project.sandbox.classic_ids), set(project.sandbox.test_ids)
        for table in ("completed_sessions", "studies"):
            assert await landed(project, table) == classic
        for table in ("sessions", "session_details"):
            assert await landed(project, table) == others
        assert (await project.export()).requests.total == 4


async def test_a_filter_finds_classic_tests_where_tables_hold_them(tmp_path: Path):
    async with mixed(tmp_path, f"sessions, {TABLES}", "{workspaces: all}") as project:
        assert (await project.export()).pipelines[0].tests == 4
        assert await landed(project, "completed_sessions") == set(project.sandbox.classic_ids)
        assert await landed(project, "sessions") == set(project.sandbox.test_ids)


async def test_a_filter_of_classic_tables_finds_classic_tests_alone(tmp_path: Path):
    async with mixed(tmp_path, TABLES, "{workspaces: all}") as project:
        report = await project.export()
        assert (report.status, report.pipelines[0].tests) == (Status.COMPLETE, 2)
        assert project.sandbox.count(404) == 0


async def test_a_test_that_no_workspace_lists_is_asked_of_both_apis_once(tmp_path: Path):
    async with mixed(tmp_path, f"sessions, {TABLES}") as project:
        unlisted = TESTS[0]
        project.sandbox.set_product(unlisted, "CLASSIC")
        project.sandbox.set_sessions(unlisted, 7)
        project.tests = (*project.tests, unlisted)
        await to_thread.run_sync(write, project, f"sessions, {TABLES}")
        assert (await project.export()).status is Status.COMPLETE
        assert project.sandbox.count(404) == 1
        assert unlisted in await landed(project, "completed_sessions")
        assert (await project.export()).status is Status.COMPLETE
        assert project.sandbox.count(404) == 1


async def test_a_test_in_the_wrong_tables_is_told_its_own_without_a_request(tmp_path: Path):
    async with mixed(tmp_path, "sessions, transcripts") as project:
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "It is a classic test, of which sessions and transcripts hold nothing" in ended.said
        assert "completed_sessions, screener_responses, studies and study_tasks" in ended.said
        of_tests = {request.test_id for request in project.sandbox.requests} - {None}
        assert of_tests == set(project.sandbox.test_ids)
        await to_thread.run_sync(write, project, TABLES)
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "It is of type STUDYV2, of which completed_sessions, completed" in ended.said
        assert project.sandbox.count(404) == 0


async def test_a_classic_test_that_nobody_has_listed_is_told_what_it_may_be(tmp_path: Path):
    async with mixed(tmp_path, "sessions") as project:
        ended = await project.ended()
        assert ended.exit_code == 4
        assert "If it is a classic test, it belongs to the tables completed_session" in ended.said
        assert {request.endpoint for request in project.sandbox.requests} == {"page"}


async def test_check_and_peek_ask_the_older_api(tmp_path: Path):
    async with opened(tmp_path) as project:
        checked = await to_thread.run_sync(lambda: project.process("check", check=True))
        assert f"{project.tests[0]}: 120 sessions" in checked.stdout + checked.stderr
        peeked = await to_thread.run_sync(
            lambda: project.process(
                "peek", project.tests[0], "--table", "completed_sessions", "--json", check=True
            )
        )
        shown = json.loads(peeked.stdout)["rows"]
        served = project.sandbox.completed(project.tests[0])[:50]
        assert [row["session_id"] for row in shown] == [told["sessionUuid"] for told in served]


# What a run would ask.


async def comes_true(project: Project) -> dict[str, int]:
    """Assert that the next run asks exactly what is foreseen; return the forecast."""
    plan, before = await foreseen(project), len(asked(project))
    report = await project.export()
    assert plan.requests["completed_sessions"] == len(asked(project)) - before
    assert sum(plan.requests.values()) == report.requests.total
    return dict(plan.requests)


async def test_the_plan_foresees_the_pages_of_classic_tests(tmp_path: Path):
    async with opened(tmp_path, (330, 30, 20), f"{TABLES}, studies") as project:
        project.clock = clock = ClockAhead()
        await project.export(limits=Limits(max_requests=4))
        await comes_true(project)
        await comes_true(project)
        clock.hours = 25
        assert (await comes_true(project))["study"] == 3
        project.sandbox.forbid(project.tests[1], 404)
        await project.export()
        await comes_true(project)


async def test_the_plan_foresees_the_rest_of_a_look_left_for_long(tmp_path: Path):
    async with opened(tmp_path, (330,)) as project:
        project.clock = clock = ClockAhead()
        await project.export(limits=Limits(max_requests=3))
        clock.hours = 3
        await comes_true(project)


async def test_the_plan_foresees_what_an_added_table_takes(tmp_path: Path):
    async with opened(tmp_path, tables="completed_sessions") as project:
        await project.export()
        await to_thread.run_sync(write, project, TABLES)
        await comes_true(project)


# Whatever kills it.


@pytest.mark.timeout(120)
async def test_kills_lose_no_page_and_double_none(tmp_path: Path, blockbuster: BlockBuster):
    blockbuster.deactivate()  # the killed runs are other processes; this one may wait for them
    if lack := lacking():
        pytest.skip(f"KILLS NOT TRIED: {lack}")
    (tmp_path / "project").mkdir()
    (tmp_path / "zygote").mkdir()
    random, kills = Random(5), 8
    async with (
        opened(tmp_path / "project", (700, 300, 40), latency_ms=20) as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        for _ in range(kills):
            ended = await run(project, zygote, kill_after=random.uniform(0.0, 0.4))
            assert ended.code in (0, -9)
        assert (await run(project, zygote)).code == 0
        await exact(project)
        pages, heads_and_proofs = 15 + 7 + 1, 5
        in_flight, of_the_last_commit = 3, 3 * 0.25 / 0.02  # 250 ms of answers, without pacing
        rounds = kills + 1
        most = pages + (in_flight + of_the_last_commit) * kills + heads_and_proofs * rounds
        assert len(asked(project)) <= most
