"""The table `tasks`: what a participant answered to each task, whole, as text and as number.

Source: `GET /api/v3/sessionResults/{sessionId}` (results-v2, TaskItemDto).
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from etl.client.values import Fetched
from etl.tables.answers import PUBLISHED, Said, said
from etl.tables.json_text import Document
from etl.tables.kinds import FLAG, JSON_TEXT, ROUNDED, TEXT
from etl.tables.reading import Field, Object, Reader, Reading
from etl.tables.session_details import SESSION_DETAILS, served
from etl.tables.values import SESSION_ID, TEST_ID, Column, Rows, Table, Value, alone

_READER: Final = Reader(
    Field("uuid", "task_id", TEXT, "The task, the same in all sessions of a test.", repeats=True),
    Field("type", "type", TEXT, "The kind of task, as the API names it.", repeats=True),
    Field("text", "text", TEXT, "What the participant was asked to do.", repeats=True),
    Field("response.skipped", "skipped", FLAG, "Whether the participant skipped it."),
    Field("response.startTimeMs", "start_time_ms", ROUNDED, "Start, in ms of the session."),
    Field("response.endTimeMs", "end_time_ms", ROUNDED, "End, in ms of the session."),
    Field("response.answer", "answer", JSON_TEXT, "The whole answer, as JSON."),
    place=Column("position", pa.int32(), "Place among the session's tasks, from 0."),
    derived=[
        Column("answer_text", pa.string(), "What was answered, as people would write it."),
        Column("answer_number", pa.float64(), "The answer where it is a number: rating, NPS."),
    ],
    besides=[f"response.answer.{kind}" for kind in PUBLISHED],
    within="tasks",
)

_KEY: Final = ("session_id", "position")


def _rows_of_each(fetched: Sequence[Fetched[Document]]) -> Sequence[Rows]:
    reading = _READER.read_all([served(one, "tasks") for one in fetched])
    told = _said_by_each(reading)
    reading.derived["answer_text"] = [one.text for one in told]
    reading.derived["answer_number"] = [one.number for one in told]
    return _READER.rows_of_each(reading, fetched, _KEY)


def _said_by_each(reading: Reading) -> Sequence[Said]:
    """Return what each task's answer says; what many participants answered is read once."""
    known: dict[tuple[Value, Value], Said] = {}
    told = []
    columns = (reading.objects, reading.values["type"], reading.values["answer"])
    for task, kind, answer in zip(*columns, strict=True):
        if (one := known.get((kind, answer))) is None:
            one = known[kind, answer] = _said(task)
        told.append(one)
    return told


def _said(task: Object) -> Said:
    kind, response = task.get("type"), task.get("response")
    answer = response.get("answer") if isinstance(response, dict) else None
    return said(kind if isinstance(kind, str) else None, answer)


TABLE: Final = Table(
    name="tasks",
    row="a task's response",
    key=_KEY,
    endpoint=SESSION_DETAILS,
    columns=(TEST_ID, SESSION_ID, *_READER.columns),
    rows_of=alone(_rows_of_each),
    rows_of_each=_rows_of_each,
)
