"""Decides, over all tests of a pipeline, which page is asked next; no I/O, no clock."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from etl.ledger.values import Work
from etl.paging import sweep as sweeps
from etl.paging.dialect import Dialect, after_answer
from etl.paging.sweep import Sweep
from etl.paging.values import Listing, PageAsk, PageView

_MOST_UNSETTLED_ANSWERS = 6


@dataclass(frozen=True, slots=True)
class Job:
    """A page to ask of a test: `sweep_pass` is the pass that wants it."""

    test_id: str
    ask: PageAsk
    sweep_pass: int
    attempt: int = 0


@dataclass(slots=True)
class _Try:
    """What earlier tries of a page came to."""

    attempts: int
    not_before: float
    first_failed_at: float


@dataclass(slots=True)
class Look:
    """A look at one test's listing under way."""

    test_id: str
    sweep: Sweep
    in_flight: set[tuple[int, str]] = field(default_factory=set)
    in_hand: dict[str, PageView] = field(default_factory=dict)
    tries: dict[str, _Try] = field(default_factory=dict)


class Looks:
    """The looks under way and those to come: one test after another, begun ones first."""

    def __init__(
        self,
        work: Iterable[Work],
        dialect: Dialect,
        *,
        first_dialect: Dialect,
        audit: str,
        most_tests: int,
        most_pages: int,
    ) -> None:
        """Begin with nothing under way; at most `most_tests` are looked at together.

        `dialect` is what is known of the spelling, `first_dialect` what to begin anew with.
        """
        self.dialect = dialect
        self._first_dialect = first_dialect
        self._to_come = deque(work)
        self._opening = 0
        self._under_way: dict[str, Look] = {}
        self._audit = audit
        self._most_tests = most_tests
        self._most_pages = most_pages
        self._unsettled_answers = 0

    def doubt(self, job: Job) -> bool:
        """Learn anew how the API spells pages, and begin this look anew: a few times at most.

        What was learned from an echo that lied would fail every later look too. Returns
        whether it is tried.
        """
        self.give_back(job)
        look = self._under_way.get(job.test_id)
        if look is None or look.sweep.passes >= sweeps.MOST_PASSES:
            return False
        self.dialect = self._first_dialect
        self._unsettled_answers = 0
        look.sweep = sweeps.begun_anew(look.sweep)
        look.in_hand.clear()
        look.tries.clear()
        return True

    def add(self, work: Iterable[Work]) -> None:
        """Take in more tests to look at."""
        self._to_come.extend(work)

    @property
    def is_done(self) -> bool:
        """Whether every test has been looked at."""
        return not (self._to_come or self._opening or self._under_way)

    def to_open(self, now_us: int) -> Work | None:
        """Take the next test to look at, or None while enough are under way.

        A test that is to be tried again later lets the others pass.
        """
        under_way = len(self._under_way) + self._opening
        if under_way >= self._most_tests or (under_way and self._must_go_alone()):
            return None
        for _ in range(len(self._to_come)):
            work = self._to_come.popleft()
            if work.not_before_us <= now_us:
                self._opening += 1
                return work
            self._to_come.append(work)
        return None

    def open(
        self,
        work: Work,
        known: Listing,
        now_us: int,
        in_hand: Mapping[str, PageView],
    ) -> Sweep:
        """Begin a look, and return its sweep.

        `in_hand` are pages of it that an earlier process left in the inbox: they may
        already be all that it takes. None counts as read later than now: somebody may
        have set the clock back since.
        """
        self._opening -= 1
        views = {
            spelled: replace(view, read_at_us=min(view.read_at_us, now_us))
            for spelled, view in in_hand.items()
        }
        began_at_us = min((view.read_at_us for view in views.values()), default=now_us)
        known = sweeps.believed(known, now_us)
        sweep = sweeps.begin(known, audit=self._audit, now_us=began_at_us)
        look = self._under_way[work.test_id] = Look(work.test_id, sweep, in_hand=views)
        self._read_in_hand(look)
        proved_at_us = look.sweep.listing.read_at_us
        if look.sweep.verdict is not None and now_us - proved_at_us > sweeps.STALE_AFTER_US:
            # What pages of long ago have proved is where to look from, not a look.
            look.sweep = sweeps.begin(look.sweep.listing, audit=self._audit, now_us=now_us)
        return look.sweep

    def next_job(self, now: float, now_us: int) -> Job | None:
        """Take the page to ask next, or None while there is none to ask now."""
        if self._must_go_alone() and any(look.in_flight for look in self._under_way.values()):
            return None
        for look in self._under_way.values():
            look.sweep = sweeps.refreshed(look.sweep, now_us)
            asks = sweeps.wanted(look.sweep, self.dialect, self._most_pages)
            if asks:
                # What is wanted first has been read if it was in hand, unless it came to be
                # wanted just now, by a sweep gone stale or another spelling: then it is old.
                look.in_hand.pop(asks[0].spelled(), None)
            for ask in asks:
                job = self._job_of(look, ask, now)
                if job is not None:
                    return job
        return None

    def _job_of(self, look: Look, ask: PageAsk, now: float) -> Job | None:
        key = (look.sweep.passes, ask.spelled())
        tried = look.tries.get(key[1])
        waits = tried is not None and tried.not_before > now
        if key in look.in_flight or key[1] in look.in_hand or waits:
            return None
        look.in_flight.add(key)
        return Job(look.test_id, ask, key[0], tried.attempts if tried else 0)

    def _must_go_alone(self) -> bool:
        """Until an echo has told the spelling, one page at a time: it may be a wrong one."""
        return not self.dialect.settled and self._unsettled_answers < _MOST_UNSETTLED_ANSWERS

    def answered(self, job: Job, view: PageView) -> Sweep | None:
        """Take in a page as served, and return the test's sweep as it stands now.

        None if its look has ended meanwhile: then the page proves nothing to anyone.
        """
        look = self._under_way.get(job.test_id)
        if look is None:
            return None
        look.in_flight.discard((job.sweep_pass, job.ask.spelled()))
        look.tries.pop(job.ask.spelled(), None)
        if look.sweep.passes == job.sweep_pass:
            look.in_hand[job.ask.spelled()] = view
            self._read_in_hand(look)
        if not self.dialect.settled:
            self._unsettled_answers += 1
        return look.sweep

    def _read_in_hand(self, look: Look) -> None:
        """Feed the sweep every page that it wants and that has come already.

        What a page teaches about the spelling is learned as it is read, so that pages left
        in the inbox are found under the names under which they were asked.
        """
        while asks := sweeps.wanted(look.sweep, self.dialect, 1):
            view = look.in_hand.pop(asks[0].spelled(), None)
            if view is None:
                return
            self.dialect = after_answer(self.dialect, asks[0], view)
            passes = look.sweep.passes
            look.sweep = sweeps.read(look.sweep, self.dialect, asks[0], view)
            if look.sweep.passes != passes:
                look.in_hand.clear()

    def first_failed_at(self, job: Job, now: float) -> float:
        """Return when this page first failed: now, unless it has before."""
        look = self._under_way.get(job.test_id)
        tried = look.tries.get(job.ask.spelled()) if look is not None else None
        return tried.first_failed_at if tried is not None else now

    def retry(self, job: Job, now: float, delay_seconds: float) -> None:
        """Ask this page again after a delay."""
        look = self._under_way.get(job.test_id)
        if look is not None:
            look.in_flight.discard((job.sweep_pass, job.ask.spelled()))
            first = self.first_failed_at(job, now)
            look.tries[job.ask.spelled()] = _Try(job.attempt + 1, now + delay_seconds, first)

    def give_back(self, job: Job) -> None:
        """Put back a page that could not be asked at all."""
        look = self._under_way.get(job.test_id)
        if look is not None:
            look.in_flight.discard((job.sweep_pass, job.ask.spelled()))

    def close(self, test_id: str) -> Listing | None:
        """End a look, which has a verdict or cannot be made; return what is known."""
        look = self._under_way.pop(test_id, None)
        return None if look is None else look.sweep.listing

    def next_try_at(self, now: float) -> float | None:
        """Return when the next delayed page may be asked that may not yet, or None."""
        tries = (tried for look in self._under_way.values() for tried in look.tries.values())
        return min((tried.not_before for tried in tries if tried.not_before > now), default=None)

    def next_open_at_us(self, now_us: int) -> int | None:
        """Return when the next postponed test may be opened that may not yet, or None."""
        times = (work.not_before_us for work in self._to_come)
        return min((at_us for at_us in times if at_us > now_us), default=None)
