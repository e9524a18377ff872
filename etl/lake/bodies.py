"""The answers that a lake keeps as they came: read back newest first, without a request."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from etl.client.values import Answer
from etl.lake import commits
from etl.lake.local import LocalLake
from etl.ledger.records import session_key
from etl.plan.orders import keeps
from etl.tables.values import AnyTable

_ANSWERS_AT_ONCE: Final = 500
_KEYS: Final = ("endpoint", "test_id", "session_id")
_WHOLE: Final = (*_KEYS, "object_id", "status", "fetched_at", "body")


def is_made_of_bodies(table: AnyTable) -> bool:
    """Say whether a table's rows can be made anew from answers alone.

    Those of files cannot: where the file lies, no answer says.
    """
    return keeps(table.endpoint) and all(column.name != "sha256" for column in table.columns)


def kept_bytes(lake: LocalLake, pipeline: str) -> int:
    """Return how large the files are that hold a pipeline's answers, kept bodies and all."""
    paths = (lake.commit_path(pipeline, batch) for batch in lake.commits(pipeline))
    return sum(path.stat().st_size for path in paths)


def kept_answers(
    lake: LocalLake, pipeline: str, endpoints: Collection[str]
) -> Iterator[list[Answer]]:
    """Yield the kept answers of some endpoints, those of the newest commit first; blocks.

    A few hundred at once, so that memory does not grow with the lake. Raises LakeError.
    """
    for batch in reversed(lake.commits(pipeline)):
        path = lake.commit_path(pipeline, batch)
        for rows in commits.read_kept(path, pipeline, _WHOLE, _ANSWERS_AT_ONCE):
            answers = [Answer(*values) for values in _values(rows, _WHOLE, endpoints)]
            if answers:
                yield answers


def kept_keys(
    lake: LocalLake, pipeline: str, endpoints: Collection[str]
) -> Mapping[tuple[str, str], set[int | None]]:
    """Return the sessions whose answers are kept, by endpoint and test; blocks.

    They are told by their keys; None stands for an answer about the test itself.
    """
    found: dict[tuple[str, str], set[int | None]] = {}
    for batch in lake.commits(pipeline):
        path = lake.commit_path(pipeline, batch)
        for rows in commits.read_kept(path, pipeline, _KEYS, 100 * _ANSWERS_AT_ONCE):
            for endpoint, test_id, session in _values(rows, _KEYS, endpoints):
                key = None if session is None else session_key(session)
                found.setdefault((endpoint, test_id), set()).add(key)
    return found


def _values(
    rows: pa.RecordBatch, columns: Collection[str], endpoints: Collection[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each row that is an answer of these endpoints."""
    wanted = rows.filter(pc.is_in(rows["endpoint"], pa.array(sorted(endpoints), pa.string())))
    lists = []
    for name in columns:
        column = wanted[name]
        lists.append((column.cast(pa.int64()) if name == "fetched_at" else column).to_pylist())
    return zip(*lists, strict=True)
