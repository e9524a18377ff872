"""The lake's own record: one Parquet file a commit, whose existence is the commit.

It has a row for each answer that landed, and names the data files in its metadata. A
row `listing` holds the packed record of a test that changed, a row `verified` how a look
at a test ended, a row `removed` a session that is listed no more. All are worth reading.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from etl.client.values import Answer
from etl.errors import LakeError
from etl.lake.kept import open_commit
from etl.lake.names import commit_name
from etl.ledger.frames import Identity
from etl.ledger.records import PackedRecord, Record, unpack, with_proofs
from etl.ledger.values import Ended, File
from etl.paging.values import Outcome, Verdict
from etl.tables import rejects

LISTING: Final = "listing"
VERIFIED: Final = "verified"
REMOVED: Final = "removed"
_FAILED: Final = "failed"
RESET_RUN: Final = "reset"
"""The run id of a commit that forgets the progress of tests."""

_COLUMNS: Final[dict[str, pa.DataType]] = {
    "endpoint": pa.string(),
    "test_id": pa.string(),
    "session_id": pa.string(),
    "object_id": pa.string(),
    "status": pa.int32(),
    "fetched_at": pa.timestamp("us", "UTC"),
    "bytes": pa.int64(),
    "rows": pa.string(),
    "body": pa.binary(),
    "run_id": pa.string(),
}
SCHEMA: Final = pa.schema(_COLUMNS)

_METADATA: Final = b"etl"
_ANSWERS_AT_ONCE: Final = 1_000
_BYTES_AT_ONCE: Final = 4 * 1024 * 1024


class _FileNamed(msgspec.Struct):
    path: str
    rows: int
    bytes: int
    xxh3: str | None = None


class _Told(msgspec.Struct, omit_defaults=True):
    """What a commit's metadata says. `notes` are the ledger's, for a fresh machine.

    `tests_kept` are those whose rows its files have taken over from those that it replaces.
    The answers, whose bodies no start needs, lie from row group `answers_from` on: those whose
    bodies are kept from `bodies_from` on.
    """

    pipeline: str
    batch: int
    run_id: str
    files: list[_FileNamed] = []
    replaces: list[str] = []
    notes: dict[str, str] = {}
    version: int = 1
    answers_from: int | None = None
    tests_kept: list[str] = []
    bodies_from: int | None = None


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """An answer that landed, and how many rows it made for each table.

    Its body is dropped unless it says more than its rows; `bytes` is what it measured.
    """

    answer: Answer
    rows: Mapping[str, int]
    bytes: int


def answer_row(answer: Answer, rows: Mapping[str, int], *, keeps_body: bool) -> AnswerRow:
    """Return the row of an answer that is about to land."""
    kept = answer if keeps_body else replace(answer, body=b"")
    return AnswerRow(kept, rows, len(answer.body))


@dataclass(frozen=True, slots=True)
class Commit:
    """All that one commit says.

    `tests_kept` are those whose rows its files have taken over from those that it `replaces`.
    """

    pipeline: str
    batch: int
    run_id: str
    files: Sequence[File] = ()
    replaces: Sequence[str] = ()
    tests_kept: Sequence[str] = ()
    answers: Sequence[AnswerRow] = ()
    records: Mapping[str, PackedRecord] = field(default_factory=dict)
    looks: Sequence[Ended] = ()
    removed: Sequence[tuple[str, str]] = ()
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnswerRead:
    """What landed of an answer about a session, or (where that is None) about a test.

    `rows` made for each table; a session's has none at all where it was not ready.
    """

    endpoint: str
    test_id: str
    session_id: str | None
    fetched_at_us: int
    rows: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CommitRead:
    """What a later start needs of a commit."""

    batch: int
    files: Sequence[File]
    replaces: Sequence[str]
    identities: frozenset[Identity]
    records: Mapping[str, Record]
    proofs: Mapping[str, bytes]
    verdicts: Mapping[str, Verdict]
    test_ids: frozenset[str]
    notes: Mapping[str, str]
    answers: Sequence[AnswerRead] = ()


def encode(commit: Commit) -> memoryview:
    """Return the commit as a Parquet file, not copied once more: it may hold many records."""
    known = [
        *(_record_row(test, record, commit.run_id) for test, record in commit.records.items()),
        *(_look_row(look, commit.run_id) for look in commit.looks),
        *(_removed_row(test, session, commit.run_id) for test, session in commit.removed),
    ]
    bare = _a_few([row for row in commit.answers if not row.answer.body])
    kept = _a_few([row for row in commit.answers if row.answer.body])
    told = _Told(
        pipeline=commit.pipeline,
        batch=commit.batch,
        run_id=commit.run_id,
        files=[_FileNamed(file.path, file.rows, file.bytes, file.xxh3) for file in commit.files],
        replaces=list(commit.replaces),
        tests_kept=list(commit.tests_kept),
        notes=dict(commit.notes),
        answers_from=1,
        bodies_from=1 + len(bare),
    )
    schema = SCHEMA.with_metadata({_METADATA: msgspec.json.encode(told)})
    sink = pa.BufferOutputStream()
    told_often = [name for name in SCHEMA.names if name != "body"]
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=told_often,  # type: ignore[arg-type]  # stubs: bool
        write_page_checksum=True,  # zstd alone sees about half of the bits that turn
    ) as writer:
        answers = ([_answer_row(row, commit.run_id) for row in few] for few in (*bare, *kept))
        for rows in chain((known,), answers):
            writer.write_table(_table(rows, schema), row_group_size=max(1, len(rows)))
    return memoryview(sink.getvalue())


def _a_few(answers: Sequence[AnswerRow]) -> list[list[AnswerRow]]:
    """Return answers a few at a time: each is copied twice on its way, and read back with these."""
    groups: list[list[AnswerRow]] = []
    room = 0
    for row in answers:
        size = len(row.answer.body)
        if not groups or size > room or len(groups[-1]) == _ANSWERS_AT_ONCE:
            groups.append([])
            room = _BYTES_AT_ONCE
        groups[-1].append(row)
        room -= size
    return groups


def _table(rows: Sequence["_Row"], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


_Row = tuple[
    str,
    str | None,
    str | None,
    str | None,
    int | None,
    int | None,
    int | None,
    str | None,
    bytes | None,
    str,
]


def _answer_row(row: AnswerRow, run_id: str) -> _Row:
    answer = row.answer
    return (
        answer.endpoint,
        answer.test_id,
        answer.session_id,
        answer.object_id,
        answer.status,
        answer.fetched_at_us,
        row.bytes,
        msgspec.json.encode(row.rows).decode(),
        answer.body or None,
        run_id,
    )


def _record_row(test_id: str, record: PackedRecord, run_id: str) -> _Row:
    rows = msgspec.json.encode(record.rows)
    body, at = record.packed, record.read_at_us
    return (LISTING, test_id, None, None, None, at, len(body), rows.decode(), body, run_id)


def _look_row(look: Ended, run_id: str) -> _Row:
    verified = look.verdict is not None and look.verdict.verified
    total = look.verdict.seen if look.verdict else None
    body = look.proofs
    rows = None if total is None else str(total)
    at = look.looked_at_us
    outcome = look.verdict.outcome.value if look.verdict else _FAILED
    return (VERIFIED, look.test_id, None, outcome, int(verified), at, len(body), rows, body, run_id)


def _removed_row(test_id: str, session_id: str, run_id: str) -> _Row:
    return (REMOVED, test_id, session_id, None, None, None, None, None, None, run_id)


def read(path: Path, pipeline: str) -> CommitRead:
    """Read a commit; raises LakeError if it cannot be read or is not what its name says."""
    with open_commit(path) as file:
        told = _told(path, pipeline, file.schema_arrow)
        rows = [row for group in range(file.num_row_groups) for row in _rows(file, group, told)]
        return _understood(told, rows)


def _told(path: Path, pipeline: str, schema: pa.Schema) -> _Told:
    told = msgspec.json.decode((schema.metadata or {})[_METADATA], type=_Told)
    if told.pipeline.lower() != pipeline.lower() or commit_name(told.batch) != path.name:
        raise LakeError(
            f"A commit says that it is number {told.batch} of pipeline {told.pipeline!r}.",
            where=str(path),
            advice="Commits are not to be moved or renamed; restore the `_etl` folder.",
        )
    return told


@dataclass(frozen=True, slots=True)
class CommitNames:
    """What a commit names: its files, those it replaces, the tests whose records it holds."""

    batch: int
    run_id: str
    files: Sequence[File]
    replaces: Sequence[str]
    recorded: frozenset[str]


def read_names(path: Path, pipeline: str) -> CommitNames:
    """Read what a commit names, without answers and records. Raises LakeError as `read` does."""
    with open_commit(path) as file:
        told = _told(path, pipeline, file.schema_arrow)
        rows = file.read(["endpoint", "test_id"]).to_pylist()
        recorded = frozenset(str(row["test_id"]) for row in rows if row["endpoint"] == LISTING)
        return CommitNames(told.batch, told.run_id, _files(told), told.replaces, recorded)


@dataclass(frozen=True, slots=True)
class Feeds:
    """The tables that a commit feeds, by test, and the tests whose progress it forgets."""

    tables: Mapping[str, Collection[str]]
    forgotten: Collection[str]


def read_feeds(path: Path, pipeline: str) -> Feeds:
    """Read what a commit feeds, without bodies and records. Raises LakeError as `read` does."""
    tables: dict[str, set[str]] = {}
    with open_commit(path) as file:
        told = _told(path, pipeline, file.schema_arrow)
        for row in file.read(["endpoint", "test_id", "rows"]).to_pylist():
            if row["endpoint"] not in (VERIFIED, REMOVED):
                made = msgspec.json.decode(row["rows"] or "{}", type=dict[str, int])
                tables.setdefault(str(row["test_id"]), set()).update(made)
    return Feeds({}, tables) if told.run_id == RESET_RUN else Feeds(tables, ())


def read_kept(path: Path, pipeline: str, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Yield columns of the answers whose bodies a commit keeps, a row group and its number each.

    They stand in the order of landing. Raises LakeError as `read` does.
    """
    with open_commit(path) as file:
        first = _told(path, pipeline, file.schema_arrow).bodies_from or file.num_row_groups
        for group in range(first, file.num_row_groups):
            yield group, file.read_row_group(group, columns=list(columns))


