"""Takes kept answers, makes their rows, and lands them batch by batch.

A batch is whole frames of the inbox, rendered into every table that they feed. Its one
commit point is the commit's file in the lake; the ledger is marked after it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
from anyio import CancelScope, to_thread

from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.errors import AlreadyRunning
from etl.lake import commits
from etl.lake.batch import Batch, Shape, shape_of
from etl.lake.commits import AnswerRow, Commit, answer_row
from etl.lake.local import LocalLake
from etl.lake.partitions import Layout
from etl.lake.scan import may_hold, rows_in, table_of
from etl.ledger.records import PackedRecord, Record, pack, unpack
from etl.ledger.store import Ended, Landed, Looked, ended
from etl.ledger.threaded import LedgerThread
from etl.paging.values import Listing
from etl.tables import rejects
from etl.tables.personal import PersonalData
from etl.tables.registry import endpoints
from etl.tables.sessions import SessionsPage
from etl.tables.values import (
    RUN_COLUMNS,
    TIMESTAMP,
    AnyTable,
    Array,
    Reject,
    Rows,
    field_name,
    key_hash,
    printable,
)

BATCH_ROWS: Final = 250_000
BATCH_BYTES: Final = 24 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame of the inbox as it goes on to the lake: its number, answers and looks.

    An answer whose content is None is read again, or rejected where that fails.
    """

    frame: int | None
    items: Sequence[Fetched[Any] | Looked]


@dataclass(slots=True)
class Tally:
    """What this run has landed so far."""

    rows: Counter[str] = field(default_factory=Counter)
    files: int = 0
    bytes: int = 0
    edited: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    unknown_fields: Counter[str] = field(default_factory=Counter)
    looks: dict[str, Ended] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Closed:
    """What one batch has landed: its answers, and the looks that have ended."""

    answers: Sequence[AnswerRow] = ()
    looks: Sequence[Ended] = ()


@dataclass(frozen=True, slots=True)
class LandingPlan:
    """What a run's landing is about: where, which tables, under which layout and names."""

    pipeline: str
    run_id: str
    tables: Sequence[AnyTable]
    partition_by: tuple[str, ...]
    personal: PersonalData


class Records:
    """The records of the tests under way; of those looked at, packed until they land.

    A row costs 16 bytes in a packed record, and some 150 in one that is open.
    """

    def __init__(self, ledger: LedgerThread) -> None:
        """Begin with none in memory."""
        self._ledger = ledger
        self._open: dict[str, Record] = {}
        self.packed: dict[str, PackedRecord] = {}

    async def of(self, test_id: str) -> Record:
        """Return a test's record, open, to be changed only by the landing."""
        record = self._open.get(test_id)
        if record is not None:
            return record
        packed = self.packed.pop(test_id, None)
        if packed is not None:
            found = unpack(packed.packed)
        else:
            found = await self._ledger.call(self._ledger.ledger.record, test_id)
        return self._open.setdefault(test_id, found)

    def pack(self, test_id: str, record: Record, *, keep_open: bool) -> None:
        """Pack a record as it is to land; `keep_open` while its look goes on."""
        self.packed[test_id] = pack(record)
        if not keep_open:
            self._open.pop(test_id, None)

    def landed(self) -> dict[str, PackedRecord]:
        """Forget what has been packed, which the ledger knows now; return it."""
        packed, self.packed = self.packed, {}
        return packed


