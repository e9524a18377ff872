"""What a table is: data and one pure function, from an answer to rows."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, cast

import msgspec
import pyarrow as pa
import xxhash

from etl.client.values import Answer, Content, Endpoint, Fetched, Scope

TIMESTAMP = pa.timestamp("us", "UTC")

if TYPE_CHECKING:
    Array: TypeAlias = pa.Array[Any]
    Chunks: TypeAlias = pa.ChunkedArray[Any]
else:
    Array: TypeAlias = pa.Array  # generic to the type checker alone
    Chunks: TypeAlias = pa.ChunkedArray

Value: TypeAlias = str | int | float | bool | None
"""What a cell holds before it becomes Arrow."""


class Cells(msgspec.Struct, frozen=True):
    """The cells of a few rows in one column. They become Arrow together with many others.

    There are fifty of them for a session's details: a dataclass would take five times as long.
    """

    type: pa.DataType
    values: Sequence[Value]

    def __repr__(self) -> str:
        """Say no more than how many there are: they may be personal data."""
        return f"Cells({self.type}, {len(self.values)})"


def array_of(cells: Array | Cells, own: slice = slice(None)) -> Array:
    """Return cells, or those of one stretch of rows, as an Arrow array."""
    return pa.array(cells.values[own], cells.type) if isinstance(cells, Cells) else cells[own]


def plain(column: Array | Chunks) -> Array | Chunks:
    """Return a column with its times, if it holds any, as microseconds since 1970."""
    return column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, Arrow type and meaning.

    `repeats` says that few values fill many rows, so that a dictionary pays.
    """

    name: str
    type: pa.DataType
    meaning: str
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """A row or body that could not be read, kept with the reason; `body` None if not kept."""

    reason: str
    body: str | None = field(repr=False)
    session_id: str | None = field(default=None, repr=False)

    @property
    def key(self) -> int:
        """The hash that makes the same reject, seen again, add nothing.

        Where the body is not kept, the reason is all that tells it from others.
        """
        told = self.reason if self.body is None else self.body
        return row_hash(f"reject:{self.session_id}:{told}".encode(errors="replace"))


class Rows(msgspec.Struct, frozen=True):
    """What a table makes of one answer: rows in the order served, column by column.

    `keys` holds the 64-bit hash of each row's key; `hashed` makes those of their values as
    served, for the few who ask. `cells` are the values of each column of the table but those
    that every row of the answer shares (`test_id`) and those of the run: all as Arrow, or none.
    Answers that were read together share `cells` and `extra`: the rows of this one begin at
    `first` there, and are as many as there are keys.
    `order` is the answer's place among those of its test: pages by their first row.
    `keeps_body` asks that the whole answer be kept, since it says more than its rows.
    """

    keys: Sequence[int]
    hashed: Callable[[], Sequence[int]]
    cells: Mapping[str, Array | Cells]
    extra: Sequence[str | None] | None = None
    rejects: Sequence[Reject] = ()
    unknown_fields: frozenset[str] = frozenset()
    order: int = 0
    keeps_body: bool = False
    first: int = 0

    def __repr__(self) -> str:
        """Say no more than how many there are: they may be personal data."""
        return f"Rows({len(self.keys)})"

    @property
    def hashes(self) -> Sequence[int]:
        """The 64-bit hash of each row's values as served, made anew at each call."""
        return self.hashed()

    @property
    def columns(self) -> dict[str, Array]:
        """The cells of these rows as Arrow arrays, made anew at each call."""
        return {name: array_of(cells, self._own) for name, cells in self.cells.items()}

    @property
    def loose_cells(self) -> Mapping[str, Cells] | None:
        """The cells, unless they are Arrow already."""
        some = next(iter(self.cells.values()), None)
        return cast("Mapping[str, Cells]", self.cells) if isinstance(some, Cells) else None

    @property
    def own_extra(self) -> Sequence[str | None] | None:
        """What these rows hold beside their columns."""
        return None if self.extra is None else self.extra[self._own]

    def first_of_each_key(self) -> Sequence[int]:
        """Return the places of these rows, of those with the same key the first."""
        if len(set(self.keys)) == len(self.keys):
            return range(len(self.keys))
        first: dict[int, int] = {}
        for place, key in enumerate(self.keys):
            first.setdefault(key, place)
        return list(first.values())

    @property
    def _own(self) -> slice:
        return slice(self.first, self.first + len(self.keys))


@dataclass(frozen=True, slots=True)
class FileSource:
    """How the files of a table are had: what is asked for where one is, and what its receipt is.

    A table that is fed by receipts alone has a file for each session; another lists objects,
    and has a file for each of these.
    """

    address: Endpoint[Any]
    receipt: Endpoint[Any]


