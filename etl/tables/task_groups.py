"""The table `task_groups`: what came of a session's groups of tasks.

Source: `GET /api/v3/sessionResults/{sessionId}` (results-v2, TaskGroupItemDto).
"""

from collections.abc import Sequence
from typing import Final

from etl.client.values import Fetched
from etl.tables.json_text import Document
from etl.tables.kinds import ID, JSON_TEXT, REAL, TEXT
from etl.tables.reading import Field, Reader
from etl.tables.session_details import SESSION_DETAILS, served
from etl.tables.values import SESSION_ID, TEST_ID, Rows, Table, alone

_READER: Final = Reader(
    Field("uuid", "task_group_id", ID, "The task group.", repeats=True),
    Field("type", "type", TEXT, "QX_SCORE, BALANCED_COMPARISON or a newer one.", repeats=True),
    Field("response.score", "score", REAL, "The participant's QXscore, from 0 to 100."),
    Field("response.sequence", "sequence", TEXT, "In which order a comparison's groups came."),
    Field("response", "response", JSON_TEXT, "The whole response, as JSON."),
    within="taskGroups",
)

_KEY: Final = ("session_id", "task_group_id")


def _rows_of_each(fetched: Sequence[Fetched[Document]]) -> Sequence[Rows]:
    reading = _READER.read_all([served(one, "taskGroups") for one in fetched])
    return _READER.rows_of_each(reading, fetched, _KEY)


TABLE: Final = Table(
    name="task_groups",
    row="a task group's response",
    key=_KEY,
    endpoint=SESSION_DETAILS,
    columns=(TEST_ID, SESSION_ID, *_READER.columns),
    rows_of=alone(_rows_of_each),
    rows_of_each=_rows_of_each,
)
