"""The spelling of pages is learned from echoes alone, and what was learned is kept."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.models import Pagination
from etl.paging.dialect import (
    Dialect,
    after_answer,
    after_bad_request,
    ask_from,
    ask_holding,
    first_dialect,
    head_ask,
    known_dialect,
    position,
    remembered,
    rows_in_reach,
    wrong_echo,
)
from etl.paging.values import REACH_OFFSET, Outcome, PageAsk, PageView, Style, Verdict

PAGE, OFFSET = Style.PAGE, Style.OFFSET
LEARNING = Dialect(PAGE, 500, first_page=None, may_change=True)
PAGES = Dialect(PAGE, 500, first_page=1, settled=True, may_change=True)
OFFSETS = Dialect(OFFSET, 500, first_page=None, settled=True, may_change=True)
UNSETTLED_OFFSETS = Dialect(OFFSET, 500, first_page=None, may_change=True)


def echo(limit: int | None, offset: int | None) -> PageView:
    return PageView(ids=(1,), limit=limit, offset=offset, total=9, read_at_us=0)


# What to begin with.


@pytest.mark.parametrize(
    ("pagination", "begun"),
    [
        (Pagination(), LEARNING),
        (Pagination(rows_per_page=25), replace(LEARNING, rows=25)),
        (Pagination(first_page=0), replace(LEARNING, first_page=0)),
        (Pagination(style="page"), replace(LEARNING, may_change=False)),
        (Pagination(style="offset"), Dialect(OFFSET, 500, first_page=None)),
    ],
)
def test_the_pipelines_file_says_what_is_tried_first(pagination, begun):
    assert first_dialect(pagination) == begun


@pytest.mark.parametrize(
    ("learned", "pagination", "known"),
    [
        (PAGES, Pagination(), PAGES),
        (PAGES, Pagination(style="page"), replace(PAGES, may_change=False)),
        (OFFSETS, Pagination(style="offset"), replace(OFFSETS, may_change=False)),
        (PAGES, Pagination(rows_per_page=25), replace(PAGES, rows=25)),
        (replace(PAGES, rows=100), Pagination(), PAGES),  # it was the file that asked for few
        (
            replace(PAGES, rows=100, capped=True),
            Pagination(),
            replace(PAGES, rows=100, capped=True),
        ),
        (
            replace(PAGES, rows=100, capped=True),
            Pagination(rows_per_page=25),
            replace(PAGES, rows=25, capped=True),
        ),
        (PAGES, Pagination(first_page=1), PAGES),
        (OFFSETS, Pagination(first_page=0), OFFSETS),
    ],
)
def test_what_was_learned_is_kept_as_far_as_the_pipelines_file_allows(learned, pagination, known):
    assert known_dialect(learned, pagination) == known
    assert remembered(msgspec.json.encode(learned).decode(), pagination) == known


@pytest.mark.parametrize("note", [None, ""])
def test_where_nothing_was_noted_the_pipelines_file_says_what_is_tried(note: str | None):
    asked = Pagination(style="offset", rows_per_page=25)
    assert remembered(note, asked) == first_dialect(asked)


@pytest.mark.parametrize(
    ("learned", "pagination"),
    [
        (PAGES, Pagination(style="offset")),
        (OFFSETS, Pagination(style="page")),
        (PAGES, Pagination(first_page=0)),
    ],
)
def test_what_the_pipelines_file_contradicts_is_learned_anew(learned, pagination):
    assert known_dialect(learned, pagination) == first_dialect(pagination)


# What to ask.


@pytest.mark.parametrize(
    ("dialect", "ask"),
    [
        (LEARNING, PageAsk(PAGE, 500, start=None, number=1)),
        (PAGES, PageAsk(PAGE, 500, start=0, number=1)),
        (replace(PAGES, first_page=0), PageAsk(PAGE, 500, start=0, number=0)),
        (OFFSETS, PageAsk(OFFSET, 500, start=0)),
    ],
)
def test_the_head_is_asked_by_the_first_page_number_if_that_is_known(dialect, ask):
    assert head_ask(dialect) == ask


@pytest.mark.parametrize(
    ("dialect", "last_start", "ask"),
    [
        (LEARNING, 700, PageAsk(PAGE, 500, start=None, number=1)),
        (PAGES, 499, PageAsk(PAGE, 499, start=499, number=2)),
        (replace(PAGES, first_page=0), 499, PageAsk(PAGE, 499, start=499, number=1)),
        (replace(PAGES, rows=1), 5, PageAsk(PAGE, 1, start=6, number=7)),
        (OFFSETS, 499, PageAsk(OFFSET, 500, start=499)),
        (OFFSETS, 10_498, PageAsk(OFFSET, 500, start=10_000)),
        (replace(OFFSETS, rows=1), 5, PageAsk(OFFSET, 1, start=6)),
        (replace(OFFSETS, rows=1), 9_999, PageAsk(OFFSET, 1, start=10_000)),
    ],
)
def test_a_page_repeats_the_last_row_known_where_it_can(dialect, last_start, ask):
    assert ask_from(dialect, last_start) == ask


@pytest.mark.parametrize(
    ("dialect", "last_start"),
    [(OFFSETS, 10_499), (PAGES, 10_499), (replace(OFFSETS, rows=1), 10_000)],
)
def test_behind_the_reach_nothing_is_asked(dialect, last_start):
    assert ask_from(dialect, last_start) is None


@given(
    dialect=st.sampled_from([PAGES, replace(PAGES, first_page=0), OFFSETS]),
    cap=st.integers(1, 500),
    place=st.floats(0, 1),
)
def test_every_row_in_reach_is_held_by_the_page_that_is_asked_to_prove_it(dialect, cap, place):
    dialect = replace(dialect, rows=cap)
    in_reach = rows_in_reach(dialect)
    row = round(place * (in_reach - 1))
    ask = ask_holding(dialect, row)
    assert ask.start is not None
    assert ask.start <= row < ask.start + ask.rows
    assert ask.start <= REACH_OFFSET
    assert dialect.style is OFFSET or ask.start == ask.rows * ((ask.number or 0) - first(dialect))
    assert ask_from(dialect, in_reach - 1) is None, "behind the reach there is nothing to ask"


def first(dialect: Dialect) -> int:
    return dialect.first_page or 0


@pytest.mark.parametrize(
    ("dialect", "row", "ask"),
    [
        (PAGES, 0, PageAsk(PAGE, 500, start=0, number=1)),
        (PAGES, 999, PageAsk(PAGE, 500, start=500, number=2)),
        (PAGES, 1_000, PageAsk(PAGE, 500, start=1_000, number=3)),
        (PAGES, 10_499, PageAsk(PAGE, 500, start=10_000, number=21)),
        # In pages of 300 rows the last in reach would begin at 9 900: others end further.
        (replace(PAGES, rows=300), 10_250, PageAsk(PAGE, 294, start=9_996, number=35)),
        (replace(PAGES, rows=300), 10_050, PageAsk(PAGE, 300, start=9_900, number=34)),
        (OFFSETS, 999, PageAsk(OFFSET, 500, start=500)),
        (replace(OFFSETS, rows=300), 10_299, PageAsk(OFFSET, 300, start=10_000)),
        (LEARNING, 999, PageAsk(PAGE, 500, start=None, number=1)),
    ],
)
def test_a_row_is_proved_by_the_aligned_page_that_holds_it(dialect, row, ask):
    assert ask_holding(dialect, row) == ask


def test_a_page_is_spelled_as_its_style_names_the_parameters():
    assert PageAsk(PAGE, 25, start=50, number=3).spelled() == "rowsPerPage=25&pageNumber=3"
    assert PageAsk(OFFSET, 25, start=50).spelled() == "limit=25&offset=50"


# What an answer teaches.

ASKED_PAGE_1 = PageAsk(PAGE, 500, start=None, number=1)
ASKED_PAGE_3 = PageAsk(PAGE, 100, start=200, number=3)
ASKED_HEAD = PageAsk(OFFSET, 500, start=0)
ASKED_LATER = PageAsk(OFFSET, 500, start=499)


@pytest.mark.parametrize(
    ("view", "learned"),
    [
        (echo(500, 0), replace(LEARNING, first_page=1, settled=True)),
        (echo(500, 500), replace(LEARNING, first_page=0, settled=True)),
        # A number, but of another page than was asked: not understood.
        (echo(500, 1_000), replace(LEARNING, style=OFFSET)),
        (echo(500, 250), replace(LEARNING, style=OFFSET)),
        # No number to believe.
        (echo(None, 0), replace(LEARNING, style=OFFSET)),
        (echo(500, None), replace(LEARNING, style=OFFSET)),
        (echo(0, 0), replace(LEARNING, style=OFFSET)),
        (echo(-1, 0), replace(LEARNING, style=OFFSET)),
        (echo(501, 0), replace(LEARNING, style=OFFSET)),
        # A cap, or a default that nobody asked for: `offset` tells.
        (echo(25, 0), replace(LEARNING, style=OFFSET, page_rows=25)),
        (echo(25, 25), replace(LEARNING, rows=25, capped=True, first_page=0, settled=True)),
    ],
)
def test_the_first_page_tells_how_pages_are_counted_or_that_nothing_was_understood(view, learned):
    assert after_answer(LEARNING, ASKED_PAGE_1, view) == learned


@pytest.mark.parametrize("view", [echo(None, None), echo(501, 0), echo(500, 250), echo(0, 0)])
def test_a_style_that_the_pipelines_file_fixes_is_not_left(view):
    fixed = replace(LEARNING, may_change=False)
    assert after_answer(fixed, ASKED_PAGE_1, view) == fixed
    assert after_bad_request(fixed) is None


def test_a_cap_is_believed_where_the_pipelines_file_fixes_the_style():
    fixed = replace(LEARNING, may_change=False)
    learned = after_answer(fixed, ASKED_PAGE_1, echo(25, 0))
    assert learned == replace(fixed, rows=25, capped=True, first_page=1, settled=True)


@pytest.mark.parametrize(
    ("dialect", "ask", "view", "learned"),
    [
        (UNSETTLED_OFFSETS, ASKED_HEAD, echo(500, 0), OFFSETS),
        (UNSETTLED_OFFSETS, ASKED_HEAD, echo(25, 0), UNSETTLED_OFFSETS),
        (UNSETTLED_OFFSETS, ASKED_LATER, echo(25, 499), replace(OFFSETS, rows=25, capped=True)),
        (UNSETTLED_OFFSETS, ASKED_LATER, echo(25, 0), UNSETTLED_OFFSETS),
        (UNSETTLED_OFFSETS, ASKED_LATER, echo(None, 499), UNSETTLED_OFFSETS),
        (UNSETTLED_OFFSETS, ASKED_LATER, echo(501, 499), UNSETTLED_OFFSETS),
        (LEARNING, ASKED_LATER, echo(None, 499), LEARNING),  # asked before the style changed
        (LEARNING, ASKED_LATER, echo(501, 499), LEARNING),
    ],
)
def test_offsets_are_believed_once_an_echo_can_mean_nothing_else(dialect, ask, view, learned):
    assert after_answer(dialect, ask, view) == learned


def test_offsets_that_are_not_understood_either_lead_back_to_pages_of_the_size_served():
    moved = replace(UNSETTLED_OFFSETS, page_rows=25)
    back = Dialect(PAGE, 25, first_page=None, capped=True)
    assert after_answer(moved, ASKED_LATER, echo(25, 0)) == back


@pytest.mark.parametrize(
    ("dialect", "ask", "view", "rows"),
    [
        (PAGES, ASKED_PAGE_3, echo(50, 200), 50),
        (PAGES, ASKED_PAGE_3, echo(100, 200), 500),  # as many as were asked: no cap
        (replace(PAGES, rows=50), ASKED_PAGE_3, echo(60, 200), 50),  # known to be lower
        (replace(PAGES, rows=50), ASKED_PAGE_3, echo(50, 200), 50),
        (OFFSETS, ASKED_LATER, echo(499, 499), 499),
        (OFFSETS, ASKED_PAGE_3, echo(50, 200), 50),  # asked before the style changed
        (PAGES, ASKED_LATER, echo(50, 499), 50),
    ],
)
def test_a_lower_limit_than_asked_is_a_cap_and_only_ever_lowers_the_page_size(
    dialect, ask, view, rows
):
    learned = after_answer(dialect, ask, view)
    assert learned == replace(dialect, rows=rows, capped=rows < dialect.rows or dialect.capped)


@pytest.mark.parametrize("view", [echo(None, 0), echo(0, 0), echo(501, 0)])
def test_a_settled_spelling_is_not_left_for_one_odd_answer(view):
    assert after_answer(PAGES, ASKED_PAGE_3, view) == PAGES
    assert after_answer(OFFSETS, ASKED_HEAD, view) == OFFSETS
    assert after_bad_request(PAGES) is None


def test_a_bad_request_moves_to_offsets_once():
    moved = after_bad_request(LEARNING)
    assert moved == UNSETTLED_OFFSETS
    assert after_bad_request(moved) is None


# What an answer must not say.


@pytest.mark.parametrize(
    ("ask", "view"),
    [
        (ASKED_PAGE_3, echo(100, 200)),
        (ASKED_PAGE_3, echo(50, 100)),  # capped: page 3 of 50 rows
        (ASKED_PAGE_3, echo(1, 2)),
        (ASKED_LATER, echo(50, 499)),
        (ASKED_PAGE_1, echo(500, 77)),  # nobody knows yet where it is
    ],
)
def test_an_echo_of_what_was_asked_is_right(ask, view):
    assert wrong_echo(PAGES, ask, view) is None


@pytest.mark.parametrize(
    ("ask", "view", "wrong"),
    [
        (ASKED_PAGE_3, echo(100, 300), "the answer echoes offset 300, but row 200 was asked"),
        (ASKED_LATER, echo(50, 49), "the answer echoes offset 49, but row 499 was asked"),
        (ASKED_LATER, echo(501, 499), "the answer echoes limit 501, but 500 rows were asked"),
        (ASKED_LATER, echo(0, 499), "the answer echoes limit 0, but 500 rows were asked"),
        (ASKED_LATER, echo(-1, 499), "the answer echoes limit -1, but 500 rows were asked"),
        (
            ASKED_LATER,
            echo(None, 499),
            "the answer echoes no pagination, though earlier ones did",
        ),
        (ASKED_LATER, echo(500, None), "the answer echoes no pagination, though earlier ones did"),
    ],
)
def test_an_echo_of_something_else_is_named(ask, view, wrong):
    assert wrong_echo(OFFSETS, ask, view) == wrong


def test_before_the_spelling_is_settled_no_echo_is_wrong():
    assert wrong_echo(UNSETTLED_OFFSETS, ASKED_LATER, echo(25, 0)) is None


def test_a_page_lies_where_its_echo_says_and_without_one_where_it_was_asked():
    assert position(ASKED_LATER, echo(500, 25)) == 25
    assert position(ASKED_LATER, echo(500, 0)) == 0
    assert position(ASKED_LATER, echo(500, None)) == 499
    assert position(ASKED_PAGE_1, echo(None, None)) is None


@pytest.mark.parametrize("outcome", Outcome)
def test_every_verdict_is_told_with_its_figures(outcome):
    sentence = Verdict(outcome, seen=1_234, total=5_678).sentence()
    assert "1234" in sentence
    assert ("5678" in sentence) == (outcome not in (Outcome.VERIFIED, Outcome.NO_TOTAL))
    assert Verdict(outcome, 1, 1).verified == (outcome is Outcome.VERIFIED)
