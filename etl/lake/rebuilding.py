"""Makes tables anew from the answers that the lake keeps: no request, one replacing commit.

A row is made again from the answer that it came of, as its `_fetched_at` tells. What no row
tells of (a table added later, a row that an older version could not read) is taken from the
newest answer kept. Rows whose answer was not kept are carried over, in today's columns and
folders; so are all rows of listings, whose pages are not kept, and of files.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias

import pyarrow as pa

from etl.client.values import Answer, UnreadableBodyError
from etl.errors import AlreadyRunning
from etl.lake import commits
from etl.lake.batch import Batch
from etl.lake.bodies import kept_answers, kept_bytes
from etl.lake.carrying import grouped, readable, rows_of_file
from etl.lake.commits import Commit
from etl.lake.kept import KeptAnswers
from etl.lake.landing_plan import LandingPlan, shapes_of
from etl.lake.local import LocalLake
from etl.lake.loose import shared_by, whole_rows
from etl.lake.open_records import OpenRecords
from etl.lake.partitions import Layout
from etl.lake.provenance import (
    WHOLE,
    Origin,
    Origins,
    Scope,
    microseconds,
    open_provenance,
    row_key,
)
from etl.lake.remaking import Job, Made, remade
from etl.lake.scan import table_of
from etl.lake.workers import open_workers, remade_by
from etl.ledger.due import Fed, made_anew
from etl.ledger.records import SESSIONS, Session
from etl.ledger.store import Ledger
from etl.ledger.values import Landed
from etl.plan.orders import is_made_of_bodies
from etl.tables import rejects
from etl.tables.registry import endpoints, tables
from etl.tables.values import FETCHED_AT, AnyTable, Reject, Rows, key_hash

Known: TypeAlias = Mapping[int, Origin]
"""The origins of a scope's rows in one table, by their keys."""

_WAITING_BYTES: Final = 24 * 1024 * 1024


@dataclass(slots=True)
class Rebuilt:
    """What came of a rebuild: the rows of each table now, and those of them carried over."""

    rows: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    files: int = 0
    bytes: int = 0
    replaced: int = 0

    @property
    def made(self) -> Counter[str]:
        """The rows that were made of answers, by table."""
        return self.rows - self.carried

    def sentences(self) -> list[str]:
        """Say what was made of kept answers, without a request."""
        return [
            f"{rows} rows of {name} were made of kept answers: nothing was asked for them."
            for name, rows in sorted(self.made.items())
        ]


