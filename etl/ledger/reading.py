"""Reads a ledger without touching it: for `etl status` and `etl plan`, also during a run."""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from etl.errors import StateError
from etl.ledger.afresh import BACKFILL, Backfill, noted, requests_left
from etl.ledger.blobs import unseal
from etl.ledger.damage import DamagedError
from etl.ledger.fields import UnknownField, read_fields
from etl.ledger.frames import Identity, identities_in
from etl.ledger.records import Record, unpack
from etl.ledger.schema import VERSION


@dataclass(frozen=True, slots=True)
class TestStatus:
    """What is known of a test: rows landed, its total, and when it was last proved.

    `sessions_due` are those of its listing that something is still to be asked for,
    `files_due` the clips and reels whose rows wait for their files; `afresh` are the requests
    that the last backfill has yet to make, as far as it is listed.
    `oldest_proof_us` is when the row proved longest ago was proved.
    """

    __test__ = False  # a name that pytest would take for a test class

    test_id: str
    rows: int
    rows_by_table: Mapping[str, int]
    sessions_due: int
    total: int | None
    outcome: str | None
    looked_at_us: int | None
    verified_at_us: int | None
    oldest_proof_us: int | None
    afresh: int = 0
    files_due: int = 0


@dataclass(frozen=True, slots=True)
class BackfillStatus:
    """A backfill that is not done: when it began, its tests, and what is left of them."""

    began_at_us: int
    tests: int
    tests_left: int
    requests_left: int


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run as the ledger noted it; `status` is None until it has ended by itself."""

    run_id: str
    started_at_us: int
    status: str | None


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What a ledger says of its pipeline."""

    runs: tuple[RunStatus, ...]
    tests: tuple[TestStatus, ...]
    answers_waiting: int
    unknown_fields: Sequence[UnknownField] = ()
    last_backfill: Backfill | None = None

    @property
    def backfill(self) -> BackfillStatus | None:
        """The backfill that is under way, or None."""
        last = self.last_backfill
        if last is None or last.is_done:
            return None
        known = {test.test_id: test.afresh for test in self.tests}
        left = [count for test in last.tests if (count := known.get(test, 1))]
        if not left:
            return None
        return BackfillStatus(last.began_at_us, len(last.tests), len(left), sum(left))

    @property
    def rows_by_table(self) -> dict[str, int]:
        """The rows landed of all tests, by table."""
        rows: Counter[str] = Counter()
        for test in self.tests:
            rows.update(test.rows_by_table)
        return dict(sorted(rows.items()))


def _uri(path: Path) -> str:
    """Return how to open a ledger for reading, also where nothing can be written beside it.

    Whoever may write removes, on closing, the log that SQLite made beside a ledger at rest; a
    log that was there belongs to a run, or to the next one to recover from.
    """
    at_rest = not path.with_name(f"{path.name}-wal").exists()
    mode = "rw" if at_rest and os.access(path, os.W_OK) else "ro"
    immutable = "&immutable=1" if at_rest and not os.access(path.parent, os.W_OK) else ""
    return f"{path.resolve().as_uri()}?mode={mode}{immutable}"


@contextmanager
def _reading(state_dir: Path, pipeline: str) -> Iterator[sqlite3.Connection | None]:
    """Open a pipeline's ledger read-only; None if it has none yet."""
    path = state_dir / f"{pipeline}.sqlite"
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(_uri(path), uri=True)) as database:
            database.execute("PRAGMA query_only = ON")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StateError(
                    "The state was written by a newer version of etl.",
                    where=str(path),
                    advice="Use that version.",
                )
            yield database if version else None  # a run is just about to make it
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
        last = database.execute("SELECT value FROM meta WHERE name = ?", (BACKFILL,)).fetchone()
        backfill = noted(None if last is None else last[0])
        return LedgerStatus(
            runs=tuple(RunStatus(*run) for run in runs),
            tests=tuple(_test_status(test, backfill) for test in tests),
            answers_waiting=int(waiting),
            unknown_fields=read_fields(database),
            last_backfill=backfill,
        )


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What a ledger knows of what the next run is to ask; `record` reads that of a test.

    `states` are those of the round's tests, `in_inbox` answers that wait to be landed.
    """

    record: Callable[[str], Record]
    notes: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    in_inbox: Collection[Identity] = ()

    @property
    def round_began_at_us(self) -> int | None:
        """When the round began that may be gone on with."""
        return int(self.notes["round"]) if "round" in self.notes else None


@contextmanager
def open_state(state_dir: Path, pipeline: str) -> Iterator[LedgerState]:
    """Open what the ledger knows; empty where there is none yet. Raises StateError."""
    with _reading(state_dir, pipeline) as database:
        if database is None:
            yield LedgerState(lambda _: Record())
            return
        frames = database.execute("SELECT heads FROM inbox")
        yield LedgerState(
            record=partial(_record, database),
            notes=dict(database.execute("SELECT name, value FROM meta")),
            states=dict(database.execute("SELECT test_id, state FROM work")),
            in_inbox=[answer for (heads,) in frames for answer in identities_in(heads)],
        )


def _record(database: sqlite3.Connection, test_id: str) -> Record:
    row = database.execute(
        "SELECT length, record FROM records WHERE test_id = ?", (test_id,)
    ).fetchone()
    return Record() if row is None else unpack(unseal(*row))


def _test_status(
    row: tuple[str, int, str | None, int | None, int | None, int, bytes],
    backfill: Backfill | None,
) -> TestStatus:
    test_id, rows, outcome, looked_at_us, verified_at_us, length, packed = row
    record = unpack(unseal(length, packed))
    listing = record.listing
    return TestStatus(
        test_id=test_id,
        rows=rows,
        rows_by_table=record.rows(),
        sessions_due=len(record.due),
        total=listing.total,
        outcome=outcome,
        looked_at_us=looked_at_us,
        verified_at_us=verified_at_us,
        files_due=sum(map(len, record.held.values())),
        oldest_proof_us=min(listing.proved_at_us, default=verified_at_us),
        afresh=0 if backfill is None else requests_left(record, backfill),
    )
