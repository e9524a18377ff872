"""`etl discover` shows what the credentials see, and a pipeline for it; nothing is landed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from etl.config.load import load
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.tables.registry import tables
from tests.exporting import Project
from tests.faults import Ended
from tests.test_sessions import discovering


@asynccontextmanager
async def account(folder: Path, tests: str = "{workspaces: all}") -> AsyncIterator[Project]:
    """Open a project over an account with nine tests and some classic ones."""
    async with discovering(folder, tests) as project:
        yield project


async def etl(project: Project, *arguments: str) -> tuple[Ended, str]:
    """Run a command; return exit code and what it says, and its results."""
    done = await to_thread.run_sync(lambda: project.process(*arguments))
    return Ended(done.returncode, done.stderr), done.stdout


async def test_discover_shows_every_test_of_every_workspace_with_counts(tmp_path: Path):
    async with account(tmp_path) as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="tests", value=503))
        ended, told = await etl(project, "discover", "--json")
        assert ended.exit_code == 0
        assert project.sandbox.count(503) == 1, "what passes is asked again"
        found = json.loads(told)
        served = project.sandbox.tests()
        assert {test["test_id"]: test["workspace_id"] for test in found["tests"]} == {
            test["uuid"]: workspace for workspace, tests in served.items() for test in tests
        }
        counts = {one["workspace_id"]: one["tests"] for one in found["workspaces"]}
        assert counts == {workspace: len(tests) for workspace, tests in served.items()}
        assert sum(found["by_type"].values()) == sum(found["by_product_type"].values())
        assert found["by_type"]["STUDYV2"] == 9
        assert "@example.com" not in told
        left = await to_thread.run_sync(lambda: [path.name for path in tmp_path.rglob("*.*")])
        assert not [name for name in left if name.endswith((".sqlite", ".parquet"))]


async def test_what_discover_writes_is_a_pipelines_file_that_runs(tmp_path: Path):
    async with account(tmp_path) as project:
        new = tmp_path / "new.yaml"
        ended, told = await etl(project, "discover", "--write", str(new))
        assert ended.exit_code == 0 and "Wrote" in ended.said
        assert all(test in told for test in project.sandbox.test_ids)
        config = await to_thread.run_sync(
            lambda: load(new, tables=tables(), environ=project.environ())
        )
        assert set(config.pipelines["discovered"].tests) == set(project.sandbox.test_ids)
        asked = len(project.sandbox.requests)
        ended, _ = await etl(project, "discover", "--write", str(new))
        assert ended.exit_code == 2 and "nothing is overwritten" in ended.said
        assert len(project.sandbox.requests) == asked


async def test_discover_shows_nothing_where_it_does_not_see_all(tmp_path: Path):
    async with account(tmp_path) as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="workspaces", value=404, times=0))
        ended, told = await etl(project, "discover", "--json")
        assert (ended.exit_code, told) == (4, "")


# One or two requests: `etl check` and `etl peek`.


async def test_check_asks_the_workspaces_where_a_filter_finds_the_tests(tmp_path: Path):
    async with account(tmp_path) as project:
        ended, told = await etl(project, "check")
        assert (ended.exit_code, told) == (0, "")
        seen = len(project.sandbox.workspaces())
        assert f"{seen} are seen" in ended.said and "can be written" in ended.said
        assert [request.endpoint for request in project.sandbox.requests] == ["workspaces"]


async def test_peek_shows_the_newest_sessions_rows_for_two_requests(tmp_path: Path):
    async with account(tmp_path) as project:
        test = project.sandbox.test_ids[0]
        newest = project.sandbox.session_ids(test)[0]
        ended, told = await etl(project, "peek", test, "--table", "tasks", "--json")
        rows = json.loads(told)["rows"]
        assert [row["task_id"] for row in rows] == [
            task["uuid"] for task in project.sandbox.details(newest)["tasks"]
        ]
        assert {row["session_id"] for row in rows} == {newest}
        assert [request.endpoint for request in project.sandbox.requests] == ["page", "details"]
        assert "newest session, for two requests" in ended.said


async def test_peek_shows_a_tests_own_rows_for_one_request(tmp_path: Path):
    async with account(tmp_path) as project:
        test = project.sandbox.test_ids[0]
        project.sandbox.set_product(test, "NON_THINK_OUT_LOUD")
        _, told = await etl(project, "peek", test, "--table", "qx_scores", "--json")
        assert json.loads(told)["rows"][0]["test_id"] == test
        assert [request.endpoint for request in project.sandbox.requests] == ["qx"]


async def test_peek_refuses_what_is_no_tests_and_names_what_can_be_shown(tmp_path: Path):
    async with account(tmp_path) as project:
        test = project.sandbox.test_ids[0]
        ended, _ = await etl(project, "peek", test, "--table", "workspaces")
        assert ended.exit_code == 2
        assert "`etl discover` shows" in ended.said and "transcripts" in ended.said
        assert not project.sandbox.requests


async def test_status_tells_rows_by_table_and_the_sessions_still_due(tmp_path: Path):
    async with discovering(tmp_path, "{workspaces: all}", "sessions, tasks") as project:
        await project.export(limits=Limits(max_requests=25))
        _, told = await etl(project, "status", "--json")
        (status,) = json.loads(told)["pipelines"]
        done = sum(request.endpoint == "details" for request in project.sandbox.requests)
        assert status["sessions_due"] == 27 - done > 0
        assert status["rows_by_table"]["sessions"] == 27
        landed = len(await to_thread.run_sync(project.lake_rows, "tasks"))
        assert status["rows_by_table"]["tasks"] == landed
        ended, shown = await etl(project, "status")
        assert "sessions due" in shown and f"  tasks: {landed:,} rows" in ended.said
