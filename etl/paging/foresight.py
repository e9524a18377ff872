"""Foresees the pages of a look: those that paging would ask of a listing that rests.

No rule of paging is told twice here: the sweep itself reads pages made up from what is known.
"""

from collections import Counter
from collections.abc import Collection
from typing import Final

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
    rows = known.ids if known.whole else (*known.ids, *range(-1, len(known.ids) - total - 1, -1))
    echoed = known.total if known.whole else total
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


def _served(rows: tuple[int, ...], total: int | None, ask: PageAsk, now_us: int) -> PageView:
    """Return a page as an API serves it that counts pages from 1 and lowers no page size."""
    start = ask.start or 0
    return PageView(rows[start : start + ask.rows], ask.rows, start, total, now_us)
