"""Holds rows until their files are there: a row lands once, when it is final.

What a list told of an object waits in its test's record, as it is to land; a receipt of the
object's file makes a row of it.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from etl.client.values import Answer
from etl.lake.personal import PersonalData
from etl.ledger.held import not_there_yet, release
from etl.ledger.records import Held, Record, Session
from etl.tables.receipts import Became, Receipt, packed_row, unpacked_row
from etl.tables.values import AnyTable, Cells, Rows, array_of, key_hash, plain

_EXTRA: Final = "_extra"


@dataclass(frozen=True, slots=True)
class Again:
    """Which rows of a list that have landed land once more.

    Those at the places `replacing` do where they differ; all of them where they were asked
    for `afresh`, since their files may have changed or been lost.
    """

    replacing: Container[int]
    afresh: bool

    def holds(self, place: int, *, changed: bool) -> bool:
        """Say whether a row is held again."""
        return place in self.replacing and (changed or self.afresh)


def hold(
    record: Record,
    table: AnyTable,
    answer: Answer,
    rows: Rows,
    again: Again,
    session: Session | None,
) -> int:
    """Hold the rows of a list that have not landed, or are to replace those that have.

    `session` is the one that they belong to. Returns how many are answered differently now,
    and stay as they landed.
    """
    landed, waiting = record.rows_of(table.name), record.held.setdefault(table.name, {})
    stale, edited = record.stale_of(table.name), 0
    objects, hashes = _rows_by_object(table, rows), rows.hashes
    for place, (object_id, row) in enumerate(objects):
        key, row_hash = rows.keys[place], hashes[place]
        differs = landed.get(key, row_hash) != row_hash
        if key in landed and not again.holds(place, changed=differs or key in stale):
            if differs:
                landed[key] = row_hash
                stale.add(key)
                edited += 1
            continue
        known = waiting.get(object_id)
        waiting[object_id] = Held(
            session_id=answer.session_id,
            started_at_us=None if session is None else session.started_at_us,
            finished_at_us=None if session is None else session.finished_at_us,
            seen_at_us=answer.fetched_at_us if known is None else known.seen_at_us,
            hash=row_hash,
            row=row,
        )
    return edited


def _rows_by_object(table: AnyTable, rows: Rows) -> Iterator[tuple[str, bytes]]:
    """Yield each row under the id of its object."""
    (key,) = table.key
    values_of = {name: plain(column).to_pylist() for name, column in rows.columns.items()}
    own_extra = rows.own_extra
    for place, object_id in enumerate(values_of[key]):
        row = {name: values[place] for name, values in values_of.items()}
        extra = None if own_extra is None else own_extra[place]
        yield str(object_id), packed_row({**row, _EXTRA: extra})


@dataclass(frozen=True, slots=True)
class Settled:
    """A row that is final: what became of its file, and the session that it belongs to.

    `replaces` is the key under which it landed before, if it has.
    """

    receipt: Receipt
    rows: Rows
    session: Session
    replaces: int | None


def settle(
    record: Record, table: AnyTable, answer: Answer, receipt: Receipt, personal: PersonalData
) -> Settled | None:
    """Make a receipt's row of what was held, and cover it; None while it is not final.

    What is not there yet is given up after a week. A receipt that comes twice makes no row.
    """
    assert table.files is not None  # noqa: S101 - only such tables have receipts
    endpoint, object_id = table.files.receipt.name, answer.object_id or ""
    if receipt.became is Became.PENDING:
        if not_there_yet(record, table.name, endpoint, object_id, answer.fetched_at_us):
            return None
        receipt = Receipt(Became.GIVEN_UP, reason="the API has not made it for a week")
    held = release(record, table.name, endpoint, object_id)
    if held is None:
        return None
    key = key_hash([object_id])
    landed = record.rows_of(table.name)
    before = key if key in landed else None
    landed[key] = held.hash
    record.stale_of(table.name).discard(key)
    columns = {column.name: column.type for column in table.columns}
    hashed = partial(list[int], [held.hash])
    told = receipt.told()
    of_file = {name: Cells(columns[name], [value]) for name, value in told.items()}
    hidden = personal.rows(table, answer, Rows([key], hashed, of_file)).cells
    row = unpacked_row(held.row)
    of_row = {
        name: Cells(kind, [row.get(name)])
        for name, kind in columns.items()
        if name not in (*told, "test_id", "session_id")
    }
    # What is hidden is Arrow; so are then all of them.
    cells = {name: array_of(some) for name, some in (of_row | dict(hidden)).items()}
    rows = Rows([key], hashed, cells, extra=[row.get(_EXTRA)])
    return Settled(receipt, rows, held.session, before)
