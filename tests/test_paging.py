"""Paging decides which page is next and whether pages prove a listing complete."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.config.models import Pagination
from etl.paging import dialect as dialects
from etl.paging import sweep as sweeps
from etl.paging.dialect import Dialect
from etl.paging.values import REACH_OFFSET, Listing, Outcome, PageAsk, PageView, Style, Verdict

MINUTE_US = 60_000_000
DAY_US = 24 * 60 * MINUTE_US


@dataclass
class Model:
    """A server's listing, that answers asks and may change before any of them."""

    ids: list[int]
    cap: int = 500
    first_page: int = 1
    understands: frozenset[Style] = frozenset(Style)
    default_rows: int = 25
    lies_by: int = 0
    total_told: bool = True
    now_us: int = DAY_US
    asked: list[PageAsk] = field(default_factory=list)
    before_answer: Callable[["Model"], None] = lambda _: None

    def answer(self, ask: PageAsk) -> PageView:
        """Serve a page as the vendor does: unknown parameters are ignored."""
        self.asked.append(ask)
        self.now_us += 1_000_000
        self.before_answer(self)
        rows, start = min(self.default_rows, self.cap), 0
        if ask.style in self.understands:
            rows = min(ask.rows, self.cap)
            start = (
                ask.start or 0
                if ask.style is Style.OFFSET
                else rows * ((ask.number or 0) - self.first_page)
            )
        assert 0 <= start <= REACH_OFFSET, "the API answers 400 beyond its reach"
        return PageView(
            ids=tuple(self.ids[start : start + rows]),
            limit=rows,
            offset=start,
            total=len(self.ids) + self.lies_by if self.total_told else None,
            read_at_us=self.now_us,
        )


def settled(style: Style = Style.OFFSET, rows: int = 500) -> Dialect:
    return Dialect(style, rows, first_page=1, settled=True)


def look(
    server: Model,
    known: Listing = Listing(),  # noqa: B008 - a frozen value
    *,
    audit: str = "rolling",
    dialect: Dialect | None = None,
    most_pages: int = 10_000,
) -> sweeps.Sweep:
    """Look at the listing until a verdict, as `run` does, one page after another."""
    spoken = dialect or settled()
    sweep = sweeps.begin(known, audit=audit, now_us=server.now_us)
    for _ in range(most_pages):
        sweep = sweeps.refreshed(sweep, server.now_us)
        asks = sweeps.wanted(sweep, spoken, 1)
        if not asks:
            assert sweep.verdict is not None, "a sweep without a verdict wants a page"
            break
        view = server.answer(asks[0])
        spoken = dialects.after_answer(spoken, asks[0], view)
        sweep = sweeps.read(sweep, spoken, asks[0], view)
        assert len(sweep.fresh_at_us) == len(sweep.fresh), "each row has its moment"
    return sweep


def test_a_listing_of_one_page_is_proved_by_one_request():
    server = Model(list(range(500)))
    sweep = look(server)
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(500))
    assert len(server.asked) == 1


def test_an_empty_listing_is_proved_by_one_request():
    server = Model([])
    sweep = look(server)
    assert sweep.verdict is not None and sweep.verdict.verified
    assert len(server.asked) == 1


@pytest.mark.parametrize("style", Style)
def test_ten_thousand_five_hundred_rows_take_twenty_two_pages(style):
    server = Model(list(range(10_500)))
    sweep = look(server, dialect=settled(style))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert len(server.asked) == 22


@pytest.mark.parametrize("style", Style)
def test_one_row_beyond_the_reach_is_reported_as_truncated_and_the_rest_is_known(style):
    server = Model(list(range(10_501)))
    sweep = look(server, dialect=settled(style))
    assert sweep.verdict is not None
    assert (sweep.verdict.outcome, sweep.verdict.seen) == (Outcome.TRUNCATED, 10_500)
    asked = len(server.asked)
    again = look(server, sweep.listing)
    assert again.verdict is not None and again.verdict.outcome is Outcome.TRUNCATED
    assert len(server.asked) == asked + 1, "nothing changed, so one request says so"


def test_rows_that_new_ones_push_out_of_reach_still_count():
    server = Model(list(range(10_500)))
    sweep = look(server)
    server.ids[:0] = range(20_000, 20_300)
    again = look(server, sweep.listing)
    assert again.verdict is not None and again.verdict.verified
    assert again.listing.ids == tuple(server.ids)


