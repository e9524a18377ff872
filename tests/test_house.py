"""The house itself: its order, its sizes, its nets."""

import ast
import os
import re
import sqlite3
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio import to_thread
from blockbuster import BlockingError
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "etl").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LONGEST_FUNCTION = 60


# The top level.


def test_the_top_level_holds_only_what_is_agreed():
    agreed = {"pyproject.toml", "README.md", "etl", "tests", "pipelines.yaml", "Makefile"}
    generated = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - generated <= agreed


def test_make_lists_its_targets():
    answer = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"make ([a-z-]+)", answer.stdout)
    assert {"help", "run", "test", "check", "bench", "soak", "lock", "clean"} <= set(listed)
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"\.PHONY: (.*)", text)
    assert targets is not None and sorted(targets[1].split()) == sorted(listed)


# The locks.


def locked(name: str) -> dict[str, str]:
    """Return the locked version of each package in one of the locks."""
    text = (ROOT / ".requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z][a-z0-9.-]*)==(\S+)", text, re.MULTILINE))


def required(group: str) -> Iterator[Requirement]:
    """Walk through a dependency group and the groups that it includes."""
    for entry in PROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from required(entry["include-group"])
        else:
            yield Requirement(entry)


def test_the_locks_hold_what_pyproject_asks_for():
    extras = PROJECT["project"]["optional-dependencies"].values()
    run = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    groups = {group: required(group) for group in ("build", "lock", "dev", "audit", "mutate")}
    asked = {"run": map(Requirement, run), **groups}
    stale = [
        f"{lock}: {requirement}"
        for lock, requirements in asked.items()
        for requirement in requirements
        if locked(lock).get(canonicalize_name(requirement.name), "0") not in requirement.specifier
    ]
    assert not stale, "run `make lock`"


def test_the_locks_agree():
    assert locked("run").items() | locked("build").items() <= locked("dev").items()
    assert locked("dev").items() <= locked("mutate").items()


def test_the_lowest_versions_are_those_that_pyproject_promises():
    """So `make test-lowest` tries the promise; a bound without a release is no bound."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    run = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    lowest = {
        name: next(iter(Requirement(text).specifier)).version
        for text in run
        if (name := canonicalize_name(Requirement(text).name))
    }
    tried = locked("lowest")
    assert {
        name for name, version in lowest.items() if Version(tried[name]) != Version(version)
    } == set()


@pytest.mark.parametrize("lock", ["build", "run", "dev", "lock", "lowest", "audit", "mutate"])
def test_every_locked_version_has_hashes_and_none_an_address(lock):
    text = (ROOT / ".requirements" / f"{lock}.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    unhashed = [
        first
        for first, second in pairwise(text.splitlines())
        if "==" in first and "--hash=sha256:" not in second
    ]
    assert not unhashed


# The workflows.

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request) -> Any:
    return YAML(typ="safe").load(request.param.read_text())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_pinned_by_commit_and_says_which_version_that_is(path):
    text = path.read_text()
    used = re.findall(r"uses:.*", text)
    pinned = re.findall(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", text)
    assert used == pinned and used
    versions = {pin.partition("@")[0]: pin for pin in pinned}
    assert set(pinned) == set(versions.values()), "one action, one version"


def test_a_workflow_may_nothing_and_each_job_only_what_it_names(workflow):
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert job["permissions"] in ({"contents": "read"}, {"id-token": "write"}), name
        assert ("environment" in job) == ("id-token" in job["permissions"]), name


def test_no_job_runs_for_ever_and_none_leaves_credentials_in_its_checkout(workflow):
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_workflow_knows_a_secret_and_no_script_what_others_wrote(path):
    text = path.read_text()
    assert "secrets." not in text and "password" not in text and " token:" not in text
    scripts = re.findall(r"- run:(.*)|run: (.*)", text)
    assert not [script for script in scripts if "${{" in "".join(script)], "pass it in env"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_target_that_a_workflow_makes_exists(path):
    makefile = (ROOT / "Makefile").read_text()
    made = re.findall(r"run: make ([a-z-]+)", path.read_text())
    assert [target for target in made if f"\n{target}: " not in makefile] == []


def test_the_workflows_run_what_every_change_must_pass_on_all_systems():
    ci = YAML(typ="safe").load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = ci["jobs"]["test"]["strategy"]["matrix"]
    assert {"run": ".ci/run"} in ci["jobs"]["test"]["steps"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos"}
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"]]
    assert matrix["python"] == [version for version in named if re.fullmatch(r"3\.\d+", version)]


# The code.


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_line_that_no_test_need_reach_says_why(module):
    excluded = re.findall(r"# pragma: no (?:cover|branch).*", module.read_text())
    unexplained = [line for line in excluded if not re.search(r"no (cover|branch) - \w+ \w+", line)]
    assert not unexplained


def test_the_root_imports_nothing():
    tree = ast.parse((ROOT / "etl" / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_is_longer_than_a_screen(module):
    lengths = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FUNCTION} == {}


# The nets: a test that blocks its loop fails, and a thread may block.


def write_parquet() -> None:
    table = pa.table({"a": [1]})
    pq.write_table(table, pa.BufferOutputStream())


BLOCKING: dict[str, Callable[[], object]] = {
    "sleep": lambda: time.sleep(0.001),
    "read a file": Path(__file__).read_bytes,
    "open a file": Path(__file__).open,
    "look at a file": Path(__file__).stat,
    "list a folder": lambda: list(ROOT.iterdir()),
    "open a ledger": lambda: sqlite3.connect(":memory:"),
    "sync": lambda: os.fsync(0),
    "write Parquet": write_parquet,
}


@pytest.mark.parametrize("call", BLOCKING.values(), ids=BLOCKING.keys())
async def test_a_blocking_call_on_the_loop_fails_its_test(call):
    with pytest.raises(BlockingError):
        call()


async def test_a_query_on_the_loop_fails_its_test():
    ledger = await to_thread.run_sync(sqlite3.connect, ":memory:")
    with pytest.raises(BlockingError):
        ledger.execute("SELECT 1")
    await to_thread.run_sync(ledger.close)


async def test_a_thread_may_block(tmp_path):
    def block() -> None:
        time.sleep(0.001)
        with sqlite3.connect(tmp_path / "ledger.db") as ledger:
            ledger.execute("CREATE TABLE work (id)")
        ledger.close()
        with (tmp_path / "part").open("wb") as part:
            part.write(b"rows")
            os.fsync(part.fileno())
        write_parquet()

    await to_thread.run_sync(block)


async def test_a_process_can_be_started_and_read_on_the_loop():
    answer = await anyio.run_process(["echo", "rows"])
    assert answer.stdout == b"rows\n"


@given(st.integers())
async def test_properties_may_be_async(number):
    await anyio.lowlevel.checkpoint()
    assert number == int(str(number))
