"""Kills whole runs at random moments, over and over, until the export has come through."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from anyio import to_thread

from tests.crash import checker
from tests.crash.zygote import Ended, Run, Strike, Zygote
from tests.exporting import Project

IN_FLIGHT = 8
PAGE = 500


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of an export: how often it was killed, asked, and asked in vain."""

    kills: int
    requests: int
    repaid: int


async def kill_again_and_again(
    project: Project, zygote: Zygote, *, kills: int, within_seconds: float, seed: int
) -> Killed:
    """Kill runs within some seconds of their start, then let one come through, and look.

    Fails where a row is lost, doubled or changed, a file is left over, or more requests
    were made than the pages, those in flight at each kill, and a head and a proof of each
    test for each round that a kill came after.
    """
    random = Random(seed)
    killed = rounds = 0
    while killed < kills:
        ended = await run(project, zygote, kill_after=random.uniform(0.0, within_seconds))
        found = await to_thread.run_sync(checker.half_written, project.lake)
        assert not found, f"seed {seed}, kill {killed + 1}: {found}"
        assert ended.code in (0, -9), f"seed {seed}: a run ended with {ended.code}"
        killed += ended.code != 0
        rounds += ended.code == 0
    assert (await run(project, zygote)).code == 0, f"seed {seed}"
    found = await to_thread.run_sync(wrong, project)
    assert not found, f"seed {seed}: {found}"
    sizes = [len(project.sandbox.session_ids(test)) for test in project.tests]
    pages = sum(1 if size <= PAGE else 1 + -(-(size - PAGE) // (PAGE - 1)) for size in sizes)
    looks = len(sizes) + sum(size > PAGE for size in sizes)  # a head each, a proof of the long
    requests = len(project.sandbox.requests)
    most = pages + killed * IN_FLIGHT + (rounds + 1) * looks
    assert requests <= most, f"seed {seed}: {requests} requests, at most {most} are due"
    asked = Counter(
        (request.test_id, tuple(request.query.items())) for request in project.sandbox.requests
    )
    return Killed(killed, requests, (asked - Counter(set(asked))).total())


async def run(
    project: Project,
    zygote: Zygote,
    *,
    kill_after: float | None = None,
    command: Sequence[str] = ("run",),
) -> Ended:
    """Run the export as it is, without smaller sizes and without a strike."""
    strike = Strike((str(project.lake), str(project.state)))
    arguments = ["--config", str(project.file), *command, "--quiet"]
    output = str(project.folder / "output.txt")
    return await zygote.run(
        Run(arguments, project.environ(), strike, output), kill_after=kill_after
    )


def wrong(project: Project) -> list[str]:
    """Look at all that is left, with the checker's eyes; blocks."""
    served = {test: project.sandbox.rows(test) for test in project.tests}
    return [
        *checker.half_written(project.lake),
        *checker.disorder(project.lake, "nightly"),
        *checker.wrong_cells(project.lake, served),
        *checker.unproved(project.lake, "nightly", project.tests),
        *checker.leftovers(project.state),
    ]
