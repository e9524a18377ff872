"""Kills exports of files at random moments until they have come through; looks at each file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from anyio import to_thread

from tests.crash.kills import IN_FLIGHT, run
from tests.crash.zygote import Zygote
from tests.exporting import Project
from tests.filing import KEYS, expected, wrong

TRANSFERS = 4
ASKED_AS = {"videos": "video", "clips": "clip", "highlight_reels": "reel"}


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of an export: its kills, its files, and what was asked and sent for them."""

    kills: int
    files: int
    bytes: int
    links: int
    bytes_sent: int


async def kill_files(
    project: Project, zygote: Zygote, *, kills: int, within_seconds: float, seed: int
) -> Killed:
    """Kill runs within some seconds of their start, then let one come through, and look.

    Fails where a file bears its final name and is not whole at any moment, where one is lost
    or another in the end, or where a kill has cost more links than there were transfers and
    requests under way.
    """
    random = Random(seed)
    killed = 0
    while killed < kills:
        ended = await run(project, zygote, kill_after=random.uniform(0.0, within_seconds))
        assert ended.code in (0, -9), f"seed {seed}: a run ended with {ended.code}"
        if ended.code == 0:
            break  # it has come through before it was killed so often
        killed += 1
        torn = await to_thread.run_sync(lambda: list(half_files(project)))
        assert not torn, f"seed {seed}, kill {killed}: {torn}"
    assert (await run(project, zygote)).code == 0, f"seed {seed}"
    found = await to_thread.run_sync(wrong, project)
    assert not found, f"seed {seed}: {found}"
    files = [file for table in KEYS for file in expected(project, table).values()]
    links = sum(request.endpoint in ASKED_AS.values() for request in project.sandbox.requests)
    most = len(files) + killed * (TRANSFERS + IN_FLIGHT)
    assert links <= most, f"seed {seed}: {links} links, at most {most} are due"
    size = sum(file.size_bytes for file in files)
    return Killed(killed, len(files), size, links, project.sandbox.media_bytes)


def half_files(project: Project) -> Iterator[str]:
    """Look for files that bear a final name and are not whole, and rows that name none; blocks."""
    sizes = {
        name: file.size_bytes for table in KEYS for name, file in expected(project, table).items()
    }
    for path in project.lake.rglob("_files/*"):
        size = sizes[path.name.rpartition("-")[0]]
        if path.stat().st_size != size:
            yield f"{path.name} has {path.stat().st_size} bytes of {size}"
    for table in KEYS:
        for row in project.lake_rows(table):
            if row["path"] is None or not (project.lake / Path(row["path"])).is_file():
                yield f"{table}: a row names no file: {row}"
