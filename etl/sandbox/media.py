"""Media files: bytes made as they are sent, links that are signed and die, ranges."""

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import lru_cache
from random import Random
from typing import Final
from urllib.parse import quote

MEDIA_PATH: Final = "/_media"
_BLOCK_BYTES: Final = 64 * 1024
_NOISE: Final = Random("media").randbytes(_BLOCK_BYTES)
_SHARES: Final = {"videos": 1, "clips": 8, "reels": 4}
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_FIRST_EDITION: Final = datetime(2025, 6, 1, tzinfo=UTC)
_STAMP: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file: its `edition` grows when it is replaced by another of the same name."""

    folder: str
    object_id: str
    size_bytes: int
    edition: int = 0

    @property
    def name(self) -> str:
        """Its path below the media path."""
        return f"{self.folder}/{self.object_id}.mp4"

    @property
    def etag(self) -> str:
        """Its entity tag, as an object store's."""
        return f'"{hashlib.md5(self._seal(0), usedforsecurity=False).hexdigest()}"'

    @property
    def last_modified(self) -> str:
        """When it was put there: a day later with each edition."""
        return format_datetime(_FIRST_EDITION + timedelta(days=self.edition), usegmt=True)

    @property
    def sha256(self) -> str:
        """The hash of its bytes; remembered, for half a second a gigabyte is dear."""
        return _sha256(self)

    def chunks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end`, a block at a time.

        No two blocks are alike, so that a piece written to a wrong place is seen.
        """
        end = self.size_bytes if end is None else min(end, self.size_bytes)
        while start < end:
            number, skipped = divmod(start, _BLOCK_BYTES)
            seal = self._seal(number)
            block = seal + _NOISE[len(seal) :]
            yield block[skipped : skipped + end - start]
            start += _BLOCK_BYTES - skipped

    def _seal(self, number: int) -> bytes:
        return hashlib.sha256(f"{self.name}:{self.edition}:{number}".encode()).digest()


@lru_cache(maxsize=4096)
def _sha256(file: MediaFile) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks():
        digest.update(chunk)
    return digest.hexdigest()


def media_file(folder: str, object_id: str, video_bytes: int, edition: int = 0) -> MediaFile:
    """Return a file of the usual size: clips are an eighth of a video, reels a quarter.

    Up to 1 000 bytes are added, so that few files are equally long.
    """
    odd = int(hashlib.sha256(object_id.encode()).hexdigest()[:8], 16) % 1_000
    return MediaFile(folder, object_id, video_bytes // _SHARES[folder] + odd, edition)


@dataclass(frozen=True, slots=True)
class Links:
    """Signs links to media, and knows its own again."""

    key: bytes

    def sign(self, base: str, name: str, now: float, valid_seconds: int) -> tuple[str, str]:
        """Return the link to a file and when it dies, as the vendor writes it."""
        moment = datetime.fromtimestamp(int(now), UTC)
        stamp, expires = moment.strftime(_STAMP), str(valid_seconds)
        scope = quote(f"SANDBOX/{stamp[:8]}/us-east-1/s3/aws4_request", safe="")
        query = "&".join(
            (
                "X-Amz-Algorithm=AWS4-HMAC-SHA256",
                f"X-Amz-Credential={scope}",
                f"X-Amz-Date={stamp}",
                f"X-Amz-Expires={expires}",
                "X-Amz-SignedHeaders=host",
                f"X-Amz-Signature={self._signature(name, stamp, expires)}",
            )
        )
        ends = moment + timedelta(seconds=valid_seconds)
        return f"{base}{MEDIA_PATH}/{name}?{query}", ends.isoformat().replace("+00:00", "Z")

    def refusal(self, name: str, query: dict[str, str], now: float) -> str | None:
        """Return why a link opens nothing, in an object store's words; None if it does."""
        stamp, expires = query.get("X-Amz-Date", ""), query.get("X-Amz-Expires", "")
        signature = self._signature(name, stamp, expires)
        if not hmac.compare_digest(signature, query.get("X-Amz-Signature", "")):
            return "SignatureDoesNotMatch"
        signed = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        if now >= signed.timestamp() + int(expires):
            return "AccessDenied"
        return None

    def _signature(self, name: str, stamp: str, expires: str) -> str:
        told = f"{name}\n{stamp}\n{expires}".encode()
        return hmac.new(self.key, told, hashlib.sha256).hexdigest()


def range_of(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Return the (start, end) that a Range header asks for; None asks for the whole.

    What is no single range of bytes is ignored (RFC 9110, 14.2). Raises ValueError for one
    that starts behind the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size_bytes - int(last)), size_bytes
    else:
        start = int(first)
        end = min(size_bytes, int(last) + 1) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= size_bytes:
        raise ValueError("the range cannot be satisfied")
    return start, end
