"""The exporter against a model of the server, whose steps hypothesis chooses and shrinks.

The world is the simulation's: virtual time, threads and network, real files, real deaths.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from typing import Any, Final

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from etl.config.models import Pagination
from etl.report.values import Status
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions
from tests.sim.checker import Checker, History
from tests.sim.journey import folder_for_files
from tests.sim.plan import FREE, Life, plan_of
from tests.sim.world import Lived, World, open_world
from tests.virtual_network import VirtualNetworkLoop

LIES: Final = st.sampled_from(
    [
        (FaultKind.TOTAL, "absent"),
        (FaultKind.TOTAL, 9_000),
        (FaultKind.ECHO, {"offset": 3}),
        (FaultKind.OLD_PAGE, None),
        (FaultKind.OTHER_TEST, None),
        (FaultKind.REPEAT_ROW, None),
        (FaultKind.CUT_BODY, None),
        (FaultKind.STATUS, 429),
        (FaultKind.STATUS, 503),
    ]
)
TEST: Final = st.integers(0, 1)
SEED: Final = st.integers(0, 2**16)


class ExporterAndServer(RuleBasedStateMachine):
    """Listings change, answers lie, tokens die, runs are killed: no row is lost or doubled."""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner(loop_factory=VirtualNetworkLoop)
        self._stack = AsyncExitStack()

    @initialize(
        sizes=st.tuples(st.integers(0, 40), st.integers(0, 40)),
        rows=st.sampled_from([12, 25, 500]),
        audit=st.sampled_from(["rolling", "full"]),
    )
    def begin(self, sizes: tuple[int, int], rows: int, audit: str) -> None:
        """Open a world with two tests."""
        plan = replace(
            plan_of(0, "calm"),
            sizes=sizes,
            options=SandboxOptions(rate_requests=None),
            pagination=Pagination(rows_per_page=rows),
            rate=FREE,
            audit=audit,
            concurrency=4,
        )
        loop = self._runner.get_loop()
        assert isinstance(loop, VirtualNetworkLoop)
        folder = self._stack.enter_context(folder_for_files())
        self._world = self._runner.run(self._opened(plan, loop, folder))
        self._history = History()
        self._checker = Checker(self._world.disk.root / "lake", self._history)
        self._world.on_change = self._note
        for test in self._world.tests:
            self._note(test)

    async def _opened(self, *world: Any) -> World:
        return await self._stack.enter_async_context(open_world(*world))

    def _note(self, test: str) -> None:
        self._history.note(test, self._world.sandbox.rows(test), self._world.lives)

    @rule(which=TEST, seed=SEED)
    def change(self, which: int, seed: int) -> None:
        """Let a row arrive, go, finish late, change, or change places."""
        self._world.change(self._world.tests[which], Random(seed))

    @rule()
    def revoke_tokens(self) -> None:
        """Let every token die."""
        self._world.sandbox.revoke_tokens()

    @rule(hours=st.integers(1, 40))
    def rest(self, hours: int) -> None:
        """Let time pass: partial looks and rounds grow old."""
        self._runner.run(asyncio.sleep(3600.0 * hours))

    @rule(
        kill_at=st.none() | st.integers(10, 90),
        lies=st.lists(st.tuples(LIES, st.integers(1, 6)), max_size=2),
        changes=st.sampled_from([0.0, 0.3]),
    )
    def run(
        self, kill_at: int | None, lies: list[tuple[tuple[FaultKind, Any], int]], changes: float
    ) -> None:
        """Run once; it may be killed, lied to, and disturbed."""
        faults = [Fault(kind, nth=nth, value=value) for (kind, value), nth in lies]
        lived = self._live(Life(kill_at=kill_at, faults=faults, changes=changes))
        if lived.report is not None and not lies and not changes:
            assert lived.codes == [0], lived.report.pipelines[0]

    def _live(self, life: Life) -> Lived:
        lived = self._runner.run(self._world.live(life))
        self._checker.every_file_is_whole()
        if lived.report is None:
            self._checker.note_commits(self._world.lives)
        else:
            full = self._world.plan.audit == "full"
            self._checker.after_a_run(self._world.lives, full_audit=full, rows_lied=False)
        return lived

    def teardown(self) -> None:
        """End quietly: all is there and proved, and an idle run lands nothing."""
        try:
            if hasattr(self, "_checker"):
                self._live(Life(rest_seconds=1e5, full=True))
                report = self._live(Life(rest_seconds=1e5)).report
                assert report is not None and report.status is Status.COMPLETE
                assert report.pipelines[0].rows["sessions"] == 0
                for test in self._world.tests:
                    self._checker.all_is_there(test)
        finally:
            self._runner.run(self._stack.aclose())
            self._runner.close()


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let threads work inline, as in `test_sim`."""
    blockbuster.deactivate()


@pytest.mark.hypothesis
def test_whatever_the_server_and_fate_do_no_row_is_lost_or_doubled():
    run_state_machine_as_test(
        ExporterAndServer,
        settings=settings(
            max_examples=10, stateful_step_count=10, suppress_health_check=list(HealthCheck)
        ),
    )
