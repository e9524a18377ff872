"""Rows as answers make them, before they are Arrow: a few rows each, gathered into one array.

An Arrow call costs as much as a hundred values. A session's details make a dozen rows for
each of four tables; made Arrow answer by answer, they took most of an export's time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter
from typing import TypeAlias

import pyarrow as pa

from etl.tables.values import Value

Order: TypeAlias = tuple[int, int]
"""Where rows stand among those of their file: by test, then by place within it."""


@dataclass(frozen=True, slots=True)
class LooseRows:
    """Rows of one answer: a sequence of values for each column, in the order of the schema."""

    test_id: str | None
    columns: Sequence[Sequence[Value]] = field(repr=False)
    num_rows: int


def packed(
    loose: Sequence[tuple[Order, LooseRows]], schema: pa.Schema, places: Sequence[int]
) -> Iterator[tuple[Order, pa.RecordBatch]]:
    """Yield loose rows as Arrow, those of the same order together.

    `places` are those of the schema's columns among the columns of the rows.
    """
    by_order = itemgetter(0)
    for order, alike in groupby(sorted(loose, key=by_order), by_order):
        columns = list(zip(*(rows.columns for _, rows in alike), strict=True))
        arrays = [
            pa.array(list(chain.from_iterable(columns[place])), kind)
            for place, kind in zip(places, schema.types, strict=True)
        ]
        yield order, pa.RecordBatch.from_arrays(arrays, schema=schema)
