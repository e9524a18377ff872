"""Reads served objects into columns, as a list of fields says.

All rows are read at once, column by column, and those of many answers together. Where
that meets a fault they are read answer by answer, then one by one, in the same way, so that
a bad value costs its row; what no field names is kept.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain, repeat
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec

from etl.client.values import Answer, Fetched
from etl.tables.json_text import Json, canonical, encodable, kind_of, plain, text_of
from etl.tables.kinds import Fault, Kind
from etl.tables.values import Cells, Column, Reject, Rows, Value, key_hashes, row_hash

Object: TypeAlias = "dict[str, Json]"
Level: TypeAlias = tuple[str, ...]
"""Where an object stands in another: the names that lead to it."""

_OBJECTS: Final = {dict}
_NONE: Final = frozenset[str]()
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Field:
    """A published field, by its path in the served object, and the column that it fills."""

    path: str
    column: str
    kind: Kind
    meaning: str
    repeats: bool = False

    @property
    def steps(self) -> tuple[Level, str]:
        """The level of the object that holds it, and its name there."""
        *level, name = self.path.split(".")
        return tuple(level), name


class Served(NamedTuple):
    """Objects as an answer or a session serves them, or the reject that stands for them.

    `session_id` is that of their rejects; `odd` says that they may hold what JSON proper
    cannot say.
    """

    objects: Sequence[Json] | Reject
    session_id: str | None = None
    odd: bool = False


@dataclass(slots=True)
class Reading:
    """What was read of some served objects, and the rejects of those that could not be.

    `objects` are those read, `places` their places among those served; `values` holds a
    value for each of them, by column, `extra` what no field names, as JSON, and `unknown`
    the names of that. `derived` are columns that the table makes of the objects: no part of
    a row's hash. `counts` and `rejects` say what came of each that served some.
    """

    values: dict[str, list[Value]]
    derived: dict[str, list[Value]] = field(default_factory=dict)
    objects: list[Object] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    extra: list[str | None] = field(default_factory=list)
    unknown: list[frozenset[str]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    rejects: list[list[Reject]] = field(default_factory=list)

    def shared(self, values: Iterable[Value]) -> list[Value]:
        """Return a value for each object, given one for each that served some."""
        return list(chain.from_iterable(map(repeat, values, self.counts)))


class _Part(NamedTuple):
    """An answer, how many rows were read of it, and what could not be."""

    answer: Answer
    rows: int
    rejects: Sequence[Reject]


class Reader:
    """Reads objects of one shape into the columns of one table.

    `place` is the column, if any, that an object's place among those served fills, from
    0; `before` and `derived` are columns that the table makes of the objects, and that
    stand before and after the others. `besides` are published fields that others read.
    `within` is where the objects stand in the answer, for the names of unknown fields.
    """

    def __init__(
        self,
        *fields: Field,
        before: Sequence[Column] = (),
        place: Column | None = None,
        derived: Sequence[Column] = (),
        besides: Collection[str] = (),
        within: str = "",
    ) -> None:
        """Find the levels of the shape: the objects that hold fields, outer ones first."""
        self._fields = [(one.column, one.path, *one.steps, one.kind) for one in fields]
        self._place = place
        self._prefix = within and f"{within}."
        self._known: dict[Level, set[str]] = {(): set()}
        for path in (*(one.path for one in fields), *besides):
            names = path.split(".")
            for depth, name in enumerate(names):
                self._known.setdefault(tuple(names[:depth]), set()).add(name)
        of_fields = [Column(one.column, one.kind.arrow, one.meaning, one.repeats) for one in fields]
        self.columns = (*before, *([place] if place else []), *of_fields, *derived)
        """The columns that it fills, for the table's definition."""
        self._row = msgspec.defstruct(
            "Row", [(one.column, object, None) for one in fields], omit_defaults=True
        )

    def read(
        self,
        served: Sequence[Json] | Reject,
        *,
        odd: bool = False,
        session_id: str | None = None,
    ) -> Reading:
        """Read objects as served, or take the reject that stands for them.

        `odd` says that they may hold what JSON proper cannot say.
        """
        return self.read_all([Served(served, session_id, odd)])

    def read_each(
        self, served: Iterable[tuple[str | None, Sequence[Json] | Reject]], *, odd: bool
    ) -> Reading:
        """Read the objects of several sessions, each given its id, which becomes a column."""
        some = [Served(objects, session_id, odd) for session_id, objects in served]
        reading = self.read_all(some)
        reading.derived["session_id"] = reading.shared(one.session_id for one in some)
        return reading

    def read_all(self, served: Sequence[Served]) -> Reading:
        """Read what many serve, all at once; one after the other where that meets a fault."""
        reading = Reading({column: [] for column, *_ in self._fields})
        if len(served) < 2 or not self._took_all(reading, served):
            for one in served:
                self._add(reading, one)
        return reading

    def rows(self, reading: Reading, answer: Answer, key: Sequence[str]) -> Rows:
        """Return all that was read as rows of one answer.

        `key` names the columns of the table's key. One that the objects do not fill is one
        that the answer does.
        """
        rejects = list(chain.from_iterable(reading.rejects))
        (rows,) = self._rows(reading, [_Part(answer, len(reading.places), rejects)], key)
        return rows

    def rows_of_each(
        self, reading: Reading, fetched: Sequence[Fetched[Any]], key: Sequence[str]
    ) -> list[Rows]:
        """Return what was read of each answer as its rows."""
        answers = (one.answer for one in fetched)
        parts = map(_Part, answers, reading.counts, reading.rejects)
        return self._rows(reading, list(parts), key)

    def _rows(self, reading: Reading, parts: Sequence[_Part], key: Sequence[str]) -> list[Rows]:
        """Return the rows of each answer that was read."""
        filled: dict[str, Sequence[Value]] = {**reading.values, **reading.derived}
        if self._place is not None:
            filled[self._place.name] = reading.places
        cells, keys = self._cells(filled, len(reading.places)), _keys(key, filled, parts)
        extra = reading.extra if any(reading.extra) else None
        hashes = cache(partial(self._hashes, reading.values))
        found, first = [], 0
        for part in parts:
            own = slice(first, first + part.rows)
            unknown = _NONE.union(*reading.unknown[own]) if extra else _NONE
            hashed = partial(_stretch_of, hashes, own)
            rows = Rows(keys[own], hashed, cells, extra, part.rejects, unknown, first=first)
            found.append(rows)
            first += part.rows
        return found

    def _hashes(self, values: Mapping[str, Sequence[Value]]) -> list[int]:
        """Return the hash of each object's values."""
        # Named values without those that are null: a column added later changes no hash.
        named = map(self._row, *values.values())
        return list(map(row_hash, map(_encode, named)))

    def _cells(self, values: Mapping[str, Sequence[Value]], count: int) -> dict[str, Cells]:
        """Return the cells of every column; null where nothing was read for it."""
        nothing: Sequence[Value] = [None] * count
        return {
            column.name: Cells(column.type, values.get(column.name, nothing))
            for column in self.columns
        }

    def _took_all(self, reading: Reading, served: Sequence[Served]) -> bool:
        """Read what many serve at once; say whether that was possible."""
        lists = [
            one.objects for one in served if not one.odd and not isinstance(one.objects, Reject)
        ]
        if len(lists) < len(served):
            return False
        counts = list(map(len, lists))
        places = chain.from_iterable(map(range, counts))
        try:
            self._take(reading, list(chain.from_iterable(lists)), places)
        except Fault:
            return False
        reading.counts += counts
        reading.rejects += ([] for _ in served)
        return True

    def _add(self, reading: Reading, served: Served) -> None:
        """Read objects, all at once; one by one where that meets a fault."""
        before = len(reading.objects)
        reading.rejects.append(self._added(reading, served))
        reading.counts.append(len(reading.objects) - before)

    def _added(self, reading: Reading, served: Served) -> list[Reject]:
        objects, session_id, odd = served
        if isinstance(objects, Reject):
            return [objects]
        try:
            if not odd:
                self._take(reading, objects, range(len(objects)))
                return []
        except Fault:
            pass  # told below, of the row that has it
        rejects = []
        for place, value in enumerate(objects):
            try:
                self._take(reading, [_proper(value)], [place])
            except Fault as fault:
                rejects.append(Reject(str(fault), text_of(value), session_id))
        return rejects

    def _take(self, reading: Reading, served: Sequence[Json], places: Iterable[int]) -> None:
        """Add objects to what has been read: all of them, or none and a Fault."""
        levels = self._levels(served)
        read = {
            column: _column(kind, path, [holder.get(name) for holder in levels[level]])
            for column, path, level, name, kind in self._fields
        }
        extra: list[str | None] = [None] * len(served)
        unknown = [_NONE] * len(served)
        for place in self._places_of_unknown(levels):
            found = self._unknown(levels[()][place], ())
            extra[place] = canonical(found)
            unknown[place] = frozenset(self._names(found, ()))
        for column, values in read.items():
            reading.values[column] += values
        reading.objects += levels[()]
        reading.places += places
        reading.extra += extra
        reading.unknown += unknown

    def _places_of_unknown(self, levels: Mapping[Level, Sequence[Object]]) -> Iterable[int]:
        """Return the places of the objects that hold what no field names, at any level."""
        known = (map(self._known[level].issuperset, some) for level, some in levels.items())
        of_each = map(all, zip(*known, strict=True))
        return [place for place, all_known in enumerate(of_each) if not all_known]

    def _levels(self, served: Sequence[Json]) -> dict[Level, Sequence[Object]]:
        """Return the objects at each level of the shape; one that is null is empty."""
        levels: dict[Level, Sequence[Object]] = {(): _objects(served, ())}
        for level in self._known:
            if level:
                holders = levels[level[:-1]]
                levels[level] = _objects([holder.get(level[-1]) for holder in holders], level)
        return levels

    def _unknown(self, value: Object, level: Level) -> Object:
        """Return what no field names, in the shape in which it was served."""
        unknown: Object = {}
        for name, inner in value.items():
            if name not in self._known[level]:
                unknown[name] = inner
            elif isinstance(inner, dict) and (*level, name) in self._known:
                rest = self._unknown(inner, (*level, name))
                unknown |= {name: rest} if rest else {}
        return unknown

    def _names(self, unknown: Object, level: Level) -> Iterator[str]:
        """Yield the paths of what no field names."""
        for name, inner in unknown.items():
            if name in self._known[level] and isinstance(inner, dict):
                yield from self._names(inner, (*level, name))
            else:
                yield f"{self._prefix}{'.'.join((*level, name))}"


