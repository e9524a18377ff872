"""Renders answers into rows: those that the lake has not yet, for every table that they feed.

It notes in a test's record what each answer covers, so that whatever comes twice lands once.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import pyarrow as pa

from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.lake.ahead import NOTHING, Read
from etl.lake.batch import Shape
from etl.lake.choosing import Chooser, Superseded
from etl.lake.holding import Again, hold, settle
from etl.lake.landing_plan import LandingPlan, shapes_of
from etl.lake.loose import LooseRows, shared_by, whole_rows
from etl.lake.tally import Tally
from etl.ledger import afresh, due
from etl.ledger.held import list_answered
from etl.ledger.records import Record, Session
from etl.tables import rejects
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.cursor_pages import CursorPage
from etl.tables.receipts import Became, Receipt
from etl.tables.registry import endpoints
from etl.tables.sessions import SESSION_RESULTS, SessionsPage
from etl.tables.values import AnyTable, Reject, Rows, Value, field_name, printable


class Gathered(msgspec.Struct, frozen=True):
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


@dataclass(slots=True)
class _Turn:
    """One answer's turn: what is known of it, and what becomes of it.

    `replacing` are the places of the rows that may replace what has landed.
    """

    answer: Answer
    record: Record
    rendered: Rendered = field(default_factory=Rendered)
    session: Session | None = None
    replacing: Container[int] = ()
    shared: Mapping[str, Value] = field(default_factory=dict)


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
        turn = _Turn(answer, record, shared=shared_by(answer, self._plan.run_id))
        if answer.status == 404:
            self._note_absence(turn)
            _cross_out(turn)
            return turn.rendered
        try:
            if content is None:
                content = endpoints()[answer.endpoint].decode(answer.body)
        except UnreadableBodyError as error:
            reject = Reject(str(error), printable(answer.body), answer.session_id)
            turn.rendered.made = dict.fromkeys(self._session_tables(answer), 0)
            self._take_rejects(turn, [self._plan.personal.reject(reject)])
        else:
            if answer.endpoint in self._listed_by:
                self._take_receipt(turn, content)
                return turn.rendered
            if answer.endpoint in _LISTINGS:
                turn.rendered.page = content
                self._begin_afresh(turn)
            self._take_all(turn, content, read)
            if isinstance(content, SessionsPage):
                self._note_sessions(turn, content)
        self._note_answered(turn)
        _cross_out(turn)
        return turn.rendered

    def _begin_afresh(self, turn: _Turn) -> None:
        """Begin a backfill of this test with the first page that has come since it began."""
        backfill, answer = self._plan.backfill, turn.answer
        if backfill is None or answer.fetched_at_us < backfill.began_at_us:
            return
        if afresh.is_to_begin(turn.record, backfill, answer.test_id or ""):
            afresh.begin(turn.record, backfill)
            turn.rendered.changes_record = True

    def _replacing(self, turn: _Turn, content: object) -> Container[int]:
        """Return the places of the rows that may replace what has landed."""
        answer, record = turn.answer, turn.record
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

    def _note_absence(self, turn: _Turn) -> None:
        """Note what the API does not have: not yet, or (after a week) not at all."""
        answer, record = turn.answer, turn.record
        session_id, at_us = answer.session_id, answer.fetched_at_us
        if session_id is not None and due.not_there(record, answer.endpoint, session_id, at_us):
            return
        self._tally.absent[answer.endpoint] += 1
        turn.rendered.made = dict.fromkeys(self._session_tables(answer), 0)
        self._note_answered(turn)

    def _note_answered(self, turn: _Turn) -> None:
        answer, record, made = turn.answer, turn.record, turn.rendered.made
        if answer.session_id is not None:
            made = {name: made[name] for name in self._session_tables(answer)}
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

    def _note_sessions(self, turn: _Turn, page: SessionsPage) -> None:
        """Note the sessions of a page of which something is to be asked, still or once more."""
        answer, record = turn.answer, turn.record
        fed = self._feeds.of(answer.test_id or "")
        if not fed:
            return
        for session_id, session in _sessions_of(answer, page):
            due.note_session(record, fed, session_id, session)
            afresh.note_session(record, fed, session_id, session, answer.fetched_at_us)

    def _take_all(self, turn: _Turn, content: object, read: Read) -> None:
        """Take the rows that each table makes of an answer."""
        answer, rendered, personal = turn.answer, turn.rendered, self._plan.personal
        rendered.keeps_body = self._plan.keeps_bodies and answer.session_id is not None
        turn.replacing, turn.session = self._replacing(turn, content), _session_of(turn)
        for table in self._fed_by.get(answer.endpoint, ()):
            rows = read.get(table.name) or table.rows_of(answer, content)
            rows = personal.rows(table, answer, rows)
            if table.lists_files and table.name in self._plan.downloads:
                self._hold_rows(turn, table, rows)
            else:
                self._take_rows(turn, table, rows)
            rendered.keeps_body = rendered.keeps_body or rows.keeps_body
            rendered.unknown_fields.update(map(field_name, rows.unknown_fields))
            if rows.rejects:
                self._take_rejects(turn, rows.rejects)
            if isinstance(content, Receipt):
                self._note_file(turn, table, content)
        if _is_of_test(answer) and self._plan.keeps_bodies and any(rendered.made.values()):
            rendered.keeps_body = True

    def _hold_rows(self, turn: _Turn, table: AnyTable, rows: Rows) -> None:
        """Have the rows of a list wait for their files; those that landed otherwise are counted."""
        again = Again(turn.replacing, _is_afresh(turn))
        edited = hold(turn.record, table, turn.answer, rows, again, turn.session)
        self._tally.edited += Counter({table.name: edited})
        turn.rendered.made[table.name] = 0
        turn.rendered.changes_record |= bool(rows.keys)

    def _take_receipt(self, turn: _Turn, receipt: Receipt) -> None:
        """Take the row that has waited for a file."""
        answer, rendered = turn.answer, turn.rendered
        table = self._listed_by[answer.endpoint]
        settled = settle(turn.record, table, answer, receipt, self._plan.personal)
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
        turn.session = settled.session
        self._gather(turn, table.name, settled.rows, [0], layer)
        self._note_file(turn, table, settled.receipt)

    def _note_file(self, turn: _Turn, table: AnyTable, receipt: Receipt) -> None:
        """Note what became of a file: also where its row stands already, since it may be lost."""
        answer, rendered = turn.answer, turn.rendered
        name = answer.object_id or answer.session_id or ""
        rendered.file = LandingFile(table.name, name, receipt.path)
        if rendered.rows:
            self._tally.media.note(answer.test_id or "", table.name, receipt)

    def _take_rows(self, turn: _Turn, table: AnyTable, rows: Rows) -> None:
        """Take those of an answer's rows that are to land."""
        by_row, rendered = table.row_by_row, turn.rendered
        choose = self._chooser.of_test if by_row else self._chooser.of_session
        chosen = choose(table, turn.answer, rows, turn.record, turn.replacing)
        for layer, places in chosen.layers.items():
            self._gather(turn, table.name, rows, places, layer)
        rendered.made[table.name] = chosen.count
        rendered.changes_record |= bool((by_row and chosen.count) or chosen.replaced)
        if chosen.replaced:
            rendered.replaced[table.name] += chosen.replaced
        if chosen.edited:
            self._tally.edited[table.name] += chosen.edited

    def _take_rejects(self, turn: _Turn, found: Sequence[Reject]) -> None:
        """Take what could not be read, once however often it is served."""
        covered, made = turn.record.rows_of(rejects.NAME), turn.rendered.made
        fresh = {reject.key: reject for reject in found if reject.key not in covered}
        if not fresh:
            return
        covered.update(dict.fromkeys(fresh, 0))
        rows = rejects.rows_of(turn.answer, list(fresh.values()))
        self._gather(turn, rejects.NAME, rows, range(len(fresh)))
        made[rejects.NAME] = made.get(rejects.NAME, 0) + len(fresh)
        turn.rendered.changes_record = True

    def _gather(
        self, turn: _Turn, table: str, rows: Rows, places: Sequence[int], layer: int = 0
    ) -> None:
        """Add some of an answer's rows to what goes into a batch."""
        shape, session = self._shapes[table], turn.session
        made = whole_rows(shape.full_schema, rows, places, turn.shared)
        turn.rendered.rows.append(Gathered(table, shape, made, rows.order, session, layer))


