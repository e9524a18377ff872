"""Reads back which rows a lake's data files hold, where its record is not enough."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from etl.lake.local import LocalLake
from etl.lake.names import partition_value
from etl.lake.partitions import Layout
from etl.ledger.records import session_key
from etl.tables import rejects
from etl.tables.registry import tables
from etl.tables.values import Array, Reject, key_hash


def table_of(path: str) -> str:
    """Return the table that a data file's path belongs to."""
    return PurePosixPath(path).parts[0]


def is_known(table: str) -> bool:
    """Say whether this version knows what a row of the table is."""
    return table in tables() or table == rejects.NAME


def may_hold(path: str, test_ids: Collection[str]) -> bool:
    """Say whether a file's path leaves room for rows of these tests."""
    test_id = dict(partitions_of(path)).get("test_id")
    return test_id is None or test_id in test_ids


def rows_in(
    lake: LocalLake, path: str, columns: Sequence[str]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the test id and the values of `columns` of each row of a file.

    Raises ValueError as `columns_in`.
    """
    for test_ids, *values in columns_in(lake, path, ["test_id", *columns]):
        rows = zip(*(column.to_pylist() for column in values), strict=True)
        yield from zip(map(str, test_ids.to_pylist()), rows, strict=True)


def columns_in(
    lake: LocalLake, path: str, columns: Sequence[str], *, distinct: bool = False
) -> Iterator[list[Array]]:
    """Yield `columns` of some rows of a file at a time, those that are in its path as well.

    What many rows have in common comes a few times if it may be `distinct`. Raises ValueError
    if the file cannot be read as Parquet with these columns.
    """
    in_path = dict(partitions_of(path))
    try:
        with pq.ParquetFile(lake.root / path) as file:
            names = [name for name in dict.fromkeys(columns) if name in file.schema_arrow.names]
            for rows in file.iter_batches(columns=names):
                some = _distinct(rows) if distinct else rows
                yield [
                    some.column(name) if name in names else _repeated(in_path.get(name), some)
                    for name in columns
                ]
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read") from error


def _distinct(rows: pa.RecordBatch) -> pa.RecordBatch:
    told = pa.Table.from_batches([rows]).group_by(rows.schema.names).aggregate([])
    (batch,) = told.combine_chunks().to_batches()
    return batch


def _repeated(value: str | None, rows: pa.RecordBatch) -> Array:
    return pa.repeat(pa.scalar(value, pa.string()), rows.num_rows)


def keys_in(lake: LocalLake, path: str) -> Iterator[tuple[str, int]]:
    """Yield the test and the hash by which its record knows each row of a known table's file.

    Rows that are asked session by session are known by their session, unless each has a file;
    those of the account belong to no test (""). Raises ValueError if the file cannot be read.
    """
    table = tables().get(table_of(path))
    if table is not None and not table.row_by_row:
        for test_id, (session_id,) in rows_in(lake, path, ["session_id"]):
            yield test_id, session_key(str(session_id))
    elif table is not None:
        of_account = table.endpoint.is_of_account
        for test_id, key in rows_in(lake, path, table.identity):
            yield "" if of_account else test_id, key_hash(key)
    else:
        yield from _reject_keys(lake, path)


def row_keys_in(lake: LocalLake, path: str) -> Iterator[tuple[str, int]]:
    """Yield the test and the hash of each row's key, as `keys_in` does, row by row."""
    table = tables().get(table_of(path))
    if table is None:
        yield from _reject_keys(lake, path)
    else:
        for test_id, key in rows_in(lake, path, table.key):
            yield test_id, key_hash(key)


def _reject_keys(lake: LocalLake, path: str) -> Iterator[tuple[str, int]]:
    for test_id, told in rows_in(lake, path, ["reason", "body", "session_id"]):
        reason, body, session = (None if part is None else str(part) for part in told)
        yield test_id, Reject(reason or "", body, session).key


def rows_elsewhere(lake: LocalLake, path: str) -> int:
    """Return how many rows of a data file belong to another folder than its own.

    Raises ValueError if the file cannot be read.
    """
    table = tables().get(table_of(path))
    in_path = dict(partitions_of(path))
    dates = table.dates if table is not None else None
    layout = Layout(table_of(path), tuple(name for name in in_path if name != "test_id"), dates)
    if not layout.columns or dates is None:
        return 0
    own = [in_path[column] for column in layout.columns]
    try:
        with pq.ParquetFile(lake.root / path) as file:
            return sum(
                1
                for batch in file.iter_batches(columns=[name for name in dates if name])
                for values in layout.values(batch)
                if list(values) != own
            )
    except (OSError, KeyError, pa.ArrowException) as error:  # KeyError: without the dates
        raise ValueError(f"{path} cannot be read") from error


def partitions_of(path: str) -> Iterator[tuple[str, str | None]]:
    """Yield the partition columns of a data file's path, and their values."""
    return (partition_value(folder) for folder in PurePosixPath(path).parts[1:-1] if "=" in folder)
