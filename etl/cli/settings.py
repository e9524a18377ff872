"""Loads the configuration for a command, and sets up what depends on it."""

import os
from collections.abc import Sequence
from pathlib import Path

from etl.cli.output import say
from etl.config.load import SandboxCredentials, load
from etl.config.models import Config
from etl.config.secrets import known_secrets
from etl.plan.orders import exportable
from etl.report.logs import set_up_logs


def load_config(
    path: Path,
    pipelines: Sequence[str] = (),
    *,
    sandbox: SandboxCredentials | None = None,
    require_credentials: bool = True,
) -> Config:
    """Return the configuration with logs set up by it; says its warnings on stderr.

    Raises ConfigError with every mistake at once.
    """
    config = load(
        path,
        pipelines=pipelines,
        tables=exportable(),
        environ=os.environ,
        sandbox=sandbox,
        require_credentials=require_credentials,
    )
    known_secrets.add(config.secrets())
    set_up_logs(config.log_format, config.log_level)
    for warning in config.warnings:
        say(f"warning: {warning}")
    return config
