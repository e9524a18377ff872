"""One look at a listing, page by page: what it takes for proof, and what it leaves behind."""

from dataclasses import replace

import pytest

from etl.paging import sweep as sweeps
from etl.paging.sweep import Sweep
from etl.paging.values import Listing, Outcome, PageAsk, PageView, Style, Verdict
from tests.test_paging import DAY_US, MINUTE_US, Model, look, settled


def begun(server: Model, pages: int) -> Sweep:
    """Return a look that has read this many pages."""
    return look(server, most_pages=pages)


def page_at(server: Model, start: int, rows: int = 500) -> tuple[PageAsk, PageView]:
    ask = PageAsk(Style.OFFSET, rows, start)
    return ask, server.answer(ask)


# Pages that were not asked.


def test_four_pages_in_a_row_from_elsewhere_end_the_look_and_lose_nothing():
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    ask = sweeps.wanted(sweep, settled(), 1)[0]
    elsewhere = page_at(server, 1_500)[1]
    for _ in range(3):
        sweep = sweeps.read(sweep, settled(), ask, elsewhere)
        assert sweep.verdict is None
        assert sweep.listing.ids == tuple(range(500))
    sweep = sweeps.read(sweep, settled(), ask, elsewhere)
    assert sweep.verdict == Verdict(Outcome.NOT_UNDERSTOOD, 500, 3_000)
    assert (sweep.listing.ids, sweep.listing.whole) == (tuple(range(500)), False)


def test_pages_from_elsewhere_are_forgotten_once_the_right_one_comes():
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    elsewhere = page_at(server, 2_400)[1]
    for _ in range(3):
        for _ in range(3):
            sweep = sweeps.read(sweep, settled(), sweeps.wanted(sweep, settled(), 1)[0], elsewhere)
        ask = sweeps.wanted(sweep, settled(), 1)[0]
        sweep = sweeps.read(sweep, settled(), ask, server.answer(ask))
    assert sweep.verdict is None
    assert sweep.listing.ids == tuple(range(500 + 3 * 499))


def test_a_page_read_before_the_pass_began_proves_nothing_to_it():
    server = Model(list(range(3_000)))
    late = page_at(server, 499)
    sweep = begun(server, 1)
    assert sweeps.read(sweep, settled(), *late) == sweep


def test_a_page_read_at_the_very_moment_when_the_pass_began_counts():
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    ask, view = page_at(server, 499)
    sweep = sweeps.read(sweep, settled(), ask, replace(view, read_at_us=sweep.pass_began_us))
    assert sweep.listing.ids == tuple(range(999))


def test_pages_under_way_together_count_whichever_was_read_first():
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    deeper, next_one = page_at(server, 998), page_at(server, 499)
    assert deeper[1].read_at_us < next_one[1].read_at_us
    for ask, view in (next_one, deeper):
        sweep = sweeps.read(sweep, settled(), ask, view)
    assert sweep.listing.ids == tuple(range(1_498))


def test_pages_that_hold_fewer_rows_than_they_echo_are_read_to_the_end():
    server = Model(list(range(900)), cap=300)
    sweep = sweeps.begin(Listing(), audit="off", now_us=server.now_us)
    while asks := sweeps.wanted(sweep, settled(), 1):
        view = replace(server.answer(asks[0]), limit=500)
        sweep = sweeps.read(sweep, settled(), asks[0], view)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 900, 900)
    assert [ask.start for ask in server.asked] == [0, 299, 598, 897]


def test_two_full_pages_without_a_new_row_end_a_pass_and_one_does_not():
    server = Model(list(range(3_000)))

    def push_down(model: Model) -> None:
        if len(model.asked) == 3:
            model.ids[:0] = range(20_000, 20_499)

    server.before_answer = push_down
    assert begun(server, 5).verdict is None
    assert [ask.start for ask in server.asked] == [0, 499, 998, 998, 0]


