"""Which answer each row of some tables came of: told by their files, kept in a database on disk.

A row is of the answer about its session (or test) that came at its `_fetched_at`.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias, overload

from etl.lake.local import LocalLake
from etl.lake.scan import partitions_of, rows_in
from etl.lake.scratch import open_scratch, signed
from etl.ledger.records import Session
from etl.tables.values import FETCHED_AT, AnyTable, key_hash

Scope = tuple[str, str | None]
"""What an answer is about: a test, and a session of it or the test itself."""


class Origin(NamedTuple):
    """When the answer of a row came, and which run landed it."""

    fetched_at_us: int
    run_id: str


Origins: TypeAlias = Mapping[str, Mapping[int, Origin]]
"""The origins of a scope's rows, by table and by key."""


SESSION_TIMES: Final = ("start_time", "finish_time")
"""The columns of the table `sessions` that tell when a session was."""

_SCHEMA: Final = """
    CREATE TABLE rows (
        scope INTEGER NOT NULL, tab TEXT NOT NULL, key INTEGER NOT NULL,
        at_us INTEGER NOT NULL, run_id TEXT NOT NULL, anew INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (scope, tab, key)
    ) WITHOUT ROWID;
    CREATE TABLE met (
        endpoint TEXT NOT NULL, scope INTEGER NOT NULL, PRIMARY KEY (endpoint, scope)
    ) WITHOUT ROWID;
    CREATE TABLE times (scope INTEGER PRIMARY KEY, start_us INTEGER, finish_us INTEGER);
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
WHOLE: Final = 0
"""The key of rows that are known by their session, as all of that answer's are."""


@contextmanager
def open_provenance() -> Iterator["Provenance"]:
    """Open an empty one; it vanishes on every way out. Raises StateError."""
    with open_scratch(_SCHEMA) as database:
        yield Provenance(database)