@pytest.mark.parametrize("style", Style)
@given(rows=st.integers(1, 500), known=st.integers(1, 10_499))
def test_every_page_begins_at_or_before_the_last_known_row_and_shows_more(style, rows, known):
    ask = dialects.ask_from(settled(style, rows), known - 1)
    if ask is None:
        assert known >= REACH_OFFSET
    else:
        assert ask.start is not None
        few_rows = 2 if style is Style.OFFSET else 11
        assert ask.start <= (known - 1 if rows >= few_rows else known)
        assert ask.start + ask.rows > known


@pytest.mark.parametrize("first_page", [0, 1])
@pytest.mark.parametrize("size", [0, 3, 25, 26, 499, 500, 501, 2_500])
@pytest.mark.parametrize(
    "understands", [frozenset(Style), frozenset({Style.PAGE}), frozenset({Style.OFFSET})]
)
def test_auto_finds_the_spelling_from_the_echo_alone(understands, size, first_page):
    server = Model(list(range(size)), first_page=first_page, understands=understands)
    start = dialects.first_dialect(Pagination())
    sweep = look(server, dialect=start)
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(size))
    alone = Model(list(range(size)))
    look(alone)
    wasted = 2 if understands == {Style.PAGE} else 1
    assert len(server.asked) <= len(alone.asked) + wasted


@pytest.mark.parametrize("understands", [{Style.PAGE}, {Style.OFFSET}, set(Style)])
@pytest.mark.parametrize("first_page", [0, 1])
def test_rows_asked_that_are_the_apis_default_do_not_pass_for_understood(understands, first_page):
    server = Model(list(range(130)), first_page=first_page, understands=frozenset(understands))
    sweep = look(server, dialect=dialects.first_dialect(Pagination(rows_per_page=25)))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(130))


@pytest.mark.parametrize("cap", [7, 25, 60, 100, 499])
@pytest.mark.parametrize("first_page", [0, 1])
@pytest.mark.parametrize("style", ["auto", "page"])
def test_a_capped_server_that_knows_pages_alone_is_found_out(style, cap, first_page):
    server = Model(list(range(1_000)), cap=cap, first_page=first_page)
    server.understands = frozenset({Style.PAGE})
    sweep = look(server, dialect=dialects.first_dialect(Pagination(style=style)))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(1_000))


@pytest.mark.parametrize("cap", [7, 25, 100, 499])
@pytest.mark.parametrize("style", ["auto", "page", "offset"])
def test_a_cap_below_the_rows_asked_becomes_the_page_size(style, cap):
    server = Model(list(range(1_000)), cap=cap)
    sweep = look(server, dialect=dialects.first_dialect(Pagination(style=style)))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(1_000))


def test_a_late_finisher_behind_known_rows_is_found_by_the_total():
    server = Model(list(range(3_000)))
    first = look(server)
    server.ids.insert(1_700, 99_999)
    second = look(server, first.listing)
    assert second.verdict is not None and second.verdict.verified
    assert second.listing.ids == tuple(server.ids)


def test_an_idle_listing_of_many_pages_costs_the_head_and_one_proof():
    server = Model(list(range(5_000)))
    first = look(server)
    server.now_us += DAY_US
    asked = len(server.asked)
    second = look(server, first.listing)
    assert second.verdict is not None and second.verdict.verified
    assert len(server.asked) - asked == 2
    server.now_us += DAY_US
    asked = len(server.asked)
    look(server, second.listing, audit="off")
    assert len(server.asked) - asked == 1


@pytest.mark.parametrize(("removed", "late"), [(700, 4_800), (4_800, 700), (2_600, 2_700)])
def test_a_swap_deep_down_with_the_same_total_is_found_within_as_many_looks_as_pages(removed, late):
    server = Model(list(range(5_000)))
    listing = look(server).listing
    del server.ids[removed]
    server.ids.insert(late, 99_999)
    for _ in range(10):
        server.now_us += DAY_US
        listing = look(server, listing).listing
    assert listing.ids == tuple(server.ids)


def test_full_audit_reads_every_page_again():
    server = Model(list(range(5_000)))
    listing = look(server).listing
    del server.ids[700]
    server.ids.insert(4_800, 99_999)
    assert look(server, listing, audit="full").listing.ids == tuple(server.ids)


