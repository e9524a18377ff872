"""Runs the exporter as a user does, in a process of its own or in this one."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
from anyio import to_thread
from rich.console import Console

from etl.config.load import load
from etl.config.models import Config
from etl.pacing.clock import Clock, SystemClock
from etl.plan.orders import Asked, orders
from etl.report.progress import Progress
from etl.report.summary import print_summary
from etl.report.values import RunReport, exit_code_of
from etl.run.export import Export, Limits
from etl.run.world import Patience, World
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from etl.tables.registry import tables
from tests.faults import Ended
from tests.forks import run_etl

IMPATIENT = Patience(attempts=4, outage_seconds=3.0, grace_seconds=1.0, polls=(0.02, 0.02))

TESTS = tuple(f"{number:08x}-0000-4000-8000-00000000000{number}" for number in range(1, 7))


@dataclass
class Project:
    """A folder with a pipelines file, and what has come of it."""

    folder: Path
    sandbox: Sandbox
    tests: tuple[str, ...]
    clock: Clock = field(default_factory=SystemClock)
    patience: Patience = IMPATIENT
    runs: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The pipelines file."""
        return self.folder / "pipelines.yaml"

    @property
    def lake(self) -> Path:
        """The lake's folder."""
        return self.folder / "lake"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / ".etl"

    def write(self, extra: str = "", *, rate: str = "{requests: 100000, seconds: 1}") -> None:
        """Write a pipelines file with one pipeline; `extra` are lines of it."""
        ids = "".join(f"\n      - {test}" for test in self.tests)
        self.file.write_text(
            f"version: 1\nconnections:\n  default: {{rate_limit: {rate}}}\n"
            f"pipelines:\n  nightly:\n    tests:{ids}\n"
            + (extra if "lake:" in extra else f"    lake: {{url: ./lake}}\n{extra}")
        )

    def environ(self) -> dict[str, str]:
        """Return the environment: it points to the sandbox, and has the test's own settings."""
        return {
            "USERTESTING_API_URL": self.sandbox.url,
            "USERTESTING_TOKEN_URL": self.sandbox.token_url,
            "USERTESTING_CLIENT_ID": self.sandbox.client_id,
            "USERTESTING_CLIENT_SECRET": self.sandbox.client_secret,
            **self.settings,
        }

    def config(self) -> Config:
        """Load the pipelines file."""
        return load(self.file, tables=tables(), environ=self.environ())

    async def export(self, **options: Any) -> RunReport:
        """Run all pipelines in this process."""
        report, _ = await self.export_with_codes(**options)
        return report

    async def export_with_codes(
        self, asked: Asked | None = None, limits: Limits | None = None
    ) -> tuple[RunReport, list[int]]:
        """Run all pipelines in this process; return report and exit codes too."""
        config = await to_thread.run_sync(self.config)
        self.runs += 1
        world = World(f"run-{self.runs}", self.clock, Random(self.runs), self.patience)
        limits = limits or Limits()
        asked = asked or Asked(max_requests=limits.max_requests)
        export = Export(orders(config, (), asked), limits, world, Progress())
        report = await export.run()
        return report, export.exit_codes()

    async def ended(self, **options: Any) -> Ended:
        """Run all pipelines in this process; return exit code and summary, as a user has them."""
        report, codes = await self.export_with_codes(**options)
        shown = StringIO()
        print_summary(report, Console(file=shown, width=10_000))
        return Ended(exit_code_of(codes), shown.getvalue())

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of a process that runs on this project."""
        return [sys.executable, "-m", "etl", "--config", str(self.file), *arguments]

    def process(
        self, *arguments: str, prefix: Sequence[str] = (), check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; blocks."""
        environ = {**os.environ, **self.environ()}
        if prefix:  # a limit or an injected error would strike what coverage writes, too
            environ.pop("COVERAGE_PROCESS_CONFIG", None)
            command = [*prefix, *self.command(*arguments)]
            done = subprocess.run(
                command, env=environ, capture_output=True, text=True, check=False, timeout=60
            )
        else:
            done = run_etl(("--config", str(self.file), *arguments), environ=environ)
        if check:
            done.check_returncode()
        return done

    def lake_rows(self, table: str = "sessions") -> list[dict[str, Any]]:
        """Return every row of a table, read without the exporter's code; blocks."""
        rows: list[dict[str, Any]] = []
        for path in sorted((self.lake / table).rglob("*.parquet")):
            keys = dict(part.split("=", 1) for part in path.parts if "=" in part)
            rows += [{**keys, **row} for row in pq.read_table(path, partitioning=None).to_pylist()]
        return rows

    def landed(self) -> dict[str, list[str]]:
        """Return the session ids in the lake by test, sorted; blocks."""
        found: dict[str, list[str]] = {test: [] for test in self.tests}
        for row in self.lake_rows():
            found.setdefault(row["test_id"], []).append(row["session_id"])
        return {test: sorted(ids) for test, ids in found.items()}

    def served(self) -> dict[str, list[str]]:
        """Return the session ids that the sandbox lists, by test, sorted."""
        return {test: sorted(self.sandbox.session_ids(test)) for test in self.tests}

    async def exact(self) -> None:
        """Assert that the lake holds what the sandbox lists: every row once, none else."""
        assert await to_thread.run_sync(self.landed) == self.served()

    def last_run(self) -> dict[str, Any]:
        """Return `last_run.json`; blocks."""
        told: dict[str, Any] = json.loads((self.state / "last_run.json").read_text())
        return told


@asynccontextmanager
async def open_project(
    folder: Path, *sizes: int, options: SandboxOptions | None = None, extra: str = ""
) -> AsyncIterator[Project]:
    """Open a project over a sandbox whose tests have these sizes."""
    async with open_sandbox(options or SandboxOptions(rate_requests=None)) as sandbox:
        project = Project(folder, sandbox, TESTS[: len(sizes)])
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(project.write, extra)
        yield project
