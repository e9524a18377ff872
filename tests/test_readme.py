"""What the README says is so: its commands run as written, its tables are those of the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import to_thread

from etl import errors
from etl.config.settings import Settings
from etl.sandbox.server import SandboxOptions, open_sandbox
from etl.tables.registry import tables
from tests.exporting import Project
from tests.forks import run_etl
from tests.told_tables import with_tables

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text below a heading, up to the next of its rank."""
    _, _, rest = README.partition(f"\n## {title}\n")
    assert rest, title
    return rest.partition("\n## ")[0]


def commands(title: str) -> list[str]:
    """Return the command lines of a section, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def rows_of_table(title: str) -> list[list[str]]:
    """Return the cells of a section's first table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


async def test_the_first_export_goes_as_it_is_written(tmp_path: Path):
    written = commands("The first export, with your credentials")
    assert [line for line in written if line.startswith("etl")] == [
        "etl init",
        "etl check",
        "etl plan",
        "etl run",
    ]
    async with open_sandbox(SandboxOptions(tests=1, sessions=20)) as sandbox:
        project = Project(tmp_path, sandbox, sandbox.test_ids)

        def follow() -> None:
            for line in written:
                if line.startswith("etl"):
                    done = project.process(*line.split()[1:])
                    assert done.returncode == 0, (line, done.stderr)
                if line == "etl init":
                    text = project.file.read_text()
                    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
                    placeholder = "00000000-0000-0000-0000-000000000000"
                    project.file.write_text(text.replace(placeholder, project.tests[0]))

        await to_thread.run_sync(follow)
        assert await to_thread.run_sync(project.landed) == project.served()


async def test_the_cron_line_is_silent_while_all_is_well(tmp_path: Path):
    (line,) = re.findall(r"^[\d*][^#\n]*etl (--config.*)$", section("Every night"), re.MULTILINE)
    async with open_sandbox(SandboxOptions(tests=1, sessions=20)) as sandbox:
        project = Project(tmp_path, sandbox, sandbox.test_ids)
        await to_thread.run_sync(project.write)
        arguments = line.replace("/srv/research/pipelines.yaml", "{}").split()
        assert arguments[:2] == ["--config", "{}"]
        done = await to_thread.run_sync(lambda: project.process(*arguments[2:]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_the_python_runs_as_it_is_written(tmp_path: Path):
    blocks = re.findall(r"```python\n(.*?)```", section("From Python"), re.DOTALL)
    assert len(blocks) == 2
    test = re.findall(r'TEST = "(.*)"', blocks[1])[0]
    async with open_sandbox(SandboxOptions(rate_requests=None)) as sandbox:
        sandbox.set_sessions(test, 20)
        project = Project(tmp_path, sandbox, (test,))
        await to_thread.run_sync(project.write)

        def follow() -> list[str]:
            environ = {**os.environ, **project.environ()}
            return [
                subprocess.run(
                    [sys.executable, "-W", "error", "-c", block],
                    cwd=tmp_path,
                    env=environ,
                    capture_output=True,
                    text=True,
                    check=True,
                    timeout=60,
                ).stdout
                for block in blocks
            ]

        run, read = await to_thread.run_sync(follow)
        assert run.startswith("complete {'sessions': 20") and "Research Team" in run
        assert "answer_text: string" in read
        assert await to_thread.run_sync(project.landed) == project.served()


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"`?make ([a-z]+)", README)
    assert {"run", "test", "check", "bench", "soak", "lock"} <= set(named)
    for target in named:
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_every_option_that_is_named_exists():
    named = set(re.findall(r"`(--[a-z-]+)", README))
    shown = "".join(
        run_etl((command, "--help"), environ={**os.environ, "COLUMNS": "200"}).stdout
        for command in (
            "run",
            "sandbox",
            "schema",
            "peek",
            "status",
            "discover",
            "verify",
            "reset",
            "backfill",
            "rebuild",
        )
    )
    assert named and not {option for option in named if option not in shown}


def test_the_settings_are_those_of_the_code():
    aliases = {str(field.validation_alias) for field in Settings.model_fields.values()}
    told = {
        name for row in rows_of_table("Configuration") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert told - {"ETL_CONFIG"} == aliases - {"ETL_CONFIG"}


def test_the_exit_codes_are_those_of_the_errors():
    told = {code for row in rows_of_table("Exit codes") for code in map(int, row[0].split(","))}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = {kind.exit_code for kind in kinds if issubclass(kind, errors.EtlError)}
    assert raised <= told
    assert told == {0, 1, 2, 3, 4, 5, 6, 75, 130, 143}


def test_the_tables_are_those_of_the_code():
    assert with_tables(README) == README, "run `python -m tests.faults --write`"
    columns = ", ".join(column.name for column in tables()["sessions"].columns)
    assert ["`sessions`", "a completed session", f"`{columns}`"] in rows_of_table("Tables")


def test_a_new_table_is_listed_before_the_rejects():
    (last,) = re.findall(r"^\| .*\n(?=\| `rejects` )", README, re.MULTILINE)
    assert with_tables(README.replace(last, "")) == README


@pytest.mark.parametrize("anchor", re.findall(r"\]\(#([a-z-]+)\)", README))
def test_every_link_within_leads_somewhere(anchor: str):
    titles = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    assert anchor in {re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in titles}
