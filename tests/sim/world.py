"""The virtual world: one loop, one server, one disk, and the exporter's lives in it."""

import secrets
import shutil
import signal
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio import CancelScope, create_task_group
from pydantic import SecretStr

from etl.config.models import Config, Connection, Lake, Pipeline
from etl.pacing.events import Field
from etl.plan.orders import Asked, orders
from etl.report.progress import Progress
from etl.report.values import RunReport
from etl.run.export import Export, Limits
from etl.run.world import World as RunWorld
from etl.sandbox.server import Sandbox, open_sandbox
from tests.exporting import TESTS
from tests.sim.disk import Disk, Killed
from tests.sim.plan import Life, Plan
from tests.virtual_network import VirtualNetworkLoop
from tests.virtual_time import LoopClock

_LONGEST_LIFE_SECONDS: Final = 30 * 86_400.0
_LONGEST_THREAD_SECONDS: Final = 0.01


class WallClock(LoopClock):
    """A clock whose wall time can be set."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_seconds = 0.0

    def time(self) -> float:
        """Return the wall time."""
        return super().time() + self.ahead_seconds


@dataclass(frozen=True, slots=True)
class Lived:
    """What became of a life; `report` is None if it was killed."""

    life: Life
    report: RunReport | None
    codes: Sequence[int]
    requests: int
    disk_failed: bool
    struck: Counter[str]


@dataclass
class World:
    """A server and a disk that outlive the processes; `trace` tells all that happened."""

    plan: Plan
    sandbox: Sandbox
    disk: Disk
    loop: VirtualNetworkLoop
    clock: WallClock
    trace: list[tuple[float, str]]
    lives: int = 0
    on_change: Callable[[str], None] = lambda _: None
    struck: Counter[str] = field(default_factory=Counter)

    @property
    def tests(self) -> tuple[str, ...]:
        """The tests that the pipeline has."""
        return TESTS[: len(self.plan.sizes)]

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append((self.loop.time(), text))

    def chance(self, what: str) -> Random:
        """Return the chance of one thing in this life, which no other thing disturbs."""
        return Random(f"{self.plan.seed}:{self.lives}:{what}")

    async def live(self, life: Life) -> Lived:
        """Let one process run until it ends, is killed, or has hung for a month."""
        self.lives += 1
        await anyio.sleep(life.rest_seconds)
        self.say(f"life {self.lives} begins")
        asked_before = len(self.sandbox.requests)
        self._befall(life)
        self.disk.begin(life.kill_at, life.fail_at)
        self.loop.network.unplugged = False
        export = self._export(life)
        report: RunReport | None = None
        with self._threads_inline(self.chance("threads")), self.disk.watched():
            try:
                with anyio.fail_after(_LONGEST_LIFE_SECONDS):
                    report = await self._run(export, life)
            except* Killed:
                pass
        self.disk.end()
        self.sandbox.faults.clear()
        struck = Counter(
            f"{fault.on} {fault.kind}{f' {fault.value}' if fault.kind == 'status' else ''}"
            for fault in life.faults
            for _ in range(fault.struck)
        )
        self.struck += struck
        codes = [] if report is None else export.exit_codes()
        self.say(f"life {self.lives} ends: {report.status if report else 'killed'} {codes}")
        requests = len(self.sandbox.requests) - asked_before
        return Lived(life, report, codes, requests, self.disk.failed is not None, struck)

    async def _run(self, export: Export, life: Life) -> RunReport:
        async with create_task_group() as tasks:
            if life.kill_after_seconds is not None:
                tasks.start_soon(self._kill_after, life.kill_after_seconds)
            if life.clock_jump is not None:
                tasks.start_soon(self._jump, *life.clock_jump)
            if life.outage is not None:
                tasks.start_soon(self._fail_for, *life.outage)
            report = await export.run()
            tasks.cancel_scope.cancel()
        return report

    def _befall(self, life: Life) -> None:
        """Let the weather of this life begin."""
        for fault in life.faults:
            fault.seen = fault.struck = 0
            self.sandbox.add_fault(fault)
        if life.changes or life.signal_at_page:
            self.sandbox.before_page(1, self._before_each_page(life, self.chance("changes")))

    def _before_each_page(self, life: Life, random: Random) -> Callable[[Sandbox, str], None]:
        begun = self.lives
        pages = 0

        def disturb(sandbox: Sandbox, test: str) -> None:
            nonlocal pages
            if self.lives != begun:
                return
            pages += 1
            if random.random() < life.changes:
                self.change(random.choice(self.tests), random)
            if pages == life.signal_at_page and not self.disk.is_dead:
                self.say("SIGTERM")
                signal.raise_signal(signal.SIGTERM)
            sandbox.before_page(1, disturb)

        return disturb

    def change(self, test: str, random: Random) -> None:
        """Change a test's listing as the world does; swaps leave its total as it is."""
        sandbox = self.sandbox
        rows = len(sandbox.session_ids(test))
        kind = random.choice(("arrive", "arrive", "remove", "late", "swap", "tie", "edit"))
        place = random.randrange(rows) if rows else 0
        if kind == "arrive" or not rows:
            sandbox.complete(test, random.choice((1, 1, 3)))
        if rows and kind in ("remove", "swap"):
            sandbox.remove(test, place)
        if rows and kind in ("late", "swap"):
            sandbox.finish_late(test, random.randrange(rows))
        if kind == "tie" and rows > 1:
            sandbox.swap(test, max(place, 1) - 1, max(place, 1))
        if kind == "edit" and rows:
            sandbox.edit(test, place, status=f"EDITED_{random.randrange(100)}")
        self.say(f"{kind} at {place} of test {self.tests.index(test)}")
        self.struck[f"change {kind}"] += 1
        self.on_change(test)

    async def _kill_after(self, seconds: float) -> None:
        await anyio.sleep(seconds)
        self.loop.network.sever()
        self.disk.kill("in between")

    async def _jump(self, after_seconds: float, seconds: float) -> None:
        await anyio.sleep(after_seconds)
        self.say(f"the wall clock jumps {seconds:+} s")
        self.struck["clock jump"] += 1
        self.clock.ahead_seconds += seconds

    async def _fail_for(self, after_seconds: float, seconds: float) -> None:
        await anyio.sleep(after_seconds)
        self.say(f"the network is out for {seconds} s")
        self.struck["outage"] += 1
        self.loop.network.sever()
        await anyio.sleep(seconds)
        self.loop.network.unplugged = self.disk.is_dead

    def _export(self, life: Life) -> Export:
        plan, sandbox = self.plan, self.sandbox
        connection = Connection(
            client_id=SecretStr(sandbox.client_id),
            client_secret=SecretStr(sandbox.client_secret),
            api_url=sandbox.url,
            token_url=sandbox.token_url,
            rate_limit=plan.rate,
            concurrency=plan.concurrency,
        )
        pipeline = Pipeline.model_validate(
            {
                "name": "nightly",
                "tests": self.tests,
                "audit": plan.audit,
                "edited": plan.edited,
                "pagination": plan.pagination,
                "lake": Lake(url=str(self.disk.root / "lake"), partition_by=plan.partition_by),
            }
        )
        config = Config(
            path=self.disk.root / "pipelines.yaml",
            state_dir=self.disk.root / "state",
            pipelines={"nightly": pipeline},
            connections={"default": connection},
        )
        asked = Asked(max_requests=life.max_requests, full=life.full)
        limits = Limits(
            max_requests=life.max_requests, max_runtime_seconds=life.max_runtime_seconds
        )
        world = RunWorld(f"run-{self.lives}", self.clock, self.chance("exporter"))
        return Export(
            orders(config, (), asked), limits, world, Progress(events=self._event, is_shown=True)
        )

    def _event(self, event: str, **fields: Field) -> None:
        told = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        self.say(f"{event} {told}")

    @contextmanager
    def _threads_inline(self, random: Random) -> Iterator[None]:
        """Do what belongs in threads here and now, after a pause that the seed draws."""

        async def run_sync(
            function: Callable[..., Any],
            *args: Any,
            abandon_on_cancel: bool = False,
            limiter: anyio.CapacityLimiter | None = None,
        ) -> Any:
            await anyio.lowlevel.checkpoint()
            async with limiter or nullcontext():
                with CancelScope(shield=not abandon_on_cancel):
                    await anyio.sleep(random.uniform(0.0, _LONGEST_THREAD_SECONDS))
                    try:
                        return function(*args)
                    except Killed:
                        self.loop.network.sever()
                        raise

        def mapped(
            _: ThreadPoolExecutor, function: Callable[..., Any], *values: Any
        ) -> Iterator[Any]:
            return map(function, *values)

        names = Random(random.random())
        with ExitStack() as stack:
            stack.enter_context(patch.object(anyio.to_thread, "run_sync", run_sync))
            stack.enter_context(patch.object(ThreadPoolExecutor, "map", mapped))
            stack.enter_context(
                patch.object(secrets, "token_hex", lambda size: names.randbytes(size).hex())
            )
            yield


@asynccontextmanager
async def open_world(plan: Plan, loop: VirtualNetworkLoop, place: Path) -> AsyncIterator[World]:
    """Open a world with a server and an empty disk in folder `place`."""
    clock, trace = WallClock(), list[tuple[float, str]]()
    delays = Random(f"{plan.seed}:latency")
    loop.network.delay = lambda: delays.uniform(*plan.latency_seconds)
    root = place / f"seed-{plan.seed}"
    root.mkdir()
    with (
        patch.object(time, "monotonic", loop.time),
        patch.object(time, "time", clock.time),
        patch.object(ssl, "create_default_context", _trust),
    ):
        async with open_sandbox(plan.options) as sandbox:
            disk = Disk(root, lambda text: trace.append((loop.time(), text)))
            world = World(plan, sandbox, disk, loop, clock, trace)
            for test, size in zip(world.tests, plan.sizes, strict=True):
                sandbox.set_sessions(test, size)
            try:
                yield world
            finally:
                shutil.rmtree(root)


@cache
def _trust() -> bool:
    """Stand for the certificates, which take long to read: nothing here speaks TLS."""
    return True