class Rebuilding:
    """Tables of one pipeline being made anew. Open it by `with`, under the pipeline's locks.

    All its methods block. Nothing is seen of it before `commit`; whatever ends it sooner
    leaves the lake as it was.
    """

    def __init__(
        self,
        lake: LocalLake,
        ledger: Ledger,
        plan: LandingPlan,
        chosen: Collection[str],
        workers: Executor | None = None,
    ) -> None:
        """Prepare to make the chosen tables of the plan anew; nothing is read yet.

        The `workers`, if any, make rows of sessions; they know this version's own tables alone.
        """
        self.rebuilt = Rebuilt()
        self.records = OpenRecords(ledger)
        self._lake = lake
        self._ledger = ledger
        self._plan = plan
        self._workers = workers
        self._shapes = shapes_of(plan)
        self._chosen = [table for table in plan.tables if table.name in chosen]
        self._old = sorted(path for path in ledger.files() if table_of(path) in chosen)
        self._fed: dict[str, list[AnyTable]] = {}
        for table in self._chosen:
            if is_made_of_bodies(table):
                self._fed.setdefault(table.endpoint.name, []).append(table)
        self._feeds: dict[str, Fed] = {}
        self._tests: set[str] = set()
        self._read_again: list[tuple[str, Scope, int]] = []
        self._order = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._provenance = stack.enter_context(open_provenance())
            self._batch = Batch(self._lake, self._plan.pipeline, self._next_batch())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        with self._stack:
            number = self._batch.number
            if error[0] is not None and number not in self._lake.commits(self._plan.pipeline):
                self._batch.abandon()

    def _feeds_of(self, test_id: str) -> Fed:
        if test_id not in self._feeds:
            self._feeds[test_id] = self._plan.feeds.of(test_id)
        return self._feeds[test_id]

    def _next_batch(self) -> int:
        return max(self._ledger.commits_known(), default=0) + 1

    def make_anew(self) -> None:
        """Make every row of the chosen tables again, or carry it over. Raises LakeError."""
        remade = {table.name for tables in self._fed.values() for table in tables}
        for path in self._old:
            if table_of(path) in remade:
                with readable(path):
                    self._provenance.add(self._lake, path, tables()[table_of(path)])
        self._learn_times()
        if remade:
            for job, made in self._remade(self._jobs()):
                self._take_sessions(job, made)
                self._write_some()
        left = self._provenance.not_all_anew()
        for path in self._old:
            name = table_of(path)
            if name not in remade or name in left:
                self._carry_over(path, is_remade=name in remade)

    def has_read(self, endpoint: str, test_id: str) -> bool:
        """Say whether a kept answer of this endpoint was read that is about the test itself."""
        return self._provenance.was_met(endpoint, (test_id, None))

    def _learn_times(self) -> None:
        """Learn when sessions were, if that tells their folders."""
        if set(self._plan.partition_by) <= {"test_id"}:
            return
        for path in self._ledger.files():
            if table_of(path) == SESSIONS:
                with readable(path):
                    self._provenance.add_times(self._lake, path)
        for path in self._old:
            if _is_by_session(table_of(path)):
                with readable(path):
                    self._provenance.add_folders(self._lake, path, self._plan.partition_by)

    def _jobs(self) -> Iterator[Job]:
        """Yield what is to be made of answers about sessions; take those about tests at once."""
        for kept in kept_answers(self._lake, self._plan.pipeline, self._fed):
            origins = self._provenance.origins(map(_scope, kept.answers))
            for answer in kept.about(sessions=False).read():
                self._render(answer, origins[_scope(answer)])
            self._note_anew()
            yield self._job(kept.about(sessions=True), origins)

    def _job(self, kept: KeptAnswers, origins: Mapping[Scope, Origins]) -> Job:
        """Decide which rows are to be made of answers about sessions."""
        names = [
            table.name for tables in self._fed.values() for table in tables if table.by_session
        ]
        runs: dict[str, list[str | None]] = {name: [None] * len(kept.answers) for name in names}
        for place, answer in enumerate(kept.answers):
            scope = _scope(answer)
            newest = self._provenance.is_newest(answer.endpoint, scope)
            for table in self._fed[answer.endpoint]:
                origin = origins[scope].get(table.name, {}).get(WHOLE)
                if _is_origin(origin, answer, newest=newest):
                    run_id = self._plan.run_id if origin is None else origin.run_id
                    runs[table.name][place] = run_id
        return Job(kept, runs)

    def _remade(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Made]]:
        personal = self._plan.personal
        if self._workers is not None and not personal.hides:
            return remade_by(self._workers, jobs)
        by_session = [one for fed in self._fed.values() for one in fed if one.by_session]
        return ((job, remade(job, by_session, personal.rows)) for job in jobs)

    def _take_sessions(self, job: Job, made: Made) -> None:
        """Take the rows that were made of sessions' answers."""
        for name, rows in made.rows.items():
            self._add(name, rows, 0)
        for answer, counts in zip(job.kept.answers, made.counts, strict=True):
            if counts is None:
                continue
            self.rebuilt.answers += 1
            self.rebuilt.rows.update(counts)
            self._read_again.append(_told(answer))
            self._note(answer.test_id or "", answer.session_id or "", answer.endpoint, counts)
        for place, found in made.rejects:
            self._take_rejects(job.kept.answers[place], found)
        self._note_anew()

    def _note_anew(self) -> None:
        self._provenance.made_anew(self._read_again)
        self._read_again.clear()

    def _add(self, name: str, rows: pa.RecordBatch, first: int) -> None:
        """Add rows of any tests and sessions to the batch; `first` is their place among others."""
        shape = self._shapes[name]

        def folder_of(test_id: str, session_id: str | None) -> str:
            return shape.layout.folder(test_id, self._session(shape.layout, test_id, session_id))

        by_session = _tells_sessions(shape.layout)
        for (test_id, session_id), some in grouped(rows, folder_of, by_session=by_session):
            session = self._session(shape.layout, test_id, session_id)
            self._batch.add(shape, some, (first, self._order), session)
            self._tests.add(test_id)
            self._order += 1

    def _write_some(self) -> None:
        self._batch.write_full()
        if self._batch.bytes_waiting > _WAITING_BYTES:
            self._batch.put_by()

    def _render(self, answer: Answer, origins: Origins) -> None:
        """Render an answer about a test into all tables that are made of it."""
        newest = self._provenance.is_newest(answer.endpoint, _scope(answer))
        try:
            content = endpoints()[answer.endpoint].decode(answer.body)
        except UnreadableBodyError:
            return  # what landed of it stays as it is
        self.rebuilt.answers += 1
        for table in self._fed[answer.endpoint]:
            known = origins.get(table.name, {})
            rows = self._plan.personal.rows(table, answer, table.rows_of(answer, content))
            made = self._take_test(table, answer, rows, known, newest=newest)
            self._take_rejects(answer, rows.rejects)
            self.rebuilt.rows[table.name] += made
        self._read_again.append(_told(answer))

    def _take_test(
        self, table: AnyTable, answer: Answer, rows: Rows, known: Known, *, newest: bool
    ) -> int:
        """Take those rows that an answer about a test is the origin of; return how many."""
        newest = newest and not (table.appends and known)
        record = self.records.of(answer.test_id or "")
        covered = record.rows_of(table.name)
        is_last = record.asked_at_us.get(answer.endpoint) == answer.fetched_at_us
        taken: dict[int, int] = {}
        for place, (key, value) in enumerate(zip(rows.keys, rows.hashes, strict=True)):
            origin = known.get(row_key(table, key, answer.fetched_at_us))
            if key in taken or not _is_origin(origin, answer, newest=newest):
                continue
            taken[key] = place
            run_id = self._plan.run_id if origin is None else origin.run_id
            self._gather(table.name, answer, run_id, rows, [place])
            if covered.get(key) != value and (is_last or key not in covered):
                covered[key] = value
                self.records.changed(answer.test_id or "")
        return len(taken)

    def _take_rejects(self, answer: Answer, found: Sequence[Reject]) -> None:
        """Take what could not be read and is not in the lake yet."""
        for reject in found:
            covered = self.records.of(answer.test_id or "").rows_of(rejects.NAME)
            if reject.key in covered:
                continue
            covered[reject.key] = 0
            self.records.changed(answer.test_id or "")
            self.rebuilt.rows[rejects.NAME] += 1
            rows = rejects.rows_of(answer, [reject])
            self._gather(rejects.NAME, answer, self._plan.run_id, rows, [0])

    def _gather(
        self, table: str, answer: Answer, run_id: str, rows: Rows, places: Sequence[int]
    ) -> None:
        """Add some of an answer's rows to the batch, as landed by a run."""
        shape = self._shapes[table]
        some = whole_rows(shape.full_schema, rows, places, shared_by(answer, run_id))
        session = self._session(shape.layout, answer.test_id or "", answer.session_id)
        self._batch.add(shape, some, (0, self._order), session)
        self._tests.add(answer.test_id or "")

    def _session(self, layout: Layout, test_id: str, session_id: str | None) -> Session | None:
        """Return when a session was, where its folder depends on it."""
        if not _tells_sessions(layout):
            return None
        return self._provenance.session((test_id, session_id))

    def _note(self, test_id: str, session_id: str, endpoint: str, made: Mapping[str, int]) -> None:
        fed = self._feeds_of(test_id)
        if made_anew(self.records.of(test_id), fed, endpoint, session_id, made):
            self.records.changed(test_id)

    def _carry_over(self, path: str, *, is_remade: bool) -> None:
        """Carry over the rows of an old file that have not been made anew."""
        name = table_of(path)
        for whole in rows_of_file(self._lake, path, self._shapes[name].full_schema):
            rows = self._not_anew(name, whole) if is_remade else whole
            self._add(name, self._plan.personal.hidden(name, rows), 1)
            self.rebuilt.rows[name] += rows.num_rows
            self.rebuilt.carried[name] += rows.num_rows
            self._write_some()

    def _not_anew(self, name: str, rows: pa.RecordBatch) -> pa.RecordBatch:
        table = tables()[name]
        names = ["session_id"] if table.by_session else list(table.identity)
        columns = (rows.column(column).to_pylist() for column in ("test_id", *names))
        came_at_us = microseconds(rows.column(FETCHED_AT))
        told: Iterable[tuple[Any, ...]] = zip(came_at_us, *columns, strict=True)
        stay = []
        for at_us, test_id, *key in told:
            scope = (test_id, key[0] if table.by_session else None)
            known_as = row_key(table, key_hash(key), at_us)
            stay.append(not self._provenance.is_anew(table, scope, known_as))
        return rows.filter(pa.array(stay, pa.bool_()))

    def commit(self, notes: Mapping[str, str], reopened: Collection[str] = ()) -> Rebuilt:
        """Land what was made, in the place of the old files, by one commit.

        `reopened` are tests to be looked at anew. Raises AlreadyRunning if another writer has
        taken the commit's number: then nothing of ours is left in the lake.
        """
        files = self._batch.finish()
        records = self.records.packed()
        rebuilt, pipeline = self.rebuilt, self._plan.pipeline
        if not (files or self._old or records):
            return rebuilt
        self._lake.publish([file.path for file in files])
        number = self._batch.number
        commit = Commit(
            pipeline=pipeline,
            batch=number,
            run_id=self._plan.run_id,
            files=files,
            replaces=self._old,
            tests_kept=sorted(self._tests),
            records=records,
            notes=notes,
        )
        if not self._lake.commit(pipeline, number, commits.encode(commit)):
            self._batch.abandon()
            raise AlreadyRunning(
                f"Another writer has landed batch {number} of pipeline {pipeline!r}.",
                where=str(self._lake.root),
                advice="Nothing was changed by this one. Try again when it has ended.",
            )
        # Before the ledger knows: a death in between leaves it to the next start.
        self._lake.remove_durably(self._old)
        landed = Landed(number, files, self._old, records=records, reopened=reopened)
        self._ledger.land(landed)
        rebuilt.files, rebuilt.bytes = len(files), sum(file.bytes for file in files)
        rebuilt.replaced = len(self._old)
        return rebuilt


