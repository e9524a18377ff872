"""Kills a backfill at random moments, with nightly runs in between, until it has come through."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from anyio import to_thread

from tests.crash import checker
from tests.crash.kills import IN_FLIGHT, run
from tests.crash.zygote import Zygote
from tests.exporting import Project

TABLES = "    tables: [sessions, session_details, tasks]\n"
COMMIT_SECONDS = 0.25  # what a kill may cost without pacing, beside what is in flight


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
    left over, or more answers were paid twice than were in flight at the kills.
    """
    random = Random(seed)
    assert (await run(project, zygote)).code == 0
    edit_all(project)
    mark, killed, calls = len(project.sandbox.requests), 0, 0
    while True:
        calls += 1
        nightly = calls % 4 == 0
        command = ("run",) if nightly else ("backfill", "nightly")
        after = random.uniform(0.0, within_seconds) if killed < kills else None
        ended = await run(project, zygote, kill_after=after, command=command)
        assert ended.code in (0, -9), f"seed {seed}, call {calls}: {command} ended with {ended}"
        found = await to_thread.run_sync(checker.half_written, project.lake)
        assert not found, f"seed {seed}, call {calls}: {found}"
        killed += ended.code != 0
        if ended.code == 0 and not nightly:
            break
    found = await to_thread.run_sync(wrong, project)
    assert not found, f"seed {seed}: {found[:20]}"
    asked = Counter(
        one.session_id for one in project.sandbox.requests[mark:] if one.endpoint == "details"
    )
    repaid = asked.total() - len(asked)
    a_second = IN_FLIGHT / (project.sandbox.options.latency_ms / 1000)
    most = killed * (IN_FLIGHT + COMMIT_SECONDS * a_second)
    assert repaid <= most, f"seed {seed}: {repaid} answers paid twice, at most {most}"
    return Backfilled(killed, calls, len(asked), repaid)


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