def listed(value: Json, path: str, session_id: str | None) -> Sequence[Json] | Reject:
    """Return the list at a path of an object: empty where there is none.

    Where something else is in its place, that is rejected.
    """
    level = ""
    for name in path.split("."):
        if value is None:
            return ()
        if not isinstance(value, dict):
            found = f"{level or 'it'} is {kind_of(value)}, not an object"
            return Reject(found, text_of(value), session_id)
        value = value.get(name)
        level = f"{level}.{name}" if level else name
    if value is None or isinstance(value, list):
        return value or ()
    return Reject(f"{path} is {kind_of(value)}, not a list", text_of(value), session_id)


def foreign(value: Json, name: str, asked: str | None, session_id: str | None) -> Reject | None:
    """Return the reject of an object that does not say it is about what was asked.

    `name` is its field that says so. All tables that an answer feeds return the same
    reject, which lands once.
    """
    told = value.get(name) if isinstance(value, dict) else None
    if isinstance(told, str) and asked is not None and told.lower() == asked.lower():
        return None
    reason = "is missing" if told is None else "is not what was asked"
    return Reject(f"{name} {reason}", text_of(value), session_id)


def without(value: Json, *paths: str) -> Json:
    """Return an object less what stands at these paths, which others read."""
    for path in paths:
        name, _, rest = path.partition(".")
        if isinstance(value, dict) and name in value:
            inner = {name: without(value[name], rest)} if rest else {}
            value = {key: kept for key, kept in value.items() if key != name} | inner
    return value


