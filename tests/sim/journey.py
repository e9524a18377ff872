"""One seed from its first request to a quiet end, checked after each life."""

import asyncio
import hashlib
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from etl.report.values import Status
from tests.sim.checker import Checker, History, last_run
from tests.sim.plan import DAY_SECONDS, Life, Plan, plan_of
from tests.sim.world import Lived, World, open_world
from tests.virtual_network import VirtualNetworkLoop

SHARED_MEMORY: Final = Path("/dev/shm")
_MOST_FOR_A_PAGE: Final = 40


@dataclass
class Told:
    """What came of a seed; `error` says what was broken."""

    seed: int
    weather: str
    error: str | None = None
    lives: int = 0
    kills: int = 0
    requests: int = 0
    virtual_seconds: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    trace: Sequence[str] = ()

    @property
    def digest(self) -> str:
        """A hash of all that happened: the same seed gives the same one."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


def run_seed(seed: int) -> Told:
    """Run what a seed draws; blocks."""
    return run_plan(plan_of(seed))


def run_plan(plan: Plan) -> Told:
    """Run a plan; blocks. The files lie in shared memory where there is any."""
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # its view of dead clients
    with folder_for_files() as folder, asyncio.Runner(loop_factory=VirtualNetworkLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualNetworkLoop)
        return runner.run(_told(plan, loop, folder))


@contextmanager
def folder_for_files() -> Iterator[Path]:
    """Yield a folder in shared memory, where there is any."""
    parent = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="etl-sim-", dir=parent) as folder:
        yield Path(folder)


async def _told(plan: Plan, loop: VirtualNetworkLoop, folder: Path) -> Told:
    began = loop.time()
    async with open_world(plan, loop, folder) as world:
        told = Told(plan.seed, plan.weather)
        journey = _Journey(world)
        try:
            await journey.run()
        except AssertionError as error:
            told.error = str(error)
        except TimeoutError:
            told.error = "a run hung for a month"
        except BaseExceptionGroup as group:
            told.error = f"a bug: {group!r}"
        told.lives, told.kills = world.lives, journey.kills
        told.requests = len(world.sandbox.requests)
        told.virtual_seconds = loop.time() - began
        told.struck = world.struck
        told.trace = _lines(world, began)
        return told


class _Journey:
    """The lives that the plan draws, then quiet ones until all is proved and idle."""

    def __init__(self, world: World) -> None:
        self.kills = 0
        self._rounds = [(0, 0)]
        self._round_began = 1
        self._world = world
        self._plan = world.plan
        self._history = History()
        self._checker = Checker(world.disk.root / "lake", self._history)
        world.on_change = self._note

    def _note(self, test: str) -> None:
        self._history.note(test, self._world.sandbox.rows(test), self._world.lives)

    async def run(self) -> None:
        """Live all lives; raises AssertionError when a promise is broken."""
        for test in self._world.tests:
            self._note(test)
        for life in self._plan.lives:
            await self._live(life)
        await self._end_quietly()

    async def _live(self, life: Life) -> Lived:
        world = self._world
        lived = await world.live(life)
        self._checker.every_file_is_whole()
        if lived.report is None:
            self.kills += 1
            self._checker.note_commits(world.lives)
        elif not lived.disk_failed:
            self._checker.after_a_run(
                world.lives,
                full_audit=self._plan.audit == "full",
                rows_lied=self._plan.rows_lied,
            )
        self._add_to_round(lived)
        _exit_is_right(lived, world.disk.root / "state")
        self._asks_are_bounded(lived)
        return lived

    def _add_to_round(self, lived: Lived) -> None:
        """Add up requests and stops of the runs that share a round of looks.

        A round has ended once every test is verified, also where death came right after.
        """
        requests, stops = self._rounds[-1]
        verified_in = self._checker.verified_in
        ended = all(verified_in.get(test, 0) >= self._round_began for test in self._world.tests)
        self._rounds[-1] = (requests + lived.requests, stops + (not ended))
        if ended:
            self._rounds.append((0, 0))
            self._round_began = self._world.lives + 1

    def _asks_are_bounded(self, lived: Lived) -> None:
        """However the server behaves, a run ends and asks no page for ever."""
        rows = sum(len(self._history.values[test]) for test in self._world.tests)
        pages = len(self._world.tests) + rows // 3
        faults = sum(lived.struck.values())
        most = _MOST_FOR_A_PAGE + 8 * pages + 8 * faults
        assert lived.requests <= most, f"{lived.requests} requests in one run, of {pages} pages"

    def _repaid_little(self, whole: int) -> None:
        """In calm weather a stop costs what was in flight, and two pages to find the way again.

        `whole` is what reading every page costs.
        """
        plan = self._plan
        if plan.weather != "calm" or not plan.is_paced:
            return
        refused = self._world.sandbox.count(429)
        assert refused == 0, f"{refused} sends were over the limit"
        for requests, stops in self._rounds:
            most = whole + len(plan.sizes) + (1 + stops) * (plan.concurrency + 2)
            assert requests <= most, f"{requests} requests with {stops} stops, {most} are due"

    async def _end_quietly(self) -> None:
        """Let a quiet run find everything, and another find that nothing has changed."""
        tests = self._world.tests
        quiet = Life(rest_seconds=DAY_SECONDS)
        lived = await self._live(quiet)
        if not self._plan.rows_lied:
            _is_complete(lived)
        if self._plan.rolls_to_the_end and not self._plan.rows_lied:
            for _ in range(self._most_pages()):
                _is_complete(await self._live(quiet))
        else:
            full = await self._live(Life(rest_seconds=DAY_SECONDS, full=True))
            _is_complete(full)
            self._repaid_little(full.requests)
        for test in tests:
            self._checker.all_is_there(test)
        lived = await self._live(quiet)
        _is_complete(lived)
        assert lived.report is not None
        landed = lived.report.pipelines[0].rows["sessions"]
        assert landed == 0, f"{landed} rows landed though nothing has changed"
        if self._plan.audit != "full":
            most = 2 * len(tests)
            assert lived.requests <= most, f"{lived.requests} requests on an idle night"

    def _most_pages(self) -> int:
        asked = self._plan.pagination.rows_per_page
        rows = min(self._plan.options.spelling.page_cap, asked)
        most = max(len(self._history.since[test]) for test in self._world.tests)
        return 1 + -(-most // rows)


def _exit_is_right(lived: Lived, state: Path) -> None:
    """Assert that the exit code says what has happened, and the report what the code says."""
    if lived.report is None:
        return
    code = next(code for code in _FIRST_TO_TELL if code in lived.codes)
    report = lived.report.pipelines[0]
    life = lived.life
    refusals = sum(times for what, times in lived.struck.items() if what in _REFUSALS)
    due = {0} if _is_quiet(lived) else {0, 4}
    if refusals > 1:
        due.add(3)
    if lived.disk_failed:
        due = {5}
    assert code in due, f"exit {code}, due is one of {due}: {report.error or report.failed}"
    told = {0: (Status.COMPLETE, Status.PAUSED), 4: (Status.PARTIAL,), 5: tuple(Status)}
    assert lived.report.status in told.get(code, (Status.FAILED,)), f"{code} is {report.status}"
    if lived.report.status is Status.PAUSED:
        limits = (life.max_requests, life.max_runtime_seconds, life.signal_at_page)
        assert limits != (None, None, None), "paused for no reason"
    if lived.report.status is Status.COMPLETE:
        assert not report.failed
    if not lived.disk_failed:
        assert last_run(state)["run_id"] == lived.report.run_id


_FIRST_TO_TELL: Final = (1, 5, 3, 75, 4, 6, 0)
_REFUSALS: Final = frozenset({"page status 401", "page status 403"})


def _is_quiet(lived: Lived) -> bool:
    """Say whether nothing befell this life that could have cost it its completeness."""
    life = lived.life
    return not (lived.struck or life.changes or life.outage or life.clock_jump)


def _is_complete(lived: Lived) -> None:
    assert lived.report is not None
    report = lived.report.pipelines[0]
    assert lived.report.status is Status.COMPLETE, f"not complete: {report.error or report.failed}"


def _lines(world: World, began: float) -> list[str]:
    """Return the trace with the server's view of each request, by time."""
    asked = [
        (
            request.at,
            f"  {request.status} test {world.tests.index(request.test_id or '')} "
            + "&".join(
                f"{name}={value}"
                for name, value in sorted(request.query.items())
                if name != "testId"
            ),
        )
        for request in world.sandbox.requests
    ]
    ordered = sorted([*world.trace, *asked], key=lambda line: line[0])
    return [f"{at - began:14.6f} {text}" for at, text in ordered]