def test_a_total_that_disagrees_for_ever_is_reported_and_then_costs_one_request():
    server = Model(list(range(1_200)), lies_by=3)
    sweep = look(server)
    assert sweep.verdict is not None
    assert sweep.verdict.outcome is Outcome.DISAGREES
    assert (sweep.verdict.seen, sweep.verdict.total) == (1_200, 1_203)
    asked = len(server.asked)
    again = look(server, sweep.listing)
    assert again.verdict is not None and again.verdict.outcome is Outcome.DISAGREES
    assert len(server.asked) == asked + 1
    server.lies_by = 0
    assert look(server, again.listing).verdict == Verdict(Outcome.VERIFIED, 1_200, 1_200)


def test_a_total_that_is_too_low_does_not_end_the_reading():
    server = Model(list(range(1_700)), lies_by=-1_690)
    sweep = look(server)
    assert sweep.verdict is not None and sweep.verdict.outcome is Outcome.DISAGREES
    assert sweep.listing.ids == tuple(range(1_700))


def test_without_a_total_everything_is_read_and_nothing_is_called_proved():
    server = Model(list(range(1_700)), total_told=False)
    sweep = look(server)
    assert sweep.verdict is not None and sweep.verdict.outcome is Outcome.NO_TOTAL
    assert sweep.listing.ids == tuple(range(1_700))


def test_endless_pages_without_a_new_row_end():
    server = Model(list(range(500)), total_told=False)
    rows = tuple(range(500))
    sweep = sweeps.begin(Listing(), audit="off", now_us=0)
    asked = 0
    for asked in range(10):  # noqa: B007 - counted
        asks = sweeps.wanted(sweep, settled(), 1)
        if not asks:
            break
        echoed = replace(server.answer(asks[0]), ids=rows, limit=500)
        sweep = sweeps.read(sweep, settled(), asks[0], echoed)
    assert sweep.verdict is not None and asked <= 4


def test_a_pass_interrupted_for_more_than_ten_minutes_costs_one_head_page():
    server = Model(list(range(3_000)))
    partial = look(server, most_pages=3).listing
    assert not partial.whole and len(partial.ids) == 1_498
    server.ids[:0] = [50_001, 50_002]
    server.now_us += 11 * MINUTE_US
    asked = len(server.asked)
    sweep = look(server, partial)
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(server.ids)
    assert len(server.asked) - asked == 1 + 4


def test_a_pass_interrupted_for_less_than_ten_minutes_costs_nothing():
    server = Model(list(range(3_000)))
    partial = look(server, most_pages=3).listing
    sweep = look(server, partial)
    assert sweep.verdict is not None and sweep.verdict.verified
    alone = Model(list(range(3_000)))
    look(alone)
    assert len(server.asked) == len(alone.asked)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("at_page", range(2, 10))
def test_a_row_that_goes_while_one_pages_does_not_stand_in_for_the_last_one(style, at_page):
    for gone in range(68):
        server = Model(list(range(68)), cap=12)

        def remove(model: Model, gone: int = gone) -> None:
            if len(model.asked) == at_page:
                del model.ids[gone]

        server.before_answer = remove
        sweep = look(server, dialect=settled(style, 12))
        assert sweep.verdict is not None and sweep.verdict.verified
        assert set(server.ids) <= set(sweep.listing.ids)


def test_rows_that_went_while_a_pass_lay_interrupted_do_not_stand_in_for_those_behind_it():
    server = Model(list(range(98)), cap=25)
    partial = look(server, dialect=settled(rows=25), most_pages=4).listing
    assert len(partial.ids) == 97 and not partial.whole
    del server.ids[50]
    server.now_us += 11 * MINUTE_US
    sweep = look(server, partial, dialect=settled(rows=25))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(server.ids)


def test_a_page_that_does_not_hold_the_row_to_be_proved_proves_nothing():
    # Pages alone are understood, which one page of it has not shown yet.
    server = Model(list(range(32)), cap=34, understands=frozenset({Style.PAGE}))
    listing = look(server, dialect=settled(Style.PAGE)).listing
    del server.ids[30]
    server.ids.insert(28, 99_999)
    misled = Dialect(Style.OFFSET, 500, first_page=None, page_rows=34)
    for _ in range(3):
        server.now_us += DAY_US
        listing = look(server, listing, dialect=misled).listing
    assert listing.ids == tuple(server.ids)


