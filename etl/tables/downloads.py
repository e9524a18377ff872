"""Reads where a file can be had: the answers that name a video, a clip or a reel.

Sources: `…/videoDownloadUrl`, `…/clips/{clipUuid}` and `…/highlightreels/{reelId}`
(results-v2, VideoDownloadResponseDto, ClipDetailsResponseDto, ReelDetailsResponseDto).
"""

from dataclasses import dataclass, field
from typing import Final

from etl.client.values import UnreadableBodyError
from etl.tables.json_text import Json, object_with, storable
from etl.tables.times import microseconds

GENERATED: Final = "GENERATED"
GENERATING: Final = "GENERATING"
ERROR: Final = "ERROR"

MEDIA_PRODUCTS: Final = frozenset({"THINK_OUT_LOUD", "LIVE_CONVERSATION", "NON_THINK_OUT_LOUD"})
"""The product types whose tests have videos, clips and highlight reels."""


@dataclass(frozen=True, slots=True)
class Download:
    """Where a file can be had, if it can be.

    `status` is GENERATING, GENERATED, ERROR or a newer one; `url` is None unless it is
    GENERATED, and is as good as a secret: whoever knows it has the file.
    `expires_at_us` is in microseconds since 1970, None where the answer does not say.
    """

    object_id: str | None
    status: str
    url: str | None = field(default=None, repr=False)
    expires_at_us: int | None = None


def video(body: bytes) -> Download:
    """Read where a session's video can be had; raises UnreadableBodyError."""
    told = _told(body, "videoUrl", "a video's address")
    url = _text(told, "videoUrl")
    if url is None:
        raise UnreadableBodyError("it holds no video's address")
    return Download(_text(told, "sessionId"), GENERATED, url, _moment(told, "expiresAt"))


def clip(body: bytes) -> Download:
    """Read how far a clip's file is; raises UnreadableBodyError."""
    return _generated(_told(body, "status", "a clip's status"), "clipUuid", "clipUrl")


def reel(body: bytes) -> Download:
    """Read how far a highlight reel's file is; raises UnreadableBodyError."""
    return _generated(_told(body, "status", "a highlight reel's status"), "reelId", "reelUrl")


def _told(body: bytes, needed: str, what: str) -> dict[str, Json]:
    value = object_with(body, {needed}, what).value
    return value if isinstance(value, dict) else {}


def _generated(told: dict[str, Json], id_field: str, url_field: str) -> Download:
    status, url = _text(told, "status"), _text(told, url_field)
    if status is None or (status == GENERATED and url is None):
        raise UnreadableBodyError("it says neither how far the file is nor where")
    return Download(_text(told, id_field), status, url if status == GENERATED else None)


def _text(told: dict[str, Json], name: str) -> str | None:
    value = told.get(name)
    return value if isinstance(value, str) and value and storable(value) else None


def _moment(told: dict[str, Json], name: str) -> int | None:
    try:
        return microseconds(_text(told, name))
    except ValueError:
        return None
