"""Compresses what the ledger keeps, with a hash: a disk that alters a byte is found out.

SQLite notices a page that makes no sense, but not a wrong byte within a value; and a
record that is wrong by a byte would lose a row or double one.
"""

from typing import Final

import pyarrow as pa
import xxhash

from etl.ledger.damage import DamagedError

HASH_BYTES: Final = 8
"""How much of a sealed value is its hash, which stands first."""

_WRONG_LENGTH: Final = (OSError, OverflowError, SystemError, TypeError, ValueError)
"""How Arrow tells that a length is not the content's, or can be none."""


def seal(content: bytes, beside: bytes = b"") -> bytes:
    """Return `content` compressed, after a hash of it and of what is kept `beside` it."""
    compressed = pa.Codec("zstd", 1).compress(content, asbytes=True)
    return _hash(compressed, beside) + compressed


def unseal(length: int, sealed: bytes, beside: bytes = b"") -> bytes:
    """Return the `length` bytes that were sealed; raises DamagedError if they are not the same."""
    check(sealed, beside)
    try:
        content: bytes = pa.Codec("zstd").decompress(sealed[HASH_BYTES:], length, asbytes=True)
    except _WRONG_LENGTH as error:
        raise DamagedError("a value is not as long as was written") from error
    return content


def check(sealed: bytes, beside: bytes = b"") -> None:
    """Raise DamagedError if these bytes are not what `seal` has returned."""
    if sealed[:HASH_BYTES] != _hash(sealed[HASH_BYTES:], beside):
        raise DamagedError("a value is not what was written")


def _hash(compressed: bytes, beside: bytes) -> bytes:
    digest = xxhash.xxh3_64(beside)
    digest.update(compressed)
    return digest.digest()