def test_many_pages_are_wanted_at_once_when_each_will_be_needed():
    server = Model(list(range(3_000)))
    sweep = look(server, most_pages=1)
    asks = sweeps.wanted(sweep, settled(), 8)
    assert [ask.start for ask in asks] == [499, 998, 1_497, 1_996, 2_495, 2_994][: len(asks)]
    assert asks[-1].start is not None and asks[-1].start + asks[-1].rows >= 3_000


def test_an_echo_that_its_own_rows_refute_makes_no_page_smaller():
    ask = PageAsk(Style.OFFSET, 500, 0)
    view = PageView(tuple(range(500)), 1, 0, 1_000, 0)
    assert dialects.after_answer(settled(), ask, view).rows == 500
    assert dialects.after_answer(settled(), ask, replace(view, ids=(1,))).rows == 1


def test_an_echo_of_another_page_is_named():
    ask = PageAsk(Style.OFFSET, 500, 499)
    view = PageView((1,), 500, 0, 1_000, 0)
    assert dialects.wrong_echo(settled(), ask, view) == (
        "the answer echoes offset 0, but row 499 was asked"
    )
    assert dialects.wrong_echo(settled(), ask, replace(view, offset=499)) is None


_KINDS = ["arrive", "remove", "late", "nothing"]
Change = st.tuples(st.sampled_from([*_KINDS, "swap"]), st.integers(0, 10_000))
# The API orders rows by time, so they come and go; where they also swap places, within minutes
# and unseen, the rolling proof finds out what a first look cannot.
ComingOrGoing = st.tuples(st.sampled_from(_KINDS), st.integers(0, 10_000))


def changed(server: Model, change: tuple[str, int], fresh_id: int) -> None:
    kind, where = change
    place = where % (len(server.ids) + 1)
    if kind == "arrive":
        server.ids.insert(0, fresh_id)
    elif kind == "late":
        server.ids.insert(place, fresh_id)
    elif kind == "remove" and server.ids:
        del server.ids[place % len(server.ids)]
    elif kind == "swap" and len(server.ids) > 1:
        low = place % (len(server.ids) - 1)
        server.ids[low], server.ids[low + 1] = server.ids[low + 1], server.ids[low]


@pytest.mark.parametrize("style", Style)
@settings(max_examples=150)
@given(
    size=st.integers(0, 120),
    cap=st.integers(3, 40),
    changes=st.lists(Change, max_size=25),
    seed=st.integers(0, 2**32),
)
def test_a_listing_that_rests_is_known_to_the_row_after_as_many_looks_as_it_has_pages(
    style, size, cap, changes, seed
):
    random = Random(seed)
    server = Model(list(range(size)), cap=cap)
    pending = list(changes)

    def disturb(model: Model) -> None:
        if pending and random.random() < 0.6:
            changed(model, pending.pop(), 1_000_000 + len(pending))

    server.before_answer = disturb
    listing = Listing()
    while pending:
        look_at = look(server, listing, dialect=settled(style, cap))
        listing = look_at.listing
        server.now_us += DAY_US
    sweep = look(server, listing, dialect=settled(style, cap))
    for _ in range(1 + -(-len(server.ids) // cap)):
        server.now_us += DAY_US
        sweep = look(server, sweep.listing, dialect=settled(style, cap))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(server.ids)


@settings(max_examples=300)
@given(
    size=st.integers(0, 150),
    cap=st.integers(3, 40),
    changes=st.lists(ComingOrGoing, min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
)
def test_no_first_look_is_verified_with_a_row_missing_that_was_there_all_along(
    size, cap, changes, seed
):
    random = Random(seed)
    server = Model(list(range(size)), cap=cap)
    there_all_along = set(server.ids)
    pending = list(changes)

    def disturb(model: Model) -> None:
        if pending and random.random() < 0.5:
            changed(model, pending.pop(), 1_000_000 + len(pending))
        there_all_along.intersection_update(model.ids)

    server.before_answer = disturb
    sweep = look(server, dialect=settled(Style.OFFSET, cap))
    if sweep.verdict is not None and sweep.verdict.verified:
        assert there_all_along <= set(sweep.listing.ids)