def test_a_page_that_tells_no_offset_lies_where_it_was_asked():
    server = Model(list(range(1_200)))
    listing = look(server).listing
    for known in (Listing(), listing):
        server.now_us += DAY_US
        sweep = sweeps.begin(known, audit="rolling", now_us=server.now_us)
        while asks := sweeps.wanted(sweep, settled(), 1):
            view = replace(server.answer(asks[0]), offset=None)
            sweep = sweeps.read(sweep, settled(), asks[0], view)
        assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_200, 1_200)
    assert [ask.start for ask in server.asked[-2:]] == [0, 500], "the head, and a proof"


def test_a_head_that_begins_at_the_second_row_is_none():
    server = Model(list(range(700)))
    sweep = sweeps.begin(Listing(), audit="off", now_us=server.now_us)
    (ask,) = sweeps.wanted(sweep, settled(), 1)
    assert sweeps.read(sweep, settled(), ask, page_at(server, 1)[1]).listing.ids == ()


@pytest.mark.parametrize("start", [500, 501])
def test_a_page_behind_the_last_row_does_not_connect_where_an_overlap_was_asked(start):
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    (ask,) = sweeps.wanted(sweep, settled(), 1)
    sweep = sweeps.read(sweep, settled(), ask, page_at(server, start)[1])
    assert sweep.listing.ids == tuple(range(500))


def test_a_row_that_stands_twice_on_a_page_counts_once():
    server = Model([1, 1, 2, 3, 3])
    assert begun(server, 1).listing.ids == (1, 2, 3)


def test_pages_from_elsewhere_are_counted_anew_in_each_pass():
    server = Model(list(range(3_000)))
    sweep = begun(server, 1)
    elsewhere = page_at(server, 1_500)[1]

    def three_strays(sweep: Sweep) -> Sweep:
        for _ in range(3):
            ask = sweeps.wanted(sweep, settled(), 1)[0]
            sweep = sweeps.read(sweep, settled(), ask, elsewhere)
        return sweep

    sweep = three_strays(sweep)
    ask, view = page_at(server, 499)
    sweep = sweeps.read(sweep, settled(), ask, replace(view, ids=(77_777, *view.ids[1:])))
    assert (sweep.passes, sweep.verdict) == (2, None)
    assert three_strays(sweep).verdict is None


def test_a_page_after_the_verdict_changes_nothing():
    server = Model(list(range(700)))
    sweep = begun(server, 10)
    assert sweep.verdict is not None
    assert sweeps.read(sweep, settled(), *page_at(server, 499)) == sweep
    assert sweeps.wanted(sweep, settled(), 1) == ()


def test_one_row_pages_follow_one_another_without_an_overlap():
    server = Model(list(range(5)))
    sweep = look(server, dialect=settled(rows=1))
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 5, 5)
    assert [ask.start for ask in server.asked] == [0, 1, 2, 3, 4]


def test_a_row_that_comes_twice_where_pages_cannot_overlap_is_found_at_the_end():
    server = Model(list(range(5)))
    sweep = look(server, dialect=settled(rows=1), most_pages=2)
    ask = sweeps.wanted(sweep, settled(rows=1), 1)[0]
    server.ids.insert(0, 99)  # row 1 is now where row 2 was asked
    sweep = sweeps.read(sweep, settled(rows=1), ask, server.answer(ask))
    assert sweep.listing.ids == (0, 1, 1)
    while asks := sweeps.wanted(sweep, settled(rows=1), 1):
        sweep = sweeps.read(sweep, settled(rows=1), asks[0], server.answer(asks[0]))
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 6, 6)
    assert sweep.listing.ids == (99, 0, 1, 2, 3, 4)


# Pages that are wanted at once.


def test_beyond_the_total_and_the_reach_nothing_is_wanted_in_advance():
    server = Model(list(range(1_200)))
    sweep = begun(server, 1)
    assert [ask.start for ask in sweeps.wanted(sweep, settled(), 8)] == [499, 998]
    exact = begun(Model(list(range(999))), 1)
    assert [ask.start for ask in sweeps.wanted(exact, settled(), 8)] == [499]
    deep = Model(list(range(11_000)))
    sweep = begun(deep, 20)
    starts = [ask.start for ask in sweeps.wanted(sweep, settled(), 8)]
    assert starts == [9_980, 10_000]


