"""Reads a test's pages until they prove its listing, and says when they cannot.

Rows shift while one pages: new sessions push every row down, removed ones pull the
rows behind them up, and a long session can appear behind ones already known. So a
listing is believed only when its pages *connect* (each begins with a contiguous end
of what is known), every page of the pass echoes one total, and the distinct rows
equal it. A `Sweep` is one look at one test's listing: frozen, fed page by page.

A *pass* reads from the head. It may end early by *joining* the listing known before:
fresh rows, then the known rows behind the last fresh one, if that explains the total.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from etl.paging.connecting import row_where_it_connects, without_repeats
from etl.paging.dialect import Dialect, ask_from, ask_holding, head_ask, position, rows_in_reach
from etl.paging.values import Listing, Outcome, PageAsk, PageView, Verdict

MOST_PASSES: Final = 3
"""How often one look reads from the head before it leaves the rest to the next run."""

STALE_AFTER_US: Final = 600 * 1_000_000
"""A pass interrupted for longer (10 minutes) reads the head again before it goes on."""

_MOST_STRAY_PAGES: Final = 4
_MOST_BARREN_PAGES: Final = 2


@dataclass(frozen=True, slots=True)
class Sweep:
    """One look at a test's listing.

    `known` is what earlier looks or passes left, `fresh` what this pass has read from
    the head without a gap. `joins` says that the pass may end where it meets `known`.
    """

    known: Listing
    began_at_us: int
    audit: bool
    joins: bool = True
    fresh: tuple[int, ...] = ()
    fresh_at_us: tuple[int, ...] = ()
    total: int | None = None
    steady: bool = True
    pass_began_us: int = 0
    last_read_us: int = 0
    passes: int = 1
    barren_pages: int = 0
    stray_pages: int = 0
    previous_end: tuple[tuple[int, ...], int | None] | None = None
    proof_of: int | None = None
    verdict: Verdict | None = field(default=None)

    @property
    def listing(self) -> Listing:
        """What is known now; a value to keep, from which a later look can go on."""
        if self.verdict is not None or not self.fresh:
            return self.known
        return Listing(self.fresh, self.fresh_at_us, False, self.total, self.last_read_us)


def begin(known: Listing, *, audit: str, now_us: int) -> Sweep:
    """Begin a look at a listing of which `known` is known.

    `audit` is the pipeline's: `off`, `rolling` (prove again the page proved longest
    ago) or `full` (read every page). A partial listing read lately is gone on with.
    """
    rolling = audit == "rolling" and known.whole
    sweep = Sweep(known, now_us, rolling, joins=audit != "full" or not known.whole)
    if known.whole or not known.ids or now_us - known.read_at_us > STALE_AFTER_US:
        return sweep
    return replace(
        sweep,
        known=Listing(),
        fresh=known.ids,
        fresh_at_us=known.proved_at_us,
        total=known.total,
        # Its oldest row; pages come in any order, and an older one than the last may be needed.
        pass_began_us=min(known.proved_at_us),
        last_read_us=known.read_at_us,
    )


def believed(known: Listing, now_us: int) -> Listing:
    """Return a listing whose times have all been: one of the future was told by a wrong clock.

    What was read then counts as read long ago, else it would be proved again only when
    that time has come.
    """
    if known.read_at_us <= now_us:
        return known
    proved_at_us = tuple(at if at <= now_us else 0 for at in known.proved_at_us)
    return replace(known, read_at_us=0, proved_at_us=proved_at_us)


def refreshed(sweep: Sweep, now_us: int) -> Sweep:
    """Return the sweep as it goes on now: from the head if its pages have gone stale."""
    if not sweep.fresh:  # nor has a sweep any with a verdict, or while it awaits a proof
        return sweep
    if now_us - sweep.last_read_us <= STALE_AFTER_US:
        return sweep
    return replace(_from_the_head(sweep, sweep.listing, sweep.passes), joins=True)


def begun_anew(sweep: Sweep) -> Sweep:
    """Return the sweep with nothing of this pass: its pages cannot be trusted."""
    return _from_the_head(sweep, sweep.known, sweep.passes + 1)


def wanted(sweep: Sweep, dialect: Dialect, most: int) -> tuple[PageAsk, ...]:
    """Return at most `most` pages to ask now, the one that decides first.

    More than one only where each will be needed whatever the first one says.
    """
    if sweep.verdict is not None:
        return ()
    if sweep.proof_of is not None:
        return (ask_holding(dialect, sweep.proof_of),)
    if not sweep.fresh:
        return (head_ask(dialect),)
    asks: list[PageAsk] = []
    rows_known = len(sweep.fresh)
    while len(asks) < most:
        ask = ask_from(dialect, rows_known - 1)
        if ask is None:
            break
        asks.append(ask)
        if ask.start is None:
            break
        rows_known = ask.start + ask.rows
        if sweep.total is None or rows_known >= sweep.total or _may_join(sweep):
            break
    return tuple(asks)


def read(sweep: Sweep, dialect: Dialect, ask: PageAsk, view: PageView) -> Sweep:
    """Return the sweep after this page; one older than the pass proves nothing to it."""
    if sweep.verdict is not None:
        return sweep
    if sweep.proof_of is not None:
        return _proved_again(sweep, position(ask, view), view)
    if sweep.fresh and view.read_at_us < sweep.pass_began_us:
        return sweep
    start, behind = position(ask, view), len(sweep.fresh)
    follows = start == behind == ask.start
    if start is None or (start > max(0, behind - 1) and not follows):
        return _stray(sweep)
    page = without_repeats(view.ids)
    meets_at = row_where_it_connects(sweep.fresh, page, start)
    if meets_at is None:
        return _next_pass(replace(sweep, total=view.total), whole=False)
    return _decided(_grown(sweep, page, meets_at, view), dialect, start, view)


def _grown(sweep: Sweep, page: tuple[int, ...], meets_at: int, view: PageView) -> Sweep:
    """Return the sweep with a page that connects: its rows appended and proved."""
    new = page[len(sweep.fresh) - meets_at :]
    at = sweep.fresh_at_us
    return replace(
        sweep,
        fresh=sweep.fresh + new,
        fresh_at_us=at[:meets_at] + (view.read_at_us,) * len(page) + at[meets_at + len(page) :],
        total=view.total,
        steady=sweep.steady and (not sweep.fresh or view.total == sweep.total),
        pass_began_us=sweep.pass_began_us if sweep.fresh else view.read_at_us,
        last_read_us=max(sweep.last_read_us, view.read_at_us),
        barren_pages=0 if new else sweep.barren_pages + 1,
        stray_pages=0,
    )


def _decided(sweep: Sweep, dialect: Dialect, start: int, view: PageView) -> Sweep:
    """Decide after a page that connects: verified, joined, at the end, or read on.

    That there are as many rows as the total says is no end unless the page reaches it: rows
    that have gone since they were read would make up for those behind, which nobody has read.
    """
    if sweep.fresh and _may_join(sweep):
        sweep = _joined(sweep, dialect)
        if not sweep.fresh:  # it ends here, or begins anew
            return sweep
    short = view.limit is None or len(view.ids) < view.limit
    at_end = (
        (len(sweep.fresh) == sweep.total == start + len(view.ids))
        or not view.ids
        or (sweep.barren_pages > 0 and short)
        or sweep.barren_pages >= _MOST_BARREN_PAGES
        or _beyond_reach(sweep, dialect)
    )
    return _ended(sweep, dialect) if at_end else sweep


def _joined(sweep: Sweep, dialect: Dialect) -> Sweep:
    """Join the fresh rows with those known before, if they meet and the total is explained."""
    known = sweep.known
    try:
        meets_at = known.ids.index(sweep.fresh[-1]) + 1
    except ValueError:
        return sweep
    if not set(sweep.fresh).isdisjoint(known.ids[meets_at:]):
        return sweep
    ids = sweep.fresh + known.ids[meets_at:]
    proved_at = sweep.fresh_at_us + known.proved_at_us[meets_at:]
    joined = replace(sweep, known=Listing(), fresh=ids, fresh_at_us=proved_at)
    if not known.whole:
        return joined
    if not sweep.steady:
        return _next_pass(joined, whole=True)
    if sweep.total == len(ids) == len(set(ids)):
        return _verified(joined, dialect)
    if known.doubt is not None and (sweep.total, ids) == (known.total, known.ids):
        return _closed(joined, known.doubt)
    return sweep


def _beyond_reach(sweep: Sweep, dialect: Dialect) -> bool:
    return bool(sweep.fresh) and ask_from(dialect, len(sweep.fresh) - 1) is None


def _may_join(sweep: Sweep) -> bool:
    return sweep.joins and bool(sweep.known.ids)


def _ended(sweep: Sweep, dialect: Dialect) -> Sweep:
    """Judge a pass that has read to the end, or as far as the reach goes."""
    if sweep.total is None:
        return _closed(sweep, Outcome.NO_TOTAL)
    if not sweep.steady:
        return _next_pass(sweep, whole=True)
    if len(sweep.fresh) < sweep.total and _beyond_reach(sweep, dialect):
        sweep = _with_rows_out_of_reach(sweep)
        if len(sweep.fresh) != sweep.total:
            return _closed(sweep, Outcome.TRUNCATED)
    if len(sweep.fresh) == sweep.total == len(set(sweep.fresh)):
        return _verified(sweep, dialect)
    end = (sweep.fresh, sweep.total)
    if sweep.previous_end == end:
        return _closed(sweep, Outcome.DISAGREES)
    return _next_pass(replace(sweep, previous_end=end, joins=False), whole=True)


def _with_rows_out_of_reach(sweep: Sweep) -> Sweep:
    """Append the rows seen by earlier looks that new ones have pushed out of reach."""
    known, seen = sweep.known, set(sweep.fresh)
    last_seen = max((place for place, row in enumerate(known.ids) if row in seen), default=-1)
    return replace(
        sweep,
        fresh=sweep.fresh + known.ids[last_seen + 1 :],
        fresh_at_us=sweep.fresh_at_us + known.proved_at_us[last_seen + 1 :],
    )


def _verified(sweep: Sweep, dialect: Dialect) -> Sweep:
    """Close as verified, or ask first for the page proved longest ago of those in reach."""
    closed = _closed(sweep, Outcome.VERIFIED)
    proved_at = closed.known.proved_at_us[: rows_in_reach(dialect)]
    oldest = min(proved_at, default=sweep.began_at_us)
    if not sweep.audit or oldest >= sweep.began_at_us:
        return closed
    return replace(closed, verdict=None, proof_of=proved_at.index(oldest), audit=False)


def _closed(sweep: Sweep, outcome: Outcome) -> Sweep:
    """End the look: what is fresh is the listing, and this is what it is worth."""
    listing = Listing(
        ids=sweep.fresh,
        proved_at_us=sweep.fresh_at_us,
        whole=True,
        total=sweep.total,
        read_at_us=sweep.last_read_us,
        doubt=outcome if outcome in (Outcome.DISAGREES, Outcome.TRUNCATED) else None,
    )
    verdict = Verdict(outcome, len(sweep.fresh), sweep.total)
    return replace(sweep, known=listing, fresh=(), fresh_at_us=(), verdict=verdict)


def _next_pass(sweep: Sweep, *, whole: bool) -> Sweep:
    """Read again from the head, or leave it to the next run after the third pass.

    `whole` says that the fresh rows reach to the end, so that the next pass may join
    them; rows that did not connect are no ground to build on.
    """
    left = replace(sweep.listing, whole=whole)
    if sweep.passes >= MOST_PASSES:
        return _given_up(sweep, left, Outcome.UNSTEADY)
    return _from_the_head(sweep, left if whole else Listing(), sweep.passes + 1)


def _given_up(sweep: Sweep, left: Listing, outcome: Outcome) -> Sweep:
    verdict = Verdict(outcome, len(left.ids), sweep.total)
    return replace(sweep, known=left, fresh=(), fresh_at_us=(), verdict=verdict)


def _from_the_head(sweep: Sweep, known: Listing, passes: int) -> Sweep:
    return replace(
        sweep,
        known=known,
        fresh=(),
        fresh_at_us=(),
        steady=True,
        passes=passes,
        stray_pages=0,
        proof_of=None,
    )


def _stray(sweep: Sweep) -> Sweep:
    """Pass over a page that lies beyond what is known: it was not the one asked."""
    if sweep.stray_pages + 1 < _MOST_STRAY_PAGES:
        return replace(sweep, stray_pages=sweep.stray_pages + 1)
    return _given_up(sweep, sweep.listing, Outcome.NOT_UNDERSTOOD)


def _proved_again(sweep: Sweep, start: int | None, view: PageView) -> Sweep:
    """Close if the page is the stretch of the listing that it should be; else read all again."""
    listing, page = sweep.known, without_repeats(view.ids)
    arrived = (view.total or 0) - (listing.total or 0)
    row = (start or 0) - arrived
    holds_it = sweep.proof_of is not None and (start or 0) + len(page) > sweep.proof_of
    if not holds_it or row < 0 or listing.ids[row : row + len(page)] != page:
        return _from_the_head(replace(sweep, joins=False), listing, sweep.passes + 1)
    at = listing.proved_at_us
    proved_at = at[:row] + (view.read_at_us,) * len(page) + at[row + len(page) :]
    verdict = Verdict(Outcome.VERIFIED, len(listing.ids), listing.total)
    known = replace(listing, proved_at_us=proved_at)
    return replace(sweep, known=known, verdict=verdict)
