"""A sandbox at its worst, and whole exports of it that are killed at random moments."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

from anyio import to_thread

from etl.plan.orders import exportable
from etl.run.keeping import COMMIT_SECONDS
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from tests.crash import checker
from tests.crash.kills import IN_FLIGHT, Killed, run
from tests.crash.zygote import Zygote
from tests.exporting import Project
from tests.served import KEYS, ownerless, served, wrong_cells

TABLES: Final = tuple(name for name in KEYS if name in exportable())
_PRODUCTS: Final = ("SURVEY", "THINK_OUT_LOUD", "LIVE_CONVERSATION", "NON_THINK_OUT_LOUD")
_ASKED_ONCE: Final = ("details", "transcript", "clips")
"""What a run asks no second time of a session, whatever becomes of it."""

_A_SECOND: Final = 150
"""Requests a second: so many that the inbox commits groups, four a second."""

_EDITS: Final[tuple[dict[str, object], ...]] = (
    {"/newTop": {"deep": [1, None]}, "/tasks/*/newInTask": "ü"},
    {"/audienceId": "absent", "/tasks/0/response": None, "/tasks/1/text": "absent"},
    {"/taskGroups": None, "/sessionParticipant/demographicsInfo/*/newHere": False},
    {"/sessionParticipant/demographicsInfo": "absent", "/testPlanId": None},
    {"/sessionParticipant": "absent", "/tasks": "absent", "/taskGroups/*/newGroup": 0.5},
    {"/tasks/*/response/answer": None, "/tasks/*/type": "SOMETHING_NEW"},
    {"/tasks/*/text": "=1+1\u202e\r\nزر \U0001f680", "/taskGroups/*/type": "CARD_SORT"},
)
"""Fields that are new, null, missing or odd, as they were never published."""

_FAULTS: Final = (
    (FaultKind.STATUS, 503),
    (FaultKind.STATUS, 429),
    (FaultKind.CUT_BODY, None),
    (FaultKind.CUT_HEADERS, None),
    (FaultKind.RESET, None),
    (FaultKind.TRUNCATED_JSON, None),
    (FaultKind.CORRUPT_GZIP, None),
)


@asynccontextmanager
async def open_worst(
    folder: Path, seed: int, sessions: int = 15, generating: int = 0
) -> AsyncIterator[Project]:
    """Open a project over a sandbox with all products, drift, faults and growing tests.

    Clips and reels are `generating` so often before they are there, which takes its time.
    """
    options = SandboxOptions(
        seed=seed,
        tests=6,
        sessions=sessions,
        classic_tests=2,
        generating=generating,
        video_bytes=30_000,
        latency_ms=5,
        rate_requests=None,
    )
    async with open_sandbox(options) as sandbox:
        random = Random(seed)
        for place, test_id in enumerate(sandbox.test_ids):
            sandbox.set_product(test_id, _PRODUCTS[place % len(_PRODUCTS)])
            for session_id in sandbox.session_ids(test_id):
                sandbox.edit_details(session_id, random.choice(_EDITS))
        _trouble(sandbox, random)
        project = Project(folder, sandbox, (*sandbox.test_ids, *sandbox.classic_ids))
        extra = f"    tables: [{', '.join(TABLES)}]\n"
        await to_thread.run_sync(lambda: project.write(extra, rate="{requests: 150, seconds: 1}"))
        yield project


def _trouble(sandbox: Sandbox, random: Random) -> None:
    """Let one answer in twenty or so go wrong, and sessions complete while one reads."""
    for endpoint in ("page", "details", "transcript", "clips", "video", "reels", "qx"):
        for _ in range(4):
            # Half a transcript is a transcript: nobody can tell.
            kind, value = random.choice(_FAULTS[:-2] if endpoint == "transcript" else _FAULTS)
            nth = random.randrange(1, 60)
            sandbox.add_fault(Fault(kind, on=endpoint, nth=nth, value=value))
    for test_id in sandbox.test_ids:
        sandbox.before_page(
            random.randrange(1, 4), lambda sandbox, test: sandbox.complete(test, 1), test_id
        )


async def kill_a_whole_export(
    project: Project, zygote: Zygote, *, kills: int, within_seconds: float, seed: int
) -> Killed:
    """Kill exports of every table until so many have died; let one come through, and look.

    Fails where a cell is not what was served, a file is left over or not whole, or a
    session was asked again for what had been answered, but for those in flight at a kill
    and those of the last group commit.
    """
    random, killed = Random(seed), 0
    while killed < kills:
        ended = await run(project, zygote, kill_after=random.uniform(0.0, within_seconds))
        assert ended.code in (0, -9), f"seed {seed}: a run ended with {ended.code}"
        killed += ended.code != 0
        for test_id in project.sandbox.test_ids if ended.code == 0 else ():
            project.sandbox.complete(test_id, 1)  # there is always something left to do
    assert (await run(project, zygote)).code == 0, f"seed {seed}"
    found = await to_thread.run_sync(_wrong, project)
    assert not found, f"seed {seed}: {found[:20]}"
    asked = Counter(
        (request.endpoint, request.session_id)
        for request in project.sandbox.requests
        if request.endpoint in _ASKED_ONCE and request.status == 200
    )
    repaid = asked - Counter(set(asked))
    twice = Counter(endpoint for endpoint, _ in repaid.elements())
    assert repaid.total() <= killed * (IN_FLIGHT + _A_SECOND * COMMIT_SECONDS), (
        f"seed {seed}: paid twice: {twice}"
    )
    return Killed(killed, len(project.sandbox.requests), repaid.total())


def _wrong(project: Project) -> list[str]:
    expected = {name: rows for name, rows in served(project.sandbox).items() if name in TABLES}
    return [
        *checker.half_written(project.lake),
        *checker.disorder(project.lake, "nightly"),
        *wrong_cells(project.lake, expected),
        *ownerless(project.lake),
        *checker.leftovers(project.state),
    ]
