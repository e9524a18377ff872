"""Renders answers into rows: those that the lake has not yet, for every table that they feed.

It notes in a test's record what each answer covers, so that whatever comes twice lands once.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import pyarrow as pa

from etl.client.values import Answer, Fetched, Scope, UnreadableBodyError
from etl.lake.ahead import NOTHING, Read
from etl.lake.batch import Shape, shape_of
from etl.lake.choosing import Chooser, Superseded
from etl.lake.holding import Again, hold, settle
from etl.lake.loose import LooseRows, loose_rows, shared_by
from etl.lake.partitions import Layout
from etl.ledger import afresh, due
from etl.ledger.afresh import Backfill
from etl.ledger.due import Feeds
from etl.ledger.held import list_answered
from etl.ledger.records import Record, Session
from etl.ledger.values import Ended
from etl.plan.orders import Order, feeds_of
from etl.tables import rejects
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.cursor_pages import CursorPage
from etl.tables.personal import PersonalData, personal_data
from etl.tables.receipts import Became, Receipt
from etl.tables.registry import endpoints, tables
from etl.tables.sessions import SESSION_RESULTS, SessionsPage
from etl.tables.values import (
    RUN_COLUMNS,
    AnyTable,
    Array,
    Cells,
    Reject,
    Rows,
    Value,
    array_of,
    field_name,
    printable,
)

Extra: TypeAlias = Sequence[str | None] | None
"""What the rows of an answer hold beside their columns, as JSON."""


@dataclass(slots=True)
class MediaTally:
    """What became of files; `given_up` counts those of each test by the reason."""

    files: int = 0
    bytes: int = 0
    pending: int = 0
    given_up: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, test_id: str, table: str, receipt: Receipt) -> None:
        """Count what became of a file."""
        if receipt.became is Became.FETCHED:
            self.files += 1
            self.bytes += receipt.bytes or 0
        elif receipt.became is Became.GIVEN_UP:
            self.given_up.setdefault(test_id, Counter())[f"{table}: {receipt.reason}"] += 1


@dataclass(slots=True)
class Tally:
    """What this run has landed so far."""

    rows: Counter[str] = field(default_factory=Counter)
    files: int = 0
    bytes: int = 0
    edited: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    unknown_fields: Counter[str] = field(default_factory=Counter)
    absent: Counter[str] = field(default_factory=Counter)
    looks: dict[str, Ended] = field(default_factory=dict)
    media: MediaTally = field(default_factory=MediaTally)


@dataclass(frozen=True, slots=True)
class LandingPlan:
    """What a run's landing is about: where, which tables, under which layout and names.

    `replaces` says that what the API answers differently takes the place of what has landed;
    `backfill` is the last one that was begun, by this run or another.
    """

    pipeline: str
    run_id: str
    tables: Sequence[AnyTable]
    partition_by: tuple[str, ...]
    feeds: Feeds
    personal: PersonalData
    keeps_bodies: bool = True
    replaces: bool = False
    backfill: Backfill | None = None
    downloads: frozenset[str] = frozenset()
    """The tables whose rows wait for their files."""


def landing_plan(order: Order, run_id: str) -> LandingPlan:
    """Return what the landing of an order is about; no product type is known yet."""
    pipeline = order.pipeline
    return LandingPlan(
        pipeline=pipeline.name,
        run_id=run_id,
        tables=[tables()[name] for name in pipeline.tables],
        partition_by=tuple(pipeline.lake.partition_by),
        feeds=feeds_of(pipeline),
        personal=personal_data(pipeline, order.hash_key),
        keeps_bodies=pipeline.keeps_bodies,
        replaces=pipeline.edited == "replace",
        downloads=frozenset(name for name in pipeline.tables if pipeline.files(name).download),
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """Rows of one table as they go into a batch; `order` is their place among their test's.

    `layer` is 0 unless they replace others.
    """

    table: str
    shape: Shape
    rows: pa.RecordBatch | LooseRows
    order: int
    session: Session | None
    layer: int = 0


@dataclass(frozen=True, slots=True)
class LandingFile:
    """A file of a table that has come whole, or was given up; `path` says where it is to be."""

    table: str
    name: str
    path: str | None


@dataclass(slots=True)
class Rendered:
    """What became of an answer: its row for the commit, and the rows that it made.

    `replaced` counts the rows that give way to these, by table. `changes_record` says that the
    record now holds what no answer's row could tell; `page` is what was read, where it is a page
    of the listing, `file` what one of the rows names.
    """

    made: dict[str, int] = field(default_factory=dict)
    replaced: Counter[str] = field(default_factory=Counter)
    keeps_body: bool = False
    rows: list[Gathered] = field(default_factory=list)
    changes_record: bool = False
    page: SessionsPage | CursorPage | None = None
    unknown_fields: set[str] = field(default_factory=set)
    file: LandingFile | None = None


class Renderer:
    """Renders the answers of one run; counts in `tally` what a person would want to know."""

    def __init__(self, plan: LandingPlan, tally: Tally) -> None:
        """Prepare the shape of every table's files."""
        self._chooser = Chooser()
        self._plan = plan
        self._tally = tally
        self._feeds = plan.feeds
        self._fed_by: dict[str, list[AnyTable]] = {}
        self._listed_by: dict[str, AnyTable] = {}
        self._shapes = shapes_of(plan)
        for table in plan.tables:
            self._fed_by.setdefault(table.endpoint.name, []).append(table)
            if table.lists_files and table.files is not None:
                self._listed_by[table.files.receipt.name] = table

    def begin_batch(self) -> Superseded:
        """Begin with nothing replaced; return what is to hold what this batch replaces."""
        self._chooser = Chooser()
        return self._chooser.superseded

    def render(self, fetched: Fetched[Any], record: Record, read: Read = NOTHING) -> Rendered:
        """Make an answer's rows, but those `read` ahead; note in the record what it covers."""
        answer, content = fetched.answer, fetched.content
        rendered = Rendered()
        if answer.status == 404:
            self._note_absence(answer, record, rendered)
            self._cross_out(answer, record)
            return rendered
        try:
            if content is None:
                content = endpoints()[answer.endpoint].decode(answer.body)
        except UnreadableBodyError as error:
            reject = Reject(str(error), printable(answer.body), answer.session_id)
            reject = self._plan.personal.reject(reject)
            rendered.made = dict.fromkeys(self._session_tables(answer), 0)
            self._take_rejects(answer, [reject], record, rendered)
        else:
            if answer.endpoint in self._listed_by:
                self._take_receipt(answer, content, record, rendered)
                return rendered
            if answer.endpoint in _LISTINGS:
                rendered.page = content
                self._begin_afresh(answer, record, rendered)
            self._take_all(Fetched(answer, content), record, read, rendered)
            if isinstance(content, SessionsPage):
                self._note_sessions(answer, content, record)
        self._note_answered(answer, record, rendered)
        self._cross_out(answer, record)
        return rendered

    def _begin_afresh(self, answer: Answer, record: Record, rendered: Rendered) -> None:
        """Begin a backfill of this test with the first page that has come since it began."""
        backfill = self._plan.backfill
        if backfill is None or answer.fetched_at_us < backfill.began_at_us:
            return
        if afresh.is_to_begin(record, backfill, answer.test_id or ""):
            afresh.begin(record, backfill)
            rendered.changes_record = True

    def _cross_out(self, answer: Answer, record: Record) -> None:
        if answer.session_id is not None:
            afresh.answered(record, answer.endpoint, answer.session_id, answer.fetched_at_us)

    def _replacing(self, answer: Answer, content: object, record: Record) -> Container[int]:
        """Return the places of the rows that may replace what has landed."""
        if self._plan.replaces:
            return _ALL
        came_at_us = answer.fetched_at_us
        if record.afresh is None or came_at_us < record.afresh.began_at_us:
            return _NONE
        if answer.endpoint in _LISTINGS and not record.afresh.is_listing:
            return _NONE
        if isinstance(content, SessionsPage):
            found = enumerate(_sessions_of(answer, content))
            return {place for place, (_, one) in found if afresh.is_about(record, one, came_at_us)}
        if answer.endpoint in _LISTINGS:  # of a classic test: not all of its rows tell a time
            return _ALL
        if answer.session_id is not None:
            asked = afresh.asked_for(record, answer.endpoint, answer.session_id, came_at_us)
            return _NONE if asked is None else _ALL
        began_at_us = record.afresh.began_at_us
        return _ALL if afresh.is_test_left(record, answer.endpoint, began_at_us) else _NONE

    def _note_absence(self, answer: Answer, record: Record, rendered: Rendered) -> None:
        """Note what the API does not have: not yet, or (after a week) not at all."""
        session_id, at_us = answer.session_id, answer.fetched_at_us
        if session_id is not None and due.not_there(record, answer.endpoint, session_id, at_us):
            return
        self._tally.absent[answer.endpoint] += 1
        rendered.made = dict.fromkeys(self._session_tables(answer), 0)
        self._note_answered(answer, record, rendered)

    def _note_answered(self, answer: Answer, record: Record, rendered: Rendered) -> None:
        if answer.session_id is not None:
            made = {name: rendered.made[name] for name in self._session_tables(answer)}
            fed = self._feeds.of(answer.test_id or "")
            endpoint, at_us = answer.endpoint, answer.fetched_at_us
            if endpoint in self._feeds.growing:
                list_answered(record, fed, endpoint, answer.session_id, made, at_us)
            else:
                due.answered(record, fed, endpoint, answer.session_id, made)
        elif answer.object_id is None:
            record.asked_at_us[answer.endpoint] = answer.fetched_at_us

    def _session_tables(self, answer: Answer) -> Sequence[str]:
        return self._feeds.fed.get(answer.endpoint, ()) if answer.session_id is not None else ()

    def _note_sessions(self, answer: Answer, page: SessionsPage, record: Record) -> None:
        """Note the sessions of a page of which something is to be asked, still or once more."""
        fed = self._feeds.of(answer.test_id or "")
        if not fed:
            return
        for session_id, session in _sessions_of(answer, page):
            due.note_session(record, fed, session_id, session)
            afresh.note_session(record, fed, session_id, session, answer.fetched_at_us)

    def _take_all(
        self, fetched: Fetched[Any], record: Record, read: Read, rendered: Rendered
    ) -> None:
        """Take the rows that each table makes of an answer."""
        answer, content = fetched.answer, fetched.content
        rendered.keeps_body = self._plan.keeps_bodies and answer.session_id is not None
        replacing = self._replacing(answer, content, record)
        for table in self._fed_by.get(answer.endpoint, ()):
            rows = read.get(table.name) or table.rows_of(answer, content)
            rows = self._plan.personal.rows(table, answer, rows)
            if table.lists_files and table.name in self._plan.downloads:
                self._hold_rows(table, answer, rows, replacing, record, rendered)
            else:
                self._take_rows(table, answer, rows, replacing, record, rendered)
            rendered.keeps_body = rendered.keeps_body or rows.keeps_body
            rendered.unknown_fields.update(map(field_name, rows.unknown_fields))
            self._take_rejects(answer, rows.rejects, record, rendered)
            if isinstance(content, Receipt):
                self._note_file(table, answer, content, rendered)
        if _is_of_test(answer) and self._plan.keeps_bodies and any(rendered.made.values()):
            rendered.keeps_body = True

    def _hold_rows(
        self,
        table: AnyTable,
        answer: Answer,
        rows: Rows,
        replacing: Container[int],
        record: Record,
        rendered: Rendered,
    ) -> None:
        """Have the rows of a list wait for their files; those that landed otherwise are counted."""
        hold_again = Again(replacing, _is_afresh(answer, record))
        edited = hold(record, table, answer, rows, hold_again, _session_of(answer, record))
        self._tally.edited += Counter({table.name: edited})
        rendered.made[table.name] = 0
        rendered.changes_record |= bool(rows.keys)

    def _take_receipt(
        self, answer: Answer, receipt: Receipt, record: Record, rendered: Rendered
    ) -> None:
        """Take the row that has waited for a file."""
        table = self._listed_by[answer.endpoint]
        settled = settle(record, table, answer, receipt, self._plan.personal)
        rendered.changes_record = True
        rendered.made[table.name] = 0 if settled is None else 1
        if settled is None:
            self._tally.media.pending += receipt.became is Became.PENDING
            return
        layer = 0
        if settled.replaces is not None:
            key, test_id = settled.replaces, answer.test_id or ""
            layer = self._chooser.superseded.add(table.name, test_id, key)
            rendered.replaced[table.name] = 1
        rendered.keeps_body = self._plan.keeps_bodies
        rows, session = settled.rows, settled.session
        rendered.rows.append(self._gathered(table, answer, rows, [0], layer, session))
        self._note_file(table, answer, settled.receipt, rendered)

    def _note_file(
        self, table: AnyTable, answer: Answer, receipt: Receipt, rendered: Rendered
    ) -> None:
        """Note what became of a file: also where its row stands already, since it may be lost."""
        name = answer.object_id or answer.session_id or ""
        rendered.file = LandingFile(table.name, name, receipt.path)
        if rendered.rows:
            self._tally.media.note(answer.test_id or "", table.name, receipt)

    def _take_rows(
        self,
        table: AnyTable,
        answer: Answer,
        rows: Rows,
        replacing: Container[int],
        record: Record,
        rendered: Rendered,
    ) -> None:
        """Take those of an answer's rows that are to land."""
        by_row, session = table.row_by_row, _session_of(answer, record)
        choose = self._chooser.of_test if by_row else self._chooser.of_session
        chosen = choose(table, answer, rows, record, replacing)
        for layer, places in chosen.layers.items():
            rendered.rows.append(self._gathered(table, answer, rows, places, layer, session))
        rendered.made[table.name] = chosen.count
        rendered.changes_record |= bool((by_row and chosen.count) or chosen.replaced)
        if chosen.replaced:
            rendered.replaced[table.name] += chosen.replaced
        if chosen.edited:
            self._tally.edited[table.name] += chosen.edited

    def _gathered(
        self,
        table: AnyTable,
        answer: Answer,
        rows: Rows,
        places: Sequence[int],
        layer: int,
        session: Session | None,
    ) -> Gathered:
        """Return some of an answer's rows as they go into a batch."""
        shape = self._shapes[table.name]
        made = whole_rows(shape, rows, places, shared_by(answer, self._plan.run_id))
        return Gathered(table.name, shape, made, rows.order, session, layer)

    def _take_rejects(
        self, answer: Answer, found: Sequence[Reject], record: Record, rendered: Rendered
    ) -> None:
        """Take what could not be read, once however often it is served."""
        covered = record.rows_of(rejects.NAME) if found else {}
        fresh = {reject.key: reject for reject in found if reject.key not in covered}
        if not fresh:
            return
        covered.update(dict.fromkeys(fresh, 0))
        shape, rows = self._shapes[rejects.NAME], reject_rows(answer, list(fresh.values()))
        shared = shared_by(answer, self._plan.run_id)
        made = whole_rows(shape, rows, range(len(fresh)), shared)
        rendered.rows.append(Gathered(rejects.NAME, shape, made, 0, None))
        rendered.made[rejects.NAME] = rendered.made.get(rejects.NAME, 0) + len(fresh)
        rendered.changes_record = True


