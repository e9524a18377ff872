"""Reads a listing whose pages are asked by cursors, until they prove it or it is plain why not.

The older API tells neither where a page begins nor in which order its entries stand, nor
whether a cursor names a row or only its place. So nothing of that is relied on. A page is
asked behind the row before the last one known, and must begin with that last one: then no row
came between them or went. As in `sweep`, a listing is proved only if every page of a pass
tells one total, the pages connect, and the distinct rows equal it.

What is new may stand at the head or at the end. So a pass may join the listing known before:
behind its fresh rows or, where the head is as it was, in front of what follows the known end.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from etl.paging.connecting import row_where_it_connects, without_repeats
from etl.paging.sweep import MOST_PASSES, STALE_AFTER_US
from etl.paging.values import Listing, Outcome, PageView, Place, Verdict

PAGE_ROWS: Final = 50
"""The rows of a page (integrations-v1, `after`)."""

MOST_PAGES: Final = 2_000
"""How many pages a pass reads: a listing that is longer than their rows is called endless."""

_NONE_KNOWN: Final = Listing()


@dataclass(frozen=True, slots=True)
class CursorAsk:
    """A page to ask: the one behind a cursor, the first one where that is None."""

    after: str | None = None

    def query(self) -> tuple[tuple[str, str], ...]:
        """Return the query parameters that ask for this page."""
        return () if self.after is None else (("after", self.after),)

    def spelled(self) -> str:
        """Return the query as one string: the answer's key in inbox and lake."""
        return f"after={self.after or ''}"


@dataclass(frozen=True, slots=True)
class CursorSweep:
    """One look at a listing: frozen, fed page by page.

    `known` is what earlier looks or passes left, `fresh` what this pass holds from the head
    without a gap; `page_rows` is its longest page. `unjoined` is what to go on from where the
    rows that are missing turn out not to stand at the known end.
    """

    known: Listing
    began_at_us: int
    audit: bool
    joins: bool = True
    fresh: tuple[int, ...] = ()
    fresh_at_us: tuple[int, ...] = ()
    places: tuple[Place, ...] = ()
    total: int | None = None
    steady: bool = True
    pages: int = 0
    page_rows: int = 0
    counts_pages: bool = True
    pass_began_us: int = 0
    last_read_us: int = 0
    passes: int = 1
    came_round: bool = False
    unjoined: "CursorSweep | None" = None
    previous_end: tuple[tuple[int, ...], int | None] | None = None
    proof_from: Place | None = None
    verdict: Verdict | None = None

    @property
    def listing(self) -> Listing:
        """What is known now; a value to keep, from which a later look can go on."""
        if self.verdict is not None or not self.fresh:
            return self.known
        return Listing(
            self.fresh, self.fresh_at_us, False, self.total, self.last_read_us, None, self.places
        )


def begin(known: Listing, *, audit: str, now_us: int) -> CursorSweep:
    """Begin a look at a listing of which `known` is known.

    `audit` is the pipeline's: `off`, `rolling` (prove again the page proved longest ago) or
    `full` (read every page). A partial listing read lately is gone on with.
    """
    rolling = audit == "rolling" and known.whole
    sweep = CursorSweep(known, now_us, rolling, joins=audit != "full" or not known.whole)
    if known.whole or not known.places or now_us - known.read_at_us > STALE_AFTER_US:
        return sweep
    return replace(
        sweep,
        known=_NONE_KNOWN,
        fresh=known.ids,
        fresh_at_us=known.proved_at_us,
        places=known.places,
        total=known.total,
        pages=len(known.places),
        page_rows=known.places[0][0] + 1,
        counts_pages=False,
        pass_began_us=min(known.proved_at_us),
        last_read_us=known.read_at_us,
    )


def refreshed(sweep: CursorSweep, now_us: int) -> CursorSweep:
    """Return the sweep as it goes on now: from the head if its pages have gone stale."""
    if not sweep.fresh or now_us - sweep.last_read_us <= STALE_AFTER_US:
        return sweep
    return replace(_from_the_head(sweep, sweep.listing, sweep.passes), joins=True)


def wanted(sweep: CursorSweep) -> CursorAsk | None:
    """Return the page to ask now, or None once there is a verdict."""
    if sweep.verdict is not None:
        return None
    if sweep.proof_from is not None:
        return CursorAsk(sweep.proof_from[1])
    return CursorAsk(sweep.places[-1][1] if sweep.fresh else None)


def read(sweep: CursorSweep, view: PageView) -> CursorSweep:
    """Return the sweep after the page it wants; one older than the pass proves nothing to it."""
    page = without_repeats(view.ids)
    if sweep.proof_from is not None:
        return _proved_again(sweep, sweep.proof_from, page, view)
    if sweep.fresh and view.read_at_us < sweep.pass_began_us:
        return sweep
    meets_at = row_where_it_connects(sweep.fresh, page, _behind(sweep))
    if meets_at is None:
        return not_connected(replace(sweep, total=view.total))
    return _decided(_grown(sweep, page, meets_at, view), sweep, page)


