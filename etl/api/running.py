"""Runs pipelines as `etl run` does, for a program of somebody else's."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from anyio import to_thread
from structlog.typing import FilteringBoundLogger

from etl.config.load import load
from etl.config.models import Config
from etl.config.secrets import known_secrets
from etl.pacing.events import Events, no_events
from etl.plan.orders import Asked, exportable, orders
from etl.report.progress import Progress
from etl.report.values import RunReport
from etl.run.errors import single_error
from etl.run.export import Export, Limits
from etl.run.world import Patience, this_world

_log: Final = logging.getLogger("etl")


async def run_pipelines(  # noqa: PLR0913 - what the command line may say
    config: str | Path = "pipelines.yaml",
    names: Sequence[str] = (),
    *,
    asked: Asked | None = None,
    limits: Limits | None = None,
    environ: Mapping[str, str] | None = None,
    on_event: Events = no_events,
    patience: Patience | None = None,
) -> RunReport:
    """Run the pipelines named, all if none is, and return the report that `etl run --json` prints.

    `asked` and `limits` are the options of `etl run`, `environ` stands in for the environment,
    `on_event` takes the events of `--events` in the loop's own thread, and must not block it.
    What befalls a pipeline stands in the report (`status`, `exit_code`); raised are ConfigError
    and UsageError, before anything is asked. Whoever cancels it loses nothing: what was
    fetched is kept, and lands with the next run.
    """
    limits = limits or Limits()
    asked = asked or Asked(max_requests=limits.max_requests)
    environ = os.environ if environ is None else environ
    loaded = await to_thread.run_sync(partial(_load, Path(config), names, environ))
    export = Export(
        orders(loaded, names, asked),
        limits,
        this_world(patience),
        Progress(events=on_event, log=_logger()),
        heeds_signals=False,
    )
    with single_error():
        report = await export.run()
    if export.not_kept is not None:
        _log.warning("%s", export.not_kept)
    return report


def _load(path: Path, names: Sequence[str], environ: Mapping[str, str]) -> Config:
    config = load(path, pipelines=names, tables=exportable(), environ=environ)
    known_secrets.add(config.secrets())
    for warning in config.warnings:
        _log.warning("%s", warning)
    return config


def _logger() -> FilteringBoundLogger:
    """Return a logger that writes to the logger `etl` of the program, as that is set up."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _log,
        processors=[structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return logger
