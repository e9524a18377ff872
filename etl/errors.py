"""Every error a user can meet: what happened, where, what to do, and the exit code."""

import errno
import os
from typing import ClassVar, Final


class EtlError(Exception):
    """An error that a user can act on.

    `what` happened is a full sentence; `where` names the test, session, file or
    connection; `advice` says what to do. None of them ever holds a secret or a body.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, advice: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.advice = advice

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f"\n  {self.advice}" if self.advice else ""
        return f"{self.what}{place}{advice}"


class UsageError(EtlError):
    """The command line asks for what cannot be."""

    exit_code = 2


class ConfigError(EtlError):
    """The configuration is wrong; `what` lists every mistake, one a line."""

    exit_code = 2


class CredentialsRefused(EtlError):
    """The token endpoint or the API refuses these credentials."""

    exit_code = 3


class TestFailed(EtlError):
    """One test cannot be exported, or not be proved complete; the others go on."""

    __test__ = False  # a name that pytest would take for a test class
    exit_code = 4


class Forbidden(TestFailed):
    """Good credentials that may not see this test."""


class NotFound(TestFailed):
    """The API does not know it, or does not show it to these credentials (404)."""


class BadRequest(TestFailed):
    """The API refuses the request itself (400 and its kin): asking again is no use."""


class Unreachable(EtlError):
    """The API or the token endpoint could not be reached for longer than the retry budget."""

    exit_code = 4


class SchemaDrift(EtlError):
    """The API answered what no table knows or can read, and that was to be called a failure."""

    exit_code = 4


class LakeError(EtlError):
    """The lake could not be written or read, or is not the one that the state knows."""

    exit_code = 5


class StateError(EtlError):
    """The state directory or the ledger could not be written or read."""

    exit_code = 5


class AlreadyRunning(EtlError):
    """Another run of the same pipeline holds the lock, or was faster to commit."""

    exit_code = 75


_DISK_ADVICE: Final = {
    errno.ENOSPC: "The disk is full: free some space and run again; nothing that landed is lost.",
    errno.EDQUOT: "The quota is used up: free some space and run again; nothing is lost.",
    errno.EROFS: "The disk is mounted read-only: mount it read-write and run again.",
    errno.EACCES: "Check that this user may write there.",
    errno.EPERM: "Check that this user may write there, and that the file system has hard links.",
    errno.EOPNOTSUPP: "The lake needs a file system with hard links.",
}


def disk_reason(error: OSError) -> str:
    """Return what the system says of an error, in its own words."""
    return os.strerror(error.errno) if error.errno else str(error)


def disk_advice(error: OSError) -> str:
    """Return what to do about an error of a disk."""
    return _DISK_ADVICE.get(error.errno or 0, "Check the disk and run again.")
