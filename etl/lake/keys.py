"""Compares the keys of a whole lake, in a temporary database on disk: memory stays flat."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from etl.lake.scan import is_known, table_of
from etl.lake.scratch import open_scratch, signed

_SCHEMA: Final = (
    "CREATE TABLE held (tab INTEGER NOT NULL, key INTEGER NOT NULL, file INTEGER NOT NULL);"
)


@contextmanager
def open_keys() -> Iterator["Keys"]:
    """Open an empty set of keys; it vanishes on every way out. Raises StateError."""
    with open_scratch(_SCHEMA) as database:
        yield Keys(database)


class Keys:
    """The keys of rows by table, and the files that hold them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Begin with none."""
        self._database = database
        self._indexed = False
        self._paths: list[str] = []
        self._tables: dict[str, int] = {}

    def add(self, path: str, rows: Iterable[tuple[str, int]]) -> int:
        """Add the keys of a data file; return how many there were."""
        table, file = self._number_of(table_of(path)), len(self._paths)
        self._paths.append(path)
        before = self._database.total_changes
        self._database.executemany(
            "INSERT INTO held VALUES (?, ?, ?)", ((table, signed(key), file) for _, key in rows)
        )
        return self._database.total_changes - before

    def add_foreign(self, path: str, rows: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """Add the keys of a file that is not ours, as far as it can be read."""
        with suppress(ValueError):
            self.add(path, rows())

    def doubled(self) -> Iterator[tuple[str, int]]:
        """Yield each file that holds rows that another one, added before, holds too; how many."""
        self._index()
        found = self._database.execute(
            "SELECT later.file, count(*) FROM "
            "(SELECT tab, key, min(rowid) AS first FROM held GROUP BY tab, key HAVING count(*) > 1)"
            " JOIN held AS later USING (tab, key) WHERE later.rowid > first "
            "GROUP BY later.file ORDER BY later.file"
        )
        yield from ((self._paths[file], rows) for file, rows in found)

    def lost(self, landed: Mapping[str, Iterable[int]]) -> Iterator[tuple[str, int]]:
        """Yield the tables of which some of these keys are in no file, and how many."""
        self._index()
        for table, rows in landed.items():
            find, number = "SELECT 1 FROM held WHERE tab = ? AND key = ?", self._number_of(table)
            lost = sum(
                self._database.execute(find, (number, signed(key))).fetchone() is None
                for key in (rows if is_known(table) else ())
            )
            if lost:
                yield table, lost

    def _number_of(self, table: str) -> int:
        return self._tables.setdefault(table, len(self._tables))

    def _index(self) -> None:
        if not self._indexed:
            self._database.execute("CREATE INDEX by_key ON held (tab, key)")
            self._indexed = True
