"""The one logging set-up: fixed events and fields, to stderr, secrets redacted."""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import EventDict, WrappedLogger

from etl.config.secrets import masked
from etl.report.terminal import on_one_line

_LEVELS: Final = logging.getLevelNamesMapping()


def set_up_logs(form: str, level: str) -> None:
    """Configure logging: `console` for people, `json` for machines, `auto` by the terminal."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _escape if console else _redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Libraries()], level=_LEVELS[level.upper()], force=True)


def _redact(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Keep secrets out of every line, whoever logs it."""
    del logger, method
    return {name: masked(told) if isinstance(told, str) else told for name, told in event.items()}


def _escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Keep secrets, and what a terminal would obey, out of every line."""
    del logger, method
    return {
        name: on_one_line(told) if isinstance(told, str) else told for name, told in event.items()
    }


class _Libraries(logging.Handler):
    """Tells that a library has logged, and where: what it says may quote a body or a token."""

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        structlog.get_logger().log(
            record.levelno,
            "library",
            logger=record.name,
            where=f"{record.module}:{record.lineno}",
            error=None if kind is None else kind.__name__,
        )
