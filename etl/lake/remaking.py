"""Makes the rows of sessions anew from kept answers, many at once, in whichever process.

Nothing here knows of the lake or its record, so that other processes may do it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any, Final, TypeAlias

import pyarrow as pa

from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.tables.registry import endpoints, tables
from etl.tables.values import FETCHED_AT, AnyTable, Array, Cells, Reject, Rows

Hide: TypeAlias = Callable[[AnyTable, Answer, Rows], Rows]
"""What becomes of personal data before rows land."""


@dataclass(frozen=True, slots=True)
class Job:
    """Answers about sessions, and what to make of them.

    `runs` says for each table, answer by answer, which run is to have landed the rows: None
    where the answer is not what they are made of.
    """

    answers: Sequence[Answer] = field(repr=False)
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


@dataclass(frozen=True, slots=True)
class _Taken:
    """The rows of an answer that are taken: those at some places."""

    answer: Answer
    run_id: str
    rows: Rows
    places: Sequence[int]


def remake(job: Job) -> Made:
    """Make the rows of this version's own tables; nothing is hidden."""
    return remade(job, [tables()[name] for name in job.runs], lambda _table, _answer, rows: rows)


def remade(job: Job, fed: Iterable[AnyTable], hide: Hide) -> Made:
    """Make the rows of tables of a job's answers."""
    fetched = list(map(_read, job.answers))
    made = Made([None if one is None else {} for one in fetched])
    for table in fed:
        taken = list(_take(table, job, fetched, hide, made))
        made.rows[table.name] = _as_arrow(table, taken)
    return made


def _read(answer: Answer) -> Fetched[Any] | None:
    try:
        return Fetched(answer, endpoints()[answer.endpoint].decode(answer.body))
    except UnreadableBodyError:
        return None  # what landed of it stays as it is


def _take(
    table: AnyTable, job: Job, fetched: Sequence[Fetched[Any] | None], hide: Hide, made: Made
) -> Iterable[_Taken]:
    """Yield the rows that a table has of each answer, each key once, and note their number."""
    places = zip(job.answers, fetched, job.runs[table.name], made.counts, strict=True)
    some = [
        (place, one, run_id, counts)
        for place, (_, one, run_id, counts) in enumerate(places)
        if one is not None and run_id is not None and counts is not None
    ]
    each = _rows_of_each(table, [one for _, one, _, _ in some])
    for (place, one, run_id, counts), found in zip(some, each, strict=True):
        rows = hide(table, one.answer, found)
        chosen = first_of_each(rows.keys)
        counts[table.name] = len(chosen)
        if rows.rejects:
            made.rejects.append((place, rows.rejects))
        yield _Taken(one.answer, run_id, rows, chosen)


def _rows_of_each(table: AnyTable, fetched: Sequence[Fetched[Any]]) -> Sequence[Rows]:
    if table.rows_of_each is not None:
        return table.rows_of_each(fetched)
    return [table.rows_of(one.answer, one.content) for one in fetched]


def first_of_each(keys: Sequence[int]) -> Sequence[int]:
    """Return the places of keys, of those that are alike the first."""
    if len(set(keys)) == len(keys):
        return range(len(keys))
    first: dict[int, int] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    return list(first.values())


def _as_arrow(table: AnyTable, taken: Sequence[_Taken]) -> pa.RecordBatch:
    """Return all rows that are taken, with what their answers and runs add."""
    schema = table.schema()
    arrays = [
        pa.array(list(_column(name, taken)), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


_SHARED: Final[Mapping[str, Callable[[_Taken], str | int | None]]] = {
    "test_id": lambda one: one.answer.test_id,
    "session_id": lambda one: one.answer.session_id,
    "_run_id": lambda one: one.run_id,
    FETCHED_AT: lambda one: one.answer.fetched_at_us,
}


def _column(name: str, taken: Sequence[_Taken]) -> Iterable[Any]:
    """Yield a column's values; null is what nobody has."""
    if name == "_extra":
        return chain.from_iterable(
            repeat(None, len(one.places))
            if one.rows.extra is None
            else _chosen(one.rows.extra, one.places)
            for one in taken
        )
    if not taken or name in taken[0].rows.cells:
        return chain.from_iterable(
            _chosen(_values(one.rows.cells[name]), one.places) for one in taken
        )
    shared = _SHARED.get(name, _nothing)
    return chain.from_iterable(repeat(shared(one), len(one.places)) for one in taken)


def _nothing(_: _Taken) -> None:
    return None


def _values(cells: Array | Cells) -> Sequence[Any]:
    return cells.values if isinstance(cells, Cells) else cells.to_pylist()


def _chosen(values: Sequence[Any], places: Sequence[int]) -> Sequence[Any]:
    return values if len(places) == len(values) else [values[place] for place in places]
