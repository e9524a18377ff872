"""Carries rows of older files over into today's columns and folders."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

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
    names = [name for name in _SCOPE[: 1 + by_session] if name in rows.schema.names]
    known = {scope: key_of(scope[0] or "", scope[1]) for scope in _scopes(rows, names)}
    if len(set(known.values())) == 1:
        (test_id, session_id), *_ = known
        yield (test_id or "", session_id), rows
        return
    folders: dict[str, tuple[Folder, list[int]]] = {}
    for place, scope in enumerate(_scopes_of_rows(rows, names)):
        first = (scope[0] or "", scope[1])
        folders.setdefault(known[scope], (first, []))[1].append(place)
    for folder, places in folders.values():
        yield folder, rows.take(pa.array(places, pa.int64()))


_Scope: TypeAlias = tuple[str | None, str | None]
_SCOPE: Final = ("test_id", "session_id")


def _scopes(rows: pa.RecordBatch, names: Sequence[str]) -> Iterator[_Scope]:
    """Yield the tests and sessions of rows, each once."""
    told = pa.Table.from_batches([rows])
    if names:
        told = told.group_by(list(names), use_threads=False).aggregate([])
    return _scopes_of_rows(told, names)


def _scopes_of_rows(rows: pa.RecordBatch | pa.Table, names: Sequence[str]) -> Iterator[_Scope]:
    columns = (
        rows.column(name).to_pylist() if name in names else [None] * rows.num_rows
        for name in _SCOPE
    )
    return zip(*columns, strict=True)
