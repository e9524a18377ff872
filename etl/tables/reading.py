"""Reads served objects into columns, as a list of fields says.

All rows are read at once, column by column. Where that meets a fault they are read one
by one in the same way, so that a bad value costs its row; what no field names is kept.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Final, TypeAlias, cast

import msgspec

from etl.client.values import Answer
from etl.tables.json_text import Json, canonical, encodable, kind_of, plain, text_of
from etl.tables.kinds import Fault, Kind
from etl.tables.values import Cells, Column, Reject, Rows, Value, key_hash, key_hashes, row_hash

Object: TypeAlias = "dict[str, Json]"
Level: TypeAlias = tuple[str, ...]
"""Where an object stands in another: the names that lead to it."""

_OBJECTS: Final = {dict}
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


@dataclass(slots=True)
class Reading:
    """What was read of some served objects, and the rejects of those that could not be.

    `places` are the places of the objects read among those served; `values` holds a
    value for each of them, by column, and `extra` what no field names, as JSON.
    `derived` are columns that the table makes of the objects: no part of a row's hash.
    """

    values: dict[str, list[Value]]
    derived: dict[str, list[Value]] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    extra: list[str | None] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


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
        reading = Reading({column: [] for column, *_ in self._fields})
        self._add(reading, served, session_id, odd=odd)
        return reading

    def read_each(
        self, served: Iterable[tuple[str | None, Sequence[Json] | Reject]], *, odd: bool
    ) -> Reading:
        """Read the objects of several sessions, each given its id, which becomes a column."""
        reading = self.read(())
        session_ids: list[Value] = []
        for session_id, objects in served:
            before = len(reading.places)
            self._add(reading, objects, session_id, odd=odd)
            session_ids += [session_id] * (len(reading.places) - before)
        reading.derived["session_id"] = session_ids
        return reading

    def rows(self, reading: Reading, answer: Answer, key: Sequence[str]) -> Rows:
        """Return what was read as rows; `key` names the columns of the table's key.

        A key column that the objects do not fill is one that the answer does.
        """
        count = len(reading.places)
        filled: dict[str, Sequence[Value]] = {**reading.values, **reading.derived}
        if self._place is not None:
            filled[self._place.name] = reading.places
        # Named values without those that are null: a column added later changes no hash.
        named = map(self._row, *reading.values.values())
        return Rows(
            keys=_keys(key, filled, answer, count),
            hashes=list(map(row_hash, map(_encode, named))),
            cells=self._cells(filled, count),
            extra=reading.extra if any(reading.extra) else None,
            rejects=reading.rejects,
            unknown_fields=frozenset(reading.unknown),
        )

    def _cells(self, values: Mapping[str, Sequence[Value]], count: int) -> dict[str, Cells]:
        """Return the cells of every column; null where nothing was read for it."""
        nothing: Sequence[Value] = [None] * count
        return {
            column.name: Cells(column.type, values.get(column.name, nothing))
            for column in self.columns
        }

    def _add(
        self,
        reading: Reading,
        served: Sequence[Json] | Reject,
        session_id: str | None,
        *,
        odd: bool,
    ) -> None:
        """Read objects, all at once; one by one where that meets a fault."""
        if isinstance(served, Reject):
            reading.rejects.append(served)
            return
        try:
            if not odd:
                self._take(reading, served, range(len(served)))
                return
        except Fault:
            pass  # told below, of the row that has it
        for place, value in enumerate(served):
            try:
                self._take(reading, [_proper(value)], [place])
            except Fault as fault:
                reading.rejects.append(Reject(str(fault), text_of(value), session_id))

    def _take(self, reading: Reading, served: Sequence[Json], places: Collection[int]) -> None:
        """Add objects to what has been read: all of them, or none and a Fault."""
        levels = self._levels(served)
        read = {
            column: _column(kind, path, [holder.get(name) for holder in levels[level]])
            for column, path, level, name, kind in self._fields
        }
        unknown = {
            f"{self._prefix}{'.'.join((*level, name))}"
            for level, objects in levels.items()
            for name in set().union(*objects) - self._known[level]
        }
        for column, values in read.items():
            reading.values[column] += values
        reading.places += places
        reading.unknown |= unknown
        reading.extra += (
            [self._extra(value) for value in levels[()]] if unknown else [None] * len(served)
        )

    def _levels(self, served: Sequence[Json]) -> dict[Level, Sequence[Object]]:
        """Return the objects at each level of the shape; one that is null is empty."""
        levels: dict[Level, Sequence[Object]] = {(): _objects(served, ())}
        for level in self._known:
            if level:
                holders = levels[level[:-1]]
                levels[level] = _objects([holder.get(level[-1]) for holder in holders], level)
        return levels

    def _extra(self, value: Object) -> str | None:
        unknown = self._unknown(value, ())
        return canonical(unknown) if unknown else None

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
    return replace(
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
    return [_object(value, level) for value in values]


def _object(value: Json, level: Level) -> Object:
    if value is None and level:
        return {}
    if not isinstance(value, dict):
        raise Fault(f"{'.'.join(level) or 'it'} is {kind_of(value)}, not an object")
    return value


def _keys(
    key: Sequence[str], filled: Mapping[str, Sequence[Value]], answer: Answer, count: int
) -> Sequence[int]:
    """Return the hash of each row's key. What the rows do not fill, they share."""
    own = [filled.get(name) for name in key]
    if own[-1] is not None and not any(own[:-1]):
        before = [_shared(answer, name) for name in key[:-1]]
        return key_hashes(before, own[-1])
    parts = [
        repeat(_shared(answer, name), count) if column is None else column
        for name, column in zip(key, own, strict=True)
    ]
    return list(map(key_hash, zip(*parts, strict=True)))


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
