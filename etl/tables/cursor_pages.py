"""Reads the pages of the older API, where each entry says how to go on behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from etl.client.values import UnreadableBodyError
from etl.tables.json_text import Json, document, storable

_BETWEEN = "?after="


@dataclass(frozen=True, slots=True)
class CursorPage:
    """A page as read: its entries, and the cursor behind the last one.

    `cursor` is None where there are no more entries to ask for; `holder` is what the
    entries stand in, the entries themselves where that is nothing else.
    """

    entries: Sequence[Json] = field(repr=False)
    holder: Json = field(repr=False)
    cursor: str | None
    odd: bool


def cursor_page(body: bytes, name: str | None, what: str) -> CursorPage:
    """Read an array, or the one of this name in an object; raises UnreadableBodyError."""
    read = document(body)
    entries = read.value
    if name is not None:
        entries = entries.get(name) if isinstance(entries, dict) else None
    if not isinstance(entries, list):
        raise UnreadableBodyError(f"it is not {what}")
    return CursorPage(entries, read.value, cursor_in(entries[-1] if entries else None), read.odd)


def object_id_of(uuid: str, cursor: str | None) -> str:
    """Return the object id that names a page, such as one of a workspace's tests."""
    return uuid if cursor is None else f"{uuid}{_BETWEEN}{cursor}"


def uuid_and_cursor(object_id: str) -> tuple[str, str | None]:
    """Return what `object_id_of` was given."""
    uuid, between, cursor = object_id.partition(_BETWEEN)
    return uuid, cursor if between else None


def cursor_in(entry: Json) -> str | None:
    """Return an entry's cursor, where it has one that can be asked for."""
    cursor = entry.get("cursor") if isinstance(entry, dict) else None
    return cursor if isinstance(cursor, str) and cursor and storable(cursor) else None
