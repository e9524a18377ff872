"""Reads the answers of a frame many at a time, before they are rendered one by one.

A session's details make a dozen rows for each of four tables. Read answer by answer, half of
the time goes into calls that would serve a hundred of them as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeGuard

from etl.client.values import Fetched
from etl.ledger.values import Looked
from etl.tables.values import AnyTable, Rows

Item: TypeAlias = Fetched[Any] | Looked
Read: TypeAlias = Mapping[str, Rows]
"""The rows that were made of an answer already, by table."""

NOTHING: Final[Read] = MappingProxyType({})

_AT_ONCE: Final = 128


def read_ahead(items: Sequence[Item], tables: Sequence[AnyTable]) -> Iterator[tuple[Item, Read]]:
    """Yield items in their order, each with the rows of the tables that read many at once."""
    for start in range(0, len(items), _AT_ONCE):
        some = items[start : start + _AT_ONCE]
        read = [dict[str, Rows]() for _ in some]
        for table in tables:
            if table.rows_of_each is None:
                continue
            fed = [
                (into, item) for into, item in zip(read, some, strict=True) if _feeds(item, table)
            ]
            found = table.rows_of_each([item for _, item in fed])
            for (into, _), rows in zip(fed, found, strict=True):
                into[table.name] = rows
        yield from zip(some, read, strict=True)


def _feeds(item: Item, table: AnyTable) -> TypeGuard[Fetched[Any]]:
    """Say whether a table makes rows of an item: of an answer that came and could be read."""
    if isinstance(item, Looked) or item.content is None:
        return False
    return item.answer.endpoint == table.endpoint.name and item.answer.status == 200
