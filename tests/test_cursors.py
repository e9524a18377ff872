"""Pages asked by cursors prove a listing, or it is said why not: against a server that changes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.paging import cursors
from etl.paging.cursors import CursorAsk, CursorSweep
from etl.paging.values import Listing, Outcome, PageView, Verdict

MINUTE_US = 60_000_000
DAY_US = 24 * 60 * MINUTE_US


class RefusedCursor(Exception):
    """The server does not know a cursor any more (400)."""


@dataclass
class Model:
    """A server's listing in the order served, which may change before any answer.

    `by_place` is of cursors that name a place and no row. `told` is the total that is told of
    the true one and the rows of the page.
    """

    ids: list[int]
    page_rows: int = 50
    by_place: bool = False
    forgets: bool = False
    told: Callable[[int, int], int | None] = lambda total, _: total
    gives_cursors: bool = True
    now_us: int = DAY_US
    asked: list[CursorAsk] = field(default_factory=list)
    before_answer: Callable[["Model"], None] = lambda _: None
    gone: dict[int, int] = field(default_factory=dict)

    def answer(self, ask: CursorAsk) -> PageView:
        """Serve the page behind a cursor."""
        self.asked.append(ask)
        self.now_us += 1_000_000
        self.before_answer(self)
        start = 0 if ask.after is None else self._behind(int(ask.after))
        rows = tuple(self.ids[start : start + self.page_rows])
        place = max(0, len(rows) - 2)
        goes_on = None
        if rows and self.gives_cursors:
            goes_on = (place, str(start + place if self.by_place else rows[place]))
        return PageView(rows, None, None, self.told(len(self.ids), len(rows)), self.now_us, goes_on)

    def _behind(self, told: int) -> int:
        if self.by_place:
            return told + 1
        if told in self.ids:
            return self.ids.index(told) + 1
        if self.forgets:
            raise RefusedCursor
        return self.gone[told]  # where it stood, like a serial that outlives its row

    def remove(self, place: int) -> None:
        """Take a row away."""
        self.gone[self.ids[place]] = place
        del self.ids[place]


def look(
    server: Model,
    known: Listing = Listing(),  # noqa: B008 - a frozen value
    *,
    audit: str = "rolling",
    most_pages: int = 10_000,
) -> CursorSweep:
    """Look until a verdict, as `run` does, one page after another."""
    sweep = cursors.begin(known, audit=audit, now_us=server.now_us)
    return gone_on_with(sweep, server, most_pages)


def gone_on_with(sweep: CursorSweep, server: Model, most_pages: int = 10_000) -> CursorSweep:
    """Go on with a look until a verdict, or for so many pages."""
    for _ in range(most_pages):
        sweep = cursors.refreshed(sweep, server.now_us)
        ask = cursors.wanted(sweep)
        if ask is None:
            break
        try:
            sweep = cursors.read(sweep, server.answer(ask))
        except RefusedCursor:
            sweep = cursors.not_connected(sweep)
        assert len(sweep.fresh_at_us) == len(sweep.fresh), "each row has its moment"
    return sweep


def proved(sweep: CursorSweep, server: Model) -> None:
    """Assert that a look has proved what the server lists."""
    rows = len(server.ids)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, rows, rows)
    assert sweep.listing.ids == tuple(server.ids)
    assert sweep.listing.whole and sweep.listing.total == rows


def outcome(sweep: CursorSweep) -> Outcome:
    assert sweep.verdict is not None
    return sweep.verdict.outcome


@pytest.mark.parametrize("by_place", [False, True])
@pytest.mark.parametrize(
    ("rows", "pages"),
    [(0, 1), (1, 1), (2, 1), (49, 1), (50, 2), (51, 2), (98, 2), (99, 3), (120, 3), (1000, 21)],
)
def test_a_first_look_proves_a_listing_with_a_row_of_overlap_a_page(rows, pages, by_place):
    server = Model(list(range(rows)), by_place=by_place)
    proved(look(server), server)
    assert len(server.asked) == pages


@pytest.mark.parametrize(("rows", "pages"), [(0, 1), (49, 1), (50, 2), (120, 1)])
def test_while_nothing_changes_one_page_proves_it_but_where_it_is_full_to_the_row(rows, pages):
    server = Model(list(range(rows)))
    known = look(server).listing
    server.asked.clear()
    proved(look(server, known, audit="off"), server)
    assert len(server.asked) == pages


def test_every_page_is_proved_again_within_as_many_looks_as_there_are_pages():
    server = Model(list(range(400)))
    known, began_at = look(server).listing, server.now_us
    for _ in range(8):
        server.now_us += DAY_US
        server.asked.clear()
        sweep = look(server, known)
        proved(sweep, server)
        assert len(server.asked) == 2
        known = sweep.listing
    assert min(known.proved_at_us) > began_at


@pytest.mark.parametrize("audit", ["off", "rolling"])
def test_new_rows_at_the_head_are_joined_with_those_known(audit):
    server = Model(list(range(300)))
    known = look(server).listing
    for night in range(1, 9):
        server.ids[:0] = range(1000 * night, 1000 * night + night)
        server.asked.clear()
        sweep = look(server, known, audit=audit)
        proved(sweep, server)
        assert len(server.asked) == (1 if audit == "off" else 2)
        known = sweep.listing
    assert len(known.places) < 12, "cursors of no use are dropped"


@pytest.mark.parametrize("by_place", [False, True])
def test_new_rows_at_the_end_are_read_from_the_known_end_on(by_place):
    server = Model(list(range(300)), by_place=by_place)
    known = look(server).listing
    server.ids += range(1000, 1120)
    server.asked.clear()
    proved(look(server, known, audit="off"), server)
    assert len(server.asked) == 1 + 3


def test_a_late_row_deep_down_is_found_by_reading_until_the_total_is_explained():
    server = Model(list(range(300)))
    known = look(server).listing
    server.ids.insert(70, 1000)
    server.asked.clear()
    proved(look(server, known, audit="off"), server)
    assert len(server.asked) == 3, "the head, the end, and the page that has it"


def test_a_removed_row_is_found_by_reading_until_the_total_is_explained():
    server = Model(list(range(300)))
    known = look(server).listing
    server.remove(70)
    server.asked.clear()
    proved(look(server, known, audit="off"), server)
    assert len(server.asked) == 2


def test_a_known_end_that_has_gone_is_read_around():
    server = Model(list(range(120)), forgets=True)
    known = look(server).listing
    server.remove(118)
    server.ids += [1000, 1001]
    proved(look(server, known, audit="off"), server)


def test_one_removed_and_one_late_are_found_by_the_rolling_proof():
    server = Model(list(range(120)))
    known = look(server).listing
    server.remove(110)
    server.ids.insert(60, 1000)
    for _ in range(3):
        server.now_us += DAY_US
        known = look(server, known).listing
    assert known.ids == tuple(server.ids)


def test_a_row_that_comes_during_the_proof_is_taken_in_and_no_second_proof_asked():
    server = Model(list(range(120)))
    known = look(server).listing
    server.now_us += DAY_US
    server.asked.clear()
    server.before_answer = lambda model: (
        model.ids.insert(0, 1000) if len(model.asked) == 2 else None
    )
    proved(look(server, known), server)
    assert [ask.after for ask in server.asked] == [None, "48", None]


def test_a_proof_whose_cursor_has_gone_reads_all_again():
    server = Model(list(range(120)), forgets=True)
    known = look(server).listing
    place, cursor = known.places[0]
    known = replace(known, places=((place, "999"), *known.places[1:]))
    server.now_us += DAY_US
    proved(look(server, known), server)
    assert cursor != "999"


def test_a_last_row_that_has_gone_for_a_late_one_is_missed_on_its_page():
    server = Model(list(range(120)))
    server.now_us += DAY_US
    known = look(server, look(server).listing).listing  # the second page, proved again
    server.remove(119)
    server.ids.insert(60, 1000)
    for _ in range(2):
        server.now_us += DAY_US
        known = look(server, known).listing
    assert known.ids == tuple(server.ids)


def test_where_no_cursor_is_known_nothing_is_proved_again():
    server = Model(list(range(120)))
    known = replace(look(server).listing, places=())
    server.gives_cursors = False
    server.now_us += DAY_US
    server.asked.clear()
    proved(look(server, known), server)
    assert len(server.asked) == 1


def test_rows_that_change_places_are_read_again():
    server = Model(list(range(120)))
    known = look(server).listing
    server.ids[10], server.ids[80] = server.ids[80], server.ids[10]
    proved(look(server, known, audit="off"), server)


def test_a_listing_without_cursors_is_proved_where_one_page_holds_it():
    small, large = (Model(list(range(n)), gives_cursors=False) for n in (30, 80))
    proved(look(small), small)
    known = look(small).listing
    small.now_us += DAY_US
    proved(look(small, known), small)
    assert outcome(look(large)) is Outcome.DISAGREES


def test_a_total_that_never_fits_is_said_and_asked_once_more_a_night_alone():
    server = Model(list(range(120)), told=lambda total, _: total + 3)
    sweep = look(server)
    assert outcome(sweep) is Outcome.DISAGREES
    assert sweep.listing.ids == tuple(server.ids), "all that is served is known"
    server.asked.clear()
    again = look(server, sweep.listing)
    assert outcome(again) is Outcome.DISAGREES
    assert len(server.asked) == 1


@pytest.mark.parametrize("told", [lambda _total, _rows: None, lambda _total, rows: rows])
def test_a_total_that_is_none_or_counts_its_page_proves_nothing(told):
    server = Model(list(range(120)), told=told)
    sweep = look(server)
    assert outcome(sweep) is Outcome.NO_TOTAL
    assert sweep.listing.ids == tuple(server.ids)
    server.ids += [1000]
    assert look(server, sweep.listing).listing.ids == tuple(server.ids)


def test_a_count_of_the_pages_rows_hides_no_row_behind_a_full_page():
    server = Model(list(range(50)), told=lambda _, rows: rows)
    known = look(server).listing
    server.ids += [1000]
    sweep = look(server, known)
    assert outcome(sweep) is Outcome.NO_TOTAL
    assert sweep.listing.ids == tuple(server.ids)


class _Loop(Model):
    """A server that serves its first page whatever is asked."""

    def _behind(self, told: int) -> int:
        return 0


def test_a_cursor_that_comes_round_again_is_no_end():
    server = _Loop(list(range(120)))
    sweep = look(server)
    assert outcome(sweep) is Outcome.ENDLESS
    assert "comes round again" in (sweep.verdict.sentence() if sweep.verdict else "")
    assert len(server.asked) == 4
    server.asked.clear()
    assert outcome(look(server, sweep.listing)) is Outcome.ENDLESS
    assert len(server.asked) == 1


def test_pages_without_end_are_left_after_some_two_thousand():
    server = Model(list(range(10)), page_rows=2)
    server.before_answer = lambda model: model.ids.extend(range(len(model.ids), len(model.ids) + 2))
    server.told = lambda *_: 1
    assert outcome(look(server)) is Outcome.ENDLESS
    assert len(server.asked) == cursors.MOST_PAGES


def test_a_listing_that_never_rests_is_left_to_the_next_look():
    server = Model(list(range(120)))
    server.before_answer = lambda model: model.ids.insert(60, len(model.ids) + 1000)
    sweep = look(server)
    assert outcome(sweep) is Outcome.UNSTEADY
    server.before_answer = lambda _: None
    proved(look(server, sweep.listing), server)


def test_a_look_cut_short_goes_on_where_it_was():
    server = Model(list(range(300)))
    sweep = look(server, most_pages=3)
    assert not sweep.listing.whole
    server.asked.clear()
    proved(look(server, sweep.listing), server)
    assert len(server.asked) == 4


@pytest.mark.parametrize("by_place", [False, True])
def test_a_look_left_for_long_reads_the_head_again_and_goes_on(by_place):
    server = Model(list(range(300)), by_place=by_place)
    known = look(server, most_pages=3).listing
    server.now_us += DAY_US
    server.ids[:0] = [1000, 1001]
    server.asked.clear()
    proved(look(server, known), server)
    assert len(server.asked) == 5


def test_a_look_that_rests_for_long_between_two_pages_reads_the_head_again():
    server = Model(list(range(300)))
    sweep = look(server, most_pages=3)
    assert cursors.wanted(cursors.refreshed(sweep, server.now_us + MINUTE_US)) != CursorAsk()
    assert cursors.wanted(cursors.refreshed(sweep, server.now_us + DAY_US)) == CursorAsk()


def test_a_page_older_than_the_pass_proves_nothing():
    server = Model(list(range(300)))
    old = server.answer(CursorAsk("48"))
    sweep = look(server, most_pages=1)
    assert cursors.read(sweep, old) == sweep


# A page asked.


@pytest.mark.parametrize(
    ("ask", "query", "spelled"),
    [(CursorAsk(), (), "after="), (CursorAsk("c=48"), (("after", "c=48"),), "after=c=48")],
)
def test_a_page_is_asked_by_its_cursor_and_the_first_one_by_none(ask, query, spelled):
    assert (ask.query(), ask.spelled()) == (query, spelled)


# What is proved, and when.


def test_every_row_is_proved_at_the_moment_of_the_last_page_that_showed_it():
    server = Model(list(range(120)))
    began = server.now_us
    listing = look(server).listing
    read_at = [began + 1_000_000 * page for page in (1, 2, 3)]
    assert listing.proved_at_us == (
        *[read_at[0]] * 49,  # row 49 is on both pages: the later one proves it
        *[read_at[1]] * 49,
        *[read_at[2]] * 22,
    )
    assert (listing.total, listing.read_at_us) == (120, read_at[2])


def test_a_full_audit_reads_every_page_and_joins_nothing():
    server = Model(list(range(120)))
    known = look(server).listing
    server.asked.clear()
    proved(look(server, known, audit="full"), server)
    assert len(server.asked) == 3


def test_a_full_audit_goes_on_with_what_an_unfinished_look_left():
    server = Model(list(range(300)))
    known = look(server, most_pages=4).listing
    server.now_us += DAY_US
    server.asked.clear()
    proved(look(server, known, audit="full"), server)
    assert len(server.asked) == 1 + 3, "the head, then from where the look was left"


def test_an_empty_listing_is_proved_again_by_its_one_page():
    server = Model([])
    known = look(server).listing
    server.now_us += DAY_US
    server.asked.clear()
    proved(look(server, known), server)
    assert len(server.asked) == 1


def test_what_was_proved_at_the_very_moment_when_a_look_begins_is_not_proved_again():
    server = Model(list(range(60)))
    known = look(server).listing
    assert known.read_at_us == server.now_us
    server.asked.clear()
    proved(look(server, known), server)
    assert len(server.asked) == 1


def test_rows_that_come_at_the_head_leave_no_row_that_the_proofs_cannot_reach():
    server = Model(list(range(300)))
    known, began_at = look(server).listing, server.now_us
    server.ids[:0] = [1000, 1001]
    for _ in range(9):
        server.now_us += DAY_US
        server.asked.clear()
        sweep = look(server, known)
        proved(sweep, server)
        assert len(server.asked) == 2, "the head, and a proof"
        known = sweep.listing
    assert min(known.proved_at_us) > began_at


def test_rows_that_come_at_the_end_leave_no_cursor_of_no_use():
    server = Model(list(range(52)))
    known = look(server).listing
    for night in range(20):
        server.now_us += DAY_US
        server.ids.append(1000 + night)
        sweep = look(server, known)
        proved(sweep, server)
        known = sweep.listing
        assert len(known.places) == 2


@pytest.mark.parametrize("by_place", [False, True])
def test_pages_of_one_row_are_proved_again_one_a_look_by_a_cursor_each(by_place):
    server = Model(list(range(6)), page_rows=1, by_place=by_place)
    known, began_at = look(server).listing, server.now_us
    for _ in range(5):
        server.now_us += DAY_US
        server.asked.clear()
        sweep = look(server, known)
        proved(sweep, server)
        assert len(server.asked) == 2
        known = sweep.listing
        assert known.places == tuple((row, str(row)) for row in range(6))
    assert min(known.proved_at_us) > began_at


def looked_for_nights(server: Model, nights: int) -> Listing:
    """Return what is known after so many quiet nights, another one later."""
    known = look(server).listing
    for _ in range(nights):
        server.now_us += DAY_US
        known = look(server, known).listing
    server.now_us += DAY_US
    server.asked.clear()
    return known


def shift_before_the_proof(server: Model) -> None:
    """Let a row come at the head and the last one go, before the second page is answered."""
    if len(server.asked) == 2:
        server.ids.insert(0, 1000)
        server.remove(len(server.ids) - 1)


def test_cursors_that_name_places_are_put_right_from_the_proof_on_that_finds_rows_moved():
    server = Model(list(range(9)), page_rows=1, by_place=True)
    known = looked_for_nights(server, 4)
    server.before_answer = shift_before_the_proof
    sweep = look(server, known)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 9, 9)
    assert sweep.listing.ids == tuple(range(9))
    assert server.asked == [CursorAsk(), CursorAsk("4")]
    asked_before = [(row, str(row)) for row in range(3)]
    from_there_on = [(row - 1, str(row)) for row in range(4, 9)]
    assert sweep.listing.places == (*asked_before, *from_there_on)


def test_a_last_row_that_goes_after_the_head_was_read_is_for_the_next_look_to_find():
    server = Model(list(range(100)), by_place=True)
    known = looked_for_nights(server, 1)
    server.before_answer = shift_before_the_proof
    sweep = look(server, known)
    assert server.asked == [CursorAsk(), CursorAsk("98")], "behind which is the last row alone"
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 100, 100)
    server.before_answer = lambda _: None
    proved(look(server, sweep.listing), server)


@pytest.mark.parametrize("why", ["another total", "a refused cursor"])
def test_a_proof_that_fails_forgets_nothing_and_leaves_two_passes(why):
    server = Model(list(range(120)))
    known = look(server).listing
    server.now_us += DAY_US
    sweep = cursors.begin(known, audit="rolling", now_us=server.now_us)
    sweep = cursors.read(sweep, server.answer(CursorAsk()))
    known, proof = sweep.listing, CursorAsk("48")
    assert cursors.wanted(sweep) == proof
    if why == "another total":
        server.ids.append(1000)
        sweep = cursors.read(sweep, server.answer(proof))
    else:
        sweep = cursors.not_connected(sweep)
    assert sweep.listing == known, "until the head is read again"
    server.asked.clear()
    server.before_answer = all_other_rows
    assert outcome(gone_on_with(sweep, server, most_pages=20)) is Outcome.UNSTEADY
    assert [ask.after is None for ask in server.asked] == [True, False] * 2


# What is read again, and how often.


def all_other_rows(server: Model) -> None:
    """Let every page be of another listing, a row longer each time."""
    asked = len(server.asked)
    server.gone.update(dict.fromkeys(server.ids, 48))
    server.ids = [asked * 10_000 + row for row in range(120 + asked)]


def test_a_listing_of_other_rows_at_every_page_is_left_to_the_next_look_after_three_passes():
    server = Model(list(range(120)), before_answer=all_other_rows)
    sweep = look(server, most_pages=20)
    assert sweep.verdict == Verdict(Outcome.UNSTEADY, 50, 126)
    assert [ask.after is None for ask in server.asked] == [True, False] * 3
    assert (sweep.listing.ids, sweep.listing.whole) == (tuple(range(50_000, 50_050)), False)
    assert (sweep.fresh, sweep.fresh_at_us) == ((), ())
    server.before_answer = lambda _: None
    proved(look(server, sweep.listing), server)


def test_a_total_that_is_another_in_every_pass_leaves_all_that_is_served_whole():
    server = Model(list(range(120)))
    server.told = lambda total, _: total + 1 + (len(server.asked) - 1) // 4
    sweep = look(server, most_pages=20)
    assert sweep.verdict == Verdict(Outcome.UNSTEADY, 120, 123)
    assert [ask.after for ask in server.asked] == [None, "48", "97", "118"] * 3
    assert (sweep.listing.ids, sweep.listing.whole) == (tuple(server.ids), True)


def test_a_total_that_moves_costs_a_look_at_the_head_that_joins_what_was_read():
    server = Model(list(range(120)))
    server.before_answer = lambda model: model.remove(110) if len(model.asked) == 2 else None
    proved(look(server), server)
    assert [ask.after for ask in server.asked] == [None, "48", "97", None]


@pytest.mark.parametrize(("audit", "pages"), [("off", 3), ("rolling", 4)])
def test_a_total_that_moves_while_new_rows_are_joined_costs_another_look_at_the_head(audit, pages):
    server = Model(list(range(120)))
    known = look(server).listing
    server.now_us += DAY_US
    server.ids[:0] = range(1000, 1060)
    server.asked.clear()
    server.told = lambda total, _: total + int(len(server.asked) == 1)
    proved(look(server, known, audit=audit), server)
    assert [ask.after is None for ask in server.asked] == [True, False, True, False][:pages]


def test_a_listing_of_all_other_rows_is_read_as_if_none_had_been_known():
    server = Model(list(range(120)))
    known = look(server).listing
    server.ids = list(range(1000, 1120))
    server.asked.clear()
    proved(look(server, known, audit="off"), server)
    assert len(server.asked) == 3


def test_a_row_that_is_listed_twice_keeps_no_other_from_being_read():
    server = Model([*range(60), 3, *range(61, 120)])
    sweep = look(server, most_pages=20)
    assert outcome(sweep) is Outcome.DISAGREES
    assert sweep.listing.ids == tuple(server.ids)


def test_no_rows_where_the_total_says_some_are_a_total_that_does_not_fit():
    assert outcome(look(Model([], told=lambda *_: 3))) is Outcome.DISAGREES


@pytest.mark.parametrize("last_page", [2, 3, 4])
def test_a_page_that_gives_no_cursor_is_the_last_one(last_page):
    server = Model(list(range(300)))

    def stop_giving(model: Model) -> None:
        model.gives_cursors = len(model.asked) % last_page != 0

    server.before_answer = stop_giving
    sweep = look(server, most_pages=20)
    assert sweep.verdict == Verdict(Outcome.DISAGREES, 1 + 49 * last_page, 300)
    assert len(server.asked) == 2 * last_page, "once more, whether it stays so"


def test_a_total_that_counts_its_page_is_found_out_by_the_second_page():
    server = Model(list(range(50)), told=lambda _, rows: rows)
    assert look(server).verdict == Verdict(Outcome.NO_TOTAL, 50, 1)
    assert len(server.asked) == 2


def test_behind_a_full_page_that_its_total_counts_no_page_is_asked_twice():
    server = Model(list(range(50)), told=lambda _, rows: rows)
    known = look(server).listing
    server.ids += [1000]
    server.asked.clear()
    assert outcome(look(server, known)) is Outcome.NO_TOTAL
    assert [ask.after for ask in server.asked] == [None, "48", "49"]


def test_a_row_whose_total_is_told_no_more_is_not_proved():
    server = Model([1])
    known = look(server).listing
    server.told = lambda *_: None
    assert look(server, known).verdict == Verdict(Outcome.NO_TOTAL, 1, None)


# A look that was cut short.


@pytest.mark.parametrize(("minutes", "goes_on"), [(10, True), (10 + 1e-6, False)])
def test_ten_minutes_later_the_head_is_read_again(minutes, goes_on):
    server = Model(list(range(300)))
    sweep = look(server, most_pages=2)
    later = sweep.last_read_us + round(minutes * MINUTE_US)
    for again in (
        cursors.refreshed(sweep, later),
        cursors.begin(sweep.listing, audit="rolling", now_us=later),
    ):
        assert again.listing.ids == tuple(range(99)), "whatever happens, nothing is forgotten"
        assert cursors.wanted(again) == (CursorAsk("97") if goes_on else CursorAsk())


def test_a_look_left_without_a_cursor_begins_at_the_head():
    server = Model(list(range(120)))
    known = replace(look(server, most_pages=2).listing, places=())
    server.asked.clear()
    proved(look(server, known), server)
    assert server.asked[0] == CursorAsk()


def test_a_stale_pass_of_a_full_audit_joins_what_it_has_read_and_nothing_older():
    server = Model(list(range(300)))
    known = look(server).listing
    sweep = look(server, known, audit="full", most_pages=2)
    server.asked.clear()
    server.now_us += DAY_US
    sweep = cursors.refreshed(sweep, server.now_us)
    sweep = cursors.read(sweep, server.answer(CursorAsk()))
    assert sweep.verdict is None
    assert sweep.listing.ids == tuple(range(99))
    assert cursors.wanted(sweep) == CursorAsk("97")


def test_a_head_that_is_read_again_for_its_age_is_no_pass_more():
    server = Model(list(range(120)))
    sweep = look(server, most_pages=1)
    server.now_us += DAY_US
    sweep = cursors.refreshed(sweep, server.now_us)
    server.before_answer = all_other_rows
    server.asked.clear()
    assert outcome(gone_on_with(sweep, server, most_pages=20)) is Outcome.UNSTEADY
    assert len(server.asked) == 2 * 3


def test_pages_count_from_the_moment_on_when_the_pass_began():
    server = Model(list(range(300)))
    sweep = look(server, most_pages=1)
    deeper, following = server.answer(CursorAsk("97")), server.answer(CursorAsk("48"))
    at_once = replace(following, read_at_us=sweep.listing.read_at_us)
    assert cursors.read(sweep, at_once).listing.ids == tuple(range(99))
    sweep = cursors.read(sweep, following)
    assert deeper.read_at_us < sweep.listing.read_at_us
    assert cursors.read(sweep, deeper).listing.ids == tuple(range(148))


def test_a_page_older_than_a_pass_that_is_gone_on_with_proves_nothing():
    server = Model(list(range(300)))
    known = look(server, most_pages=2).listing
    sweep = cursors.begin(known, audit="rolling", now_us=server.now_us)
    view = server.answer(CursorAsk("97"))
    old = replace(view, read_at_us=min(known.proved_at_us) - 1)
    assert cursors.read(sweep, old) == sweep
    assert cursors.read(sweep, view).listing.ids == tuple(range(148))


def test_a_short_last_page_ends_a_look_that_goes_on_with_it():
    server = Model(list(range(97)))
    known = look(server, most_pages=1).listing
    server.asked.clear()
    proved(look(server, known), server)
    assert server.asked == [CursorAsk("48")]


@pytest.mark.parametrize(("page_rows", "rows"), [(10, 19), (1, 2)])
def test_a_full_page_hides_no_row_from_a_look_that_goes_on_with_it(page_rows, rows):
    server = Model(list(range(rows)), page_rows=page_rows)
    known = look(server, most_pages=1).listing
    server.remove(0)
    server.ids.append(1000)  # so the total stays, and fits the rows that are known then
    proved(look(server, known), server)


def test_a_look_that_goes_on_is_proved_where_all_rows_but_the_last_one_went():
    server = Model(list(range(120)))
    known = look(server, most_pages=2).listing
    server.ids = [98]
    server.gone = {97: 0}
    proved(look(server, known), server)


# Changes of any kind.


def change(server: Model, random: Random, made: list[int]) -> None:
    """Change the listing as the world does, or, where cursors name places, at its ends."""
    made.append(1_000_000 + len(made))
    kind = random.choice(("head", "end", "late", "remove"))
    if kind == "remove" and server.ids:
        server.remove(random.randrange(len(server.ids)))
    else:
        rows = len(server.ids)
        places = {"head": 0, "end": rows, "late": random.randint(0, rows)}
        server.ids.insert(places.get(kind, 0), made[-1])


def drawn_server(random: Random) -> Model:
    rows, by_place = random.randint(0, 160), random.random() < 0.5
    forgets = random.random() < 0.5
    page_rows = random.choice((50, 50, 7))
    return Model(list(range(rows)), page_rows=page_rows, by_place=by_place, forgets=forgets)


@example(seed=56699)  # a row went for a late one, while pages were shorter than published
@given(seed=st.integers(0, 2**32))
def test_a_first_look_calls_nothing_proved_that_misses_a_row_that_stood_all_along(seed):
    random = Random(seed)
    server, made = drawn_server(random), list[int]()
    stood = set(server.ids)
    often = random.choice((0.0, 0.1, 0.5))

    def before_answer(model: Model) -> None:
        if random.random() < often:
            change(model, random, made)
            stood.intersection_update(model.ids)

    server.before_answer = before_answer
    sweep = look(server, audit="full")
    assert sweep.verdict is not None
    if sweep.verdict.verified:
        assert stood.issubset(sweep.listing.ids)
    if not often:
        proved(sweep, server)


@example(seed=3422)  # the last row has gone, and another has come
@given(seed=st.integers(0, 2**32))
def test_night_after_night_every_row_is_known_within_as_many_looks_as_there_are_pages(seed):
    random = Random(seed)
    server, made = drawn_server(random), list[int]()
    known, often = Listing(), 0.0

    def before_answer(model: Model) -> None:
        if random.random() < often:
            change(model, random, made)

    server.before_answer = before_answer
    for _ in range(random.randint(1, 6)):
        for _ in range(random.choice((0, 1, 1, 5, 70))):
            change(server, random, made)
        often = random.choice((0.0, 0.0, 0.3))
        cut_short = random.randint(1, 4) if random.random() < 0.3 else 10_000
        known = look(server, known, most_pages=cut_short).listing
        server.now_us += random.choice((MINUTE_US, 11 * MINUTE_US, DAY_US))
    often = 0.0
    for _ in range(2 + len(server.ids) // (server.page_rows - 1)):
        server.now_us += DAY_US
        known = look(server, known).listing
    proved(look(server, known), server)
