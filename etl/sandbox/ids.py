"""Ids, made from what they identify."""

import hashlib
from typing import Final

_FIXED: Final = 0xF << 76 | 3 << 62
_VERSION_4: Final = 4 << 76 | 2 << 62


def uuid_of(bits: int) -> str:
    """Return 128 bits as a UUID of version 4 (RFC 9562)."""
    text = f"{bits & ~_FIXED | _VERSION_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid_from(name: str) -> str:
    """Return the UUID that belongs to a name."""
    return uuid_of(number_from(name))


def number_from(name: str) -> int:
    """Return 128 bits that belong to a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])