def _behind(sweep: CursorSweep) -> int:
    """Return the row with which the page that is wanted ought to begin."""
    return sweep.places[-1][0] + 1 if sweep.fresh else 0


def not_connected(sweep: CursorSweep) -> CursorSweep:
    """Return the sweep after a page that does not follow what is known, or was refused."""
    if sweep.proof_from is not None:
        sweep = replace(sweep, joins=False)
        return _from_the_head(sweep, sweep.known, sweep.passes + 1)
    if sweep.unjoined is not None:
        return sweep.unjoined
    return _next_pass(sweep, whole=False)


def _grown(sweep: CursorSweep, page: tuple[int, ...], meets_at: int, view: PageView) -> CursorSweep:
    """Return the sweep with a page that connects: its rows appended and proved."""
    at = sweep.fresh_at_us
    return replace(
        sweep,
        fresh=sweep.fresh + page[len(sweep.fresh) - meets_at :],
        fresh_at_us=at[:meets_at] + (view.read_at_us,) * len(page) + at[meets_at + len(page) :],
        places=_with_place(sweep.places, meets_at, page, view),
        total=view.total,
        steady=sweep.steady and (not sweep.fresh or view.total == sweep.total),
        pages=sweep.pages + 1,
        page_rows=max(sweep.page_rows, len(page)),
        counts_pages=sweep.counts_pages and view.total == len(view.ids),
        pass_began_us=sweep.pass_began_us if sweep.fresh else view.read_at_us,
        last_read_us=max(sweep.last_read_us, view.read_at_us),
    )


def _with_place(
    places: tuple[Place, ...], first: int, page: tuple[int, ...], view: PageView
) -> tuple[Place, ...]:
    """Return the places with the one from which a page that begins at row `first` goes on."""
    if view.goes_on is None:
        return places
    row, cursor = view.goes_on
    place = first + page.index(view.ids[row])
    before = tuple(known for known in places if known[0] < place)
    after = tuple(known for known in places if known[0] > place)
    return (*before, (place, cursor), *after)


def _decided(sweep: CursorSweep, before: CursorSweep, page: tuple[int, ...]) -> CursorSweep:
    """Decide after a page that connects: proved, joined, at the end, or read on.

    A full page that fits the total is not the end. Rows that went since they were read may make
    up for some behind it; and the published words leave room for a total of the page's rows.
    """
    brings_rows = len(sweep.fresh) > len(before.fresh)
    if not brings_rows and len(page) > len(before.fresh) - _behind(before):
        return _ended(replace(sweep, came_round=True))
    if sweep.joins and brings_rows and sweep.known.ids:
        sweep = _joined(sweep)
        if not sweep.fresh or sweep.unjoined is not None:
            return sweep  # it ends here, begins anew, or looks behind the known end
    goes_on = brings_rows and sweep.places[-1:] != before.places[-1:]
    full_rows = sweep.page_rows if before.pages else PAGE_ROWS
    fits = len(sweep.fresh) == sweep.total and len(page) < full_rows
    return sweep if goes_on and not fits and sweep.pages < MOST_PAGES else _ended(sweep)


def _joined(sweep: CursorSweep) -> CursorSweep:
    """Join the fresh rows with those known before, if they meet and the total is explained."""
    known = sweep.known
    try:
        meets_at = known.ids.index(sweep.fresh[-1]) + 1
    except ValueError:
        return sweep
    if not set(sweep.fresh).isdisjoint(known.ids[meets_at:]):
        return sweep
    joined = _with_the_rest(sweep, known, meets_at)
    if not known.whole:
        return joined
    if not sweep.steady:
        return _next_pass(joined, whole=True)
    told = (sweep.total or 0, len(joined.fresh))
    may_count_its_page = sweep.pages == 1 and sweep.total == len(sweep.fresh) >= PAGE_ROWS
    if told[0] == told[1] and not may_count_its_page:
        return _verified(joined)
    if known.doubt is not None and (sweep.total, joined.fresh) == (known.total, known.ids):
        return _closed(joined, known.doubt)
    if sweep.pages == 1 and joined.fresh == known.ids and told[0] > told[1] and known.places:
        return replace(joined, unjoined=sweep)
    return sweep


def _with_the_rest(sweep: CursorSweep, known: Listing, meets_at: int) -> CursorSweep:
    """Return the sweep with the known rows from `meets_at` on behind its own."""
    moved = len(sweep.fresh) - meets_at
    behind = [(row + moved, cursor) for row, cursor in known.places if row >= meets_at]
    return replace(
        sweep,
        known=_NONE_KNOWN,
        fresh=sweep.fresh + known.ids[meets_at:],
        fresh_at_us=sweep.fresh_at_us + known.proved_at_us[meets_at:],
        places=_thinned((*sweep.places, *behind), sweep.page_rows),
    )


