"""The disk of a simulation: counts what is done to files, and dies or fails at a chosen one.

A *seam* is a call that changes what a later process finds: a sync, rename, link, unlink or
mkdir, a Parquet row group, a statement of the ledger. Death there is a copy of all files as
they stand at that instant; then the dying process may clean up what it likes, since the next
one goes on with the copy. That is what a kill leaves: all that was handed to the system,
nothing of what was in memory, and no lock.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pyarrow.parquet as pq

_CALLS: Final = ("fsync", "rename", "replace", "link", "unlink", "mkdir")
_MAY_FAIL: Final = ("fsync", "rename", "replace", "link")
"""Failures that a program must notice: one of mkdir or unlink may be none after all."""


class Killed(BaseException):
    """The process is no more."""


class Disk:
    """All files of a simulated machine, below `root`."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self.root = root
        self.seams = 0
        self.is_dead = False
        self.failed: str | None = None
        self._kill_at: int | None = None
        self._fail_at: int | None = None
        self._say = say

    @property
    def _left(self) -> Path:
        return self.root.with_name(f"{self.root.name}-left")

    def begin(self, kill_at: int | None, fail_at: int | None) -> None:
        """Begin a process that dies, or meets an I/O error, at its n-th seam."""
        self.seams, self.is_dead, self.failed = 0, False, None
        self._kill_at, self._fail_at = kill_at, fail_at

    def kill(self, where: str) -> None:
        """Die here: what is on the disk now is what is left."""
        if not self.is_dead:
            self.is_dead = True
            self._say(f"killed at seam {self.seams}: {where}")
            shutil.copytree(self.root, self._left, symlinks=True)
        raise Killed

    def end(self) -> None:
        """End the process: of a dead one, what it left is the disk now."""
        if self.is_dead:
            shutil.rmtree(self.root)
            self._left.rename(self.root)

    def seam(self, what: str, place: str = "") -> None:
        """Count a change that is about to be made, and die or fail if it is the one."""
        if self.is_dead:
            return
        self.seams += 1
        if self.seams == self._kill_at:
            self.kill(f"before {what} {place}")
        if self.seams == self._fail_at and what in _MAY_FAIL:
            self.failed = what
            code = errno.ENOSPC if self.seams % 2 else errno.EIO
            self._say(f"{errno.errorcode[code]} from {what} {place}")
            raise OSError(code, os.strerror(code), place)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Count the seams of whatever the block runs."""
        with ExitStack() as stack:
            for name in _CALLS:
                stack.enter_context(patch.object(os, name, self._before(name, getattr(os, name))))
            for name in ("write_table", "close"):
                method = getattr(pq.ParquetWriter, name)
                watched = self._before(f"parquet {name}", method)
                stack.enter_context(patch.object(pq.ParquetWriter, name, watched))
            connect = sqlite3.connect
            factory = _ledger_of(self)

            def connected(*args: Any, **options: Any) -> sqlite3.Connection:
                return connect(*args, factory=factory, **options)

            stack.enter_context(patch.object(sqlite3, "connect", connected))
            yield

    def _before(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            place = "" if isinstance(args[0], int) else str(args[-1] if len(args) > 1 else args[0])
            if what in _CALLS:
                self.seam(what, place.removeprefix(str(self.root)))
            else:
                self.seam(what)
            return call(*args, **options)

        return watched


_CHANGES: Final = ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE", "PRAGMA wal_checkpoint")


def _ledger_of(disk: Disk) -> type[sqlite3.Connection]:
    class Watched(sqlite3.Connection):
        """A connection whose every change is a seam."""

        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            statement = sql.lstrip()
            if statement.startswith(_CHANGES):
                disk.seam(f"sql {' '.join(statement.split()[:3])}")
            return super().execute(sql, *args)

        def executemany(self, sql: str, *args: Any) -> sqlite3.Cursor:
            disk.seam(f"sql {' '.join(sql.split()[:3])}")
            return super().executemany(sql, *args)

        def executescript(self, sql: str) -> sqlite3.Cursor:
            disk.seam("sql script")
            return super().executescript(sql)

    return Watched
