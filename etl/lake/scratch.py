"""A temporary database on disk: what grows with the lake is kept there, not in memory."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from etl.errors import StateError

_SIGN = 1 << 63


@contextmanager
def open_scratch(schema: str) -> Iterator[sqlite3.Connection]:
    """Open a database without a name, which vanishes on every way out. Raises StateError."""
    try:
        with closing(sqlite3.connect("", isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.executescript(schema)
            database.execute("BEGIN")
            yield database
    except sqlite3.Error as error:
        raise StateError(
            f"The temporary database of keys failed: {error}.",
            advice="It takes 60 bytes a row: let SQLITE_TMPDIR name a folder with that room.",
        ) from error


def signed(number: int) -> int:
    """Return a hash as SQLite can hold it: its integers are signed, hashes are not."""
    return number - _SIGN
