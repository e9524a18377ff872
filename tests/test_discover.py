"""`etl discover` shows what the credentials see, and a pipeline for it; nothing is landed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import to_thread

from etl.sandbox.faults import Fault, FaultKind
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
        ended, told = await etl(project, "discover", "--json")
        assert ended.exit_code == 0
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
        ended, told = await etl(project, "--config", str(new), "plan", "--json")
        assert ended.exit_code == 0, ended.said
        assert json.loads(told)["pipelines"][0]["tests"] == 9
        asked = len(project.sandbox.requests)
        ended, _ = await etl(project, "discover", "--write", str(new))
        assert ended.exit_code == 2 and "nothing is overwritten" in ended.said
        assert len(project.sandbox.requests) == asked


async def test_discover_tries_again_what_passes_and_names_what_does_not(tmp_path: Path):
    async with account(tmp_path) as project:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="tests", value=503))
        ended, told = await etl(project, "discover", "--json")
        assert ended.exit_code == 0 and len(json.loads(told)["tests"]) >= 9
        project.sandbox.add_fault(Fault(FaultKind.STATUS, on="workspaces", value=404, times=0))
        ended, told = await etl(project, "discover", "--json")
        assert (ended.exit_code, told) == (4, "")
