"""`etl run`, the main job, and `etl backfill`, which is a run that asks once more."""

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pyarrow as pa
from anyio import to_thread
from rich.console import Console

from etl.cli.durations import seconds_of
from etl.cli.output import say
from etl.cli.settings import load_config
from etl.config.load import SandboxCredentials
from etl.ledger.afresh import Span
from etl.plan.orders import Asked, orders
from etl.report.events import open_events
from etl.report.progress import Progress, live_display
from etl.report.summary import print_summary
from etl.report.values import RunReport, exit_code_of, to_json
from etl.run.errors import single_error
from etl.run.export import Export, Limits
from etl.run.world import this_world


@dataclass(frozen=True, slots=True)
class RunFlags:
    """The options of `etl run`, as given; a `span` makes it `etl backfill`."""

    pipelines: tuple[str, ...]
    tests: tuple[str, ...]
    max_runtime: str | None
    max_requests: int | None
    fail_if_paused: bool
    strict: bool
    json: bool
    events: str | None
    quiet: bool
    wait_for_lock: str | None
    sandbox: bool = False
    full: bool = False
    tables: tuple[str, ...] = ()
    span: Span | None = None


def run_command(path: Path, flags: RunFlags) -> int:
    """Run, print the report, and return the exit code."""
    limits = Limits(
        max_runtime_seconds=seconds_of(flags.max_runtime, "--max-runtime"),
        max_requests=flags.max_requests,
        fail_if_paused=flags.fail_if_paused,
        strict=flags.strict,
        wait_for_lock_seconds=seconds_of(flags.wait_for_lock, "--wait-for-lock") or 0.0,
    )
    # The system's allocator gives back what Arrow frees; with Arrow's own ones the peak of a
    # run is a fifth higher, at the same speed.
    pa.set_memory_pool(pa.system_memory_pool())
    gc.freeze()  # what was imported stays
    with open_events(flags.events) as events, single_error():
        report, codes = anyio.run(_run, path, flags, limits, Progress(events=events))
    _print(report, flags)
    return exit_code_of(codes)


async def _run(
    path: Path, flags: RunFlags, limits: Limits, progress: Progress
) -> tuple[RunReport, list[int]]:
    async with _sandbox_if(flags.sandbox) as credentials:
        config = await to_thread.run_sync(
            lambda: load_config(path, flags.pipelines, sandbox=credentials)
        )
        asked = Asked(flags.tests, flags.tables, flags.full, flags.max_requests, flags.span)
        ordered = orders(config, flags.pipelines, asked)
        world = this_world()
        export = Export(ordered, limits, world, progress)
        with _shown(progress, flags):
            report = await export.run()
        if export.not_kept is not None:
            say(f"etl: {export.not_kept}")
        codes = [export.signalled] if export.signalled else export.exit_codes()
        return report, codes


@asynccontextmanager
async def _sandbox_if(wanted: bool) -> AsyncIterator[SandboxCredentials | None]:
    """Serve a sandbox for this run on a free port; its limit does not bite."""
    if not wanted:
        yield None
        return
    from etl.sandbox.server import SandboxOptions, open_sandbox

    async with open_sandbox(SandboxOptions(rate_requests=None, log_requests=False)) as sandbox:
        yield SandboxCredentials(
            api_url=sandbox.url,
            token_url=sandbox.token_url,
            client_id=sandbox.client_id,
            client_secret=sandbox.client_secret,
        )


@contextmanager
def _shown(progress: Progress, flags: RunFlags) -> Iterator[None]:
    """Show live progress where a person watches."""
    progress.is_shown = flags.quiet  # then there is nobody to tell
    console = Console(stderr=True)
    if flags.quiet or not console.is_terminal or os.environ.get("TERM") == "dumb":
        yield
        return
    with live_display(progress, console):
        yield


def _print(report: RunReport, flags: RunFlags) -> None:
    if flags.json:
        sys.stdout.write(to_json(report).decode() + "\n")
    elif not flags.quiet:
        print_summary(report, Console(soft_wrap=True))
    for pipeline in report.pipelines:
        if pipeline.error is not None and (flags.json or flags.quiet):
            say(f"etl: pipeline {pipeline.name}: {pipeline.error}")