def _files(told: _Told) -> list[File]:
    return [File(file.path, told.batch, file.rows, file.bytes, file.xxh3) for file in told.files]


def _rows(file: pq.ParquetFile, group: int, told: _Told) -> list[dict[str, object]]:
    """Return the rows of a row group; without bodies where nobody needs them."""
    bodies = told.answers_from is None or group < told.answers_from
    names = [name for name in SCHEMA.names if bodies or name != "body"]
    table = file.read_row_group(group, columns=names)
    place = names.index("fetched_at")
    rows: list[dict[str, object]] = table.set_column(
        place, "fetched_at", table["fetched_at"].cast(pa.int64())
    ).to_pylist()
    return rows


def _understood(told: _Told, rows: list[dict[str, object]]) -> CommitRead:
    records: dict[str, Record] = {}
    proofs: dict[str, bytes] = {}
    identities: set[Identity] = set()
    verdicts: dict[str, Verdict] = {}
    answers: list[AnswerRead] = []
    for row in rows:
        endpoint, test_id, body = str(row["endpoint"]), str(row["test_id"]), row.get("body")
        if endpoint == LISTING and isinstance(body, bytes):
            records[test_id] = unpack(body)
        elif endpoint == VERIFIED and isinstance(body, bytes):
            proofs[test_id] = body
            verdicts[test_id] = _verdict(row)
        elif endpoint != REMOVED:
            identities.add(_identity(row))
            if row["object_id"] is None:
                answers.append(_answer_read(row))
    return CommitRead(
        batch=told.batch,
        files=_files(told),
        replaces=told.replaces,
        identities=frozenset(identities),
        records=records,
        proofs=proofs,
        verdicts=verdicts,
        test_ids=frozenset(str(row["test_id"] or "") for row in rows).union(told.tests_kept),
        notes=told.notes,
        answers=answers,
    )


