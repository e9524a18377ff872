"""Fields that the API answered and no table knows: counted over all runs, by their path."""

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

MOST_FIELDS: Final = 200
OTHER_FIELDS: Final = "(others)"


@dataclass(frozen=True, slots=True)
class UnknownField:
    """A field that no table knows: when it was first and last answered, and how often."""

    field: str
    first_seen_us: int
    last_seen_us: int
    answers: int


def note_field(
    noted: dict[str, UnknownField], field: str, at_us: int, earlier: Collection[str] = ()
) -> None:
    """Note that an answer held a field; `earlier` are those that the run noted before."""
    name = _counted_as(field, noted.keys() | earlier)
    seen = noted.get(name, UnknownField(name, at_us, at_us, 0))
    noted[name] = replace(
        seen,
        first_seen_us=min(seen.first_seen_us, at_us),
        last_seen_us=max(seen.last_seen_us, at_us),
        answers=seen.answers + 1,
    )


def _counted_as(field: str, known: Collection[str]) -> str:
    """Return the name that a field is counted under: servers may invent names without end."""
    return field if field in known or len(known) < MOST_FIELDS else OTHER_FIELDS


def count_fields(database: sqlite3.Connection, noted: Iterable[UnknownField]) -> list[str]:
    """Add to what earlier runs counted; return the fields that none of them met."""
    known = {field for (field,) in database.execute("SELECT field FROM unknown_fields")}
    met = []
    for seen in noted:
        name = _counted_as(seen.field, known)
        if name not in known:
            known.add(name)
            met.append(name)
        database.execute(
            "INSERT INTO unknown_fields VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET "
            "first_seen_us = min(first_seen_us, ?2), last_seen_us = max(last_seen_us, ?3), "
            "answers = answers + ?4",
            (name, seen.first_seen_us, seen.last_seen_us, seen.answers),
        )
    return met


def read_fields(database: sqlite3.Connection) -> list[UnknownField]:
    """Return the fields that were counted, the newest last; none where no run ever did."""
    (there,) = database.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name = 'unknown_fields'"
    ).fetchone()
    if not there:  # of an older version, and not migrated by looking at it
        return []
    found = database.execute(
        "SELECT field, first_seen_us, last_seen_us, answers FROM unknown_fields "
        "ORDER BY first_seen_us, field"
    )
    return [UnknownField(*row) for row in found]
