"""The table `sessions`: the summaries that a test's listing serves.

Source: `GET /api/v2/sessionResults` (results-v2, SessionSummaryResultsResponseDto).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope, UnreadableBodyError
from etl.paging.values import PageView
from etl.tables.json_text import Json, kind_of, lenient, plain, storable, text_of
from etl.tables.times import readable_time, timestamps
from etl.tables.values import TIMESTAMP, Column, Reject, Rows, Table, row_hash

_LONGEST_ID: Final = 1_000


class Summary(
    msgspec.Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """One session as listed; everything but its id may be missing.

    It holds text alone, so the cycle collector need not walk 500 of them a page.
    """

    session_id: str
    audience_id: str | None = None
    status: str | None = None
    start_time: str | None = None
    finish_time: str | None = None


class _Pagination(msgspec.Struct, rename="camel"):
    limit: msgspec.Raw = msgspec.Raw(b"null")
    offset: msgspec.Raw = msgspec.Raw(b"null")
    total_count: msgspec.Raw = msgspec.Raw(b"null")


class _Meta(msgspec.Struct):
    pagination: _Pagination | None = None


class _Body(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    sessions: list[Summary]
    meta: _Meta | None = None
    test_id: str | None = None


@dataclass(frozen=True, slots=True)
class SessionsPage:
    """A page of summaries as read, bad rows apart.

    `ids` is the 64-bit hash of each row served, in order and with repeats, rejected
    ones too; `limit`, `offset` and `total` are the echo, None where not believable.
    """

    test_id: str | None
    ids: tuple[int, ...]
    limit: int | None
    offset: int | None
    total: int | None
    rows: Rows = field(repr=False)

    def sessions(self) -> Iterator[tuple[str, int | None, int | None]]:
        """Yield each session that was read, with its start and finish in microseconds."""
        columns = self.rows.columns
        times = (
            columns[name].cast(pa.int64()).to_pylist() for name in ("start_time", "finish_time")
        )
        return zip(columns["session_id"].to_pylist(), *times, strict=True)


def page_view(answer: Answer, page: SessionsPage) -> PageView:
    """Return what paging sees of a page."""
    return PageView(page.ids, page.limit, page.offset, page.total, answer.fetched_at_us)


_decode_strictly = msgspec.json.Decoder(_Body).decode
_decode_summary = msgspec.json.Decoder(Summary).decode
_NUL: Final = b"\\u0000"
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def decode(body: bytes) -> SessionsPage:
    """Read a page; raises UnreadableBodyError if it is not one.

    One pass reads what the API publishes. A body with anything else in it is read
    row by row: a field that nobody knows goes to `extra`, a bad row to `rejects`.
    """
    try:
        page = _decode_strictly(body)
        ids = [summary.session_id for summary in page.sessions]
        lengths = set(map(len, ids)) or {1}
        escaped = b"\\" in body  # a look for one byte is ten times as fast
        if not 0 < min(lengths) <= max(lengths) <= _LONGEST_ID or (escaped and _NUL in body):
            return _decode_with_care(body)
        keys = tuple(map(row_hash, map(str.encode, ids)))
        rows = _rows_of(page.sessions, keys)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return _decode_with_care(body)
    echo = (page.meta and page.meta.pagination) or _Pagination()
    return SessionsPage(
        test_id=page.test_id,
        ids=keys,
        limit=row_count(_decode_any(echo.limit)),
        offset=row_count(_decode_any(echo.offset)),
        total=row_count(_decode_any(echo.total_count)),
        rows=msgspec.structs.replace(rows, order=row_count(_decode_any(echo.offset)) or 0),
    )


def _rows_of(summaries: Sequence[Summary], keys: Sequence[int]) -> Rows:
    """Return summaries as columns; raises ValueError for a time that cannot be read."""
    count = len(summaries)
    # Both columns at once: a cast costs more by the call than by the value.
    times = timestamps(
        [
            *(summary.start_time for summary in summaries),
            *(summary.finish_time for summary in summaries),
        ]
    )
    return Rows(
        keys=keys,
        hashed=lambda: list(map(row_hash, map(_encode, summaries))),
        cells={
            "session_id": pa.array([summary.session_id for summary in summaries], pa.string()),
            "audience_id": pa.array([summary.audience_id for summary in summaries], pa.string()),
            "status": pa.array([summary.status for summary in summaries], pa.string()),
            "start_time": times.slice(0, count),
            "finish_time": times.slice(count),
        },
    )


_PUBLISHED: Final = frozenset({"testId", "sessions", "meta"})


def _decode_with_care(body: bytes) -> SessionsPage:
    page = lenient(body)
    served = page.get("sessions") if isinstance(page, dict) else None
    if not isinstance(page, dict) or not isinstance(served, list):
        raise UnreadableBodyError("it is not a page of sessions")
    read = [_read_row(row) for row in served]
    good = [(row, row.summary) for row in read if row.summary is not None]
    unknown_at_top = frozenset(page.keys() - _PUBLISHED)
    test_id, meta = page.get("testId"), page.get("meta")
    echo = meta.get("pagination") if isinstance(meta, dict) else None
    told = echo if isinstance(echo, dict) else {}
    offset = row_count(told.get("offset"))
    rows = msgspec.structs.replace(
        _rows_of([summary for _, summary in good], [row.id for row, _ in good]),
        extra=[row.extra for row, _ in good],
        rejects=[row.reject for row in read if row.reject is not None],
        order=offset or 0,
        unknown_fields=unknown_at_top.union(*(row.unknown for row in read)),
        keeps_body=bool(unknown_at_top),
    )
    return SessionsPage(
        test_id=test_id if isinstance(test_id, str) else None,
        ids=tuple(row.id for row in read),
        limit=row_count(told.get("limit")),
        offset=offset,
        total=row_count(told.get("totalCount")),
        rows=rows,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """One row as served: its id, and a summary or the reason why there is none."""

    id: int
    summary: Summary | None = None
    extra: str | None = None
    reject: Reject | None = None
    unknown: frozenset[str] = frozenset()


_FIELDS: Final = frozenset({"sessionId", "audienceId", "status", "startTime", "finishTime"})


def _read_row(row: Json) -> _Row:
    """Read one row, or say why it cannot be read."""
    if not isinstance(row, dict):
        return _rejected(row, f"a session is {kind_of(row)}, not an object", None)
    session_id = row.get("sessionId")
    known_id = session_id if isinstance(session_id, str) and storable(session_id) else None
    reason = _fault(row)
    if reason is not None or not known_id:
        return _rejected(row, reason or "sessionId is missing", known_id)
    unknown = {name: value for name, value in row.items() if name not in _FIELDS}
    published = {name: value for name, value in row.items() if name in _FIELDS}
    return _Row(
        id=row_hash(known_id.encode()),
        summary=_decode_summary(text_of(published)),
        extra=text_of(unknown) if unknown else None,
        unknown=frozenset(unknown),
    )


def _rejected(row: Json, reason: str, session_id: str | None) -> _Row:
    text = text_of(row)
    shown = session_id if session_id and len(session_id) <= _LONGEST_ID else None
    return _Row(row_hash((session_id or text).encode()), reject=Reject(reason, text, shown))


def _fault(row: dict[str, Json]) -> str | None:
    """Return why a row cannot be read, naming the field but never its value."""
    for name in sorted(_FIELDS):
        value = row.get(name)
        if value is not None and not isinstance(value, str):
            return f"{name} is {kind_of(value)}, not a string"
        if not storable(value):
            return f"{name} holds characters that cannot be stored"
    session_id = row.get("sessionId")
    if not session_id:
        return "sessionId is missing"
    if len(str(session_id)) > _LONGEST_ID:
        return f"sessionId is longer than {_LONGEST_ID} characters"
    for name in ("startTime", "finishTime"):
        value = row.get(name)
        if isinstance(value, str) and not readable_time(value):
            return f"{name} is not an ISO 8601 timestamp"
    return None if plain(row) else "a number is not finite"


_MOST_ROWS: Final = 1_000_000_000


def row_count(value: Json) -> int | None:
    """Return a number that can be a count of rows, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST_ROWS:
        return None
    return value


def _rows_of_answer(answer: Answer, page: SessionsPage) -> Rows:
    """Return the page's rows: reading it has made them already."""
    del answer
    return page.rows


SESSION_RESULTS: Final = Endpoint(
    name="session_results",
    path="/api/v2/sessionResults",
    scope=Scope.TEST,
    priority=Priority.LISTING,
    decode=decode,
)
"""The paginated listing of a test's completed sessions."""

TABLE: Final = Table(
    name="sessions",
    row="a completed session",
    key=("session_id",),
    endpoint=SESSION_RESULTS,
    columns=(
        Column("test_id", pa.string(), "The test that the session belongs to.", repeats=True),
        Column("session_id", pa.string(), "The session."),
        Column("audience_id", pa.string(), "The participant's audience, if any.", repeats=True),
        Column("status", pa.string(), "Completion status, as the API names it.", repeats=True),
        Column("start_time", TIMESTAMP, "When the session started."),
        Column("finish_time", TIMESTAMP, "When the session finished, if it says so."),
    ),
    rows_of=_rows_of_answer,
    dates=("start_time", "finish_time"),
)