def test_without_a_total_or_with_a_listing_to_join_one_page_is_wanted_at_a_time():
    server = Model(list(range(3_000)), total_told=False)
    assert len(sweeps.wanted(begun(server, 1), settled(), 8)) == 1
    told = Model(list(range(3_000)))
    known = look(told).listing
    told.ids.insert(0, 9_999)
    sweep = sweeps.begin(known, audit="off", now_us=told.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(told, 0))
    assert sweep.verdict is not None and sweep.verdict.verified
    told.ids.insert(2_000, 8_888)
    sweep = sweeps.begin(sweep.listing, audit="off", now_us=told.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(told, 0))
    assert len(sweeps.wanted(sweep, settled(), 8)) == 1


# A pass that was interrupted.


@pytest.mark.parametrize(("minutes", "goes_on"), [(10, True), (10 + 1e-6, False)])
def test_ten_minutes_later_the_head_is_read_again(minutes, goes_on):
    server = Model(list(range(3_000)))
    sweep = begun(server, 2)
    later = sweep.last_read_us + round(minutes * MINUTE_US)
    for again in (
        sweeps.refreshed(sweep, later),
        sweeps.begin(sweep.listing, audit="rolling", now_us=later),
    ):
        assert again.listing.ids == tuple(range(999)), "whatever happens, nothing is forgotten"
        assert again.passes == sweep.passes
        assert (sweeps.wanted(again, settled(), 1)[0].start == 998) is goes_on


def test_a_pass_that_is_gone_on_with_goes_on_as_if_it_had_never_stopped():
    server = Model(list(range(3_000)))
    sweep = begun(server, 2)
    again = sweeps.begin(sweep.listing, audit="rolling", now_us=server.now_us)
    assert again.listing == sweep.listing
    assert sweeps.wanted(again, settled(), 8) == sweeps.wanted(sweep, settled(), 8)
    ask, view = page_at(server, 998)
    before = replace(view, read_at_us=min(sweep.listing.proved_at_us) - 1)
    assert sweeps.read(again, settled(), ask, before) == again, "it was read before the pass"


def test_a_pass_whose_pages_cannot_be_trusted_is_begun_anew_and_counted():
    server = Model(list(range(3_000)))
    known = look(server).listing
    sweep = sweeps.begin(known, audit="full", now_us=server.now_us)
    read = sweeps.read(sweep, settled(), *page_at(server, 0))
    anew = sweeps.begun_anew(read)
    assert (anew.known, anew.fresh, anew.passes) == (sweep.known, (), sweep.passes + 1)
    assert sweeps.wanted(anew, settled(), 8) == sweeps.wanted(sweep, settled(), 8)


def test_a_stale_pass_that_has_joined_its_rows_wants_many_pages_at_once_again():
    server = Model(list(range(3_000)))
    sweep = begun(server, 2)
    server.now_us += DAY_US
    sweep = sweeps.refreshed(sweep, server.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(server, 0))
    assert [ask.start for ask in sweeps.wanted(sweep, settled(), 3)] == [998, 1_497, 1_996]


def test_a_stale_pass_that_reads_the_head_again_may_join_what_it_knew_even_in_a_full_audit():
    server = Model(list(range(3_000)))
    known = look(server).listing
    sweep = sweeps.begin(known, audit="full", now_us=server.now_us)
    for start in (0, 499):
        sweep = sweeps.read(sweep, settled(), *page_at(server, start))
    sweep = sweeps.refreshed(sweep, server.now_us + DAY_US)
    sweep = sweeps.read(sweep, settled(), *page_at(server, 0))
    assert sweep.listing.ids == tuple(range(999))
    assert sweep.verdict is None, "what was known before the audit is no part of it"


