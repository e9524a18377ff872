"""JSON lines while a run goes on, so that a wrapper need not be blind for 17 hours."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from etl.config.secrets import masked
from etl.errors import UsageError
from etl.pacing.events import Events, Field, no_events


class EventLines:
    """Writes events as JSON lines; each line is whole when it is written."""

    def __init__(self, file: TextIO) -> None:
        """Write to an open file."""
        self._file = file

    def __call__(self, event: str, **fields: Field) -> None:
        """Write one event with its time."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._file.write(masked(json.dumps({"event": event, "time": now, **fields})) + "\n")
        self._file.flush()


@contextmanager
def open_events(place: str | None) -> Iterator[Events]:
    """Open the target of `--events`: a file to append to, `-` for stderr, None for nothing."""
    if place is None:
        yield no_events
        return
    if place == "-":
        yield EventLines(sys.stderr)
        return
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise UsageError(
            f"The events file cannot be opened: {error.strerror}.", where=str(Path(place))
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield EventLines(file)
