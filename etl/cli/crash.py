"""What is shown of a bug: where it happened, never what it was about.

The message of an exception may quote the value that it stumbled over, and a core file
holds all of the process: participants' data and tokens.
"""

import resource
import sys
import threading
import traceback
from collections.abc import Iterator

from etl.report.terminal import printable


def guard_against_crashes() -> None:
    """Let no crash of this process write its memory to a disk, or a message to stderr."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, most))
    sys.excepthook = lambda _kind, error, _trace: _tell(error)
    sys.unraisablehook = lambda told: _tell(told.exc_value)
    threading.excepthook = lambda told: _tell(told.exc_value)


def _tell(error: BaseException | None) -> None:
    if error is not None:
        print(story_of(error), end="", file=sys.stderr)


def story_of(error: BaseException) -> str:
    """Return a traceback with the kinds of its exceptions, without their messages."""
    return printable("".join(_lines(traceback.TracebackException.from_exception(error))))


def _lines(told: traceback.TracebackException) -> Iterator[str]:
    before = told.__cause__ or (None if told.__suppress_context__ else told.__context__)
    if before is not None:
        yield from _lines(before)
        yield "\nThen:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from told.stack.format()
    kind = getattr(told, "exc_type_str", None) or getattr(told.exc_type, "__qualname__", "?")
    yield f"{kind} (its message is left out: it may quote what was exported)\n"
    for inner in told.exceptions or ():
        yield from _lines(inner)
