"""Puts a body together from its chunks: decoded, whole, and never larger than allowed.

By hand, since aiohttp takes a gzip stream that breaks off for a whole one, and since the cap
must hold for what comes *out* of the decoder (CVE-2025-69223).
"""

import zlib
from typing import Final

ACCEPT_ENCODING: Final = "gzip"
_GZIP: Final = 16 + zlib.MAX_WBITS


class CorruptBodyError(Exception):
    """A body that is too large, cut short, or not encoded as its header says."""


class Body:
    """A body that grows chunk by chunk, up to `largest_bytes` after decoding."""

    def __init__(self, content_encoding: str, largest_bytes: int) -> None:
        """Begin one; raises CorruptBodyError for an encoding that was not asked for."""
        self._whole = bytearray()
        self._largest_bytes = largest_bytes
        self._decoder = None
        match content_encoding.strip().lower():
            case "" | "identity":
                pass
            case "gzip" | "x-gzip":
                self._decoder = zlib.decompressobj(_GZIP)
            case _:
                raise CorruptBodyError("it is encoded in a way that was not asked for")

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk as it came off the wire; raises CorruptBodyError."""
        if self._decoder is None:
            self._whole += chunk
        else:
            room = self._largest_bytes + 1 - len(self._whole)
            try:
                self._whole += self._decoder.decompress(chunk, room)
            except zlib.error:
                raise CorruptBodyError("its compression is corrupt") from None
        if len(self._whole) > self._largest_bytes:
            raise CorruptBodyError(f"it is larger than {self._largest_bytes >> 20} MB")

    def whole(self) -> bytes:
        """Return the body; raises CorruptBodyError if its compression is not whole."""
        decoder = self._decoder
        if decoder is not None and (not decoder.eof or decoder.unused_data):
            raise CorruptBodyError("its compression does not end where the body does")
        return bytes(self._whole)
