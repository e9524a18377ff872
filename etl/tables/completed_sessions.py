"""The table `completed_sessions`: the sessions of a classic test, and who took them.

Source: `GET /v1/studies/{studyUuid}/completed-sessions` (integrations-v1,
CompletedSessions), page by page. The same answer feeds `completed_session_answers` and
`screener_responses`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.paging.values import PageView, Place
from etl.tables.cursor_pages import CursorPage, cursor_in, cursor_page
from etl.tables.json_text import Json, storable, text_of
from etl.tables.kinds import ID, JSON_TEXT, LONGEST_ID, MOMENT, TEXT, WHOLE
from etl.tables.reading import Field, Reader, listed, surrounded, without
from etl.tables.sessions import row_count
from etl.tables.values import TEST_ID, Reject, Rows, Table, key_hash

_PARTS: Final = ("answers", "screenerResponses")
_OF: Final = "participant.demographics"

_READER: Final = Reader(
    Field("sessionUuid", "session_id", ID, "The session."),
    Field("sessionId", "session_number", WHOLE, "Its number inside the platform."),
    Field("completedDateTime", "completed_at", MOMENT, "When it was completed."),
    Field("state", "state", TEXT, "How far it is, as the API names it.", repeats=True),
    Field("taskOrderingCondition", "task_ordering_condition", TEXT, "Task order.", repeats=True),
    Field("formFactorUsed", "form_factor_used", TEXT, "Kind of device.", repeats=True),
    Field("participant.name", "participant_name", TEXT, "The participant's name or e-mail."),
    Field(f"{_OF}.age", "age", WHOLE, "The participant's age in years."),
    Field(f"{_OF}.gender", "gender", TEXT, "Gender, as told.", repeats=True),
    Field(f"{_OF}.country", "country", TEXT, "Country of residence.", repeats=True),
    Field(f"{_OF}.income", "income", TEXT, "Income of the household.", repeats=True),
    Field(f"{_OF}.children", "children", JSON_TEXT, "Children at home, as a JSON array."),
    Field(f"{_OF}.socialNetworks", "social_networks", JSON_TEXT, "Networks, as a JSON array."),
    Field(f"{_OF}.webExpertise", "web_expertise", TEXT, "How well they know the web."),
    Field(f"{_OF}.employmentStatus", "employment_status", TEXT, "Whether employed.", repeats=True),
    Field(f"{_OF}.industry", "industry", TEXT, "Industry that they work in.", repeats=True),
    Field(f"{_OF}.jobFunction", "job_function", TEXT, "What they do there.", repeats=True),
    Field(f"{_OF}.seniority", "seniority", TEXT, "How senior they are.", repeats=True),
    Field(f"{_OF}.companySize", "company_size", TEXT, "Size of the company.", repeats=True),
    besides=["cursor"],
    within="sessions",
)

_KEY: Final = ("session_id",)


def decode(body: bytes) -> CursorPage:
    """Read a page of sessions; raises UnreadableBodyError if it is none."""
    return cursor_page(body, "sessions", "a page of completed sessions")


def page_view(answer: Answer, page: CursorPage, known_as: Callable[[str], str] = str) -> PageView:
    """Return what paging sees of a page: `known_as` is the name under which an id lands.

    A session without an id is known by its text.
    """
    names = (_session_id(entry) or text_of(entry) for entry in page.entries)
    count = page.holder.get("completedSessionCount") if isinstance(page.holder, dict) else None
    return PageView(
        ids=tuple(key_hash([known_as(name)]) for name in names),
        limit=None,
        offset=None,
        total=row_count(count),
        read_at_us=answer.fetched_at_us,
        goes_on=_goes_on(page.entries),
    )


def _goes_on(entries: Sequence[Json]) -> Place | None:
    """Return from where to go on so that the last session is served again: a row's overlap."""
    last = len(entries) - 1
    for row in (*range(last - 1, -1, -1), last):
        cursor = cursor_in(entries[row]) if entries else None
        if cursor is not None:
            return row, cursor
    return None


def of_each(page: CursorPage, path: str) -> Iterator[tuple[str | None, Sequence[Json] | Reject]]:
    """Return each session's id and its list at a path; a reject where there is no id."""
    for entry in page.entries:
        session_id = _session_id(entry)
        found = listed(entry, path, session_id)
        if session_id is None and not isinstance(found, Reject) and found:
            found = Reject("sessionUuid is missing", text_of(list(found)))
        yield session_id, found


def _session_id(entry: Json) -> str | None:
    found = entry.get("sessionUuid") if isinstance(entry, dict) else None
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST_ID:
        return None
    return found if storable(found) else None


def _rows_of(answer: Answer, page: CursorPage) -> Rows:
    own = [(_session_id(entry), [without(entry, *_PARTS)]) for entry in page.entries]
    rows = _READER.rows(_READER.read_each(own, odd=page.odd), answer, _KEY)
    return surrounded(rows, page.holder, {"sessions", "completedSessionCount"}, ())


COMPLETED_SESSIONS: Final = Endpoint(
    name="completed_sessions",
    path="/usertesting/api/v1/studies/{test_id}/completed-sessions",
    scope=Scope.TEST,
    priority=Priority.LISTING,
    decode=decode,
)
"""The sessions of a classic test, 50 a page."""

TABLE: Final = Table(
    name="completed_sessions",
    row="a completed session of a classic test",
    key=_KEY,
    endpoint=COMPLETED_SESSIONS,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
    dates=(None, "completed_at"),
)
