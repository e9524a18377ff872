"""Whatever is edited, answered and landed in whatever order: of each row the last one stands."""

import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import pyarrow.parquet as pq
import pytest
from blockbuster import BlockBuster
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.client.values import Answer, Fetched
from etl.config.models import Connection, Lake, Pipeline
from etl.lake.landing import Kept, Landing
from etl.lake.landing_plan import landing_plan
from etl.lake.local import LocalLake
from etl.lake.records import Records
from etl.lake.recovery import recover
from etl.lake.verify import verify
from etl.ledger.store import open_ledger
from etl.ledger.threaded import LedgerThread
from etl.plan.orders import Order
from etl.sandbox.server import Sandbox, SandboxOptions
from tests.exporting import TESTS

SESSIONS = 2
PAGE = 2

PLACES = st.tuples(st.integers(0, 1), st.integers(0, SESSIONS - 1))
EDITS = st.sampled_from(["", "other", "other", "none"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("page"), PLACES, EDITS),
        st.tuples(st.just("details"), PLACES, EDITS),
        st.tuples(st.just("details"), PLACES, EDITS),
        st.tuples(st.sampled_from(["close", "close", "lose the state"]), PLACES, EDITS),
    ),
    min_size=8,
    max_size=24,
)
"""What is answered or done, of which session, and how that is edited before."""

LAYOUTS = st.sampled_from([(), ("test_id",), ("start_date",), ("test_id", "finish_month")])


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look at files as they go; `test_run` watches the loop."""
    blockbuster.deactivate()


@dataclass
class World:
    """A sandbox that is not served, a lake, and what has been answered last."""

    folder: Path
    partition_by: tuple[str, ...]
    sandbox: Sandbox = field(default_factory=lambda: Sandbox(SandboxOptions()))
    statuses: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    clock_us: int = 1_700_000_000_000_000
    edits: int = 0

    def order(self) -> Order:
        url = str(self.folder / "lake")
        lake = Lake.model_validate({"url": url, "partition_by": self.partition_by})
        pipeline = Pipeline.model_validate(
            {
                "name": "nightly",
                "tests": TESTS[:2],
                "tables": ("sessions", "session_details", "tasks"),
                "edited": "replace",
                "lake": lake,
            }
        )
        state = self.folder / "state"
        path = self.folder / "lake"
        return Order(pipeline, Connection(), state, path, TESTS[:2], pipeline.tables)

    def change(self, kind: str, test: str, place: int, edit: str) -> None:
        """Let the API answer otherwise from now on; details may come to hold no task at all."""
        self.edits += bool(edit)
        session = self.sandbox.session_ids(test)[place]
        if edit and kind == "page":
            self.sandbox.edit(test, place, status=f"EDITED_{self.edits}")
        elif edit:
            tasks: dict[str, object] = {"/tasks/*/type": f"KIND_{self.edits}"}
            self.sandbox.edit_details(session, {"/tasks": []} if edit == "none" else tasks)

    def page(self, test: str, start: int) -> Answer:
        """Return a page as it is answered now."""
        rows = self.sandbox.rows(test)
        served = rows[start : start + PAGE]
        self.statuses |= {str(row["sessionId"]): str(row["status"]) for row in served}
        echo = {"limit": PAGE, "offset": start, "totalCount": len(rows)}
        body = {"testId": test, "sessions": served, "meta": {"pagination": echo}}
        return self._answer("session_results", test, None, f"limit={PAGE}&offset={start}", body)

    def details(self, test: str, place: int) -> Answer:
        """Return a session's details as they are answered now."""
        session = self.sandbox.session_ids(test)[place]
        body = self.sandbox.details(session)
        self.tasks[session] = [task["type"] for task in body["tasks"]]
        return self._answer("session_details", test, session, None, body)

    def _answer(
        self,
        endpoint: str,
        test: str,
        session: str | None,
        page: str | None,
        body: Mapping[str, Any],
    ) -> Answer:
        self.clock_us += 1_000_000
        content = json.dumps(body).encode()
        return Answer(endpoint, test, session, page, 200, self.clock_us, content)

    def landed(self, table: str) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "lake" / table).rglob("*.parquet"))
        return [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]

    def check(self) -> None:
        """Assert that the lake holds what was answered last, once, and nothing else."""
        rows = self.landed("sessions")
        assert {row["session_id"]: row["status"] for row in rows} == self.statuses
        assert len(rows) == len(self.statuses)
        rows = sorted(self.landed("tasks"), key=lambda row: int(row["position"]))
        found: dict[str, list[str]] = {session: [] for session in self.tasks}
        for row in rows:
            found[row["session_id"]].append(row["type"])
        assert found == self.tasks
        details = self.landed("session_details")
        assert sorted(row["session_id"] for row in details) == sorted(self.tasks)
        if (self.folder / "lake" / "_etl" / "answers").exists():
            assert verify(LocalLake(self.folder / "lake"), "nightly", deep=True).findings == []


@asynccontextmanager
async def open_landing(world: World) -> AsyncIterator[Landing]:
    """Open ledger and lake as a run does, and close the batch at the end."""
    order = world.order()
    plan, lake = landing_plan(order, "run"), LocalLake(order.lake_path)
    with open_ledger(order.state_dir, "nightly") as ledger, lake.locked("nightly"):
        recovery = recover(lake, ledger, plan)
        thread = LedgerThread(ledger)
        landing = Landing(plan, lake, thread, Records(thread), recovery.next_batch, dict)
        yield landing
        await landing.close_batch()


async def live(world: World, steps: list[tuple[str, tuple[int, int], str]]) -> None:
    """Take the steps, over as many processes as lose their state."""
    left = iter(steps)
    goes_on = True
    while goes_on:
        goes_on = False
        async with open_landing(world) as landing:
            for kind, (which, place), edit in left:
                if kind == "close":
                    await landing.close_batch()
                elif kind == "lose the state":
                    goes_on = True
                    break
                else:
                    world.change(kind, TESTS[which], place, edit)
                    ask = world.page if kind == "page" else world.details
                    await landing.add(Kept(None, [Fetched(ask(TESTS[which], place), None)]))
        if goes_on:
            for path in (world.folder / "state").glob("*"):
                path.unlink()
    world.check()


@settings(max_examples=20)  # a second each; `make soak ARGS=examples` tries others
@given(steps=STEPS, partition_by=LAYOUTS)
def test_the_last_answer_of_each_row_stands_in_the_lake_once(steps, partition_by):
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("etl.lake.batch.ROW_GROUP_ROWS", 5),
        patch("etl.lake.replacing.ROW_GROUP_ROWS", 5),
    ):
        world = World(Path(folder), partition_by)
        for test in TESTS[:2]:
            world.sandbox.set_sessions(test, SESSIONS)
        anyio.run(live, world, steps)
