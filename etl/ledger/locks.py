"""Keeps two processes apart: an OS lock that dies with its holder, however it dies."""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from etl.errors import AlreadyRunning, StateError, disk_advice, disk_reason


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold the lock in file `path` for as long as the block runs.

    `what` names what is locked. Raises AlreadyRunning, which says who holds it and
    since when; StateError if the file cannot be written. The file stays behind: it is
    the lock on it that counts, so a dead process or a reused pid holds nothing.
    """
    owner = os.getpid()
    with _disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with _disk_errors(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"Another run holds {what}: {_holder(descriptor)}.",
                    where=str(path),
                    advice="Wait for it to end, or pass --wait-for-lock 10m.",
                ) from None
            _sign(descriptor)
        yield
    finally:
        if os.getpid() == owner:
            # A child forked meanwhile holds the descriptor too: to close ours is not enough.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Say whether a process holds the lock in this file; needs no right to write it.

    Looks by taking it for an instant, so it is for those who must know.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(
            f"The lock file cannot be written: {disk_reason(error)}.",
            where=str(path),
            advice=disk_advice(error),
        ) from error


def _sign(descriptor: int) -> None:
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not signed yet"