def test_what_has_a_verdict_or_nothing_to_go_on_with_does_not_go_stale():
    server = Model(list(range(700)))
    done, fresh = begun(server, 10), sweeps.begin(Listing(), audit="off", now_us=0)
    assert sweeps.refreshed(done, server.now_us + DAY_US) == done
    assert sweeps.refreshed(fresh, server.now_us + DAY_US) == fresh


def test_times_that_a_wrong_clock_told_count_as_long_ago():
    told = Listing((1, 2, 3), (50, 100, 101), whole=True, total=3, read_at_us=101)
    assert sweeps.believed(told, 101) == told
    assert sweeps.believed(told, 100) == replace(told, proved_at_us=(50, 100, 0), read_at_us=0)


# What is proved, and when.


def test_every_row_is_proved_at_the_moment_of_the_last_page_that_showed_it():
    server = Model(list(range(1_200)))
    began = server.now_us
    listing = look(server).listing
    read_at = [began + 1_000_000 * page for page in (1, 2, 3)]
    assert listing.proved_at_us == (
        *[read_at[0]] * 499,  # row 499 is on both pages: the later one proves it
        *[read_at[1]] * 499,
        *[read_at[2]] * 202,
    )
    assert (listing.total, listing.read_at_us) == (1_200, read_at[2])


def test_a_proof_renews_its_page_and_leaves_all_else_as_it_was():
    server = Model(list(range(1_200)))
    first = look(server).listing
    server.now_us += DAY_US
    sweep = look(server, first)
    assert [ask.start for ask in server.asked[-2:]] == [0, 500]
    head, proof = server.now_us - 1_000_000, server.now_us
    proved = sweep.listing.proved_at_us
    assert proved == (*[head] * 500, *[proof] * 500, *first.proved_at_us[1_000:])
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_200, 1_200)


def test_a_proof_counts_rows_that_arrived_between_the_head_and_it():
    server = Model(list(range(1_200)))
    listing = look(server).listing
    server.now_us += DAY_US
    sweep = sweeps.begin(listing, audit="rolling", now_us=server.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(server, 0))
    server.ids[:0] = [5_001, 5_002]  # every row stands two deeper
    (ask,) = sweeps.wanted(sweep, settled(), 1)
    sweep = sweeps.read(sweep, settled(), ask, server.answer(ask))
    assert sweep.verdict is not None and sweep.verdict.verified
    assert sweep.listing.ids == tuple(range(1_200))
    assert sweep.listing.proved_at_us[498:998] == (server.now_us,) * 500
    assert sweep.listing.proved_at_us[998] < server.now_us


def test_a_listing_of_other_rows_at_every_page_is_left_to_the_next_run_after_three_passes():
    server = Model(list(range(1_200)))

    def change(model: Model) -> None:
        model.ids = [len(model.asked) * 10_000 + row for row in range(1_200)]

    server.before_answer = change
    sweep = look(server)
    assert sweep.verdict == Verdict(Outcome.UNSTEADY, 500, 1_200)
    assert [ask.start for ask in server.asked] == [0, 499] * 3
    assert (sweep.fresh, sweep.fresh_at_us) == ((), ())
    assert (len(sweep.listing.ids), sweep.listing.whole) == (500, False)
    server.before_answer = lambda _: None
    again = look(server, sweep.listing)
    assert again.verdict is not None and again.verdict.verified
    assert again.listing.ids == tuple(server.ids)


