"""Reads the locks: which version of which package, and the hashes of its files."""

import re
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(
    r"^([a-z][a-z0-9.-]*)==([^\s;]+)[^\n]*((?:\n +--hash=\S+[^\n]*)*)", re.MULTILINE
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class Locked:
    """A package as a lock pins it."""

    name: str
    version: str
    sha256: tuple[str, ...] = ()

    @property
    def purl(self) -> str:
        """The package's URL, by which every tool knows it."""
        return f"pkg:pypi/{self.name}@{self.version}"


def read_lock(path: Path) -> tuple[Locked, ...]:
    """Return what a lock holds, whatever the system that its markers speak of."""
    found = _ENTRY.findall(path.read_text())
    return tuple(Locked(name, version, tuple(_HASH.findall(rest))) for name, version, rest in found)