def _thinned(places: Iterable[Place], page_rows: int) -> tuple[Place, ...]:
    """Return as few of the places as it takes for pages of so many rows to reach every row."""
    kept: list[Place] = []
    for place in places:
        while len(kept) > 1 and place[0] - kept[-2][0] < page_rows:
            kept.pop()
        kept.append(place)
    return tuple(kept)


def _ended(sweep: CursorSweep) -> CursorSweep:
    """Judge a pass that has read as far as the pages go."""
    fits = sweep.total == len(sweep.fresh) == len(set(sweep.fresh))
    if sweep.unjoined is not None and not (fits and sweep.steady):
        return sweep.unjoined
    if sweep.total is None or (sweep.counts_pages and sweep.pages > 1):
        return _closed(sweep, Outcome.NO_TOTAL)
    if sweep.pages >= MOST_PAGES:
        return _closed(sweep, Outcome.ENDLESS)
    if not sweep.steady:
        return _next_pass(sweep, whole=True)
    if fits:
        return _verified(sweep)
    end = (sweep.fresh, sweep.total)
    if sweep.previous_end == end:
        return _closed(sweep, Outcome.ENDLESS if sweep.came_round else Outcome.DISAGREES)
    return _next_pass(replace(sweep, previous_end=end, joins=False), whole=True)


def _verified(sweep: CursorSweep) -> CursorSweep:
    """Close as proved, or ask first for the page of the row that was proved longest ago."""
    closed = _closed(sweep, Outcome.VERIFIED)
    proved_at = closed.known.proved_at_us
    oldest = min(proved_at, default=sweep.began_at_us)
    if not sweep.audit or oldest >= sweep.began_at_us:
        return closed
    row = proved_at.index(oldest)
    before = [place for place in closed.known.places if place[0] < row]
    if not before:
        return closed  # on the first page, or where no cursor leads
    return replace(closed, verdict=None, proof_from=before[-1], audit=False)


def _proved_again(
    sweep: CursorSweep, asked: Place, page: tuple[int, ...], view: PageView
) -> CursorSweep:
    """Close if the page is a stretch of the listing, as it should be; else read all again."""
    listing = sweep.known
    row = listing.ids.index(page[0]) if page and page[0] in listing.ids else None
    if view.total != listing.total:
        return _from_the_head(sweep, listing, sweep.passes + 1)
    if row is None or listing.ids[row : row + len(page)] != page:
        return not_connected(sweep)
    due = listing.proved_at_us.index(min(listing.proved_at_us))
    if row > asked[0] and row + len(page) <= due:
        return not_connected(sweep)  # it would hold the row if that were still there
    at, places = listing.proved_at_us, _put_right(listing.places, asked, row)
    known = replace(
        listing,
        proved_at_us=at[:row] + (view.read_at_us,) * len(page) + at[row + len(page) :],
        places=_thinned(_with_place(places, row, page, view), len(page)),
    )
    verdict = Verdict(Outcome.VERIFIED, len(listing.ids), listing.total)
    return replace(sweep, known=known, verdict=verdict)


def _put_right(places: tuple[Place, ...], asked: Place, row: int) -> tuple[Place, ...]:
    """Return the places as they are where the page behind one of them began at this row.

    A cursor that names a place stands before another row once rows have come in front of it.
    """
    moved = row - 1 - asked[0]
    before = (place for place in places if place[0] < min(asked[0], row - 1))
    return (*before, *((at + moved, cursor) for at, cursor in places if at >= asked[0]))


def _closed(sweep: CursorSweep, outcome: Outcome) -> CursorSweep:
    """End the look: what is fresh is the listing, and this is what it is worth."""
    listing = Listing(
        ids=sweep.fresh,
        proved_at_us=sweep.fresh_at_us,
        whole=True,
        total=sweep.total,
        read_at_us=sweep.last_read_us,
        doubt=outcome if outcome in (Outcome.DISAGREES, Outcome.ENDLESS) else None,
        places=_thinned(sweep.places, sweep.page_rows),
    )
    verdict = Verdict(outcome, len(sweep.fresh), sweep.total)
    return replace(sweep, known=listing, fresh=(), fresh_at_us=(), verdict=verdict)


def _next_pass(sweep: CursorSweep, *, whole: bool) -> CursorSweep:
    """Read again from the head, or leave it to the next run after the third pass.

    `whole` says that the fresh rows reach to the end, so that the next pass may join them;
    rows that did not connect are no ground to build on.
    """
    left = replace(sweep.listing, whole=whole)
    if sweep.passes < MOST_PASSES:
        return _from_the_head(sweep, left if whole else _NONE_KNOWN, sweep.passes + 1)
    verdict = Verdict(Outcome.UNSTEADY, len(left.ids), sweep.total)
    return replace(sweep, known=left, fresh=(), fresh_at_us=(), verdict=verdict)


def _from_the_head(sweep: CursorSweep, known: Listing, passes: int) -> CursorSweep:
    return CursorSweep(
        known,
        sweep.began_at_us,
        sweep.audit,
        joins=sweep.joins,
        passes=passes,
        previous_end=sweep.previous_end,
    )
