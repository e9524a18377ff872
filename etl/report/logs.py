"""The one logging set-up: fixed events and fields, to stderr, secrets redacted."""

import logging
import sys
from collections.abc import Sequence
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

_LEVELS: Final = logging.getLevelNamesMapping()


def set_up_logs(form: str, level: str, secrets: Sequence[str] = ()) -> None:
    """Configure logging: `console` for people, `json` for machines, `auto` by the terminal."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _redactor(secrets),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _redactor(secrets: Sequence[str]) -> structlog.typing.Processor:
    """Return the processor that keeps secrets out of every line, whoever logs it."""
    known = tuple(secret for secret in secrets if secret)

    def redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        del logger, method
        return {name: _redacted(value, known) for name, value in event.items()}

    return redact


def _redacted(value: object, secrets: Sequence[str]) -> object:
    if not isinstance(value, str):
        return value
    for secret in secrets:
        value = value.replace(secret, "[redacted]")
    return value
