"""Fetches one file in a process of its own: to be killed, or weighed."""

import resource
import sys
import time
from pathlib import Path

import anyio
from anyio import to_thread

from etl.client.media import open_media
from etl.client.media_values import MediaLimits
from etl.config.models import Connection
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaParts
from etl.pacing.clock import SystemClock

PEAK_UNIT = 1 if sys.platform == "darwin" else 1024


def peak() -> int:
    """Return the most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


async def transfer(root: Path, url: str, object_id: str) -> None:
    """Fetch it; print by how many bytes the peak of memory grew, and the seconds it took."""
    lake = LocalLake(root)
    lake.bind(await to_thread.run_sync(lake.found))
    part = MediaParts(lake, "nightly", 0).part("videos", object_id)
    connection = Connection(api_url=url.partition("/_media")[0])
    async with open_media(connection, MediaLimits(), SystemClock()) as client:
        before, begun = peak(), time.monotonic()
        await client.transfer(url, part)
        print(peak() - before, time.monotonic() - begun)  # noqa: T201 - for who started it


if __name__ == "__main__":
    anyio.run(transfer, Path(sys.argv[1]), sys.argv[2], sys.argv[3])
