"""Reads a ledger without touching it: for `etl status` and `etl plan`, also during a run."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from etl.errors import StateError
from etl.ledger.blobs import unseal
from etl.ledger.damage import DamagedError
from etl.ledger.records import unpack
from etl.ledger.schema import VERSION
from etl.paging.values import Listing


@dataclass(frozen=True, slots=True)
class TestStatus:
    """What is known of a test: rows landed, its total, and when it was last proved.

    `oldest_proof_us` is when the row proved longest ago was proved.
    """

    __test__ = False  # a name that pytest would take for a test class

    test_id: str
    rows: int
    total: int | None
    outcome: str | None
    looked_at_us: int | None
    verified_at_us: int | None
    oldest_proof_us: int | None


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as the ledger noted it; `status` is None while it runs, or if it was killed."""

    run_id: str
    started_at_us: int
    status: str | None


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What a ledger says of its pipeline."""

    runs: tuple[RunStatus, ...]
    tests: tuple[TestStatus, ...]
    answers_waiting: int


def _uri(path: Path) -> str:
    """Return how to open a ledger for reading, also where nothing can be written beside it."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    return f"{uri}&immutable=1" if at_rest and not os.access(path.parent, os.W_OK) else uri


@contextmanager
def _reading(state_dir: Path, pipeline: str) -> Iterator[sqlite3.Connection | None]:
    """Open a pipeline's ledger read-only; None if it has none yet."""
    path = state_dir / f"{pipeline}.sqlite"
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(_uri(path), uri=True)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StateError(
                    "The state was written by a newer version of etl.",
                    where=str(path),
                    advice="Use that version.",
                )
            yield database
    except (sqlite3.Error, DamagedError) as error:
        raise StateError(
            f"The ledger cannot be read: {error}.",
            where=str(path),
            advice="If a run is under way, try again; else `etl run` puts it right.",
        ) from error


def read_status(state_dir: Path, pipeline: str, *, most_runs: int = 5) -> LedgerStatus:
    """Return what the ledger says; empty where there is none yet. Raises StateError."""
    with _reading(state_dir, pipeline) as database:
        if database is None:
            return LedgerStatus((), (), 0)
        runs = database.execute(
            "SELECT run_id, started_at_us, status FROM runs ORDER BY started_at_us DESC LIMIT ?",
            (most_runs,),
        )
        (waiting,) = database.execute("SELECT count(*) FROM inbox").fetchone()
        tests = database.execute(
            "SELECT test_id, rows, outcome, looked_at_us, verified_at_us, length, record "
            "FROM records WHERE test_id <> '' ORDER BY test_id"
        )
        return LedgerStatus(
            runs=tuple(RunStatus(*run) for run in runs),
            tests=tuple(_test_status(test) for test in tests),
            answers_waiting=int(waiting),
        )


def read_listings(state_dir: Path, pipeline: str) -> dict[str, Listing]:
    """Return what the ledger knows of each test's listing. Raises StateError."""
    with _reading(state_dir, pipeline) as database:
        if database is None:
            return {}
        rows = database.execute("SELECT test_id, length, record FROM records")
        return {test_id: _listing(length, record) for test_id, length, record in rows}


def _listing(length: int, record: bytes) -> Listing:
    return unpack(unseal(length, record)).listing


def _test_status(
    row: tuple[str, int, str | None, int | None, int | None, int, bytes],
) -> TestStatus:
    test_id, rows, outcome, looked_at_us, verified_at_us, length, record = row
    listing = _listing(length, record)
    return TestStatus(
        test_id=test_id,
        rows=rows,
        total=listing.total,
        outcome=outcome,
        looked_at_us=looked_at_us,
        verified_at_us=verified_at_us,
        oldest_proof_us=min(listing.proved_at_us, default=verified_at_us),
    )