@pytest.mark.parametrize("spoil", ["another row", "no row", "from beyond", "no total", "the head"])
def test_a_proof_that_fails_reads_everything_again(spoil):
    server = Model(list(range(1_200)))
    listing = look(server).listing
    server.now_us += DAY_US
    sweep = sweeps.begin(listing, audit="rolling", now_us=server.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(server, 0))
    (ask,) = sweeps.wanted(sweep, settled(), 1)
    view = server.answer(ask)
    spoiled = {
        "another row": replace(view, ids=(*view.ids[:-1], 77_777)),
        "no row": replace(view, ids=()),
        "from beyond": replace(view, total=1_200 + 900),
        "no total": replace(view, total=None),
        "the head": page_at(server, 0)[1],
    }[spoil]
    sweep = sweeps.read(sweep, settled(), ask, spoiled)
    assert (sweep.verdict, sweep.passes) == (None, 2)
    starts = []
    while sweep.verdict is None:
        (ask,) = sweeps.wanted(sweep, settled(), 1)
        starts.append(ask.start)
        sweep = sweeps.read(sweep, settled(), ask, server.answer(ask))
    assert starts == [0, 499, 998], "to the end: it may not join what was found wrong"
    assert sweep.verdict.verified


def test_a_proof_may_show_more_than_was_asked():
    server = Model(list(range(1_200)))
    listing = look(server).listing
    server.now_us += DAY_US
    sweep = sweeps.begin(listing, audit="rolling", now_us=server.now_us)
    sweep = sweeps.read(sweep, settled(), *page_at(server, 0))
    (ask,) = sweeps.wanted(sweep, settled(), 1)
    whole = replace(page_at(server, 0)[1], ids=tuple(range(1_200)))
    sweep = sweeps.read(sweep, settled(), ask, whole)
    assert sweep.verdict is not None and sweep.verdict.verified
    assert set(sweep.listing.proved_at_us) == {whole.read_at_us}


def test_one_look_asks_for_one_proof_even_where_the_clock_was_set_back_meanwhile():
    server = Model(list(range(1_200)))
    listing = look(server).listing
    server.now_us += DAY_US
    sweep = sweeps.begin(listing, audit="rolling", now_us=server.now_us)
    server.now_us -= DAY_US // 2
    server.ids[700], proofs = 99_999, 0
    while asks := sweeps.wanted(sweep, settled(), 1):
        proofs += sweep.proof_of is not None
        sweep = sweeps.read(sweep, settled(), asks[0], server.answer(asks[0]))
    assert sweep.listing.ids == tuple(server.ids)
    assert proofs == 1


# A total that moves, or lies for a while.


def starts(server: Model) -> list[int | None]:
    return [ask.start for ask in server.asked]


def test_a_total_that_moves_costs_a_look_at_the_head_that_joins_what_was_read():
    server = Model(list(range(1_200)))

    def remove_one_below(model: Model) -> None:
        if len(model.asked) == 2:
            del model.ids[1_100]

    server.before_answer = remove_one_below
    sweep = look(server)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_199, 1_199)
    assert starts(server) == [0, 499, 998, 0]
    assert sweep.listing.doubt is None


def test_a_total_that_moves_while_new_rows_are_joined_costs_another_look_at_the_head():
    server = Model(list(range(1_200)))
    listing = look(server, audit="off").listing
    server.ids[:0] = range(20_000, 20_600)
    server.asked.clear()

    def lie_at_first(model: Model) -> None:
        model.lies_by = int(len(model.asked) == 1)

    server.before_answer = lie_at_first
    sweep = look(server, listing, audit="off")
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_800, 1_800)
    assert starts(server) == [0, 499, 0]


def test_a_total_that_tells_the_truth_at_the_last_page_alone_costs_one_pass_more():
    server = Model(list(range(1_200)))
    listing = look(server, audit="off").listing
    server.ids.insert(0, 20_000)
    server.asked.clear()

    def lie_to_the_end(model: Model) -> None:
        model.lies_by = int(len(model.asked) < 4)

    server.before_answer = lie_to_the_end
    sweep = look(server, listing, audit="off")
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_201, 1_201)
    assert (starts(server), sweep.passes) == ([0, 499, 998, 1_200, 0], 2)


def test_after_an_end_that_the_total_contradicts_every_page_is_read_again():
    server = Model(list(range(1_200)), lies_by=1)

    def tell_the_truth(model: Model) -> None:
        model.lies_by = int(len(model.asked) <= 4)

    server.before_answer = tell_the_truth
    sweep = look(server)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 1_200, 1_200)
    assert starts(server)[4:] == [0, 499, 998]


