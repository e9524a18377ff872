"""Makes the rows of sessions anew from kept answers, many at once, in whichever process.

Nothing here knows of the ledger or of what has landed, so that other processes may do it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.lake.kept import KeptAnswers
from etl.lake.loose import LooseRows, as_arrow, loose_rows, shared_by
from etl.tables.registry import endpoints, tables
from etl.tables.values import AnyTable, Reject, Rows

Hide: TypeAlias = Callable[[AnyTable, Answer, Rows], Rows]
"""What becomes of personal data before rows land."""


@dataclass(frozen=True, slots=True)
class Job:
    """Kept answers about sessions, and what to make of them.

    `runs` says for each table, answer by answer, which run is to have landed the rows: None
    where the answer is not what they are made of.
    """

    kept: KeptAnswers
    runs: Mapping[str, Sequence[str | None]]


@dataclass(frozen=True, slots=True)
class Made:
    """What was made of a job's answers.

    `counts` holds the number of rows by table for each answer, None for one that could not be
    read; `rows` those of each table, in the order of the answers; `rejects` what in an answer,
    told by its place, could not be read.
    """

    counts: Sequence[dict[str, int] | None]
    rows: dict[str, pa.RecordBatch] = field(default_factory=dict, repr=False)
    rejects: list[tuple[int, Sequence[Reject]]] = field(default_factory=list, repr=False)


def remake(job: Job) -> Made:
    """Make the rows of this version's own tables; nothing is hidden."""
    return remade(job, [tables()[name] for name in job.runs], lambda _table, _answer, rows: rows)


def remade(job: Job, fed: Iterable[AnyTable], hide: Hide) -> Made:
    """Make the rows of tables of a job's answers."""
    fetched = list(map(_read, job.kept.read()))
    made = Made([None if one is None else {} for one in fetched])
    for table in fed:
        taken = list(_take(table, job, fetched, hide, made))
        made.rows[table.name] = as_arrow(taken, table.schema())
    return made


def _read(answer: Answer) -> Fetched[Any] | None:
    try:
        return Fetched(answer, endpoints()[answer.endpoint].decode(answer.body))
    except UnreadableBodyError:
        return None  # what landed of it stays as it is


def _take(
    table: AnyTable, job: Job, fetched: Sequence[Fetched[Any] | None], hide: Hide, made: Made
) -> Iterator[LooseRows]:
    """Yield the rows that a table has of each answer, each key once, and note their number."""
    places = zip(fetched, job.runs[table.name], made.counts, strict=True)
    some = [
        (place, one, run_id, counts)
        for place, (one, run_id, counts) in enumerate(places)
        if one is not None and run_id is not None and counts is not None
    ]
    each = _rows_of_each(table, [one for _, one, _, _ in some])
    for (place, one, run_id, counts), found in zip(some, each, strict=True):
        rows = hide(table, one.answer, found)
        chosen = rows.first_of_each_key()
        counts[table.name] = len(chosen)
        if rows.rejects:
            made.rejects.append((place, rows.rejects))
        yield loose_rows(rows, chosen, shared_by(one.answer, run_id))


def _rows_of_each(table: AnyTable, fetched: Sequence[Fetched[Any]]) -> Sequence[Rows]:
    if table.rows_of_each is not None:
        return table.rows_of_each(fetched)
    return [table.rows_of(one.answer, one.content) for one in fetched]