def _answer_read(row: Mapping[str, object]) -> AnswerRead:
    made = msgspec.json.decode(str(row["rows"] or "{}"), type=dict[str, int])
    made.pop(rejects.NAME, None)
    session_id = row["session_id"]
    return AnswerRead(
        endpoint=str(row["endpoint"]),
        test_id=str(row["test_id"]),
        session_id=None if session_id is None else str(session_id),
        fetched_at_us=int(str(row["fetched_at"] or 0)),
        rows=made,
    )


def _verdict(row: Mapping[str, object]) -> Verdict:
    """Return how a look ended; one that failed counts as unsteady: it is looked at again."""
    told = str(row["object_id"])
    outcome = Outcome(told) if told in set(Outcome) else Outcome.UNSTEADY
    seen = int(str(row["rows"] or 0))
    return Verdict(outcome, seen, seen if outcome is Outcome.VERIFIED else None)


def _identity(row: Mapping[str, object]) -> Identity:
    def text(name: str) -> str | None:
        value = row[name]
        return None if value is None else str(value)

    return (
        str(row["endpoint"]),
        text("test_id"),
        text("session_id"),
        text("object_id"),
        int(str(row["fetched_at"] or 0)),
    )


def adopted(record: Record, proofs: bytes) -> Record:
    """Return a record with the proof times of a later look that left it unchanged."""
    return replace(record, listing=with_proofs(record.listing, proofs))
