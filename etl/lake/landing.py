"""Takes kept answers, makes their rows, and lands them batch by batch.

A batch is whole frames of the inbox, rendered into every table that they feed. Its one
commit point is the commit's file in the lake; the ledger is marked after it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pyarrow as pa
from anyio import CancelScope, to_thread

from etl.client.values import Answer, Fetched
from etl.errors import AlreadyRunning
from etl.lake import commits
from etl.lake.ahead import Read, read_ahead
from etl.lake.batch import Batch
from etl.lake.commits import AnswerRow, Commit, answer_row
from etl.lake.landing_plan import LandingPlan
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaParts
from etl.lake.records import Records
from etl.lake.rendering import LandingFile, Rendered, Renderer
from etl.lake.replacing import Replaced, replace_rows
from etl.lake.scan import may_hold, rows_in, table_of
from etl.lake.tally import Tally
from etl.ledger.afresh import end_listing
from etl.ledger.fields import UnknownField, note_field
from etl.ledger.records import PackedRecord, Record
from etl.ledger.threaded import LedgerThread
from etl.ledger.values import Ended, File, Landed, Looked, ended
from etl.paging.values import Listing
from etl.tables.cursor_pages import CursorPage
from etl.tables.sessions import SessionsPage
from etl.tables.values import (
    key_hash,
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


@dataclass(frozen=True, slots=True)
class Closed:
    """What one batch has landed: its answers, and the looks that have ended.

    `new_fields` are those that no table knows and no batch held before, with their answers.
    """

    answers: Sequence[AnswerRow] = ()
    looks: Sequence[Ended] = ()
    new_fields: Mapping[str, int] = field(default_factory=dict)


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
        self._renderer = Renderer(plan, self.tally)
        self._parts = MediaParts(lake, plan.pipeline)
        self._begin(first_batch)

    def _begin(self, number: int) -> None:
        self._batch = Batch(self._lake, self._plan.pipeline, number)
        self._frames: list[int] = []
        self._answers: list[AnswerRow] = []
        self._looks: dict[str, Looked] = {}  # those that go on
        self._ended: dict[str, Ended] = {}
        self._rows: Counter[str] = Counter()
        self._replaced: Counter[str] = Counter()
        self._superseded = self._renderer.begin_batch()
        self._fields: dict[str, UnknownField] = {}
        self._changed: set[str] = set()
        self._touched: set[str] = set()
        self._body_bytes = 0
        self._newly_gone: dict[str, frozenset[int]] = {}
        self._order: dict[str, int] = {}
        self._files: list[LandingFile] = []

    @property
    def is_due(self) -> bool:
        """Whether the batch has reached its target size, or holds too much in memory."""
        in_memory = self._batch.bytes_waiting + self._body_bytes
        return self._batch.rows >= BATCH_ROWS or in_memory >= BATCH_BYTES

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to land."""
        return not (self._answers or self._looks or self._ended)

    async def add(self, kept: Kept) -> None:
        """Render a frame's answers; writes row groups that have filled."""
        if kept.frame is not None:
            self._frames.append(kept.frame)
        for item, read in read_ahead(kept.items, self._plan.tables):
            if isinstance(item, Looked):
                self._looks[item.test_id] = item
                if ended(item) is not None:
                    self._settle(item.test_id, await self._records.of(item.test_id))
            else:
                self._render(item, await self._records.of(item.answer.test_id or ""), read)
        self._batch.pack()
        if self._batch.has_full_row_group:
            await to_thread.run_sync(self._batch.write_full)

    def _render(self, fetched: Fetched[Any], record: Record, read: Read) -> None:
        """Add what becomes of an answer to the batch."""
        answer = fetched.answer
        test_id = answer.test_id or ""
        rendered = self._renderer.render(fetched, record, read)
        known_as = self._plan.personal.answer(answer)
        self._answers.append(answer_row(known_as, rendered.made, keeps_body=rendered.keeps_body))
        self._body_bytes += len(answer.body) if rendered.keeps_body else 0
        (self._changed if rendered.changes_record else self._touched).add(test_id)
        for name in rendered.unknown_fields:
            note_field(self._fields, name, answer.fetched_at_us, self.tally.unknown_fields)
        if rendered.page is not None:
            self._hold(answer, rendered.page, record)
        if rendered.file is not None:
            self._files.append(rendered.file)
        for made in rendered.rows:
            place = (self._order.setdefault(test_id, len(self._order)), made.order)
            self._batch.add(made.shape, made.rows, place, made.session, made.layer)
        self._count(rendered)

    def _count(self, rendered: Rendered) -> None:
        """Count what an answer has made: rows that replace others are not new."""
        self._replaced += rendered.replaced
        for table, made in rendered.made.items():
            self._rows[table] += max(0, made - rendered.replaced[table])

    def _hold(self, answer: Answer, page: SessionsPage | CursorPage, record: Record) -> None:
        """Hold a page for its look, unless that has ended: its answer leaves the inbox."""
        test_id = answer.test_id or ""
        if test_id not in self._ended and test_id not in self.tally.looks:
            record.in_hand[answer.object_id or ""] = self._plan.personal.view(answer, page)

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
            for test_id in self._changed | self._touched | looks_go_on | self._ended.keys():
                if test_id not in self._records.packed or test_id in looks_go_on:
                    self._settle(test_id, await self._records.of(test_id))
            known = await self._ledger.call(self._ledger.ledger.files) if self._superseded else {}
            landed = await to_thread.run_sync(self._land, self._records.packed, known)
            new = await self._ledger.call(self._ledger.ledger.land, landed)
            await to_thread.run_sync(self._discard_parts)
        self._records.landed()
        self.tally.looks |= self._ended
        self.tally.rows += self._rows
        self.tally.replaced += self._replaced
        self.tally.files += len(landed.files)
        self.tally.bytes += sum(file.bytes for file in landed.files)
        counts = {name: seen.answers for name, seen in self._fields.items()}
        self.tally.unknown_fields += Counter(counts)
        new_fields = {name: counts.get(name, 0) for name in new}
        closed = Closed(self._answers, list(self._ended.values()), new_fields)
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
                record.changed_at_us = look.looked_at_us
                self._changed.add(test_id)
            if look.verdict is not None and end_listing(record):
                self._changed.add(test_id)
            self._newly_gone[test_id] = gone - record.removed
            record.removed = gone
        if record.in_hand:
            self._changed.add(test_id)  # what a machine without state would ask again
        how = ended(look) if look is not None else None
        if how is not None:
            self._ended[test_id] = self._if_read(how, record)
            del self._looks[test_id]
        self._records.pack(test_id, record, keep_open=test_id in self._looks)

    def _if_read(self, how: Ended, record: Record) -> Ended:
        """Return how a look ended: badly, if of all that the test lists no row could be read.

        Then the API has most likely changed: that is no night to call complete.
        """
        listed = record.listing.ids
        if (
            how.failed
            or not listed
            or all(table.name not in _LISTED for table in self._plan.tables)
        ):
            return how
        if not _landed_of(record).isdisjoint(listed):
            return how
        said = f"None of its {len(listed)} sessions could be read; they are in the table rejects."
        return replace(how, verdict=None, failed=said)

    def _land(self, packed: Mapping[str, PackedRecord], known: Collection[str]) -> Landed:
        """Write, publish and commit the batch, and remove what it replaces; blocks.

        `known` are the files that may hold rows which this batch replaces.
        """
        batch, pipeline = self._batch, self._plan.pipeline
        try:
            for file in self._files:
                if file.path is not None:
                    self._parts.part(file.table, file.name).publish(file.path)
            batch.finish()
            replaced = replace_rows(self._lake, batch, known, self._superseded)
            files = batch.finish()
            content = commits.encode(self._commit_of(files, replaced, packed))
            self._lake.publish([file.path for file in files])
            committed = self._lake.commit(pipeline, batch.number, content)
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
        self._remove(replaced)
        return Landed(
            batch=batch.number,
            files=files,
            replaced=replaced.files,
            records=packed,
            looks=list(self._ended.values()),
            frames=self._frames,
            unknown_fields=list(self._fields.values()),
        )

    def _commit_of(
        self, files: Sequence[File], replaced: Replaced, packed: Mapping[str, PackedRecord]
    ) -> Commit:
        return Commit(
            pipeline=self._plan.pipeline,
            batch=self._batch.number,
            run_id=self._plan.run_id,
            files=files,
            replaces=replaced.files,
            tests_kept=sorted(replaced.tests),
            answers=self._answers,
            records={test: packed[test] for test in sorted(self._changed)},
            looks=list(self._ended.values()),
            removed=self._removed_sessions(),
            notes=self._notes(),
        )

    def _remove(self, replaced: Replaced) -> None:
        """Remove what a commit replaces before the ledger knows it: else the next start does."""
        self._lake.remove_durably(replaced.files)
        self._doubt(replaced.unreadable)

    def _doubt(self, paths: Collection[str]) -> None:
        """Have the next start put files aside that cannot be read, and ask their rows again."""
        if paths:
            pipeline = self._plan.pipeline
            self._lake.doubt(pipeline, self._lake.doubted(pipeline).union(paths))

    def _discard_parts(self) -> None:
        """Forget the files on their way whose rows have landed; blocks."""
        for file in self._files:
            self._parts.part(file.table, file.name).discard()

    def _removed_sessions(self) -> list[tuple[str, str]]:
        """Look up the ids of sessions that are listed no more: rare, so read from the files."""
        gone = {test: keys for test, keys in self._newly_gone.items() if keys}
        found: dict[tuple[str, str], None] = {}
        unreadable = []
        for path in self._lake.data_files() if gone else ():
            if table_of(path) in _LISTED and path.endswith(".parquet") and may_hold(path, gone):
                try:
                    for test_id, (session_id,) in rows_in(self._lake, path, ["session_id"]):
                        if key_hash([session_id]) in gone.get(test_id, ()):
                            found[test_id, str(session_id)] = None
                except ValueError:
                    unreadable.append(path)
        self._doubt(unreadable)
        self.tally.removed.update(test_id for test_id, _ in found)
        return list(found)


_LISTED: Final = ("sessions", "completed_sessions")
"""The tables whose rows are what a listing shows: of today's tests, of classic ones."""


def _landed_of(record: Record) -> set[int]:
    """Return the keys of the listed sessions that have landed."""
    return {key for table in _LISTED for key in record.covered.get(table, ())}


def _gone(record: Record) -> frozenset[int]:
    """Return the landed sessions that a proved listing does not show."""
    return frozenset(_landed_of(record) - set(record.listing.ids))


def _differ(before: Listing, after: Listing) -> bool:
    return (before.ids, before.whole, before.total, before.doubt) != (
        after.ids,
        after.whole,
        after.total,
        after.doubt,
    )