def test_a_total_of_another_lie_in_every_pass_is_unsteady_and_the_listing_whole():
    server = Model(list(range(300)))

    def lie_anew(model: Model) -> None:
        model.lies_by = 1 + (len(model.asked) - 1) // 2

    server.before_answer = lie_anew
    sweep = look(server)
    assert sweep.verdict == Verdict(Outcome.UNSTEADY, 300, 303)
    assert sweep.listing.whole is True


def test_the_total_that_is_told_of_an_unsteady_listing_is_the_last_one():
    server = Model(list(range(1_200)))

    def change(model: Model) -> None:
        page = len(model.asked)
        model.ids = [page * 10_000 + row for row in range(1_200 + page)]

    server.before_answer = change
    assert look(server).verdict == Verdict(Outcome.UNSTEADY, 500, 1_206)


# Beyond the reach.


def test_a_listing_that_ends_just_before_the_reach_is_not_truncated():
    server = Model(list(range(10_498)), lies_by=3)
    verdict = look(server).verdict
    assert verdict == Verdict(Outcome.DISAGREES, 10_498, 10_501)


def test_rows_that_are_gone_do_not_count_as_out_of_reach():
    server = Model(list(range(10_500)))
    known = look(server).listing
    server.ids = [20_001, 20_002, *server.ids[:-2]]
    sweep = look(server, known, audit="full")
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 10_500, 10_500)
    assert sweep.listing.ids == tuple(server.ids)


def test_rows_out_of_reach_keep_the_moment_when_they_were_last_proved():
    server = Model(list(range(10_500)))
    known = look(server).listing
    server.ids[:0] = range(20_000, 20_300)
    server.now_us += DAY_US
    sweep = look(server, known, audit="full")
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 10_800, 10_800)
    assert sweep.listing.ids == tuple(server.ids)
    assert sweep.listing.proved_at_us[10_500:] == known.proved_at_us[10_200:]
    assert min(sweep.listing.proved_at_us[:10_500]) > max(known.proved_at_us)


def test_rows_of_which_none_is_in_reach_any_more_count_too():
    server = Model(list(range(300)))
    known = look(server).listing
    server.ids[:0] = range(20_000, 30_500)
    sweep = look(server, known)
    assert sweep.verdict == Verdict(Outcome.VERIFIED, 10_800, 10_800)
    assert sweep.listing.ids == tuple(server.ids)
    assert sweep.listing.proved_at_us[10_500:] == known.proved_at_us


@pytest.mark.parametrize("style", Style)
def test_rows_out_of_reach_do_not_keep_a_swap_within_it_from_being_found(style):
    server = Model(list(range(10_500)))
    listing = look(server).listing
    server.ids[:0] = range(20_000, 20_300)
    for _ in range(23):  # until the rows out of reach are those proved longest ago
        listing = look(server, listing, dialect=settled(style)).listing
        server.now_us += DAY_US
    del server.ids[7_000]
    server.ids.insert(3_000, 99_999)
    for _ in range(23):
        server.now_us += DAY_US
        listing = look(server, listing, dialect=settled(style)).listing
    assert listing.ids == tuple(server.ids)


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("cap", [1, 2, 3, 7, 60])
def test_the_proof_asks_for_the_page_that_holds_the_row_proved_longest_ago(style, cap):
    server = Model(list(range(5 * cap + 1)), cap=cap)
    listing = look(server, dialect=settled(style, cap)).listing
    for _ in range(6):
        server.now_us += DAY_US
        oldest = min(listing.proved_at_us)
        listing = look(server, listing, dialect=settled(style, cap)).listing
        assert listing.proved_at_us.count(oldest) < cap or min(listing.proved_at_us) > oldest
    assert min(listing.proved_at_us) > DAY_US * 2, "six looks prove six pages"