@dataclass(frozen=True, slots=True)
class Table(Generic[Content]):
    """A table of the lake: its name, what a row is, key, source and columns."""

    name: str
    row: str
    key: tuple[str, ...]
    endpoint: Endpoint[Content]
    columns: tuple[Column, ...]
    rows_of: Callable[[Answer, Content], Rows]
    dates: tuple[str | None, str] | None = None
    """The columns that `start_…` and `finish_…` partitions read, where it has them."""
    files: FileSource | None = None
    """How the files that its rows name are had, where they do."""
    rows_of_each: Callable[[Sequence[Fetched[Content]]], Sequence[Rows]] | None = None
    """The same as `rows_of`, of many answers at once, where that costs less."""
    version: int = 1
    """Counts up when a column changes its type or meaning; a new column changes neither."""

    @property
    def by_session(self) -> bool:
        """Whether it is asked for session by session."""
        return self.endpoint.scope is Scope.SESSION

    @property
    def lists_files(self) -> bool:
        """Whether it lists objects, each of which has a file: a row waits for its own."""
        return self.files is not None and self.files.receipt is not self.endpoint

    @property
    def row_by_row(self) -> bool:
        """Whether its rows are known one by one, and not by the session that made them."""
        return not self.by_session or self.lists_files

    @property
    def appends(self) -> bool:
        """Whether an answer that differs adds rows: its key says when it came."""
        return FETCHED_AT in self.key

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells its rows apart within one answer: the key but for when it came."""
        return tuple(name for name in self.key if name != FETCHED_AT)

    def schema(self) -> pa.Schema:
        """Return the Arrow schema of the table's files, partition columns included."""
        return schema_of(self.name, self.version, (*self.columns, *RUN_COLUMNS))


def alone(
    rows_of_each: Callable[[Sequence[Fetched[Content]]], Sequence[Rows]],
) -> Callable[[Answer, Content], Rows]:
    """Return the `rows_of` of a table whose answers are read many at once."""
    return lambda answer, content: rows_of_each([Fetched(answer, content)])[0]


def schema_of(name: str, version: int, columns: Sequence[Column]) -> pa.Schema:
    """Return an Arrow schema that says in its metadata of which table it is, and which version."""
    return pa.schema(
        [(column.name, column.type) for column in columns],
        metadata={"etl_table": name, "etl_table_version": str(version)},
    )


FETCHED_AT = "_fetched_at"

RUN_COLUMNS = (
    Column("_run_id", pa.string(), "The run that landed the row.", repeats=True),
    Column(FETCHED_AT, TIMESTAMP, "When the answer that held the row came.", repeats=True),
    Column("_extra", pa.string(), "Fields that the table does not know, as JSON; else null."),
)
"""What every table has beside its own columns."""

TEST_ID = Column("test_id", pa.string(), "The test that it belongs to.", repeats=True)
SESSION_ID = Column("session_id", pa.string(), "The session that it belongs to.", repeats=True)
"""What many tables have, filled by the landing from what was asked."""


row_hash: Callable[[bytes], int] = xxhash.xxh3_64_intdigest
"""The 64-bit hash by which ledger and lake know a key or a row's values."""


def key_hash(parts: Sequence[object]) -> int:
    """Return the hash of a row's key, as it stands in the key columns of a file."""
    return row_hash("\0".join(map(str, parts)).encode(errors="replace"))


def key_hashes(*parts: Iterable[object]) -> list[int]:
    """Return the hashes of many keys, given each of their parts for all of them."""
    keys = zip(*(map(str, part) for part in parts), strict=True)
    return [row_hash(key.encode(errors="replace")) for key in map("\0".join, keys)]


_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def field_name(path: str) -> str:
    """Return a field's path for the report, without what may be data: a map by e-mail address."""
    steps = path.split(".")
    return ".".join(step if _FIELD_NAME.fullmatch(step) else "(no name)" for step in steps)


def printable(body: bytes) -> str:
    """Return a body as text that Parquet can hold, whatever bytes came."""
    return body.decode("utf-8", errors="backslashreplace")


AnyTable = Table[Any]
"""A table of whatever content: what the registry and the landing handle."""


def rows_as_dicts(rows: Rows, answer: Answer) -> list[dict[str, object]]:
    """Return rows one by one, for people: what a screen or JSON shows."""
    columns = rows.columns
    names = list(columns)
    lists = [column.to_pylist() for column in columns.values()]
    shared = {"test_id": answer.test_id}
    if answer.session_id is not None:
        shared["session_id"] = answer.session_id
    return [
        {**shared, **dict(zip(names, values, strict=True))} for values in zip(*lists, strict=True)
    ]
