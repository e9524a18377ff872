"""The table `completed_session_answers`: what was answered in a classic test, task by task.

Source: `GET /v1/studies/{studyUuid}/completed-sessions` (integrations-v1, CompletedSessions).
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer
from etl.tables.completed_sessions import COMPLETED_SESSIONS, of_each
from etl.tables.cursor_pages import CursorPage
from etl.tables.kinds import JSON_TEXT, SPOKEN, TEXT, WHOLE
from etl.tables.reading import Field, Reader
from etl.tables.values import SESSION_ID, TEST_ID, Column, Rows, Table

_READER: Final = Reader(
    Field("type", "type", TEXT, "The kind of answer.", repeats=True),
    Field("time", "time_seconds", WHOLE, "Where it begins, in seconds of the session."),
    Field("duration", "duration_seconds", WHOLE, "How long it is, in seconds."),
    Field("responses", "responses", JSON_TEXT, "What was answered, as a JSON array."),
    Field("transcript", "transcript", SPOKEN, "What was said; JSON where it is more than text."),
    Field("url", "url", TEXT, "Where it can be watched."),
    before=[SESSION_ID],
    place=Column("position", pa.int32(), "Place among the session's answers, in task order."),
    within="sessions.answers",
)

_KEY: Final = ("session_id", "position")


def _rows_of(answer: Answer, page: CursorPage) -> Rows:
    reading = _READER.read_each(of_each(page, "answers"), odd=page.odd)
    return _READER.rows(reading, answer, _KEY)


TABLE: Final = Table(
    name="completed_session_answers",
    row="an answer of a completed session of a classic test",
    key=_KEY,
    endpoint=COMPLETED_SESSIONS,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
)
