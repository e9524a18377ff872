"""The answers that a lake keeps as they came: read back newest first, without a request."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from etl.client.values import Answer
from etl.lake.commits import read_kept
from etl.lake.kept import KeptAnswers
from etl.lake.local import LocalLake
from etl.ledger.records import session_key
from etl.tables.values import plain

_KEYS: Final = ("endpoint", "test_id", "session_id")
_BARE: Final = (*_KEYS, "object_id", "status", "fetched_at")


def kept_bytes(lake: LocalLake, pipeline: str) -> int:
    """Return how large the files are that hold a pipeline's answers, kept bodies and all."""
    paths = (lake.commit_path(pipeline, batch) for batch in lake.commits(pipeline))
    return sum(path.stat().st_size for path in paths)


def kept_answers(
    lake: LocalLake, pipeline: str, endpoints: Collection[str]
) -> Iterator[KeptAnswers]:
    """Yield the kept answers of some endpoints, those of the newest commit first; blocks.

    A few hundred at once, so that memory does not grow with the lake. Raises LakeError.
    """
    for batch in reversed(lake.commits(pipeline)):
        path = lake.commit_path(pipeline, batch)
        for group, rows in read_kept(path, pipeline, _BARE):
            told = [(place, row) for place, row in enumerate(_rows(rows)) if row[0] in endpoints]
            if told:
                places = [place for place, _ in told]
                yield KeptAnswers(path, group, places, [Answer(*(*row, b"")) for _, row in told])


def kept_keys(
    lake: LocalLake, pipeline: str, endpoints: Collection[str]
) -> Mapping[tuple[str, str], set[int | None]]:
    """Return the sessions whose answers are kept, by endpoint and test; blocks.

    They are told by their keys; None stands for an answer about the test itself.
    """
    found: dict[tuple[str, str], set[int | None]] = {}
    for batch in lake.commits(pipeline):
        for _, rows in read_kept(lake.commit_path(pipeline, batch), pipeline, _KEYS):
            for endpoint, test_id, session in _rows(rows):
                if endpoint in endpoints:
                    key = None if session is None else session_key(session)
                    found.setdefault((endpoint, test_id), set()).add(key)
    return found


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the values of each row; times in microseconds since 1970."""
    return zip(*(plain(column).to_pylist() for column in table.columns), strict=True)
