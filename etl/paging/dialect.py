"""Learns how the API spells a page, believing only what its answers echo.

The vendor's pages disagree: one names `rowsPerPage` and `pageNumber`, another `limit`
and `offset`, and neither says whether page numbers count from 0. A server that does not
know a parameter ignores it and answers its defaults, so the echo is the only evidence.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec

from etl.config.models import Pagination
from etl.paging.values import DEFAULT_ROWS, REACH_OFFSET, PageAsk, PageView, Style


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask this API for pages, and whether an echo has confirmed it.

    `rows` is the page size to ask; `capped` says that the server lowered it.
    `first_page` is the number of the first page in `page` style, None until known.
    `may_change` says that an answer which shows misunderstanding moves it to `offset`.
    `page_rows` is a page size to come back with, if `offset` is not understood either.
    """

    style: Style
    rows: int
    first_page: int | None
    settled: bool = False
    capped: bool = False
    may_change: bool = False
    page_rows: int | None = None


def first_dialect(pagination: Pagination) -> Dialect:
    """Return the dialect to start with where nothing has been learned yet."""
    return Dialect(
        style=Style.OFFSET if pagination.style == "offset" else Style.PAGE,
        rows=pagination.rows_per_page,
        first_page=None if pagination.first_page == "auto" else pagination.first_page,
        may_change=pagination.style == "auto",
    )


def known_dialect(learned: Dialect, pagination: Pagination) -> Dialect:
    """Return what was learned before as far as `pagination` still allows it."""
    fresh = first_dialect(pagination)
    if pagination.style not in ("auto", learned.style):
        return fresh
    if fresh.first_page not in (None, learned.first_page) and learned.style is Style.PAGE:
        return fresh
    rows = min(learned.rows, fresh.rows) if learned.capped else fresh.rows
    return replace(learned, rows=rows, may_change=fresh.may_change)


def remembered(note: str | None, pagination: Pagination) -> Dialect:
    """Return the dialect to start with: as noted earlier, where the pipeline still allows it."""
    if not note:
        return first_dialect(pagination)
    return known_dialect(msgspec.json.decode(note, type=Dialect), pagination)


def head_ask(dialect: Dialect) -> PageAsk:
    """Return the ask for a listing's first page."""
    if dialect.style is Style.OFFSET:
        return PageAsk(Style.OFFSET, dialect.rows, start=0)
    if dialect.first_page is None:
        return PageAsk(Style.PAGE, dialect.rows, start=None, number=1)
    return PageAsk(Style.PAGE, dialect.rows, start=0, number=dialect.first_page)


