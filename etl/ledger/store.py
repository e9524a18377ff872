"""The ledger: one SQLite file a pipeline, WAL, every commit synced.

Its methods block, so callers run them in a thread; one call at a time, in any thread.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import xxhash

from etl.client.values import Answer
from etl.errors import StateError, disk_advice, disk_reason
from etl.ledger.blobs import HASH_BYTES, check, seal, unseal
from etl.ledger.damage import DamagedError, is_damage, set_aside, state_error
from etl.ledger.due import goes_on
from etl.ledger.fields import count_fields
from etl.ledger.frames import Identity, identity, pack_frame, unpack_frame
from etl.ledger.locks import held
from etl.ledger.places import make_state_dir, refuse_network_file_system
from etl.ledger.records import PackedRecord, Record, unpack
from etl.ledger.schema import MIGRATIONS, VERSION
from etl.ledger.values import Due, Ended, File, Landed, Work
from etl.pacing.rules import LONGEST_RETRY_SECONDS

_LONGEST_DELAY_US: Final = int((LONGEST_RETRY_SECONDS + 1) * 1_000_000)


@contextmanager
def open_ledger(state_dir: Path, pipeline: str) -> Iterator["Ledger"]:
    """Open a pipeline's ledger for writing, alone, and close it on every way out.

    A file that is no ledger any more is set aside: the lake knows what has landed.
    Raises AlreadyRunning, and StateError if the state cannot be read or written or
    comes from a newer version.
    """
    path = state_dir / f"{pipeline}.sqlite"
    make_state_dir(state_dir)
    with held(state_dir / f"{pipeline}.lock", f"pipeline {pipeline!r}"):
        ledger = _opened(path)
        try:
            yield ledger
        finally:
            ledger.close()


def _opened(path: Path) -> "Ledger":
    refuse_network_file_system(path.parent)
    try:
        return _opened_or_rebuilt(path)
    except (sqlite3.Error, DamagedError) as error:
        raise state_error(error, path) from error
    except OSError as error:
        raise StateError(
            f"The ledger cannot be opened: {disk_reason(error)}.",
            where=str(path),
            advice=disk_advice(error),
        ) from error


def _opened_or_rebuilt(path: Path) -> "Ledger":
    """Open a ledger; one that is damaged is set aside, and begun anew."""
    try:
        return Ledger(path)
    except (sqlite3.Error, DamagedError) as error:
        if not is_damage(error) or not path.exists():
            raise
    aside = set_aside(path)
    ledger = Ledger(path)
    ledger.set_aside = aside
    return ledger


class Ledger:
    """What one machine needs to go on: work, answers not landed, records of the landed."""

    def __init__(self, path: Path) -> None:
        """Open and migrate the file; raises sqlite3.Error or DamagedError if that cannot be."""
        self.path = path
        self.set_aside: Path | None = None
        self._failed = self._damaged = False
        path.touch(mode=0o600)
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._failed = True
            self._close_as_it_is()
            raise

    def _prepare(self) -> None:
        run = self._database.execute
        run("PRAGMA page_size = 16384")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run("PRAGMA journal_size_limit = 67108864")
        # Bodies hold personal data: what is deleted is overwritten, and spilt nowhere else.
        run("PRAGMA secure_delete = ON")
        run("PRAGMA temp_store = MEMORY")
        # After a failed fsync nothing but what a checkpoint carries over is to be believed.
        run("PRAGMA wal_checkpoint(TRUNCATE)")
        # Pages may be damaged that are read only in the middle of a run: 10 ms for 25 MB.
        (found,) = run("PRAGMA quick_check(1)").fetchone()
        (version,) = run("PRAGMA user_version").fetchone()
        if found != "ok" or (version == 0 and self._tables()):
            raise DamagedError(found)
        if version > VERSION:
            raise StateError(
                f"The state was written by a newer version of etl (schema {version}, "
                f"this one knows {VERSION}).",
                where=str(self.path),
                advice="Run that version, or move the file away: the lake knows what has landed.",
            )
        for step, statements in enumerate(MIGRATIONS[version:], start=version + 1):
            self._database.executescript(
                f"BEGIN; {statements} PRAGMA user_version = {step}; COMMIT;"
            )
        if not self._tables() >= {"meta", "work", "inbox", "records", "commits", "files", "runs"}:
            raise DamagedError("tables are missing")
        self._check_values()

    def _check_values(self) -> None:
        """Raise DamagedError if a value was altered, or records and the rest are of two days.

        The latter is what a backup of the file makes with a write-ahead log that stayed:
        pages of both, each of them sound. 0.5 ms for a MB.
        """
        for heads, bodies in self._database.execute("SELECT heads, bodies FROM inbox"):
            check(bodies, heads)
        for (record,) in self._database.execute("SELECT record FROM records"):
            check(record)
        kept = self._database.execute("SELECT value FROM meta WHERE name = 'records'").fetchone()
        if kept is not None and kept[0] != _hash_of_records(self._database):
            raise DamagedError("its parts are of different days")

    def _tables(self) -> set[str]:
        return {name for (name,) in self._database.execute("SELECT name FROM sqlite_schema")}

    def close(self) -> None:
        """Commit what was kept and close the file; set it aside if it was found damaged.

        After an error nothing on this connection is to be believed: then nothing more is
        written, and the next start goes on from what is in the file.
        """
        try:
            if not self._failed:
                self.commit()
        finally:
            self._close_as_it_is()
            if self._damaged:
                self.set_aside = set_aside(self.path)

    def _close_as_it_is(self) -> None:
        """Close the connection; after an error without the checkpoint that SQLite would make.

        It makes none while somebody reads: Python 3.11 has no other way to ask for that.
        """
        with ExitStack() as reading:
            if self._failed:
                with suppress(sqlite3.Error):
                    reader = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
                    reading.callback(reader.close)
                    reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._database.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours, in one place; after one, refuse to go on."""
        if self._failed:
            raise StateError("The ledger has failed before in this run.", where=str(self.path))
        try:
            yield
        except (sqlite3.Error, DamagedError) as error:
            self._failed = True
            self._damaged = self._damaged or is_damage(error)
            raise state_error(error, self.path) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            if not self._database.in_transaction:
                self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.rollback()
                raise
            self._database.execute("COMMIT")

    def note(self, name: str) -> str | None:
        """Return a note kept under this name, or None."""
        with self._errors():
            row = self._database.execute(
                "SELECT value FROM meta WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else str(row[0])

    def keep_note(self, name: str, value: str) -> None:
        """Keep a note under this name."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def keep(self, answers: Sequence[Answer]) -> int:
        """Put a frame of answers into the inbox and return its number.

        It is durable after the next `commit`, or the next transaction of any kind.
        """
        heads, length, bodies = pack_frame(answers)
        with self._errors():
            if not self._database.in_transaction:
                self._database.execute("BEGIN IMMEDIATE")
            added = self._database.execute(
                "INSERT INTO inbox (heads, length, bodies) VALUES (?, ?, ?)",
                (heads, length, bodies),
            )
        return int(added.lastrowid or 0)

    def commit(self) -> None:
        """Make what was kept durable."""
        with self._errors():
            if self._database.in_transaction:
                self._database.execute("COMMIT")

    def frames(self) -> list[int]:
        """Return the numbers of the frames that have not landed, in the order kept."""
        with self._errors():
            found = self._database.execute("SELECT frame FROM inbox ORDER BY frame")
            return [frame for (frame,) in found]

    def frame(self, number: int) -> list[Answer]:
        """Return the answers of a frame, in the order kept."""
        with self._errors():
            heads, length, bodies = self._database.execute(
                "SELECT heads, length, bodies FROM inbox WHERE frame = ?", (number,)
            ).fetchone()
            return unpack_frame(heads, length, bodies)

    def record(self, test_id: str) -> Record:
        """Return what is known of a test; an empty record if nothing is."""
        with self._errors():
            row = self._database.execute(
                "SELECT length, record FROM records WHERE test_id = ?", (test_id,)
            ).fetchone()
            return Record() if row is None else unpack(unseal(*row))

    def tests_known(self) -> list[str]:
        """Return the tests of which something is known."""
        with self._errors():
            return [test for (test,) in self._database.execute("SELECT test_id FROM records")]

    def tests_due(self) -> dict[str, Due]:
        """Return what is due of each test that is known."""
        with self._errors():
            found = self._database.execute("SELECT test_id, due, newest_due_us FROM records")
            return {test: Due(sessions, newest_us) for test, sessions, newest_us in found}

    def land(self, landed: Landed) -> list[str]:
        """Mark a commit of the lake: its rows are covered, its answers leave the inbox.

        Returns the unknown fields that no commit held before.
        """
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO commits VALUES (?)", (landed.batch,))
            database.executemany(
                "DELETE FROM files WHERE path = ?", [(path,) for path in landed.replaced]
            )
            database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(file.path, file.batch, file.rows, file.bytes) for file in landed.files],
            )
            for test_id, record in landed.records.items():
                _put_record(database, test_id, record)
            for test_id in landed.reopened:
                _reopen(database, test_id)
            for look in landed.looks:
                _put_look(database, look)
            database.executemany(
                "DELETE FROM inbox WHERE frame = ?", [(frame,) for frame in landed.frames]
            )
            new_fields = count_fields(database, landed.unknown_fields)
            _keep_hash_of_records(database)
        if landed.frames:
            self._empty_wal()
        return new_fields

    def _empty_wal(self) -> None:
        """Empty the WAL, where what has just been deleted can still be read.

        Someone who reads (`etl status`) may hold it; then the next batch or `close` does.
        """
        with self._errors():
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def commits_known(self) -> set[int]:
        """Return the numbers of the commits that this ledger has marked or adopted."""
        with self._errors():
            return {batch for (batch,) in self._database.execute("SELECT batch FROM commits")}

    def files(self) -> dict[str, File]:
        """Return the data files that commits name, by their path in the lake."""
        with self._errors():
            found = self._database.execute("SELECT path, batch, rows, bytes FROM files")
            return {row[0]: File(*row) for row in found}

    def forget_lake(self) -> None:
        """Forget all that the lake is the record of; answers not landed stay."""
        with self._transaction() as database:
            for table in ("commits", "files", "records"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 - names from above
            _keep_hash_of_records(database)

    def drop_from_inbox(
        self, landed: Collection[Identity], identity_of: Callable[[Answer], Identity] = identity
    ) -> None:
        """Delete answers that a commit holds, which another process or a dead one made.

        `identity_of` says by what the lake tells answers apart.
        """
        for number in self.frames():
            answers = self.frame(number)
            left = [answer for answer in answers if identity_of(answer) not in landed]
            if len(left) == len(answers):
                continue
            with self._transaction() as database:
                database.execute("DELETE FROM inbox WHERE frame = ?", (number,))
                if left:
                    heads, length, bodies = pack_frame(left)
                    database.execute(
                        "INSERT INTO inbox VALUES (?, ?, ?, ?)", (number, heads, length, bodies)
                    )
            self._empty_wal()

    def set_apart(self, number: int, waits: Callable[[Answer], bool]) -> list[Answer]:
        """Give those answers of a frame that wait a frame of their own; return the others."""
        answers = self.frame(number)
        waiting = [answer for answer in answers if waits(answer)]
        others = [answer for answer in answers if not waits(answer)]
        if waiting and others:
            with self._transaction() as database:
                database.execute("DELETE FROM inbox WHERE frame = ?", (number,))
                for frame, kept in ((number, others), (None, waiting)):
                    heads, length, bodies = pack_frame(kept)
                    database.execute(
                        "INSERT INTO inbox VALUES (?, ?, ?, ?)", (frame, heads, length, bodies)
                    )
        return others

    def begin_round(
        self, endpoint: str, test_ids: Iterable[str], now_us: int, *, afresh: bool
    ) -> list[Work]:
        """Return the tests still to be looked at in this round, in the order given.

        A round left open by a run that ended early is gone on with, unless it is older
        than 12 hours or `afresh` asks for a new one.
        """
        wanted = list(dict.fromkeys(test_ids))
        with self._transaction() as database:
            known = dict(
                database.execute("SELECT test_id, state FROM work WHERE endpoint = ?", (endpoint,))
            )
            began = database.execute("SELECT value FROM meta WHERE name = 'round'").fetchone()
            began_at_us = None if began is None else int(began[0])
            if afresh or not goes_on(known, began_at_us, wanted, now_us):
                database.execute("DELETE FROM work WHERE endpoint = ?", (endpoint,))
                database.execute("INSERT OR REPLACE INTO meta VALUES ('round', ?)", (str(now_us),))
            database.executemany(
                "INSERT OR IGNORE INTO work (endpoint, test_id) VALUES (?, ?)",
                [(endpoint, test) for test in wanted],
            )
            rows = database.execute(
                "SELECT test_id, attempts, not_before_us FROM work "
                "WHERE endpoint = ? AND state = 'open'",
                (endpoint,),
            )
            # A wrong clock may have told a time that is far away: no delay is that long.
            latest_us = now_us + _LONGEST_DELAY_US
            found = {row[0]: Work(row[0], row[1], min(row[2], latest_us)) for row in rows}
        return [found[test] for test in wanted if test in found]

    def postpone(self, endpoint: str, work: Work, error: str) -> None:
        """Remember that a request is to be tried again, when, and why; survives a kill."""
        with self._transaction() as database:
            database.execute(
                "UPDATE work SET attempts = ?, not_before_us = ?, last_error = ? "
                "WHERE endpoint = ? AND test_id = ?",
                (work.attempts, work.not_before_us, error, endpoint, work.test_id),
            )

    def begin_run(self, run_id: str, now_us: int) -> None:
        """Note that a run has begun."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO runs (run_id, started_at_us) VALUES (?, ?)", (run_id, now_us)
            )

    def end_run(self, run_id: str, status: str) -> None:
        """Note how a run ended."""
        with self._transaction() as database:
            database.execute("UPDATE runs SET status = ? WHERE run_id = ?", (status, run_id))


