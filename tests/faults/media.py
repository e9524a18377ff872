"""What can go wrong with files: with links, hosts, what these send, and the disk."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio
from anyio import to_thread

from etl.ledger.afresh import Span
from etl.plan.orders import Asked
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions
from tests.exporting import Project
from tests.faults import Case, Chapter, Ended, Provoke
from tests.faults.api import COMPLETE, patient
from tests.faults.disks import full, ran
from tests.filing import configure, expected, filing, whole

VIDEOS = "sessions, videos"
MADE = SandboxOptions(video_bytes=20_000, generating=0)
LARGE_BYTES = 3_000_000
"""A video that comes in several pieces, so that it can break off in the middle."""

CUT = Fault(FaultKind.CUT_BODY)
BACKFILL = Asked(span=Span())


def asked(project: Project, kind: str) -> int:
    """Return how often it was asked where a file can be had."""
    return Counter(request.endpoint for request in project.sandbox.requests)[kind]


async def given_up(project: Project, table: str) -> int:
    """Return how many rows have no file, and assert that nobody will ask for these again."""
    requests = len(project.sandbox.requests)
    assert (await project.ended()).exit_code == 0
    assert len(project.sandbox.requests) == requests + 1, "the head of the listing alone"
    rows = await to_thread.run_sync(project.lake_rows, table)
    return [row["path"] for row in rows].count(None)


def broken(*faults: Fault, links: int = 1, again: float = 1.0) -> Provoke:
    """Let the only video of a test meet these faults, and assert that it is there in the end.

    `links` is how often it was asked where it can be had, `again` how much of it, at most, was
    sent once more.
    """

    async def provoke(folder: Path) -> Ended:
        async with filing(folder, 1, tables=VIDEOS) as project:
            project.sandbox.set_video_bytes(LARGE_BYTES)
            struck = [replace(fault, on="media") for fault in faults]
            for fault in struck:
                project.sandbox.add_fault(fault)
            ended = await project.ended()
            assert all(fault.struck == fault.times for fault in struck)
            assert asked(project, "video") == links
            assert project.sandbox.media_bytes < (1 + again) * (LARGE_BYTES + 1_000)
            await whole(project, "videos")
            return ended

    return provoke


def never_had(fault: Fault, *, links: int, least_kept: int = 0) -> Provoke:
    """Let one video of three fail for ever; without the fault the next run has it, too.

    `links` is how often it was asked where it can be had, `least_kept` how many bytes of it, at
    least, need not come again.
    """

    async def provoke(folder: Path) -> Ended:
        async with filing(folder, 3, tables=VIDEOS) as project:
            project.sandbox.set_video_bytes(LARGE_BYTES)
            bad, *others = project.sandbox.session_ids(project.tests[0])
            project.sandbox.add_fault(replace(fault, on="media", object_id=bad, times=0))
            ended = await project.ended()
            rows = await to_thread.run_sync(project.lake_rows, "videos")
            assert sorted(row["session_id"] for row in rows) == sorted(others)
            assert asked(project, "video") == 2 + links
            project.sandbox.faults.clear()
            sent = project.sandbox.media_bytes
            assert (await project.ended()).exit_code == 0
            assert project.sandbox.media_bytes - sent <= LARGE_BYTES + 1_000 - least_kept
            await whole(project, "videos")
            return ended

    return provoke


async def without_room(folder: Path) -> Ended:
    """Ask for more room than any disk has; with less asked for, the next run has the files."""
    greedy = f"    media: {{keep_free_bytes: {2**60}}}\n"
    async with filing(folder, 3, tables=VIDEOS, extra=greedy) as project:
        ended = await ran(project, "run")
        assert len(await to_thread.run_sync(project.lake_rows)) == 3
        assert not await to_thread.run_sync(parts, project)
        await to_thread.run_sync(configure, project, VIDEOS)
        assert (await project.ended()).exit_code == 0
        await whole(project, "videos")
        return ended


async def on_a_small_disk(folder: Path) -> Ended:
    """Have room for rows, and none for a video."""
    async with filing(folder, 1, tables=VIDEOS) as project:
        project.sandbox.set_video_bytes(LARGE_BYTES)
        disk = full(project.lake, "4M", left=2_000)
        await to_thread.run_sync(disk.__enter__)
        try:
            ended = await ran(project, "run")
            assert not await to_thread.run_sync(parts, project)
            await to_thread.run_sync((project.lake / ".ballast").unlink)
            assert (await project.ended()).exit_code == 0
            await whole(project, "videos")
            return ended
        finally:
            await to_thread.run_sync(disk.__exit__, None, None, None)


def parts(project: Project) -> Sequence[Path]:
    """Return what has come of files that are not whole."""
    return list((project.lake / "_etl" / "media").rglob("*.part"))


async def too_large(folder: Path) -> Ended:
    """Allow clips and none of the videos; with a higher cap a backfill has these, too."""
    small = "    media: {max_bytes: 4000, keep_free_bytes: 0}\n"
    async with filing(folder, 2, tables="videos, clips", options=MADE, extra=small) as project:
        project.sandbox.add_clip(project.sandbox.session_ids(project.tests[0])[0])
        ended = await ran(project, "run")
        assert await given_up(project, "videos") == 2
        await whole(project, "clips")
        assert (await to_thread.run_sync(project.process, "verify", "--deep")).returncode == 0
        await to_thread.run_sync(configure, project, "videos, clips")
        assert (await project.ended(asked=BACKFILL)).exit_code == 0
        await whole(project, "videos", "clips")
        return ended


LED_ASTRAY = ("https://10.0.0.1/v.mp4", "http://media.example/v.mp4", "file:///etc/passwd")


async def led_astray(folder: Path) -> Ended:
    """Let links lead to where none may, the last one by a redirect; all others are fetched."""
    async with filing(folder, 5, tables=VIDEOS) as project:
        *bad, redirected, _ = project.sandbox.session_ids(project.tests[0])
        for session, url in zip(bad, LED_ASTRAY, strict=True):
            told = {"/videoUrl": url}
            project.sandbox.add_fault(Fault(FaultKind.FIELDS, "video", None, session, value=told))
        away = Fault(FaultKind.REDIRECT, "media", None, redirected, value=LED_ASTRAY[0])
        project.sandbox.add_fault(away)
        ended = await ran(project, "run")
        assert await given_up(project, "videos") == 4
        return ended


def failed(table: str, kind: str) -> Provoke:
    """Let the API say that it could not make one file of a table; the others are there."""

    async def provoke(folder: Path) -> Ended:
        async with filing(folder, 2, tables=table, options=MADE) as project:
            for _ in range(2):
                project.sandbox.add_clip(project.sandbox.session_ids(project.tests[0])[0])
                project.sandbox.add_reel(project.tests[0])
            bad, *others = expected(project, table)
            told = {"/status": "ERROR", "/clipUrl": None, "/reelUrl": None}
            project.sandbox.add_fault(
                Fault(FaultKind.FIELDS, kind, object_id=bad, value=told, times=0)
            )
            ended = await ran(project, "run")
            assert await given_up(project, table) == 1
            assert len(await to_thread.run_sync(project.lake_rows, table)) == 1 + len(others)
            project.sandbox.faults.clear()
            assert (await project.ended(asked=BACKFILL)).exit_code == 0
            await whole(project, table)
            return ended

    return provoke


async def still_made(folder: Path) -> Ended:
    """Let a clip be made for longer than a run waits; when it is made, a later run has it."""
    slow = SandboxOptions(video_bytes=20_000, generating=7)
    async with filing(folder, 2, tables="clips", options=slow) as project:
        project.sandbox.add_clip(project.sandbox.session_ids(project.tests[0])[0])
        ended = await patient(project).ended()
        await anyio.sleep(7 * 3600)
        assert (await project.ended()).exit_code == 0
        await whole(project, "clips")
        return ended


async def never_made(folder: Path) -> Ended:
    """Let clips be made for ever: after a week nobody asks any more."""
    slow = SandboxOptions(video_bytes=20_000, generating=10_000)
    async with filing(folder, 2, tables="clips", options=slow) as project:
        project.sandbox.add_clip(project.sandbox.session_ids(project.tests[0])[0])
        assert (await patient(project).ended()).exit_code == 0
        await anyio.sleep(8 * 86_400)
        ended = await project.ended()
        assert await given_up(project, "clips") > 0
        return ended


async def without_videos(folder: Path) -> Ended:
    """Let the API have no video of an old session."""
    async with filing(folder, 2, tables=VIDEOS) as project:
        project.sandbox.not_ready(project.sandbox.session_ids(project.tests[0])[0], "video")
        ended = await ran(project, "run")
        assert len(await to_thread.run_sync(project.lake_rows, "videos")) == 1
        return ended


CHAPTER = Chapter(
    "Videos, clips and highlight reels",
    [
        Case(
            "the disk has no room for the files, which is noticed before a byte is written",
            "error The disk has no room for media: … MB are to come, … MB are kept free, … MB are "
            "left. … Free some space and run again: what was fetched is kept.",
            5,
            [without_room, on_a_small_disk],
        ),
        Case(
            "a link dies before it is used, or while it is: it is asked for anew",
            COMPLETE,
            0,
            [
                broken(Fault(FaultKind.EXPIRED), links=2),
                broken(CUT, Fault(FaultKind.EXPIRED, nth=2), links=2, again=0.4),
            ],
        ),
        Case(
            "a transfer breaks off, or its host falls silent: it goes on where it ended",
            COMPLETE,
            0,
            [broken(replace(CUT, times=2), again=0.8), broken(Fault(FaultKind.STALL), again=0.4)],
        ),
        Case(
            "a file changes while it is fetched, in content or length, or another part of it comes",
            COMPLETE,
            0,
            [
                broken(CUT, Fault(FaultKind.REPLACED, nth=2)),
                broken(Fault(FaultKind.SHORT)),
                broken(Fault(FaultKind.WRONG_RANGE)),
            ],
        ),
        Case(
            "no link to a file opens, however often one is asked for",
            "failed test …: 1 of its sessions was not answered (video: the media host answered "
            "403 (host …)). The next run asks again.",
            4,
            [never_had(Fault(FaultKind.EXPIRED), links=4)],
        ),
        Case(
            "a file never comes whole: what came is kept",
            "failed test …: 1 of its sessions was not answered (video: … The next run asks again.",
            4,
            [never_had(CUT, links=1, least_kept=2_000_000)],
        ),
        Case(
            "a file is larger than `max_bytes`: its row lands without it",
            "given up 2 files of test …: videos: the file is larger than 4000 bytes (max_bytes) … "
            "`etl backfill` asks for them again … complete in",
            0,
            [too_large],
        ),
        Case(
            "a link leads to where none may: plain http, a network's own address, no web address",
            "given up … of test …: videos: the link is not followed: … complete in",
            0,
            [led_astray],
        ),
        Case(
            "a clip or reel could not be made (`ERROR`): its row lands without a file",
            "given up … of test …: …: the API could not … complete in",
            0,
            [failed("clips", "clip"), failed("highlight_reels", "reel")],
        ),
        Case(
            "a clip or reel is still being made (`GENERATING`): a later run has it",
            "media … are still being made … complete in",
            0,
            [still_made],
        ),
        Case(
            "a clip or reel is not made within a week",
            "given up … of test …: clips: the API has not made it for a week … complete in",
            0,
            [never_made],
        ),
        Case(
            "a session has no video",
            "absent video: the API has none for 1 session … complete in",
            0,
            [without_videos],
        ),
    ],
)
