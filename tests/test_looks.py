"""Which page is asked next over all tests, and until when there is nothing to ask."""

from dataclasses import replace

from etl.config.models import Pagination
from etl.ledger.values import Work
from etl.paging.dialect import Dialect, first_dialect
from etl.paging.values import Listing, PageView, Style
from etl.run.looks import Looks

TEST = "00000001-0000-4000-8000-000000000001"


SETTLED = Dialect(Style.OFFSET, 500, first_page=1, settled=True)


def looks_of(*work: Work, dialect: Dialect = SETTLED) -> Looks:
    return Looks(work, dialect, first_dialect=dialect, audit="rolling", most_tests=8, most_pages=8)


def test_a_page_that_is_asked_again_keeps_nobody_awake_while_it_is_under_way():
    looks = looks_of(Work(TEST))
    work = looks.to_open(0)
    assert work is not None
    looks.open(work, Listing(), 0, {})
    job = looks.next_job(100.0, 0)
    assert job is not None
    looks.retry(job, 100.0, 5.0)
    assert looks.next_job(104.0, 0) is None
    assert looks.next_try_at(104.0) == 105.0
    again = looks.next_job(105.0, 0)
    assert again is not None and again.attempt == 1
    # Else whoever has nothing to do asks for the time until the answer comes, as fast as he can.
    assert looks.next_try_at(105.0) is None


def test_a_test_that_is_due_but_must_wait_its_turn_does_not_hide_the_time_of_the_next():
    looks = looks_of(Work(TEST, 1, 50), Work(TEST[:-1] + "2", 1, 900))
    assert looks.next_open_at_us(100) == 900
    assert looks.next_open_at_us(10) == 50
    assert looks.next_open_at_us(900) is None


def test_pages_in_the_inbox_of_a_server_that_caps_them_are_not_asked_again():
    # Their answers taught how to ask the next ones; a kill has left nothing but them.
    ids = tuple(range(70))
    in_hand = {
        spelled: PageView(ids[start : start + 25], 25, start, 70, 1)
        for spelled, start in [
            ("rowsPerPage=500&pageNumber=1", 0),
            ("limit=500&offset=24", 24),
            ("limit=25&offset=48", 48),
        ]
    }
    looks = looks_of(Work(TEST), dialect=first_dialect(Pagination()))
    work = looks.to_open(0)
    assert work is not None
    sweep = looks.open(work, Listing(), 2, in_hand)
    assert sweep.verdict is not None and sweep.verdict.verified


def test_pages_in_the_inbox_that_have_gone_stale_are_asked_again_and_keep_nobody_waiting():
    ids = tuple(range(70))
    in_hand = {
        "limit=500&offset=0": PageView(ids[:25], 25, 0, 70, 1),
        "limit=25&offset=0": PageView(ids[:25], 25, 0, 70, 2),
    }
    looks = looks_of(Work(TEST))
    work = looks.to_open(0)
    assert work is not None
    looks.open(work, Listing(), 3, in_hand)
    job = looks.next_job(0.0, 700_000_000)
    assert job is not None and job.ask.start == 0


def test_pages_that_came_in_another_order_before_a_death_are_not_asked_again():
    # The listing reached row 10 by a page that came after the one behind it.
    ids = tuple(range(20))
    known = Listing(ids[:10], (1,) * 5 + (3,) * 5, total=20, read_at_us=3)
    in_hand = {"limit=11&offset=9": PageView(ids[9:], 11, 9, 20, 2)}
    looks = looks_of(Work(TEST), dialect=replace(SETTLED, rows=11))
    work = looks.to_open(4)
    assert work is not None
    sweep = looks.open(work, known, 4, in_hand)
    assert sweep.verdict is not None and sweep.verdict.verified


def test_pages_of_long_ago_are_not_taken_for_a_look_of_today():
    ids = tuple(range(70))
    looks = looks_of(Work(TEST))
    work = looks.to_open(0)
    assert work is not None
    in_hand = {"limit=500&offset=0": PageView(ids, 500, 0, 70, 1)}
    sweep = looks.open(work, Listing(), 3600 * 1_000_000, in_hand)
    assert sweep.verdict is None and sweep.listing.ids == ids
    job = looks.next_job(0.0, 3600 * 1_000_000)
    assert job is not None and job.ask.start == 0