def _put_record(database: sqlite3.Connection, test_id: str, record: PackedRecord) -> None:
    database.execute(
        "INSERT INTO records (test_id, rows, length, record, due, newest_due_us) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE "
        "SET rows = ?2, length = ?3, record = ?4, due = ?5, newest_due_us = ?6",
        (
            test_id,
            sum(record.rows.values()),
            len(record.packed),
            seal(record.packed),
            record.due,
            record.newest_us,
        ),
    )


def _keep_hash_of_records(database: sqlite3.Connection) -> None:
    kept = _hash_of_records(database)
    database.execute("INSERT OR REPLACE INTO meta VALUES ('records', ?)", (kept,))


def _hash_of_records(database: sqlite3.Connection) -> str:
    digest = xxhash.xxh3_64()
    for test_id, record_hash in database.execute(
        "SELECT test_id, substr(record, 1, ?) FROM records ORDER BY test_id", (HASH_BYTES,)
    ):
        digest.update(f"{test_id} ".encode())
        digest.update(record_hash)
    return digest.hexdigest()


def _reopen(database: sqlite3.Connection, test_id: str) -> None:
    database.execute("DELETE FROM work WHERE test_id = ?", (test_id,))
    database.execute(
        "UPDATE records SET looked_at_us = NULL, outcome = NULL, verified_at_us = NULL "
        "WHERE test_id = ?",
        (test_id,),
    )


def _put_look(database: sqlite3.Connection, look: Ended) -> None:
    """Note how a look ended; the work of one that goes on stays open."""
    outcome = look.failed if look.verdict is None else look.verdict.outcome.value
    verified_at = look.looked_at_us if look.verdict and look.verdict.verified else None
    database.execute(
        "UPDATE records SET looked_at_us = ?, outcome = ?, "
        "verified_at_us = coalesce(?, verified_at_us) WHERE test_id = ?",
        (look.looked_at_us, outcome, verified_at, look.test_id),
    )
    database.execute(
        "UPDATE work SET state = ?, last_error = ? WHERE test_id = ?",
        ("failed" if look.failed else "done", look.failed, look.test_id),
    )
