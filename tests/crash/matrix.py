"""The crash matrix: in every mode, at the n-th call of each kind, every fault.

A point is named `mode/call/n/fault`, and its name replays it; with `call@text` only calls on
paths with that text count. Each mode prepares a folder once; a point restores it, strikes a
run there, and looks: at that instant at the files, after the next run at every cell and
request and, for a quarter of the points, after one more run at whether anything was left.
"""

import errno
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from anyio import to_thread

from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from tests.crash import checker
from tests.crash.checker import Page
from tests.crash.zygote import Ended, Fault, Run, Strike, Zygote
from tests.exporting import TESTS, Project

ROWS_A_PAGE = 8
SESSIONS = (2, 12, 30)
SIZES: Mapping[str, float] = {
    "etl.lake.landing.BATCH_ROWS": 20,
    "etl.lake.batch.ROW_GROUP_ROWS": 15,
    "etl.run.keeping.GATHER_SECONDS": 0.0,  # a frame an answer, as at the vendor's pace
    "etl.run.keeping.FRAME_BYTES": 1,
    "etl.run.keeping.COMMIT_SECONDS": 0.0,
    "etl.paging.sweep.STALE_AFTER_US": 1e12,  # what was saved may be older than ten minutes
}
LARGER: Mapping[str, float] = {**SIZES, "etl.lake.landing.BATCH_ROWS": 1_000}

IDLE_EVERY = 4
LOG_FLUSH, NO_LOG_FLUSH = 1, 2  # of EXT4_IOC_SHUTDOWN

FAULTS: Mapping[str, tuple[Fault, int, tuple[int, int]]] = {
    "kill": (Fault.KILL, 0, (0, 0)),
    "torn": (Fault.TORN, 0, (0, 0)),
    "eio": (Fault.ERROR, errno.EIO, (0, 0)),
    "full": (Fault.FULL, errno.ENOSPC, (0, 0)),
    "dead": (Fault.DEAD, errno.EIO, (0, 0)),
    # A cut keeps what was synced; of the rest nothing, or one file system's journal.
    "cut": (Fault.CUT, 0, (NO_LOG_FLUSH, NO_LOG_FLUSH)),
    "cut-lake-journal": (Fault.CUT, 0, (LOG_FLUSH, NO_LOG_FLUSH)),
    "cut-state-journal": (Fault.CUT, 0, (NO_LOG_FLUSH, LOG_FLUSH)),
}
CUTS = ("cut", "cut-lake-journal", "cut-state-journal")
TAKE_ROOM = frozenset({"write", "rename", "link", "make"})


@dataclass(frozen=True, slots=True)
class Point:
    """An instant of a run in a mode, and what befalls it there."""

    mode: str
    call: str
    nth: int
    fault: str

    def __str__(self) -> str:
        return f"{self.mode}/{self.call}/{self.nth}/{self.fault}"

    @classmethod
    def named(cls, name: str) -> "Point":
        """Return the point of this name."""
        mode, _, rest = name.partition("/")
        call, nth, fault = rest.rsplit("/", 2)
        return cls(mode, call, int(nth), fault)


@dataclass(frozen=True, slots=True)
class Death:
    """Where an earlier run was killed: at the n-th call on a path with `within` in it."""

    call: str
    within: str
    nth: int = 1


@dataclass(frozen=True, slots=True)
class Mode:
    """What has happened before the run that is struck: the deaths are of one run each.

    Where rows are `edited` after a run that came through, the next ones replace them.
    """

    deaths: tuple[Death, ...] = ()
    completed: bool = False
    edited: bool = False
    late_deaths: tuple[Death, ...] = ()
    partition_by: str = "[test_id]"
    sizes: Mapping[str, float] = field(default_factory=lambda: SIZES)
    state_is_lost: bool = False
    state_is_old: bool = False
    file_is_lost: bool = False


_SECOND_COMMIT = Death("link", "/answers/", 2)  # a batch has landed, the next one lacks its commit

_REMOVAL = Death("unlink", "/part-")  # what a commit replaces is still there, beside the new rows

MODES: Mapping[str, Mode] = {
    "first": Mode(),
    "later": Mode(completed=True),  # some sessions came and went since
    "resume": Mode((Death("make", "/.part-"),)),  # answers in the inbox, no data file
    "hidden": Mode((Death("rename", "/part-", 2),)),  # unfinished files of an attempt
    "unmarked": Mode((Death("unlink", "/answers/"),)),  # a commit that the ledger does not know
    "half-way": Mode((_SECOND_COMMIT,)),
    "fenced": Mode((_SECOND_COMMIT, Death("unlink", "/part-"))),  # died while it mended a death
    "upgraded": Mode((_SECOND_COMMIT,), sizes=LARGER),  # the same rows make other batches
    "repartitioned": Mode((_SECOND_COMMIT,), partition_by="[start_month]"),
    "lost-state": Mode((_SECOND_COMMIT,), state_is_lost=True),
    "old-state": Mode((_SECOND_COMMIT,), state_is_old=True),  # what waits there has landed since
    "lost-file": Mode(completed=True, file_is_lost=True),
    "edited": Mode(completed=True, edited=True),
    "half-replaced": Mode(completed=True, edited=True, late_deaths=(_REMOVAL,)),
    "half-replaced-lost-state": Mode(
        completed=True, edited=True, late_deaths=(_REMOVAL,), state_is_lost=True
    ),
}