class Provenance:
    """The origins of rows, and what has been made anew of them."""

    def __init__(self, database: sqlite3.Connection) -> None:
        """Begin with none."""
        self._database = database

    def add(self, lake: LocalLake, path: str, table: AnyTable) -> None:
        """Learn the origins of a file's rows. Raises ValueError if it cannot be read."""
        names = ["session_id"] if table.by_session else list(table.identity)
        told = rows_in(lake, path, [*names, FETCHED_AT, "_run_id"], distinct=True)
        self._database.executemany(
            "INSERT OR IGNORE INTO rows (scope, tab, key, at_us, run_id) VALUES (?, ?, ?, ?, ?)",
            (
                _row(table, test_id, key, microseconds_of(at), run_id)
                for test_id, (*key, at, run_id) in told
            ),
        )

    def add_times(self, lake: LocalLake, path: str) -> None:
        """Learn from a file of the table `sessions` when they were; raises ValueError as `add`."""
        told = rows_in(lake, path, ["session_id", *SESSION_TIMES])
        self._add_times(
            ((test_id, str(session_id)), microseconds_of(start), microseconds_of(finish))
            for test_id, (session_id, start, finish) in told
        )

    def add_folders(self, lake: LocalLake, path: str, partition_by: Collection[str]) -> None:
        """Learn from a file's folder when its sessions were, where nothing else has told.

        A month tells no date.
        """
        told = dict(partitions_of(path))
        start, finish = (
            _first_moment(told.get(f"{name}_date") or told.get(f"{name}_month"))
            if told.get(f"{name}_date") or f"{name}_date" not in partition_by
            else None
            for name in ("start", "finish")
        )
        self._add_times(
            ((test_id, str(session_id)), start, finish)
            for test_id, (session_id,) in rows_in(lake, path, ["session_id"], distinct=True)
        )

    def _add_times(self, told: Iterable[tuple[Scope, int | None, int | None]]) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO times VALUES (?, ?, ?)",
            ((_hash(scope), start_us, finish_us) for scope, start_us, finish_us in told),
        )

    def session(self, scope: Scope) -> Session | None:
        """Return when a session was, as far as its folder in the lake tells it."""
        found = self._database.execute(
            "SELECT start_us, finish_us FROM times WHERE scope = ?", (_hash(scope),)
        ).fetchone()
        return None if found is None else Session(found[0], found[1], 0)

    def origins(self, scopes: Iterable[Scope]) -> Mapping[Scope, Origins]:
        """Return the origins of each scope's rows by table and by key, as `row_key` tells it."""
        hashes = {scope: _hash(scope) for scope in scopes}
        found: dict[int, dict[str, dict[int, Origin]]] = {one: {} for one in hashes.values()}
        for scope, table, key, at_us, run_id in self._database.execute(
            "SELECT scope, tab, rows.key, at_us, run_id"
            " FROM json_each(?) JOIN rows ON scope = value",
            (json.dumps(list(found)),),
        ):
            found[scope].setdefault(table, {})[key] = Origin(at_us, run_id)
        return {scope: found[known_as] for scope, known_as in hashes.items()}

    def is_newest(self, endpoint: str, scope: Scope) -> bool:
        """Say whether no answer of this endpoint and scope was met before; note that one was."""
        added = self._database.execute(
            "INSERT OR IGNORE INTO met VALUES (?, ?)", (endpoint, _hash(scope))
        )
        return added.rowcount == 1

    def was_met(self, endpoint: str, scope: Scope) -> bool:
        """Say whether an answer of this endpoint and scope was met."""
        found = self._database.execute(
            "SELECT 1 FROM met WHERE endpoint = ? AND scope = ?", (endpoint, _hash(scope))
        )
        return found.fetchone() is not None

    def made_anew(self, answers: Iterable[tuple[Scope, str, int]]) -> None:
        """Note whose rows of which tables have been made anew: they are not carried over.

        An answer is told by its scope, the table, and when it came.
        """
        self._database.executemany(
            "UPDATE rows SET anew = 1 WHERE scope = ? AND tab = ? AND at_us = ?",
            ((_hash(scope), table, fetched_at_us) for scope, table, fetched_at_us in answers),
        )

    def all_anew(self, table: str) -> bool:
        """Say whether no row of a table is to be carried over."""
        found = self._database.execute(
            "SELECT 1 FROM rows WHERE tab = ? AND anew = 0 LIMIT 1", (table,)
        )
        return found.fetchone() is None

    def is_anew(self, table: str, scope: Scope, key: int) -> bool:
        """Say whether a row is not to be carried over."""
        (anew,) = self._database.execute(
            "SELECT anew FROM rows WHERE scope = ? AND tab = ? AND key = ?",
            (_hash(scope), table, key),
        ).fetchone()
        return bool(anew)


def row_key(table: AnyTable, key: int, fetched_at_us: int) -> int:
    """Return by what a row is known among those of its scope; `key` is that of `Rows.keys`."""
    if table.by_session:
        return WHOLE
    return signed(key_hash([key, fetched_at_us]) if table.appends else key)


@overload
def microseconds_of(moment: datetime) -> int: ...


@overload
def microseconds_of(moment: None) -> None: ...


def microseconds_of(moment: datetime | None) -> int | None:
    """Return a time as a file holds it in microseconds since 1970, None if it holds none."""
    return None if moment is None else (moment - _EPOCH) // timedelta(microseconds=1)


def _row(
    table: AnyTable, test_id: str, values: list[object], at_us: int, run_id: str
) -> tuple[int, str, int, int, str]:
    scope = (test_id, str(values[0]) if table.by_session else None)
    key = WHOLE if table.by_session else row_key(table, key_hash(values), at_us)
    return _hash(scope), table.name, key, at_us, run_id


@lru_cache(maxsize=4096)
def _hash(scope: Scope) -> int:
    return signed(key_hash(scope))


def _first_moment(value: str | None) -> int | None:
    """Return the first moment of a partition's day or month."""
    if value is None:
        return None
    return microseconds_of(datetime.fromisoformat(f"{value}-01"[:10]).replace(tzinfo=UTC))
