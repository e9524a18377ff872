"""Carries rows of older files over into today's columns and folders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import LakeError
from etl.lake.local import LocalLake
from etl.lake.scan import partitions_of, table_of
from etl.tables.values import Array

Folder = tuple[str, str | None]
"""What tells the folder of a row: its test and, where it has one, its session."""


def rows_of_file(lake: LocalLake, path: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield a file's rows in another schema: null where it has a column more; blocks.

    Raises LakeError where a value does not fit: then the file is of another version.
    """
    told = dict(partitions_of(path))
    with readable(path), pq.ParquetFile(lake.root / path) as file:
        for rows in file.iter_batches():
            columns = [_column(rows, field.name, field.type, told) for field in schema]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what a file raises whose rows are not of today's columns into a LakeError."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise LakeError(
            f"The rows of {table_of(path)} cannot be read into its columns of today.",
            where=path,
            advice="`etl verify --deep` says whether the file is damaged: then the next run asks "
            "for its rows again. Nothing was changed.",
        ) from error


def _column(
    rows: pa.RecordBatch, name: str, kind: pa.DataType, told: Mapping[str, str | None]
) -> Array:
    if name in rows.schema.names:
        return rows.column(name).cast(kind)
    return pa.repeat(pa.scalar(told.get(name), pa.string()), rows.num_rows).cast(kind)


def grouped(
    rows: pa.RecordBatch, key_of: Callable[[str, str | None], str], *, by_session: bool
) -> Iterator[tuple[Folder, pa.RecordBatch]]:
    """Yield the rows by what `key_of` makes of their test and, if it matters, their session."""
    asked = ["test_id", "session_id"] if by_session else ["test_id"]
    names = [name for name in asked if name in rows.schema.names]
    whole = pa.Table.from_batches([rows])
    told = whole.group_by(names, use_threads=False).aggregate([]) if names else whole
    known = {scope: key_of(scope[0] or "", scope[1]) for scope in _scopes(told, names)}
    if len(set(known.values())) == 1:
        (test_id, session_id), *_ = known
        yield (test_id or "", session_id), rows
        return
    folders: dict[str, tuple[Folder, list[int]]] = {}
    for place, scope in enumerate(_scopes(whole, names)):
        first = (scope[0] or "", scope[1])
        folders.setdefault(known[scope], (first, []))[1].append(place)
    for folder, places in folders.values():
        yield folder, rows.take(pa.array(places, pa.int64()))


def _scopes(rows: pa.Table, names: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Yield the test and session of each row, as far as they are named."""
    nothing = [None] * rows.num_rows
    test_ids = rows.column("test_id").to_pylist() if "test_id" in names else nothing
    sessions = rows.column("session_id").to_pylist() if "session_id" in names else nothing
    return zip(test_ids, sessions, strict=True)
