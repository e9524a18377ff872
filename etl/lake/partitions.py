"""Decides which folder a row belongs to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.lake.names import partition_folder
from etl.ledger.records import Session

_FORMS = {"date": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a table is partitioned: its folder, and the partition columns that it has.

    `dates` are the table's columns that `start_…` and `finish_…` read, where it has them; a
    table `of_session` takes them from the session that its rows belong to. A partition column
    that the table has as well is in the path, and left out of the file.
    """

    table: str
    partition_by: tuple[str, ...]
    dates: tuple[str | None, str] | None
    of_session: bool = False
    columns: tuple[str, ...] = field(init=False)
    """The partition columns in order, less those that the table cannot tell."""

    def __post_init__(self) -> None:
        """Find the columns once: each answer asks for its folder."""
        told = tuple(column for column in self.partition_by if self._tells(column))
        object.__setattr__(self, "columns", told)

    def _tells(self, column: str) -> bool:
        return column == "test_id" or self.of_session or self._dated_by(column) is not None

    def _dated_by(self, column: str) -> str | None:
        """Return the table's column that a partition column of dates reads, if it has one."""
        start, finish = self.dates or (None, None)
        return start if column.startswith("start") else finish

    @property
    def by_row(self) -> bool:
        """Whether rows of one answer may belong into different folders."""
        return self.dates is not None and not set(self.columns) <= {"test_id"}

    def folder(self, test_id: str | None, session: Session | None) -> str:
        """Return the folder of all rows of an answer, where they are not told apart by row."""
        return self._folder([_shared(column, test_id, session) for column in self.columns])

    def split(
        self, rows: pa.RecordBatch, session: Session | None = None
    ) -> list[tuple[str, pa.RecordBatch]]:
        """Return the rows of each folder, in the order served, without the path's columns."""
        if not self.by_row:
            of_test = "test_id" in self.columns
            test_id: str | None = rows.column("test_id")[0].as_py() if of_test else None
            return [(self.folder(test_id, session), self._kept(rows))]
        places: dict[tuple[str | None, ...], list[int]] = {}
        for place, key in enumerate(self.values(rows)):
            places.setdefault(key, []).append(place)
        if len(places) == 1:
            return [(self._folder(key), self._kept(rows)) for key in places]
        return [
            (self._folder(key), self._kept(rows.take(pa.array(indices, pa.int64()))))
            for key, indices in places.items()
        ]

    def values(self, rows: pa.RecordBatch) -> Iterator[tuple[str | None, ...]]:
        """Return each row's partition values, in the order of the columns."""
        return zip(*(self._values(rows, column) for column in self.columns), strict=True)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of the table's files: without the columns in the path."""
        for name in set(self.columns).intersection(schema.names):
            schema = schema.remove(schema.get_field_index(name))
        return schema

    def _folder(self, values: Sequence[str | None]) -> str:
        folders = [
            partition_folder(column, value)
            for column, value in zip(self.columns, values, strict=True)
        ]
        return "/".join((self.table, *folders))

    def _kept(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        return rows.select([name for name in rows.schema.names if name not in self.columns])

    def _values(self, rows: pa.RecordBatch, column: str) -> list[str | None]:
        name = self._dated_by(column)
        if column == "test_id" or name is None:
            values: list[str | None] = rows.column("test_id").to_pylist()
            return values
        times = rows.column(name)
        form = _FORMS[column.partition("_")[2]]
        texts: list[str | None] = pc.strftime(times, format=form).to_pylist()
        return texts


def _shared(column: str, test_id: str | None, session: Session | None) -> str | None:
    """Return the value that all rows of one answer have in a partition column."""
    if column == "test_id":
        return test_id
    if session is None:
        return None
    starts, form = column.startswith("start"), _FORMS[column.partition("_")[2]]
    at_us = session.started_at_us if starts else session.finished_at_us
    return None if at_us is None else f"{datetime.fromtimestamp(at_us / 1e6, UTC):{form}}"
