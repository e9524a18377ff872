"""Kills a backfill at random moments, with nightly runs in between, until it has come through."""

import time
from collections import Counter
from dataclasses import dataclass
from random import Random

import pyarrow.parquet as pq
from anyio import to_thread

from etl.ledger.reading import read_status
from tests.crash import checker
from tests.crash.checker import inbox, microseconds
from tests.crash.kills import run
from tests.crash.zygote import Zygote
from tests.exporting import Project

TABLES = "    tables: [sessions, session_details, tasks]\n"


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What came of a backfill: its kills, its calls, and the answers that were paid twice."""

    kills: int
    calls: int
    sessions: int
    repaid: int


async def backfill_under_kills(
    project: Project, zygote: Zygote, *, kills: int, within_seconds: float, seed: int
) -> Backfilled:
    """Export a test, edit all its rows and what its sessions say, and backfill it.

    Each call is killed within some seconds of its start until `kills` have struck or it is
    done; every fourth is a nightly run. Fails where a row is lost, doubled or old, a file is
    left over, or a session is asked again whose answer is durable: in a commit or the inbox.
    """
    random = Random(seed)
    assert (await run(project, zygote)).code == 0
    edit_all(project)
    began_us = time.time_ns() // 1_000
    requests = project.sandbox.requests
    mark, killed, calls = len(requests), 0, 0
    while True:
        calls += 1
        nightly = calls % 4 == 0
        command = ("run",) if nightly else ("backfill", "nightly")
        paid, before = await to_thread.run_sync(durable, project, began_us), len(requests)
        after = random.uniform(0.0, within_seconds) if killed < kills else None
        ended = await run(project, zygote, kill_after=after, command=command)
        assert ended.code in (0, -9), f"seed {seed}, call {calls}: {command} ended with {ended}"
        found = await to_thread.run_sync(checker.half_written, project.lake)
        assert not found, f"seed {seed}, call {calls}: {found}"
        again = paid.intersection(one.session_id for one in requests[before:])
        assert not again, f"seed {seed}, call {calls}: {len(again)} durable answers asked again"
        killed += ended.code != 0
        # One that is done may be killed as its process ends; the next would begin anew.
        if not nightly and (ended.code == 0 or await to_thread.run_sync(is_done, project)):
            break
    found = await to_thread.run_sync(wrong, project)
    assert not found, f"seed {seed}: {found[:20]}"
    asked = Counter(one.session_id for one in requests[mark:] if one.endpoint == "details")
    return Backfilled(killed, calls, len(asked), asked.total() - len(asked))


def is_done(project: Project) -> bool:
    """Return whether nothing is left of the backfill, as its ledger notes it; blocks."""
    last = read_status(project.state, "nightly").last_backfill
    return last is not None and last.is_done


def durable(project: Project, since_us: int) -> set[str | None]:
    """Return the sessions whose details have come since then and survive a death; blocks."""
    found: set[str | None] = set()
    commits = project.lake / "_etl" / "answers" / "pipeline=nightly"
    for path in commits.glob("[0-9]*.parquet"):
        for row in pq.read_table(
            path, columns=["endpoint", "session_id", "fetched_at"]
        ).to_pylist():
            if row["endpoint"] == "session_details" and microseconds(row["fetched_at"]) >= since_us:
                found.add(row["session_id"])
    for endpoint, _, session_id, _, _, fetched_at_us, *_ in inbox(project.state / "nightly.sqlite"):
        if endpoint == "session_details" and fetched_at_us >= since_us:
            found.add(session_id)
    return found


def edit_all(project: Project) -> None:
    """Edit every row of the listings, and what every session says."""
    sandbox = project.sandbox
    for test in project.tests:
        for place, session in enumerate(sandbox.session_ids(test)):
            sandbox.edit(test, place, status=f"EDITED_{place % 7}")
            sandbox.edit_details(session, {"/tasks/*/type": "OF_TOMORROW"})


def wrong(project: Project) -> list[str]:
    """Look at every cell of sessions and tasks; blocks."""
    sandbox = project.sandbox
    served = {test: sandbox.rows(test) for test in project.tests}
    landed = Counter(
        (row["session_id"], row["position"], row["task_id"], row["type"])
        for row in project.lake_rows("tasks")
    )
    expected = Counter(
        (session, place, task["uuid"], task["type"])
        for test in project.tests
        for session in sandbox.session_ids(test)
        for place, task in enumerate(sandbox.details(session)["tasks"])
    )
    return [
        *checker.half_written(project.lake),
        *checker.disorder(project.lake, "nightly"),
        *checker.wrong_cells(project.lake, served),
        *(f"lost or old: {key}" for key in (expected - landed)),
        *(f"doubled or old: {key}" for key in (landed - expected)),
        *checker.leftovers(project.state),
    ]
