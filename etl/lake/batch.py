"""The rows gathered until a commit, streamed into hidden files as they fill row groups.

Nothing here is seen by a reader, or outlives a kill, before the landing publishes it.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import LakeError, disk_advice, disk_reason
from etl.lake.local import LocalLake
from etl.lake.loose import LooseRows, Order, as_arrow, packed
from etl.lake.names import data_name, hidden_name
from etl.lake.partitions import Layout
from etl.ledger.records import Session
from etl.ledger.values import File
from etl.tables.values import Column, schema_of

ROW_GROUP_ROWS: Final = 50_000
_MOST_LOOSE_ROWS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How a table's rows and files look.

    `full_schema` has the partition columns, which `schema`, the files', leaves to the path.
    `repeating` are the columns where a dictionary pays.
    """

    layout: Layout
    full_schema: pa.Schema
    schema: pa.Schema
    repeating: tuple[str, ...]


def shape_of(layout: Layout, columns: Sequence[Column], version: int = 1) -> Shape:
    """Return the shape of a table's files under this layout."""
    full = schema_of(layout.table, version, columns)
    schema = layout.schema(full)
    repeating = [
        column.name for column in columns if column.repeats and column.name in schema.names
    ]
    return Shape(layout, full, schema, tuple(repeating))


@dataclass(slots=True)
class _Part:
    """One data file in the making; `file` is what it is once it is closed."""

    path: str
    schema: pa.Schema
    repeating: tuple[str, ...]
    layer: int = 0
    loose: list[tuple[Order, LooseRows]] = field(default_factory=list)
    rows_loose: int = 0
    waiting: list[tuple[Order, pa.RecordBatch]] = field(default_factory=list)
    rows_waiting: int = 0
    rows_written: int = 0
    place: Path | None = None
    writer: pq.ParquetWriter | None = None
    file: File | None = None