def surrounded(rows: Rows, holder: Json, landed: Collection[str], told: Collection[str]) -> Rows:
    """Return the rows of a list with what stands beside it in its holder.

    `landed` are fields that the rows hold or repeat, `told` other published ones. A
    body that says more than the rows do is kept.
    """
    beside = holder.keys() - landed if isinstance(holder, dict) else set()
    return msgspec.structs.replace(
        rows,
        unknown_fields=rows.unknown_fields | (beside - set(told)),
        keeps_body=bool(beside),
    )


def _proper(value: Json) -> Json:
    """Return a value that JSON proper can say, whoever reads it."""
    if not plain(value):
        raise Fault("a number is not finite")
    if not encodable(value):
        raise Fault("it holds characters that cannot be stored")
    return value


def _objects(values: Sequence[Json], level: Level) -> Sequence[Object]:
    if set(map(type, values)) <= _OBJECTS:
        return cast("Sequence[Object]", values)
    return [value if isinstance(value, dict) else _object(value, level) for value in values]


def _object(value: Json, level: Level) -> Object:
    if value is None and level:
        return {}
    if not isinstance(value, dict):
        raise Fault(f"{'.'.join(level) or 'it'} is {kind_of(value)}, not an object")
    return value


def _stretch_of(values: Callable[[], Sequence[int]], own: slice) -> Sequence[int]:
    return values()[own]


def _keys(
    key: Sequence[str], filled: Mapping[str, Sequence[Value]], parts: Sequence[_Part]
) -> list[int]:
    """Return the hash of each row's key. What the rows do not fill, they share."""
    columns = (filled[name] if name in filled else _shared_by_rows(parts, name) for name in key)
    return key_hashes(*columns)


def _shared_by_rows(parts: Sequence[_Part], name: str) -> Iterator[object]:
    """Yield for each row what its answer tells."""
    return chain.from_iterable(repeat(_shared(one.answer, name), one.rows) for one in parts)


def _shared(answer: Answer, name: str) -> object:
    """Return what all rows of an answer share in a key column, as it stands in a file."""
    if name == "_fetched_at":
        return _EPOCH + timedelta(microseconds=answer.fetched_at_us)
    return answer.test_id if name == "test_id" else answer.session_id


def _column(kind: Kind, path: str, values: Sequence[Json]) -> Sequence[Value]:
    try:
        return kind.read(values)
    except Fault as fault:
        raise Fault(f"{path} {fault}") from None
