"""Kills exports of gigabytes of files, over and over, and checks every byte of them."""

import tempfile
from pathlib import Path

from etl.sandbox.server import SandboxOptions
from tests.crash.media_kills import kill_files
from tests.crash.zygote import lacking, open_zygote
from tests.filing import filing
from tests.soak.turns import Part, Turn, Untried

VIDEO_BYTES = 50_000_000
SESSIONS = (45, 27)
KILLS_A_CASE = 20


async def run(turn: Turn) -> None:
    """Try seeds: each is one export of some 4 GB, killed until it may come through."""
    if lack := lacking():
        raise Untried(lack)
    with tempfile.TemporaryDirectory() as place:
        async with open_zygote(Path(place)) as zygote:
            for seed in turn.seeds():
                with tempfile.TemporaryDirectory(dir=place) as folder:
                    options = SandboxOptions(video_bytes=VIDEO_BYTES, generating=0)
                    async with filing(Path(folder), *SESSIONS, options=options) as project:
                        killed = await kill_files(
                            project, zygote, kills=KILLS_A_CASE, within_seconds=1.5, seed=int(seed)
                        )
                turn.count(kills=killed.kills, files=killed.files, megabytes=killed.bytes >> 20)


PART = Part("media", "a process killed at random moments leaves no file half, lost or doubled", run)
