"""Tells damage from trouble that may pass, and moves a damaged ledger out of the way."""

from itertools import count
from pathlib import Path

from etl.errors import StateError


class DamagedError(Exception):
    """What the ledger gives back is not what was put in."""


def is_damage(error: Exception) -> bool:
    """Say whether the file itself is bad, so that no later try can do better."""
    code = getattr(error, "sqlite_errorname", "") or ""
    return isinstance(error, DamagedError) or code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def state_error(error: Exception, path: Path) -> StateError:
    """Say what SQLite met, and what to do about it."""
    code = getattr(error, "sqlite_errorname", "") or ""
    advice = "Check the disk's space and health and run again: nothing that has landed is lost."
    if is_damage(error):
        return StateError(
            f"The ledger is damaged: {error}.",
            where=str(path),
            advice=f"It is set aside as {_name_aside(path).name}. Run again: the lake knows what "
            "has landed, and only what had not is asked again.",
        )
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        advice = "Check that this user may write the file and its folder, or set ETL_STATE_DIR."
    elif code.startswith("SQLITE_FULL"):
        advice = "The disk is full: free some space and run again; nothing is lost."
    elif code.startswith("SQLITE_BUSY"):
        advice = "Another program holds the file open for writing: close it and run again."
    return StateError(f"The ledger failed: {error}.", where=str(path), advice=advice)


def set_aside(path: Path) -> Path:
    """Rename a file that is no ledger, and what SQLite keeps beside it. Raises StateError."""
    aside = _name_aside(path)
    try:
        for suffix in ("-shm", "-wal", ""):  # itself last: a kill in between is noticed again
            beside = path.with_name(path.name + suffix)
            if beside.exists():
                beside.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise StateError(
            f"The ledger is damaged and cannot be set aside: {error.strerror}.",
            where=str(path),
            advice="Move it away and run again: the lake knows what has landed.",
        ) from error
    return aside


def _name_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.unreadable-{number}") for number in count(1))
    return next(name for name in names if not name.exists())
