"""The moments of the last sends, in a small file that processes share and restarts inherit.

A ring of monotonic times, memory-mapped: a send costs two system calls (the lock) and no
read or write. Entries of another boot cannot be compared, so they count as sent now.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from etl.errors import StateError, disk_advice, disk_reason

CAPACITY: Final = 131_072
"""Entries that the ring holds: more than the largest limit that a connection may have."""

_HEADER: Final = struct.Struct("<8s16sQd")
_MAGIC: Final = b"etlsend1"
_DOUBLE: Final = "d"
_HEADER_BYTES: Final = 64


class SendLog:
    """The ring of sends. Every method but `locked` is to be called under the lock."""

    def __init__(self, file: mmap.mmap, descriptor: int, boot: bytes) -> None:
        """Wrap a mapped file; see `open_send_log`."""
        self._file = file
        self._moments = memoryview(file)[_HEADER_BYTES:].cast(_DOUBLE)
        self._descriptor = descriptor
        self._boot = boot

    def close(self) -> None:
        """Let go of the file's memory; the descriptor is the caller's."""
        self._moments.release()
        self._file.close()

    def try_lock(self) -> bool:
        """Take the lock if it is free; never blocks."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Let the lock go."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def begin(self, now: float) -> None:
        """Take over what the file holds: as it is if of this boot, else as sent now."""
        magic, boot, count, _ = _HEADER.unpack_from(self._file)
        if magic != _MAGIC:
            self._write_header(0, 0.0)
        elif boot != self._boot:
            for place in range(min(count, CAPACITY)):
                self._set(place, now)
            self._write_header(count, 0.0)

    @property
    def count(self) -> int:
        """How many entries were ever made: the next one's number."""
        return int(_HEADER.unpack_from(self._file)[2])

    @property
    def blocked_until(self) -> float:
        """Until when a 429 has stopped all sends."""
        return float(_HEADER.unpack_from(self._file)[3])

    def block_until(self, moment: float) -> None:
        """Stop all sends until this moment; one that is set already may only grow."""
        self._write_header(self.count, max(moment, self.blocked_until))

    def append(self, moment: float) -> int:
        """Note a send, and return its number."""
        number = self.count
        self._set(number % CAPACITY, moment)
        self._write_header(number + 1, self.blocked_until)
        return number

    def take_back(self, number: int) -> None:
        """Remove an entry whose send was not made, if it is still the last one."""
        if number == self.count - 1:
            self._write_header(number, self.blocked_until)

    def restamp(self, number: int, moment: float) -> None:
        """Correct an entry's moment, unless the ring has moved on past it."""
        if self.count - number <= CAPACITY:
            self._set(number % CAPACITY, moment)

    def at(self, number: int, now: float) -> float:
        """Return an entry's moment; long ago if there is none, now if it is of the future."""
        if number < 0 or self.count - number > CAPACITY:
            return float("-inf")
        return self._get(number, now)

    def since(self, moment: float, now: float) -> int:
        """Return how many entries are of this moment or later."""
        newest = self.count
        kept = range(max(0, newest - CAPACITY), newest)
        return len(kept) - bisect_left(kept, moment, key=lambda number: self._get(number, now))

    def _get(self, number: int, now: float) -> float:
        return min(self._moments[number % CAPACITY], now)

    def _set(self, place: int, moment: float) -> None:
        self._moments[place] = moment

    def _write_header(self, count: int, blocked_until: float) -> None:
        _HEADER.pack_into(self._file, 0, _MAGIC, self._boot, count, blocked_until)


@contextmanager
def open_send_log(state_dir: Path, credentials: str) -> Iterator[SendLog]:
    """Open the log of one set of credentials; blocks, so call it in a thread.

    `credentials` names them (API URL and client id); the file's name is its hash.
    Raises StateError if the file cannot be made.
    """
    name = hashlib.sha256(credentials.encode()).hexdigest()[:16]
    path = state_dir / f"pace-{name}"
    size = _HEADER_BYTES + CAPACITY * 8
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, size)
            file = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise StateError(
            f"The record of sends cannot be opened: {disk_reason(error)}.",
            where=str(path),
            advice=disk_advice(error),
        ) from error
    log = SendLog(file, descriptor, _boot_id())
    try:
        yield log
    finally:
        log.close()
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its size, with room on the disk: a hole would end the process by SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    elif os.fstat(descriptor).st_size < size:  # macOS
        os.ftruncate(descriptor, size)


def _boot_id() -> bytes:
    """Return 16 bytes that tell this boot of the machine from every other; blocks."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # macOS: the moment of the boot, as far as the clocks agree
        told = str(round((time.time() - time.monotonic()) / 60))
    return hashlib.sha256(told.encode()).digest()[:16]