def ask_from(dialect: Dialect, last_start: int) -> PageAsk | None:
    """Return the ask that starts at or before `last_start` and ends furthest.

    Pages of a few rows cannot always overlap (10 rows or fewer in `page` style): then
    it starts at the row behind. None where the reach ends: nothing new can be shown.
    """
    if dialect.style is Style.PAGE and dialect.first_page is None:
        return head_ask(dialect)  # only its echo can tell where any page is
    if dialect.style is Style.OFFSET:
        start, rows = min(last_start, REACH_OFFSET), dialect.rows
    else:
        rows, page = _furthest_page(last_start, dialect.rows)
        start = rows * page
    if start + rows <= last_start + 1:
        start, rows = last_start + 1, dialect.rows
        if start > REACH_OFFSET:
            return None
    if dialect.style is Style.OFFSET:
        return PageAsk(Style.OFFSET, rows, start)
    return PageAsk(Style.PAGE, rows, start, start // rows + (dialect.first_page or 0))


def rows_in_reach(dialect: Dialect) -> int:
    """Return how many of a listing's rows, from its head, the API's pages can show."""
    if dialect.style is Style.OFFSET:
        return REACH_OFFSET + dialect.rows
    rows, page = _furthest_page(REACH_OFFSET, dialect.rows)
    return rows * (page + 1)


def ask_holding(dialect: Dialect, row: int) -> PageAsk:
    """Return the ask for a page that holds `row`, which must be one of `rows_in_reach`."""
    rows, start = dialect.rows, row // dialect.rows * dialect.rows
    if dialect.style is Style.OFFSET:
        return PageAsk(Style.OFFSET, rows, min(start, REACH_OFFSET))
    if dialect.first_page is None:
        return head_ask(dialect)
    if start > REACH_OFFSET:
        rows, page = _furthest_page(REACH_OFFSET, dialect.rows)
        start = rows * page
    return PageAsk(Style.PAGE, rows, start, start // rows + dialect.first_page)


@lru_cache(maxsize=4096)
def _furthest_page(last_start: int, cap: int) -> tuple[int, int]:
    """Return (rows, page from 0) of the page at or before `last_start` that ends furthest."""
    best = (0, 0, 0)
    for rows in range(cap, 0, -1):
        if rows <= best[0] - last_start:
            break  # smaller pages cannot end further
        page = min(last_start, REACH_OFFSET) // rows
        best = max(best, (rows * (page + 1), rows, page))
    return best[1], best[2]


def after_answer(dialect: Dialect, ask: PageAsk, view: PageView) -> Dialect:
    """Return what this answer teaches about the spelling; pure, and idempotent."""
    if view.limit is None or view.offset is None:
        return _to_offset(dialect) if ask.style is Style.PAGE else dialect
    if view.limit <= 0 or view.limit > ask.rows:
        return _to_offset(dialect) if ask.style is Style.PAGE else dialect
    if dialect.settled or ask.style is not dialect.style:
        return _capped(dialect, ask, view)
    if ask.style is Style.OFFSET:
        return _offset_learned(dialect, ask, view)
    return _first_page_learned(dialect, ask, view)


def after_bad_request(dialect: Dialect) -> Dialect | None:
    """Return the dialect to try after a 400, or None where there is no other."""
    moved = _to_offset(dialect)
    return None if moved == dialect else moved


def position(ask: PageAsk, view: PageView) -> int | None:
    """Return the row at which the page as served begins: its echo, else as asked."""
    return ask.start if view.offset is None else view.offset


def wrong_echo(dialect: Dialect, ask: PageAsk, view: PageView) -> str | None:
    """Return what is wrong with the echo of a settled dialect's page, else None."""
    if not dialect.settled or ask.start is None:
        return None
    if view.limit is None or view.offset is None:
        return "the answer echoes no pagination, though earlier ones did"
    if view.limit > ask.rows or view.limit <= 0:
        return f"the answer echoes limit {view.limit}, but {ask.rows} rows were asked"
    capped_start = ask.start // ask.rows * view.limit if ask.style is Style.PAGE else ask.start
    if view.offset not in (ask.start, capped_start):
        return f"the answer echoes offset {view.offset}, but row {ask.start} was asked"
    return None


def _to_offset(dialect: Dialect) -> Dialect:
    if dialect.settled or not dialect.may_change or dialect.style is Style.OFFSET:
        return dialect
    return replace(dialect, style=Style.OFFSET)


def _capped(dialect: Dialect, ask: PageAsk, view: PageView) -> Dialect:
    """A smaller limit than asked is the server's cap, and becomes the page size.

    Not where the page itself holds more rows: such an echo would make every page small, and
    for ever, since a cap is remembered.
    """
    if view.limit is None or view.limit >= min(ask.rows, dialect.rows):
        return dialect
    if len(view.ids) > view.limit:
        return dialect
    return replace(dialect, rows=view.limit, capped=True)


def _offset_learned(dialect: Dialect, ask: PageAsk, view: PageView) -> Dialect:
    """Believe `limit` and `offset` where the echo can only mean that they were read.

    A smaller limit at offset 0 may be a cap or a default, and so may the one that `page`
    style was answered: the next page tells.
    """
    if view.offset != ask.start:
        if dialect.page_rows is None:
            return dialect
        return Dialect(Style.PAGE, dialect.page_rows, first_page=None, capped=True)
    if ask.start or (view.limit == ask.rows and view.limit != dialect.page_rows):
        return replace(_capped(dialect, ask, view), settled=True)
    return dialect


def _first_page_learned(dialect: Dialect, ask: PageAsk, view: PageView) -> Dialect:
    """Read from the echoed offset whether page numbers count from 0 or from 1."""
    if (
        (view.limit != ask.rows or view.limit == DEFAULT_ROWS)
        and view.offset == 0
        and dialect.may_change
    ):
        # A cap, what was asked, and a default look alike; `limit` and `offset` tell them apart.
        return replace(_to_offset(dialect), page_rows=view.limit)
    limit, offset, number = view.limit, view.offset, ask.number
    if not limit or offset is None or number is None or offset % limit:
        return _to_offset(dialect)
    first_page = number - offset // limit
    if first_page not in (0, 1):
        return _to_offset(dialect)
    return replace(_capped(dialect, ask, view), first_page=first_page, settled=True)
