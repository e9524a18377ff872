"""Which answer each row of some tables came of: told by their files, kept in a database on disk.

A row is of the answer about its session (or test) that came at its `_fetched_at`.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from itertools import repeat
from typing import Final, NamedTuple, TypeAlias

import pyarrow as pa

from etl.lake.local import LocalLake
from etl.lake.scan import columns_in, partitions_of
from etl.lake.scratch import open_scratch, signed
from etl.ledger.records import Session
from etl.tables.values import FETCHED_AT, AnyTable, Array, key_hash, key_hashes

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
        scope INTEGER NOT NULL, endpoint TEXT NOT NULL, tab TEXT NOT NULL, key INTEGER NOT NULL,
        at_us INTEGER NOT NULL, run_id TEXT NOT NULL, anew INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (scope, endpoint, tab, key)
    ) WITHOUT ROWID;
    CREATE TABLE met (
        endpoint TEXT NOT NULL, scope INTEGER NOT NULL, PRIMARY KEY (endpoint, scope)
    ) WITHOUT ROWID;
    CREATE TABLE times (scope INTEGER PRIMARY KEY, start_us INTEGER, finish_us INTEGER);
"""
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
        columns = [FETCHED_AT, "test_id", "_run_id", *names]
        for times, *others in columns_in(lake, path, columns, distinct=True):
            at_us = microseconds(times)
            test_ids, run_ids, *key = (column.to_pylist() for column in others)
            if table.by_session:
                scopes, keys = _hashes(test_ids, key[0]), [WHOLE] * len(at_us)
            else:
                scopes = _hashes(test_ids, [None] * len(at_us))
                keys = list(map(row_key, repeat(table), key_hashes(*key), at_us))
            named = repeat(table.endpoint.name), repeat(table.name)
            self._database.executemany(
                "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, 0)",
                zip(scopes, *named, keys, at_us, run_ids, strict=False),
            )

    def add_times(self, lake: LocalLake, path: str) -> None:
        """Learn from a file of the table `sessions` when they were; raises ValueError as `add`."""
        columns = [*SESSION_TIMES, "test_id", "session_id"]
        for start, finish, *scope in columns_in(lake, path, columns):
            self._add_times(scope, microseconds(start), microseconds(finish))

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
        for scope in columns_in(lake, path, ["test_id", "session_id"], distinct=True):
            self._add_times(scope, repeat(start), repeat(finish))

    def _add_times(
        self,
        scope: Sequence[Array],
        starts_us: Iterable[int | None],
        finishes_us: Iterable[int | None],
    ) -> None:
        test_ids, sessions = (column.to_pylist() for column in scope)
        self._database.executemany(
            "INSERT OR IGNORE INTO times VALUES (?, ?, ?)",
            zip(_hashes(test_ids, sessions), starts_us, finishes_us, strict=False),
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

    def made_anew(self, answers: Iterable[tuple[str, Scope, int]]) -> None:
        """Note whose rows have been made anew, in all tables: they are not carried over.

        An answer is told by its endpoint, its scope, and when it came.
        """
        self._database.executemany(
            "UPDATE rows SET anew = 1 WHERE scope = ? AND endpoint = ? AND at_us = ?",
            ((_hash(scope), endpoint, at_us) for endpoint, scope, at_us in answers),
        )

    def not_all_anew(self) -> set[str]:
        """Return the tables of which some rows are to be carried over."""
        found = self._database.execute("SELECT DISTINCT tab FROM rows WHERE anew = 0")
        return {table for (table,) in found}

    def is_anew(self, table: AnyTable, scope: Scope, key: int) -> bool:
        """Say whether a row is not to be carried over."""
        (anew,) = self._database.execute(
            "SELECT anew FROM rows WHERE scope = ? AND endpoint = ? AND tab = ? AND key = ?",
            (_hash(scope), table.endpoint.name, table.name, key),
        ).fetchone()
        return bool(anew)


def row_key(table: AnyTable, key: int, fetched_at_us: int | None) -> int:
    """Return by what a row is known among those of its scope; `key` is that of `Rows.keys`."""
    if table.by_session:
        return WHOLE
    return signed(key_hash([key, fetched_at_us]) if table.appends else key)


def microseconds(times: Array) -> list[int | None]:
    """Return times as a file holds them in microseconds since 1970, None where it holds none."""
    told: list[int | None] = times.cast(pa.int64()).to_pylist()
    return told


@lru_cache(maxsize=4096)
def _hash(scope: Scope) -> int:
    return signed(key_hash(scope))


def _hashes(test_ids: Sequence[str | None], sessions: Sequence[str | None]) -> list[int]:
    """Return what `_hash` does, of many scopes."""
    return list(map(signed, key_hashes(test_ids, sessions)))


def _first_moment(value: str | None) -> int | None:
    """Return the first moment of a partition's day or month, in microseconds since 1970."""
    if value is None:
        return None
    first = datetime.fromisoformat(f"{value}-01"[:10]).replace(tzinfo=UTC)
    return int(first.timestamp()) * 1_000_000
