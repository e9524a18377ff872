"""A media file's way into the lake, and deaths on it, after each line that does something.

`python -m tests.crash.media FOLDER` tries them all, and prints how many there were.
"""

import hashlib
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from etl.client.media_values import Described, Received
from etl.lake import local, media_parts
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaPart, MediaParts
from etl.lake.names import media_path

SESSION = "82629d39-c9b5-4acc-8edc-0f2e34c0b07c"
CHUNKS = (b"first" * 7, b"second" * 9, b"third" * 11)
WHOLE = b"".join(CHUNKS)
FILE = Described('"etag"', len(WHOLE), "video/mp4")
RECEIVED = Received(len(WHOLE), hashlib.sha256(WHOLE).hexdigest(), "video/mp4")
FINAL = media_path("videos/test_id=a", SESSION, RECEIVED.sha256, RECEIVED.content_type)
WATCHED = (media_parts.__file__, local.__file__)
OURS = ("begin", "append", "finish", "publish", "discard", "adopt", "_add", "_opened", "entered")


def lake_in(folder: Path) -> LocalLake:
    """Found a lake."""
    lake = LocalLake(folder / "lake")
    lake.bind(lake.found())
    return lake


def files_in(lake: LocalLake) -> list[str]:
    """Return what lies in a lake besides its id."""
    return sorted(
        str(path.relative_to(lake.root))
        for path in lake.root.rglob("*")
        if path.is_file() and path.name != "lake.json"
    )


def fetched(part: MediaPart, chunks: tuple[bytes, ...] = CHUNKS) -> None:
    """Let a file come, or its beginning."""
    part.begin(FILE)
    for chunk in chunks:
        part.append(chunk)


def gone_on(part: MediaPart) -> Received:
    """Do what a transfer does: take what is here, fetch the rest."""
    whole = part.whole()
    if whole is not None:
        return whole
    begun = part.resume()
    if begun is None:
        part.begin(FILE)
    at = 0 if begun is None else begun.bytes
    if at < len(WHOLE):
        part.append(WHOLE[at:])
    return part.finish()


def dies_at(part: MediaPart, nth: int) -> bool:
    """Do all that is done with a file, in a process that is killed at the n-th line; was it?"""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    lines = iter(range(1, nth))

    def watch(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in WATCHED or code.co_name not in OURS:
            return None
        if event == "line" and next(lines, None) is None:
            os._exit(9)
        return watch

    sys.settrace(watch)
    fetched(part)
    part.finish()
    part.publish(FINAL)
    part.discard()
    os._exit(0)


def survives(folder: Path, nth: int) -> bool:
    """Let one death happen and go on from it; return whether there was one."""
    lake = lake_in(folder)
    part = MediaParts(lake, "nightly", 0).part("videos", SESSION)
    died = dies_at(part, nth)
    if died:
        assert gone_on(part) == RECEIVED, nth
        part.publish(FINAL)
        part.discard()
    assert (lake.root / FINAL).read_bytes() == WHOLE, nth
    assert files_in(lake) == [FINAL], nth
    return died


if __name__ == "__main__":
    os.fsync = lambda _: None  # type: ignore[assignment]  # a kill takes nothing from the system
    deaths = 0
    while survives(Path(sys.argv[1]) / str(deaths), deaths + 1):
        deaths += 1
    print(deaths)
