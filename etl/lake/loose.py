"""Rows as answers make them, before they are Arrow: a few rows each, gathered into one array.

An Arrow call costs as much as a hundred values. A session's details make a dozen rows for
each of four tables; made Arrow answer by answer, they took most of an export's time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import Final, NamedTuple, TypeAlias

import msgspec
import pyarrow as pa

from etl.client.values import Answer
from etl.tables.values import FETCHED_AT, Array, Cells, Rows, Value, array_of

Order: TypeAlias = tuple[int, int]
"""Where rows stand among those of their file: by test, then by place within it."""

_EXTRA: Final = "_extra"


class LooseRows(msgspec.Struct, frozen=True):
    """Rows of one answer: those at some places of cells that answers read together share.

    `extra` is what the rows there hold beside their columns, `shared` what all of these have
    in every other column; null is what nobody has.
    """

    cells: Mapping[str, Cells]
    extra: Sequence[str | None] | None
    places: Sequence[int]
    shared: Mapping[str, Value]

    @property
    def test_id(self) -> str | None:
        """The test that they belong to."""
        test_id = self.shared["test_id"]
        return test_id if isinstance(test_id, str) else None

    @property
    def num_rows(self) -> int:
        """How many they are."""
        return len(self.places)

    def __repr__(self) -> str:
        """Say no more than how many there are: they may be personal data."""
        return f"LooseRows({self.num_rows})"


def shared_by(answer: Answer, run_id: str) -> dict[str, Value]:
    """Return what an answer and the run that lands it add to each of its rows."""
    return {
        "test_id": answer.test_id,
        "session_id": answer.session_id,
        "_run_id": run_id,
        FETCHED_AT: answer.fetched_at_us,
    }


def loose_rows(rows: Rows, places: Sequence[int], shared: Mapping[str, Value]) -> LooseRows:
    """Return those of an answer's rows at some places, with what they share.

    Their cells may be Arrow already: that costs a copy.
    """
    if (cells := rows.loose_cells) is None:
        cells = {name: Cells(one.type, one.to_pylist()) for name, one in rows.columns.items()}
    return LooseRows(cells, rows.extra, _moved(places, rows.first), shared)


def whole_rows(
    schema: pa.Schema, rows: Rows, places: Sequence[int], shared: Mapping[str, Value]
) -> pa.RecordBatch | LooseRows:
    """Return those of an answer's rows at some places, with what they share, all columns."""
    if rows.loose_cells is not None:
        return loose_rows(rows, places, shared)
    known = {name: _chosen(array_of(cells), places) for name, cells in rows.cells.items()}
    if rows.extra is not None:
        known[_EXTRA] = pa.array([rows.extra[place] for place in places], pa.string())
    count = len(places)
    arrays = [
        known[name] if name in known else pa.array([shared.get(name)] * count, kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _moved(places: Sequence[int], by: int) -> Sequence[int]:
    if isinstance(places, range):
        return range(places.start + by, places.stop + by)
    return [place + by for place in places]


def packed(
    loose: Sequence[tuple[Order, LooseRows]], schema: pa.Schema
) -> Iterator[tuple[Order, pa.RecordBatch]]:
    """Yield loose rows of one table as Arrow, those of the same order together."""
    by_order = itemgetter(0)
    for order, alike in groupby(sorted(loose, key=by_order), by_order):
        yield order, as_arrow([rows for _, rows in alike], schema)


def as_arrow(loose: Sequence[LooseRows], schema: pa.Schema) -> pa.RecordBatch:
    """Return loose rows of one table as Arrow, in their order."""
    stretches = _stretches(loose)
    arrays = [
        pa.array(_column(name, loose, stretches), kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Stretch(NamedTuple):
    """Places of the same cells, of the rows of one answer or of several that follow each other."""

    cells: Mapping[str, Cells]
    extra: Sequence[str | None] | None
    places: Sequence[int]


def _stretches(loose: Iterable[LooseRows]) -> list[_Stretch]:
    """Return where rows lie, as few stretches as can be."""
    found: list[_Stretch] = []
    for rows in loose:
        places = rows.places
        if found and found[-1].cells is rows.cells and isinstance(places, range):
            before = found[-1].places
            if isinstance(before, range) and before.stop == places.start:
                found.pop()
                places = range(before.start, places.stop)
        found.append(_Stretch(rows.cells, rows.extra, places))
    return found


def _column(
    name: str, loose: Sequence[LooseRows], stretches: Sequence[_Stretch]
) -> Sequence[Value]:
    """Return the values of a column."""
    if name == _EXTRA:
        some = [
            [None] * len(places) if extra is None else _at(places, extra)
            for _, extra, places in stretches
        ]
    elif stretches and name in stretches[0].cells:
        some = [_at(places, cells[name].values) for cells, _, places in stretches]
    else:
        shared = (repeat(rows.shared.get(name), rows.num_rows) for rows in loose)
        return list(chain.from_iterable(shared))
    return some[0] if len(some) == 1 else list(chain.from_iterable(some))


def _at(places: Sequence[int], values: Sequence[Value]) -> Sequence[Value]:
    """Return the values at some places."""
    if len(places) == len(values):
        return values
    if isinstance(places, range):
        return values[places.start : places.stop]
    return [values[place] for place in places]


def _chosen(column: Array, places: Sequence[int]) -> Array:
    """Return some values of a column; without a copy where they are one stretch."""
    if not places or places[-1] - places[0] + 1 == len(places):
        return column.slice(places[0] if places else 0, len(places))
    return column.take(pa.array(places, pa.int64()))
