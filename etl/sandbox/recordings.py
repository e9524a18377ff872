"""What is cut from a test's videos: the clips of a session, and the test's reels."""

from random import Random
from typing import Any, Final

from etl.sandbox.ids import uuid_from
from etl.sandbox.texts import ODDITIES, TITLES, answer_text

_UPDATED_MS: Final = 1_751_300_000_000
_LAYOUTS: Final = tuple(
    {"mainStream": stream, "pipPosition": position, "pipState": state}
    for stream in ("SCREEN", "CAMERA")
    for position in ("TOP_LEFT", "TOP_RIGHT", "BOTTOM_LEFT", "BOTTOM_RIGHT")
    for state in ("OPENED", "CLOSED")
)
_REGIONS: Final = (
    None,
    {"screen": {"topLeftPoint": {"x": 0, "y": 0}, "widthPx": 1920, "heightPx": 1080}},
    {
        "screen": {"topLeftPoint": {"x": 0, "y": 0}, "widthPx": 1280, "heightPx": 720.5},
        "camera": {"widthPx": 320, "heightPx": 240},
    },
)


def clips_of(seed: int, test_id: str, session_id: str, added: int) -> dict[str, Any]:
    """Return what `GET /api/v2/sessionResults/{sessionId}/clips` answers.

    A session has 0 to 4 clips, and those that were `added`.
    """
    random = Random(f"{seed}:clips:{session_id}")
    count = random.choice((0, 0, 1, 1, 2, 3, 4))
    regions = random.choice(_REGIONS)
    told: dict[str, Any] = {
        "studyUuid": test_id,
        "clips": [_clip(seed, session_id, number) for number in range(1, count + added + 1)],
    }
    if regions is not None:
        told["videoRegions"] = regions
    return told


def _clip(seed: int, session_id: str, number: int) -> dict[str, Any]:
    random = Random(f"{seed}:clip:{session_id}:{number}")
    chance = random.random
    start = int(chance() * 900_000)
    clip: dict[str, Any] = {
        "uuid": uuid_from(f"{seed}:clip:{session_id}:{number}"),
        "name": f"Clip #{number}" if chance() < 0.6 else answer_text(chance, 1),
        "description": answer_text(chance, 3),
        "timeStartMs": start,
        "timeEndMs": start + 2_000 + int(chance() * 60_000),
        "videoUuid": uuid_from(f"{seed}:video:{session_id}"),
        "hasAudio": chance() < 0.95,
        "hasCamera": chance() < 0.4,
        "layout": random.choice(_LAYOUTS),
    }
    for optional in ("description", "layout"):
        if chance() < 0.2:
            del clip[optional]
    return clip


def reels_of(seed: int, test_id: str, added: int, clips: int) -> dict[str, Any]:
    """Return what `GET /api/v2/testResults/{testId}/highlightreels` answers.

    A test has 0 to 3 reels, and those that were `added`; `clips` that were added to its
    sessions since make its reels longer and younger.
    """
    count = Random(f"{seed}:reels:{test_id}").choice((0, 1, 1, 2, 3)) + added
    reels = [_reel(seed, test_id, number, clips) for number in range(1, count + 1)]
    return {"reels": reels, "studyWithClips": bool(reels)}


def _reel(seed: int, test_id: str, number: int, clips: int) -> dict[str, Any]:
    random = Random(f"{seed}:reel:{test_id}:{number}")
    cut = 1 + random.randrange(12) + clips
    return {
        "uuid": uuid_from(f"{seed}:reel:{test_id}:{number}"),
        "name": random.choice(ODDITIES if random.random() < 0.2 else TITLES),
        "durationMs": cut * (2_000 + random.randrange(30_000)),
        "lastUpdatedAtMs": _UPDATED_MS + number * 86_400_000 + clips * 60_000,
        "numClips": cut,
        "areAllClipsInReel": random.random() < 0.5,
    }