def whole_rows(
    shape: Shape, rows: Rows, places: Sequence[int], shared: Mapping[str, Value]
) -> pa.RecordBatch | LooseRows:
    """Return those of an answer's rows at some places, with what they share."""
    if rows.loose_cells is not None:
        return loose_rows(rows, places, shared)
    known = {name: _chosen(array_of(cells), places) for name, cells in rows.cells.items()}
    if rows.extra is not None:
        known["_extra"] = pa.array([rows.extra[place] for place in places], pa.string())
    count, schema = len(places), shape.full_schema
    arrays = [
        known[name] if name in known else pa.array([shared.get(name)] * count, kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def reject_rows(answer: Answer, found: Sequence[Reject]) -> Rows:
    """Return rejects as rows of their table."""
    values: dict[str, Sequence[Value]] = {
        "endpoint": [answer.endpoint] * len(found),
        "session_id": [reject.session_id for reject in found],
        "reason": [reject.reason for reject in found],
        "body": [reject.body for reject in found],
    }
    cells = {name: Cells(pa.string(), column) for name, column in values.items()}
    return Rows([reject.key for reject in found], [0] * len(found), cells)


def _is_of_test(answer: Answer) -> bool:
    """Say whether it is about a test as a whole: no session of it, and no page."""
    return answer.test_id is not None and answer.session_id is None and answer.object_id is None


def shapes_of(plan: LandingPlan) -> dict[str, Shape]:
    """Return how the files of each table look, by its name; those of `rejects` too."""
    shapes = {
        table.name: shape_of(
            layout_of(table, plan.partition_by), (*table.columns, *RUN_COLUMNS), table.version
        )
        for table in plan.tables
    }
    layout = Layout(rejects.NAME, plan.partition_by, None)
    shapes[rejects.NAME] = shape_of(layout, (*rejects.COLUMNS, *RUN_COLUMNS), rejects.VERSION)
    return shapes


_LISTINGS: Final = frozenset({SESSION_RESULTS.name, COMPLETED_SESSIONS.name})
_ALL: Final = range(1 << 32)
_NONE: Final = range(0)


def _sessions_of(answer: Answer, page: SessionsPage) -> Iterator[tuple[str, Session]]:
    for session_id, started_at_us, finished_at_us in page.sessions():
        yield session_id, Session(started_at_us, finished_at_us, answer.fetched_at_us)


def _is_afresh(answer: Answer, record: Record) -> bool:
    """Say whether a backfill has asked for an answer once more."""
    endpoint, came_at_us = answer.endpoint, answer.fetched_at_us
    if answer.session_id is not None:
        return afresh.asked_for(record, endpoint, answer.session_id, came_at_us) is not None
    began_at_us = came_at_us if record.afresh is None else record.afresh.began_at_us
    return came_at_us > began_at_us and afresh.is_test_left(record, endpoint, began_at_us)


def _session_of(answer: Answer, record: Record) -> Session | None:
    """Return the session that an answer is about, where it was asked session by session."""
    session_id, endpoint = answer.session_id, answer.endpoint
    if session_id is None:
        return None
    due_session = record.due.get(session_id)
    return due_session or afresh.asked_for(record, endpoint, session_id, answer.fetched_at_us)


def layout_of(table: AnyTable, partition_by: tuple[str, ...]) -> Layout:
    """Return how a table is partitioned; what is no test's is not."""
    if table.endpoint.is_of_account:
        return Layout(table.name, (), None)
    of_session = table.endpoint.scope is Scope.SESSION
    return Layout(table.name, partition_by, table.dates, of_session)


def _chosen(column: Array, places: Sequence[int]) -> Array:
    """Return some values of a column; without a copy where they are one stretch."""
    if not places or places[-1] - places[0] + 1 == len(places):
        return column.slice(places[0] if places else 0, len(places))
    return column.take(pa.array(places, pa.int64()))
