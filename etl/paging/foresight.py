"""Foresees the pages of a look: those that paging would ask of a listing that rests.

No rule of paging is told twice here: the sweep itself reads pages made up from what is known.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final

from etl.paging import cursors
from etl.paging import sweep as sweeps
from etl.paging.dialect import Dialect, after_answer, head_ask
from etl.paging.values import Listing, PageAsk, PageView

FIRST: Final = "first pages"
DEEPER: Final = "deeper pages"
PROOFS: Final = "proofs"


def pages_ahead(
    known: Listing,
    total: int | None,
    dialect: Dialect,
    *,
    audit: str,
    now_us: int,
    paid: Collection[str] = (),
) -> Counter[str]:
    """Return how many pages a look asks, by kind, if the listing is still as it was.

    `total` is how many rows it has, None where nobody knows: then its first page is all that
    can be foreseen. `paid` are pages, by their spelling, that have come and wait to be read.
    """
    asked: Counter[str] = Counter()
    if total is None:
        asked[FIRST] += head_ask(dialect).spelled() not in paid
        return asked
    rows, echoed = _rows_if_it_rests(known, total)
    sweep = sweeps.begin(sweeps.believed(known, now_us), audit=audit, now_us=now_us)
    sweep = sweeps.refreshed(sweep, now_us)
    while asks := sweeps.wanted(sweep, dialect, 1):
        (ask,) = asks
        kind = PROOFS if sweep.proof_of is not None else DEEPER if sweep.fresh else FIRST
        asked[kind] += ask.spelled() not in paid
        view = _served(rows, echoed, ask, now_us)
        dialect = after_answer(dialect, ask, view)
        sweep = sweeps.read(sweep, dialect, ask, view)
    return asked


def cursor_pages_ahead(known: Listing, total: int | None, *, audit: str, now_us: int) -> int:
    """Return how many pages a look by cursors asks, if the listing is still as it was.

    `total` is as for `pages_ahead`.
    """
    if total is None:
        return 1
    rows, echoed = _rows_if_it_rests(known, total)
    rows_of = {cursor: row for row, cursor in known.places}
    sweep = cursors.begin(sweeps.believed(known, now_us), audit=audit, now_us=now_us)
    sweep = cursors.refreshed(sweep, now_us)
    asked = 0
    while (ask := cursors.wanted(sweep)) is not None:
        asked += 1
        start = 0 if ask.after is None else rows_of[ask.after] + 1
        page = rows[start : start + cursors.PAGE_ROWS]
        row = max(0, len(page) - 2)
        cursor = f"of row {start + row}"
        rows_of[cursor] = start + row
        goes_on = (row, cursor) if page else None
        sweep = cursors.read(sweep, PageView(page, None, None, echoed, now_us, goes_on))
    return asked


def _rows_if_it_rests(known: Listing, total: int) -> tuple[tuple[int, ...], int | None]:
    """Return the rows of a listing that has not changed, and the total that it tells."""
    if known.whole:
        return known.ids, known.total
    return (*known.ids, *range(-1, len(known.ids) - total - 1, -1)), total


def _served(rows: tuple[int, ...], total: int | None, ask: PageAsk, now_us: int) -> PageView:
    """Return a page as an API serves it that counts pages from 1 and lowers no page size."""
    start = ask.start or 0
    return PageView(rows[start : start + ask.rows], ask.rows, start, total, now_us)
