"""The table `screener_responses`: what was asked before a classic test, and answered.

Source: `GET /v1/studies/{studyUuid}/completed-sessions` (integrations-v1, CompletedSessions).
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer
from etl.tables.completed_sessions import COMPLETED_SESSIONS, of_each
from etl.tables.cursor_pages import CursorPage
from etl.tables.kinds import JSON_TEXT, TEXT
from etl.tables.reading import Field, Reader
from etl.tables.values import SESSION_ID, TEST_ID, Column, Rows, Table

_READER: Final = Reader(
    Field("question", "question", TEXT, "What was asked.", repeats=True),
    Field("response", "response", JSON_TEXT, "What was answered, as a JSON array."),
    before=[SESSION_ID],
    place=Column("position", pa.int32(), "Place among the session's screeners, from 0."),
    within="sessions.screenerResponses",
)

_KEY: Final = ("session_id", "position")


def _rows_of(answer: Answer, page: CursorPage) -> Rows:
    reading = _READER.read_each(of_each(page, "screenerResponses"), odd=page.odd)
    return _READER.rows(reading, answer, _KEY)


TABLE: Final = Table(
    name="screener_responses",
    row="a response to a screener question of a classic test",
    key=_KEY,
    endpoint=COMPLETED_SESSIONS,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
)