def faults_of(call: str) -> list[str]:
    """Return the faults that can befall a call."""
    faults = ["kill", "eio", "dead"]
    if call in TAKE_ROOM:
        faults.append("full")
    return [*faults, "torn"] if call == "write" else faults


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of a point: whether it was hit, and the requests that it cost."""

    hit: bool
    code: int
    lost: int  # pages asked and not durable at the death
    again: int  # durable pages that were asked again: heads and proofs
    calls: Mapping[str, int]


class Ground:
    """The folder that runs work in, on the machine's own file system; all of it blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def restore(self, saved: Path | None) -> None:
        """Make the folder what was saved; empty if None."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        if saved is None:
            self.folder.mkdir(parents=True)
        else:
            shutil.copytree(saved, self.folder)

    def come_back(self) -> None:
        """Do what the machine does between a death and the next run."""


class Rig:
    """A mode made ready: its sandbox, and the folder that every point begins with."""

    def __init__(
        self, mode: str, zygote: Zygote, ground: Ground, sandbox: Sandbox, saved: Path
    ) -> None:
        self.name = mode
        self.mode = MODES[mode]
        self.project = Project(ground.folder, sandbox, TESTS[: len(SESSIONS)])
        self._ground = ground
        self._saved = saved
        self._zygote = zygote
        self._seen: dict[str, dict[str, Mapping[str, object]]] = {}
        self._since_us = 0

    async def prepare(self) -> None:
        """Bring about what the mode says has happened before, and save it."""
        await to_thread.run_sync(self._ground.restore, None)
        await to_thread.run_sync(self._write, "[test_id]")
        await self._die(self.mode.deaths)
        if self.mode.completed:
            await self._complete()
        self._see()
        await self._die(self.mode.late_deaths)
        await to_thread.run_sync(self._write, self.mode.partition_by)
        if self.mode.state_is_old:
            await self._age_state()
        if self.mode.state_is_lost:
            await to_thread.run_sync(emptied, self.project.state)
        if self.mode.file_is_lost:
            (await to_thread.run_sync(self._files))[-1].unlink()
        await to_thread.run_sync(shutil.copytree, self.project.folder, self._saved)

    async def _die(self, deaths: tuple[Death, ...]) -> None:
        for death in deaths:
            call = f"{death.call}@{death.within}"
            strike = self._strike(Point(self.name, call, death.nth, "kill"))
            ended = await self.run(SIZES, strike)
            assert ended.code == -9, f"{self.name} is not what it says: {ended}"
            await to_thread.run_sync(self._ground.come_back)

    async def _complete(self) -> None:
        """Let a run come through, and some sessions come and go after it."""
        assert (await self.run(SIZES)).code == 0
        self._see()
        self._since_us = time.time_ns() // 1_000
        self.project.sandbox.complete(TESTS[2], 4)
        self.project.sandbox.finish_late(TESTS[2], 20)
        self.project.sandbox.complete(TESTS[0], 1)
        self.project.sandbox.remove(TESTS[1], 10)
        if self.mode.edited:  # what the next run reads again
            for test, place in ((TESTS[0], 2), (TESTS[1], 1), (TESTS[1], 3), (TESTS[2], 6)):
                self.project.sandbox.edit(test, place, status="REFUNDED")

    async def _age_state(self) -> None:
        """Let a run come through, and then restore the state of before."""
        state = self.project.state
        with tempfile.TemporaryDirectory() as kept:
            await to_thread.run_sync(lambda: shutil.copytree(state, kept, dirs_exist_ok=True))
            assert (await self.run(SIZES)).code == 0
            await to_thread.run_sync(emptied, state)
            await to_thread.run_sync(lambda: shutil.copytree(kept, state, dirs_exist_ok=True))

    async def calls(self) -> Mapping[str, int]:
        """Return how many calls of each kind a run makes that is not struck."""
        return (await self.attempt(Point(self.name, "write", 0, "kill"))).calls

    async def attempt(self, point: Point) -> Tried:
        """Strike a run at this point and let the next ones mend it; fail where they do not."""
        await to_thread.run_sync(self._ground.restore, self._saved)
        before = await to_thread.run_sync(self._durable)
        ended, asked = await self._asked(self.mode.sizes, self._strike(point))
        await to_thread.run_sync(self._ground.come_back)
        allowed = self._codes(point, ended)
        found = [] if ended.code in allowed else [f"the struck run ended with {ended.code}"]
        found += [f"the struck run: {it}" for it in self._asked_twice(asked, before)]
        found += await to_thread.run_sync(checker.half_written, self.project.lake)
        durable = await to_thread.run_sync(self._durable)
        lost = (asked - durable).total()
        mended, asked_again = await self._asked(self.mode.sizes)
        found += [] if mended.code == 0 else [f"the next run ended with {mended.code}"]
        found += self._asked_twice(asked_again, durable)
        found += await to_thread.run_sync(self._wrong)
        if point.nth % IDLE_EVERY == 0:
            found += await self._left_to_do()
        assert not found, f"{point}: " + "; ".join(found) + "\n" + self._output()
        again = (asked_again & durable).total()
        return Tried(ended.struck, ended.code, lost, again, ended.calls)

    async def _left_to_do(self) -> list[str]:
        """Run once more, and look whether it does more than to look."""
        files = await to_thread.run_sync(self._files)
        ended, asked = await self._asked(self.mode.sizes)
        found = [] if ended.code == 0 else [f"the run after it ended with {ended.code}"]
        found += self._asked_twice(asked, asked)
        if files != await to_thread.run_sync(self._files):
            found.append("the run after it landed more")
        return found

    def _codes(self, point: Point, ended: Ended) -> tuple[int, ...]:
        """Return how a run that was struck there may end."""
        if not ended.struck:
            return (0,)
        return (0, 5) if point.fault in ("eio", "full", "dead") else (-9,)

    def _asked_twice(self, asked: Counter[Page], durable: Counter[Page]) -> list[str]:
        """Look for pages that were asked although their answer was there.

        A look begins with the head of each test, and proves one old page of each.
        """
        found = [f"asked {n} times: {page}" for page, n in asked.items() if n > 1]
        for test in self.project.tests:
            again = [query for asked_of, query in asked & durable if asked_of == test]
            deep = [query for query in again if dict(query).get("pageNumber") != "1"]
            if len(deep) > 1:
                found.append(f"asked again of {test}: {again}")
        return found

    def _wrong(self) -> list[str]:
        lake = self.project.lake
        served = {test: list(rows.values()) for test, rows in self._seen.items()}
        return [
            *checker.half_written(lake),
            *checker.disorder(lake, "nightly"),
            *checker.wrong_cells(lake, served),
            *checker.unproved(lake, "nightly", served.keys()),
            *checker.leftovers(self.project.state),
        ]

    def _see(self) -> None:
        """Note the rows served until now: what was landed once stays."""
        for test in self.project.tests:
            rows = {str(row["sessionId"]): row for row in self.project.sandbox.rows(test)}
            self._seen.setdefault(test, {}).update(rows)

    async def _asked(
        self, sizes: Mapping[str, float], strike: Strike | None = None
    ) -> tuple[Ended, Counter[Page]]:
        requests = self.project.sandbox.requests
        mark = len(requests)
        ended = await self.run(sizes, strike)
        pages: Counter[Page] = Counter()
        for request in requests[mark:]:
            query = {name: value for name, value in request.query.items() if name != "testId"}
            pages[str(request.test_id), tuple(sorted(query.items()))] += 1
        return ended, pages

    async def run(self, sizes: Mapping[str, float], strike: Strike | None = None) -> Ended:
        """Run the export where it stands, struck if asked."""
        return await self._zygote.run(
            Run(
                ["--config", str(self.project.file), "run", "--quiet"],
                self.project.environ(),
                strike or Strike(self._roots),
                str(self.project.folder / "output.txt"),
                sizes,
            )
        )

    @property
    def _roots(self) -> tuple[str, str]:
        return str(self.project.lake), str(self.project.state)

    def _write(self, partition_by: str) -> None:
        self.project.write(
            f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
            f"    pagination: {{rows_per_page: {ROWS_A_PAGE}}}\n"
            f"    edited: {'replace' if self.mode.edited else 'report'}\n"
        )

    def _strike(self, point: Point) -> Strike:
        fault, error, flags = FAULTS[point.fault]
        call, _, within = point.call.partition("@")
        return Strike(self._roots, call, point.nth, fault, error, flags, within)

    def _durable(self) -> Counter[Page]:
        project = self.project
        return checker.durable_pages(
            project.lake, project.state, "nightly", since_us=self._since_us
        )

    def _files(self) -> list[Path]:
        return sorted(self.project.lake.rglob("part-*.parquet"))

    def _output(self) -> str:
        return (self.project.folder / "output.txt").read_text()[-3000:]


def emptied(folder: Path) -> None:
    """Remove all that is in a folder."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@asynccontextmanager
async def open_rig(mode: str, zygote: Zygote, ground: Ground, saved: Path) -> AsyncIterator[Rig]:
    """Make a mode ready; `saved` is a folder to be made, the ground may be shared."""
    async with open_sandbox(SandboxOptions(rate_requests=None)) as sandbox:
        for test, size in zip(TESTS, SESSIONS, strict=False):
            sandbox.set_sessions(test, size)
        rig = Rig(mode, zygote, ground, sandbox, saved)
        await rig.prepare()
        yield rig
