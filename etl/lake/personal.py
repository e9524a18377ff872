"""What becomes of personal data before it lands: columns left out, columns hashed.

Ledger and lake know a row by what lands of it. So no hash of theirs lets anyone guess what
was left out, and a data file alone still tells which rows it holds. In clear, under the
names that the API gives, values are known to the inbox alone, until their batch has landed.
"""

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import msgspec
import pyarrow as pa
from pydantic import SecretStr

from etl.client.values import Answer
from etl.config.models import Pipeline
from etl.config.settings import hash_key_bytes
from etl.ledger.frames import Identity, identity
from etl.paging.values import PageView
from etl.tables import completed_sessions
from etl.tables.cursor_pages import CursorPage
from etl.tables.registry import tables
from etl.tables.sessions import SessionsPage, page_view
from etl.tables.values import AnyTable, Array, Reject, Rows, key_hash, plain, row_hash

_SESSION: Final = "session_id"
_HASHED: Final = re.compile("[0-9a-f]{64}")
_KEY_NOTE: Final = "hash key"
_encode = msgspec.json.Encoder().encode


class PersonalData:
    """What a pipeline does to personal data: pure, the same in every run under one key."""

    def __init__(self, pipeline: Pipeline, tables: Sequence[AnyTable], key: bytes) -> None:
        """Do what the pipeline's `columns` say; `key` is that of its hashes."""
        self._key = key
        self._tables = tables
        self._kept = not pipeline.hides
        self._excluded = {name: set(chosen.exclude) for name, chosen in pipeline.columns.items()}
        self._hashed = {name: set(chosen.hash) for name, chosen in pipeline.columns.items()}
        self._hides_sessions = any(_SESSION in hashed for hashed in self._hashed.values())

    @property
    def hides(self) -> bool:
        """Whether anything is left out or hashed."""
        return not self._kept

    def rows(self, table: AnyTable, answer: Answer, rows: Rows) -> Rows:
        """Return the rows as they land; as they are where nothing is excluded or hashed."""
        if self._kept:
            return rows
        hashed = self._hashed.get(table.name, set())
        excluded = self._excluded.get(table.name, set())
        columns = {
            name: self._hashes_of(column, self._hash)
            if name in hashed
            else pa.nulls(len(column), column.type)
            if name in excluded
            else column
            for name, column in rows.columns.items()
        }
        keys = rows.keys
        if not hashed.isdisjoint(table.key):
            keys = _keys(table.identity, columns, answer, len(keys))
        return msgspec.structs.replace(
            rows,
            keys=keys,
            hashed=lambda: _row_hashes(columns),
            cells=columns,
            extra=None,
            first=0,
            rejects=[self.reject(reject) for reject in rows.rejects],
            keeps_body=False,
        )

    def hidden(self, table: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return rows that landed under other rules as they would land now.

        What was left out or hashed already stays so.
        """
        if self._kept:
            return rows
        hashed, excluded = self._hashed.get(table, set()), self._excluded.get(table, set())
        columns = [
            self._hashes_of(column, self._hash_once)
            if field.name in hashed
            else pa.nulls(rows.num_rows, field.type)
            if field.name in (*excluded, "_extra")
            else column
            for field, column in zip(rows.schema, rows.columns, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=rows.schema)

    def reject(self, reject: Reject) -> Reject:
        """Return a reject as it lands: without its body where anything is excluded or hashed."""
        if self._kept:
            return reject
        return replace(reject, body=None, session_id=self._session(reject.session_id))

    def answer(self, answer: Answer) -> Answer:
        """Return an answer under the names by which the lake knows it."""
        session_id = self._session(answer.session_id)
        return answer if session_id is answer.session_id else replace(answer, session_id=session_id)

    def identity(self, answer: Answer) -> Identity:
        """Return what tells an answer from every other in the lake's record."""
        return identity(self.answer(answer))

    def _session(self, session_id: str | None) -> str | None:
        if session_id is None or not self._hides_sessions:
            return session_id
        return self._hash(session_id)

    def view(self, answer: Answer, page: SessionsPage | CursorPage) -> PageView:
        """Return what paging sees of a page: its ids as the rows that land are known by them."""
        if isinstance(page, CursorPage):
            known_as = self._hash if self._hides_sessions else str
            return completed_sessions.page_view(answer, page, known_as)
        view = page_view(answer, page)
        return replace(view, ids=self._ids(page)) if self._hides_sessions else view

    def _ids(self, page: SessionsPage) -> tuple[int, ...]:
        names = page.rows.columns[_SESSION].to_pylist()
        landing = {
            listed: key_hash([self._hash(str(name))])
            for listed, name in zip(page.rows.keys, names, strict=True)
        }
        return tuple(landing.get(listed) or self._keyed(listed) for listed in page.ids)

    def notes(self) -> dict[str, str]:
        """Return what a lake is to remember, since rows could not be told apart otherwise.

        Which key hashes, by a hash under it, and which columns of each table's key are hashed.
        """
        notes = {
            f"hashed in the key of {table.name}": " ".join(
                column for column in table.key if column in self._hashed.get(table.name, ())
            )
            for table in self._tables
        }
        if any(self._hashed.values()):
            notes[_KEY_NOTE] = self._hash("the key itself")[:16]
        return notes

    def _hash(self, value: str) -> str:
        return hmac.digest(self._key, value.encode(), "sha256").hex()

    def _hash_once(self, value: str) -> str:
        return value if _HASHED.fullmatch(value) else self._hash(value)

    def _hashes_of(self, column: Array, hashed: Callable[[str], str]) -> Array:
        values: list[str | None] = column.to_pylist()
        known = {value: hashed(value) for value in set(values) if value is not None}
        return pa.array([None if value is None else known[value] for value in values], pa.string())

    def _keyed(self, listed: int) -> int:
        """Return the id of a row that was listed and could not be read."""
        return int.from_bytes(hmac.digest(self._key, listed.to_bytes(8), "sha256")[:8])


def personal_data(pipeline: Pipeline, hash_key: SecretStr | None) -> PersonalData:
    """Return what a pipeline does to personal data under the key of the settings."""
    exported = [tables()[name] for name in pipeline.tables]
    return PersonalData(pipeline, exported, b"" if hash_key is None else hash_key_bytes(hash_key))


def disagreement(noted: Mapping[str, str], notes: Mapping[str, str]) -> str | None:
    """Return why rows under these notes cannot join those that landed under `noted`, or None."""
    changed = {name for name, value in notes.items() if noted.get(name, value) != value}
    if _KEY_NOTE in changed:
        return "ETL_HASH_KEY is not the one under which the rows in the lake were hashed."
    for name in sorted(changed):
        table = name.rpartition(" ")[2]
        was, now = (
            f"with {value} hashed" if value else "in clear" for value in (noted[name], notes[name])
        )
        return f"The rows of {table} in the lake are known by their key {was}, not {now}."
    return None


def _keys(
    key: Sequence[str], columns: Mapping[str, Array], answer: Answer, count: int
) -> tuple[int, ...]:
    """Return the hash of each row's key, as a data file alone tells it."""
    shared = {"test_id": answer.test_id, "session_id": answer.session_id}
    parts = [
        columns[name].to_pylist() if name in columns else [shared[name]] * count for name in key
    ]
    return tuple(map(key_hash, zip(*parts, strict=True)))


def _row_hashes(columns: Mapping[str, Array]) -> tuple[int, ...]:
    """Return the hash of each row's values, as they land."""
    rows = zip(*(plain(column).to_pylist() for column in columns.values()), strict=True)
    return tuple(map(row_hash, map(_encode, rows)))