class Landing:
    """Gathers rows and lands them; owned by one task."""

    def __init__(
        self,
        plan: LandingPlan,
        lake: LocalLake,
        ledger: LedgerThread,
        records: Records,
        first_batch: int,
        notes: Callable[[], Mapping[str, str]],
    ) -> None:
        """Begin with an empty batch; `notes` are kept with each commit for a fresh machine."""
        self.tally = Tally()
        self._plan = plan
        self._lake = lake
        self._ledger = ledger
        self._records = records
        self._notes = notes
        self._fed_by: dict[str, list[AnyTable]] = {}
        self._shapes: dict[str, Shape] = {}
        for table in plan.tables:
            self._fed_by.setdefault(table.endpoint.name, []).append(table)
            layout = Layout(table.name, plan.partition_by, table.dates)
            self._shapes[table.name] = shape_of(layout, (*table.columns, *RUN_COLUMNS))
        layout = Layout(rejects.NAME, plan.partition_by, None)
        self._shapes[rejects.NAME] = shape_of(layout, (*rejects.COLUMNS, *RUN_COLUMNS))
        self._begin(first_batch)

    def _begin(self, number: int) -> None:
        self._batch = Batch(self._lake, self._plan.pipeline, number)
        self._frames: list[int] = []
        self._answers: list[AnswerRow] = []
        self._looks: dict[str, Looked] = {}  # those that go on
        self._ended: dict[str, Ended] = {}
        self._rows: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._read: set[str] = set()  # of which a page of the listing is among the answers
        self._newly_gone: dict[str, frozenset[int]] = {}
        self._order: dict[str, int] = {}

    @property
    def is_due(self) -> bool:
        """Whether the batch has reached its target size, or holds too much in memory."""
        return self._batch.rows >= BATCH_ROWS or self._batch.bytes_waiting >= BATCH_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to land."""
        return not (self._answers or self._looks or self._ended)

    async def add(self, kept: Kept) -> None:
        """Render a frame's answers; writes row groups that have filled."""
        if kept.frame is not None:
            self._frames.append(kept.frame)
        for item in kept.items:
            if isinstance(item, Looked):
                self._looks[item.test_id] = item
                if ended(item) is not None:
                    self._settle(item.test_id, await self._records.of(item.test_id))
            else:
                record = await self._records.of(item.answer.test_id or "")
                self._render(item, record)
        if self._batch.has_full_row_group:
            await to_thread.run_sync(self._batch.write_full)

    def _render(self, fetched: Fetched[Any], record: Record) -> None:
        answer = fetched.answer
        made: dict[str, int] = {}
        try:
            content = fetched.content
            if content is None:
                content = endpoints()[answer.endpoint].decode(answer.body)
        except UnreadableBodyError as error:
            reject = Reject(str(error), printable(answer.body), answer.session_id)
            reject = self._plan.personal.reject(reject)
            made[rejects.NAME] = self._take_rejects(answer, [reject], record)
            self._answers.append(
                answer_row(self._plan.personal.answer(answer), made, keeps_body=False)
            )
            return
        if isinstance(content, SessionsPage):
            self._hold(answer, content, record)
        keeps_body = False
        for table in self._fed_by.get(answer.endpoint, ()):
            rows = self._plan.personal.rows(table, answer, table.rows_of(answer, content))
            made[table.name] = self._take(table, answer, rows, record)
            keeps_body = keeps_body or rows.keeps_body
            self.tally.unknown_fields.update(map(field_name, rows.unknown_fields))
            rejected = self._take_rejects(answer, rows.rejects, record)
            if rejected:
                made[rejects.NAME] = made.get(rejects.NAME, 0) + rejected
        self._answers.append(
            answer_row(self._plan.personal.answer(answer), made, keeps_body=keeps_body)
        )

    def _hold(self, answer: Answer, page: SessionsPage, record: Record) -> None:
        """Hold a page for its look, unless that has ended: its answer leaves the inbox."""
        test_id = answer.test_id or ""
        if test_id not in self._ended and test_id not in self.tally.looks:
            record.in_hand[answer.object_id or ""] = self._plan.personal.view(answer, page)
            self._read.add(test_id)

    def _take(self, table: AnyTable, answer: Answer, rows: Rows, record: Record) -> int:
        """Gather the rows that the lake does not have yet; return how many."""
        covered = record.rows_of(table.name)
        columns = rows.columns
        extra = rows.extra
        count = len(rows.keys)
        if not covered.keys().isdisjoint(rows.keys) or len(set(rows.keys)) != count:
            fresh = self._fresh(table.name, rows, covered)
            count = len(fresh)
            columns = {name: _chosen(column, fresh) for name, column in columns.items()}
            extra = None if extra is None else [extra[place] for place in fresh]
        else:
            covered.update(zip(rows.keys, rows.hashes, strict=True))
        if count:
            arrays = [columns.get(column.name) for column in table.columns]
            extras = pa.nulls(count, pa.string()) if extra is None else pa.array(extra, pa.string())
            self._gather(table.name, answer, arrays, extras, rows.order)
        return count

    def _fresh(self, table: str, rows: Rows, covered: dict[int, int]) -> list[int]:
        """Return the places of rows not landed; note those that the API now answers anew."""
        fresh = []
        met: dict[int, bool] = {}  # whether it is new
        for place, key in enumerate(rows.keys):
            value = rows.hashes[place]
            if key in met:
                if met[key] and value != covered[key]:
                    self.tally.edited[table] += 1  # twice in one answer: the first one counts
                continue
            met[key] = key not in covered
            if met[key]:
                fresh.append(place)
            elif covered[key] == value:
                continue
            else:
                self.tally.edited[table] += 1
            covered[key] = value
        return fresh

    def _take_rejects(self, answer: Answer, found: Sequence[Reject], record: Record) -> int:
        covered = record.rows_of(rejects.NAME) if found else {}
        fresh = {reject.key: reject for reject in found if reject.key not in covered}
        if not fresh:
            return 0
        covered.update(dict.fromkeys(fresh, 0))
        rejected = list(fresh.values())
        count = len(rejected)
        columns = [
            pa.array([answer.endpoint] * count, pa.string()),
            None,
            pa.array([reject.session_id for reject in rejected], pa.string()),
            pa.array([reject.reason for reject in rejected], pa.string()),
            pa.array([reject.body for reject in rejected], pa.string()),
        ]
        self._gather(rejects.NAME, answer, columns, pa.nulls(count, pa.string()), 0)
        return count

    def _gather(
        self,
        table: str,
        answer: Answer,
        columns: Sequence[Array | None],
        extra: Array,
        order: int,
    ) -> None:
        """Add rows to the batch. A column that is None is the answer's `test_id`."""
        count = len(extra)
        test_id = answer.test_id or ""
        shared = pa.repeat(pa.scalar(answer.test_id, pa.string()), count)
        shape = self._shapes[table]
        rows = pa.RecordBatch.from_arrays(
            [
                *(shared if column is None else column for column in columns),
                pa.repeat(pa.scalar(self._plan.run_id, pa.string()), count),
                pa.repeat(pa.scalar(answer.fetched_at_us, TIMESTAMP), count),
                extra,
            ],
            schema=shape.full_schema,
        )
        self._changed.add(test_id)
        place = (self._order.setdefault(test_id, len(self._order)), order)
        self._batch.add(shape, rows, place)
        self._rows[table] += count

    async def close_batch(self) -> Closed:
        """Land what has been gathered: files, commit, ledger; then begin the next batch.

        Returns what has landed, for those who watch.

        Raises AlreadyRunning if another writer has taken the batch's number: then
        nothing of ours is left in the lake, and all answers are still in the inbox.
        """
        if self.is_empty:
            return Closed()
        with CancelScope(shield=True):
            looks_go_on = self._looks.keys()
            for test_id in self._changed | self._read | looks_go_on | self._ended.keys():
                if test_id not in self._records.packed or test_id in looks_go_on:
                    self._settle(test_id, await self._records.of(test_id))
            landed = await to_thread.run_sync(self._land, self._records.packed)
            await self._ledger.call(self._ledger.ledger.land, landed)
        self._records.landed()
        self.tally.looks |= self._ended
        self.tally.rows += self._rows
        self.tally.files += len(landed.files)
        self.tally.bytes += sum(file.bytes for file in landed.files)
        closed = Closed(self._answers, list(self._ended.values()))
        self._begin(self._batch.number + 1)
        pa.default_memory_pool().release_unused()
        return closed

    def _settle(self, test_id: str, record: Record) -> None:
        """Bring a test's record up to date with its look, and pack it for the commit.

        What only says when a test was proved again is not a change: see `_land`.
        """
        look = self._looks.get(test_id)
        if look is not None and look.failed is None:
            before = record.listing
            record.relist(look.listing, ended=look.verdict is not None)
            gone = _gone(record) if look.verdict and look.verdict.verified else record.removed
            if _differ(before, record.listing) or gone != record.removed:
                self._changed.add(test_id)
            self._newly_gone[test_id] = gone - record.removed
            record.removed = gone
        if record.in_hand:
            self._changed.add(test_id)  # what a machine without state would ask again
        how = ended(look) if look is not None else None
        if how is not None:
            self._ended[test_id] = self._if_read(how, record)
            del self._looks[test_id]
        self._records.pack(test_id, record, keep_open=test_id not in self._ended)

    def _if_read(self, how: Ended, record: Record) -> Ended:
        """Return how a look ended: badly, if of all that the test lists no row could be read.

        Then the API has most likely changed: that is no night to call complete.
        """
        listed = record.listing.ids
        if how.failed or not listed or all(table.name != _LISTED for table in self._plan.tables):
            return how
        if not record.rows_of(_LISTED).keys().isdisjoint(listed):
            return how
        said = f"None of its {len(listed)} sessions could be read; they are in the table rejects."
        return replace(how, verdict=None, failed=said)

    def _land(self, packed: Mapping[str, PackedRecord]) -> Landed:
        """Write, publish and commit the batch; blocks."""
        batch, pipeline = self._batch, self._plan.pipeline
        try:
            files = batch.finish()
            self._lake.publish([file.path for file in files])
            commit = Commit(
                pipeline=pipeline,
                batch=batch.number,
                run_id=self._plan.run_id,
                files=files,
                answers=self._answers,
                records={test: packed[test] for test in sorted(self._changed)},
                looks=list(self._ended.values()),
                removed=self._removed_sessions(),
                notes=self._notes(),
            )
            committed = self._lake.commit(pipeline, batch.number, commits.encode(commit))
        except BaseException:
            if batch.number not in self._lake.commits(pipeline):
                batch.abandon()
            raise
        if not committed:
            batch.abandon()
            raise AlreadyRunning(
                f"Another writer has landed batch {batch.number} of pipeline {pipeline!r}.",
                where=str(self._lake.root),
                advice="Nothing of this run's batch is left in the lake; its answers are kept. "
                "Run again when the other run has ended.",
            )
        return Landed(
            batch=batch.number,
            files=files,
            records=packed,
            looks=list(self._ended.values()),
            frames=self._frames,
        )

    def _removed_sessions(self) -> list[tuple[str, str]]:
        """Look up the ids of sessions that are listed no more: rare, so read from the files."""
        gone = {test: keys for test, keys in self._newly_gone.items() if keys}
        found: dict[tuple[str, str], None] = {}
        unreadable = []
        for path in self._lake.data_files() if gone else ():
            if table_of(path) == _LISTED and path.endswith(".parquet") and may_hold(path, gone):
                try:
                    for test_id, (session_id,) in rows_in(self._lake, path, ["session_id"]):
                        if key_hash([session_id]) in gone.get(test_id, ()):
                            found[test_id, str(session_id)] = None
                except ValueError:
                    unreadable.append(path)
        if unreadable:  # which the next start puts aside, to ask their rows again
            self._lake.doubt(self._plan.pipeline, unreadable)
        self.tally.removed.update(test_id for test_id, _ in found)
        return list(found)


def _chosen(column: Array, places: Sequence[int]) -> Array:
    """Return some values of a column; without a copy where they are one stretch."""
    if not places or places[-1] - places[0] + 1 == len(places):
        return column.slice(places[0] if places else 0, len(places))
    return column.take(pa.array(places, pa.int64()))


_LISTED: Final = "sessions"


def _gone(record: Record) -> frozenset[int]:
    """Return the landed sessions that a proved listing does not show."""
    return frozenset(record.rows_of(_LISTED).keys() - set(record.listing.ids))


def _differ(before: Listing, after: Listing) -> bool:
    return (before.ids, before.whole, before.total, before.doubt) != (
        after.ids,
        after.whole,
        after.total,
        after.doubt,
    )
