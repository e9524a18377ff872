"""What a transfer of a media file takes and gives: frozen values, and the place of the bytes."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What transfers may take.

    `max_bytes` is the largest file; `bytes_per_second` what all transfers may take together;
    a host may be silent for `silence_seconds`, and never slower than
    `slowest_bytes_per_second`. None is no limit.
    """

    max_bytes: int | None = None
    bytes_per_second: float | None = None
    silence_seconds: float = 30.0
    slowest_bytes_per_second: float = 1024.0


@dataclass(frozen=True, slots=True)
class Described:
    """A file as its host describes it, None where it says nothing that can be used.

    `validator` is what `If-Range` may name: a strong ETag, or a date that is as good.
    """

    validator: str | None
    total_bytes: int | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Begun:
    """What of a file is here already, from its start."""

    file: Described
    bytes: int


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is here whole; `sha256` is in hexadecimal."""

    bytes: int
    sha256: str
    content_type: str | None


class Sink(Protocol):
    """Where the bytes of one file go. Its methods block, and may raise LakeError."""

    def resume(self) -> Begun | None:
        """Return what is here, proved; what is appended next comes behind it."""

    def begin(self, file: Described) -> None:
        """Begin anew with a file, in the place of whatever is here."""

    def append(self, chunk: bytes | bytearray) -> None:
        """Keep the next bytes."""

    def finish(self) -> Received:
        """Make the file durable: from now on it is here whole."""

    def discard(self) -> None:
        """Forget what is here."""


class LinkRefused(Exception):
    """The link opens nothing (any more): the API is to be asked for a new one."""

    def __init__(self, reason: str, status: int) -> None:
        """Say why; like every reason here it names the host, and nothing else of the link."""
        super().__init__(reason)
        self.reason = reason
        self.status = status


class FileRefused(Exception):
    """A file that we do not fetch, now or later: its place or its size is not allowed."""

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason = reason