def _cross_out(turn: _Turn) -> None:
    """Cross out of a backfill what has been answered."""
    answer = turn.answer
    if answer.session_id is not None:
        afresh.answered(turn.record, answer.endpoint, answer.session_id, answer.fetched_at_us)


def _is_of_test(answer: Answer) -> bool:
    """Say whether it is about a test as a whole: no session of it, and no page."""
    return answer.test_id is not None and answer.session_id is None and answer.object_id is None


_LISTINGS: Final = frozenset({SESSION_RESULTS.name, COMPLETED_SESSIONS.name})
_ALL: Final = range(1 << 32)
_NONE: Final = range(0)


def _sessions_of(answer: Answer, page: SessionsPage) -> Iterator[tuple[str, Session]]:
    for session_id, started_at_us, finished_at_us in page.sessions():
        yield session_id, Session(started_at_us, finished_at_us, answer.fetched_at_us)


def _is_afresh(turn: _Turn) -> bool:
    """Say whether a backfill has asked for an answer once more."""
    answer, record = turn.answer, turn.record
    endpoint, came_at_us = answer.endpoint, answer.fetched_at_us
    if answer.session_id is not None:
        return afresh.asked_for(record, endpoint, answer.session_id, came_at_us) is not None
    began_at_us = came_at_us if record.afresh is None else record.afresh.began_at_us
    return came_at_us > began_at_us and afresh.is_test_left(record, endpoint, began_at_us)


def _session_of(turn: _Turn) -> Session | None:
    """Return the session that an answer is about, where it was asked session by session."""
    answer, record = turn.answer, turn.record
    session_id = answer.session_id
    if session_id is None:
        return None
    due_session = record.due.get(session_id)
    return due_session or afresh.asked_for(
        record, answer.endpoint, session_id, answer.fetched_at_us
    )
