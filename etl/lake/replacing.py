"""Takes out of data files what newer rows replace, by writing these files anew without it.

A batch's commit names the files that it has written and those that it `replaces`; the latter
are removed after it, and at a start if the process died in between. Row groups are streamed,
in the file's own schema, so that memory does not grow with files, and what an older or newer
version has written stays as it was.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from etl.lake.batch import ROW_GROUP_ROWS, Batch
from etl.lake.choosing import Keys, Superseded
from etl.lake.local import LocalLake
from etl.lake.scan import keys_in, may_hold, table_of
from etl.tables.registry import tables


@dataclass(slots=True)
class Replaced:
    """What a batch takes the place of.

    `files` are those that it `replaces`, `tests` those whose rows it has taken over from
    them, `unreadable` files that should have been written anew and could not be read.
    """

    files: list[str] = field(default_factory=list)
    tests: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)


def replace_rows(
    lake: LocalLake, batch: Batch, committed: Iterable[str], superseded: Superseded
) -> Replaced:
    """Write anew, within a finished batch, each file that holds what is superseded; blocks.

    `committed` are the pipeline's own files: those of others are not looked at. Raises
    LakeError where a file cannot be written.
    """
    replaced = Replaced()
    for path in committed:
        keys = superseded.of(table_of(path))
        if keys and may_hold(path, keys):
            try:
                if without(lake, batch, path, _is_in(keys, 0), replaced.tests):
                    replaced.files.append(path)
            except ValueError:
                replaced.unreadable.append(path)
    for path, layer in batch.unseen().items():
        keys = superseded.of(table_of(path))
        if keys and without(lake, batch, path, _is_in(keys, layer), set()):
            batch.drop(path)
    return replaced


def without(
    lake: LocalLake, batch: Batch, path: str, is_gone: Callable[[str, int], bool], tests: set[str]
) -> bool:
    """Write a file's rows anew but for those that are gone; return whether there were any.

    `is_gone` is told of the test and key of each row; the tests of those that stay are added
    to `tests`. Raises ValueError if the file cannot be read: then nothing is written.
    """
    if not any(is_gone(test_id, key) for test_id, key in keys_in(lake, path)):
        return False
    try:
        with pq.ParquetFile(lake.root / path) as file:
            schema = file.schema_arrow
            names = {column.name for column in tables()[table_of(path)].columns if column.repeats}
            staying = _staying(file, keys_in(lake, path), is_gone, tests)
            batch.take_over(path, schema, names.intersection(schema.names), staying)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read") from error
    return True


def _staying(
    file: pq.ParquetFile,
    keys: Iterator[tuple[str, int]],
    is_gone: Callable[[str, int], bool],
    tests: set[str],
) -> Iterator[pa.RecordBatch]:
    for rows in file.iter_batches(batch_size=ROW_GROUP_ROWS):
        stay = []
        for test_id, key in islice(keys, rows.num_rows):
            stays = not is_gone(test_id, key)
            if stays:
                tests.add(test_id)
            stay.append(stays)
        staying = rows.filter(pa.array(stay, pa.bool_()))
        if staying.num_rows:
            yield staying


def _is_in(keys: Keys, layer: int) -> Callable[[str, int], bool]:
    """Return what tells the rows of a layer that are replaced by those of a higher one."""

    def is_gone(test_id: str, key: int) -> bool:
        return keys.get(test_id, {}).get(key, 0) > layer

    return is_gone