def _scope(answer: Answer) -> Scope:
    return answer.test_id or "", answer.session_id


def _told(answer: Answer) -> tuple[str, Scope, int]:
    return answer.endpoint, _scope(answer), answer.fetched_at_us


def _is_origin(origin: Origin | None, answer: Answer, *, newest: bool) -> bool:
    """Say whether an answer is what a row is made of; where none is known the newest is."""
    return newest if origin is None else origin.fetched_at_us == answer.fetched_at_us


def _tells_sessions(layout: Layout) -> bool:
    """Say whether the folder of rows depends on when their session was."""
    return layout.of_session and not set(layout.columns) <= {"test_id"}


def _is_by_session(name: str) -> bool:
    return name in tables() and tables()[name].by_session


def rebuild(lake: LocalLake, ledger: Ledger, plan: LandingPlan, chosen: Collection[str]) -> Rebuilt:
    """Make tables anew, all by one commit; blocks. Call it after `recover`, under its locks.

    Other processes help where there is much to read, so the caller's main module must be one
    that can be imported. Raises LakeError and AlreadyRunning: then nothing has changed.
    """
    with (
        open_workers(kept_bytes(lake, plan.pipeline)) as workers,
        Rebuilding(lake, ledger, plan, chosen, workers) as rebuilding,
    ):
        rebuilding.make_anew()
        return rebuilding.commit({})