class Batch:
    """The rows of one commit, by table, partition and layer.

    Rows that replace others of the same batch lie in a higher layer than these: in another
    file, so that they can be told from what they replace.
    """

    def __init__(self, lake: LocalLake, pipeline: str, number: int) -> None:
        """Begin a batch; no file is made before a row group is full."""
        self.number = number
        self.rows = 0
        self.bytes_waiting = 0  # in memory, for their row group to fill
        self._lake = lake
        self._pipeline = pipeline
        self._attempt = secrets.token_hex(4)
        self._numbers = count()
        self._parts: dict[tuple[str, int], _Part] = {}
        self._taken_over: list[_Part] = []
        self._full: list[_Part] = []
        self._rows_loose = 0

    @property
    def has_full_row_group(self) -> bool:
        """Whether `write_full` has something to write."""
        return bool(self._full)

    def add(
        self,
        shape: Shape,
        rows: pa.RecordBatch | LooseRows,
        order: Order,
        session: Session | None = None,
        layer: int = 0,
    ) -> None:
        """Gather rows of one answer. Within a row group, rows stand in the order of `order`.

        `session` is the one that they all belong to, where a table is asked by session.
        """
        if isinstance(rows, LooseRows):
            if not shape.layout.by_row:
                folder = shape.layout.folder(rows.test_id, session)
                self._gather_loose(self._part(shape, folder, layer), order, rows)
                return
            rows = as_arrow([rows], shape.full_schema)
        for folder, some in shape.layout.split(rows, session):
            part = self._part(shape, folder, layer)
            self._gather(part, order, some)
            self._count(part, some.num_rows)

    def _gather_loose(self, part: _Part, order: Order, rows: LooseRows) -> None:
        part.loose.append((order, rows))
        part.rows_loose += rows.num_rows
        self._rows_loose += rows.num_rows
        self._count(part, rows.num_rows)
        if self._rows_loose >= _MOST_LOOSE_ROWS:
            self.pack()

    def _part(self, shape: Shape, folder: str, layer: int) -> _Part:
        part = self._parts.get((folder, layer))
        if part is None:
            part = self._begun(folder, shape.schema, shape.repeating)
            part.layer = layer
            self._parts[folder, layer] = part
        return part

    def _count(self, part: _Part, rows: int) -> None:
        self.rows += rows
        if part.rows_waiting + part.rows_loose >= ROW_GROUP_ROWS and part not in self._full:
            self._full.append(part)

    def pack(self) -> None:
        """Make Arrow of what is loose: as values, rows take several times the memory."""
        if self._rows_loose:
            for part in self._parts.values():
                self._pack(part)
            self._rows_loose = 0

    def _pack(self, part: _Part) -> None:
        for order, rows in packed(part.loose, part.schema):
            self._gather(part, order, rows)
        part.loose.clear()
        part.rows_loose = 0

    def take_over(
        self, path: str, schema: pa.Schema, repeating: Iterable[str], rows: Iterable[pa.RecordBatch]
    ) -> None:
        """Write rows of an older file into a new one beside it, in its schema; blocks.

        Whatever `rows` raises leaves nothing behind.
        """
        part = self._begun(path.rpartition("/")[0], schema, tuple(repeating))
        self._taken_over.append(part)
        try:
            for place, some in enumerate(rows):
                self._gather(part, (0, place), some)
                if part.rows_waiting >= ROW_GROUP_ROWS:
                    self._write(part)
        except BaseException:
            self._taken_over.remove(part)
            self._discard(part)
            raise

    def write_full(self) -> None:
        """Write the row groups that are full; blocks."""
        for part in self._full:
            self._write(part)
        self._full.clear()

    def put_by(self) -> None:
        """Write what waits and close the files, still under hidden names; blocks.

        More rows go into new files. So neither memory nor open files grow with the batch.
        """
        for part in self._parts.values():
            self._finished(part)
        self._taken_over += self._parts.values()
        self._parts.clear()
        self._full.clear()
        self._rows_loose = 0

    def finish(self) -> list[File]:
        """Write what is left and close the files, still under hidden names; blocks."""
        return [
            self._finished(part) for part in self._all if part.place or part.loose or part.waiting
        ]

    def unseen(self) -> Mapping[str, int]:
        """Return the layers of the batch's own files, once finished, by their hidden paths."""
        return {_hidden(part): part.layer for part in self._parts.values()}

    def drop(self, hidden: str) -> None:
        """Remove one of the batch's own files, by its hidden path; blocks."""
        for key, part in list(self._parts.items()):
            if _hidden(part) == hidden:
                self._discard(self._parts.pop(key))

    def abandon(self) -> None:
        """Close and remove whatever this batch has written, published or not; blocks."""
        for part in self._all:
            self._discard(part)

    @property
    def _all(self) -> list[_Part]:
        return [*self._parts.values(), *self._taken_over]

    def _begun(self, folder: str, schema: pa.Schema, repeating: tuple[str, ...]) -> _Part:
        name = data_name(self._pipeline, self.number, self._attempt, next(self._numbers))
        return _Part(f"{folder}/{name}", schema, repeating)

    def _gather(self, part: _Part, order: Order, rows: pa.RecordBatch) -> None:
        part.waiting.append((order, rows))
        part.rows_waiting += rows.num_rows
        self.bytes_waiting += rows.nbytes

    def _write(self, part: _Part) -> None:
        self._pack(part)
        part.waiting.sort(key=lambda waiting: waiting[0])
        table = pa.Table.from_batches([rows for _, rows in part.waiting], part.schema)
        self.bytes_waiting -= sum(rows.nbytes for _, rows in part.waiting)
        part.waiting.clear()
        part.rows_waiting = 0
        try:
            if part.writer is None:
                part.place = self._lake.unfinished(part.path)
                part.writer = pq.ParquetWriter(
                    part.place,
                    part.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=list(part.repeating),  # type: ignore[arg-type]  # stubs: bool
                )
            part.writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        except (OSError, pa.ArrowException) as error:
            raise _not_written(part, error) from error
        part.rows_written += table.num_rows

    def _finished(self, part: _Part) -> File:
        if part.loose or part.waiting:
            self._write(part)
        if part.file is None:
            part.file = self._closed(part)
        return part.file

    def _closed(self, part: _Part) -> File:
        assert part.writer is not None  # noqa: S101 - a part has rows, and they are written
        assert part.place is not None  # noqa: S101
        try:
            part.writer.close()
            part.writer = None
            size = part.place.stat().st_size
        except (OSError, pa.ArrowException) as error:
            raise _not_written(part, error) from error
        digest = self._lake.digest(part.place)
        return File(part.path, self.number, part.rows_written, size, digest)

    def _discard(self, part: _Part) -> None:
        """Close and remove a file, whatever it is called by now."""
        self.bytes_waiting -= sum(rows.nbytes for _, rows in part.waiting)
        if part.writer is not None:
            with suppress(OSError, pa.ArrowException):  # on a full disk; it is removed
                part.writer.close()
            part.writer = None
        if part.place is not None:
            self._lake.remove([part.path])


def _hidden(part: _Part) -> str:
    folder, _, name = part.path.rpartition("/")
    return f"{folder}/{hidden_name(name)}"


def _not_written(part: _Part, error: Exception) -> LakeError:
    # What Arrow says of a value quotes it: only its words on the disk are told.
    disk = error if isinstance(error, OSError) else OSError(type(error).__name__)
    return LakeError(
        f"A data file could not be written: {disk_reason(disk)}.",
        where=part.path,
        advice=f"{disk_advice(disk)} What was fetched is kept.",
    )
