"""The table `qx_scores`: a test's scores as they stood when they were asked.

Source: `GET /api/v2/testResults/{testId}/qxScores` (results-v2, QxScoreResponseApi).
A score moves with every session, so each answer that differs adds rows.
"""

from typing import Final

import msgspec
import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.json_text import Document, listing_of
from etl.tables.kinds import ID, JSON_TEXT, REAL, TEXT, WHOLE
from etl.tables.reading import Field, Reader, foreign, listed, surrounded
from etl.tables.values import TEST_ID, Column, Rows, Table

_READER: Final = Reader(
    Field("taskGroupId", "task_group_id", ID, "The QX task group.", repeats=True),
    Field("label", "label", TEXT, "Its label.", repeats=True),
    Field("qxScore", "qx_score", REAL, "The QXscore of all its sessions, from 0 to 100."),
    Field("components.behavioral", "behavioral", REAL, "What the tasks' success gives, in %."),
    Field("components.attitudinal", "attitudinal", REAL, "What the questions give, in %."),
    Field("values.usability", "usability", REAL, "How usable it was found, from 0 to 100."),
    Field("values.trust", "trust", REAL, "How far it was trusted, from 0 to 100."),
    Field("values.appearance", "appearance", REAL, "How its looks were liked, from 0 to 100."),
    Field("values.loyalty", "loyalty", REAL, "How far it is recommended, from 0 to 100."),
    Field("values.behavioral", "behavioral_tasks", JSON_TEXT, "Each task's score, as JSON."),
    derived=[
        Column("total_qx_tasks", pa.int64(), "QX task groups that the test has."),
        Column("completes", pa.int64(), "Completed sessions that were counted."),
    ],
    within="qxScores",
)

_META: Final = Reader(
    Field("totalQxTasks", "total_qx_tasks", WHOLE, ""),
    Field("completes", "completes", WHOLE, ""),
    within="meta",
)

_KEY: Final = ("test_id", "task_group_id", "_fetched_at")


def decode(body: bytes) -> Document:
    """Read a test's scores; raises UnreadableBodyError if it is no list of them."""
    return listing_of(body, "qxScores", "a list of QXscores")


def _rows_of(answer: Answer, content: Document) -> Rows:
    value, odd = content.value, content.odd
    another = foreign(value, "testId", answer.test_id, None)
    meta = value.get("meta") if isinstance(value, dict) and another is None else None
    about = _META.read([meta or {}], odd=odd)
    reading = _READER.read(another or listed(value, "qxScores", None), odd=odd)
    for column in ("total_qx_tasks", "completes"):
        reading.derived[column] = (about.values[column] or [None]) * len(reading.places)
    rows = surrounded(
        _READER.rows(reading, answer, _KEY[:-1]), value, {"testId", "qxScores", "meta"}, ()
    )
    unknown = rows.unknown_fields.union(*about.unknown)
    return msgspec.structs.replace(
        rows,
        rejects=[*rows.rejects, *about.rejects[0]],
        unknown_fields=unknown,
        keeps_body=rows.keeps_body or any(about.unknown),
    )


QX_SCORES: Final = Endpoint(
    name="qx_scores",
    path="/api/v2/testResults/{test_id}/qxScores",
    scope=Scope.TEST,
    priority=Priority.DETAILS,
    decode=decode,
    products=frozenset({"NON_THINK_OUT_LOUD"}),
)
"""An interaction test's scores."""

TABLE: Final = Table(
    name="qx_scores",
    row="a QX task group's score, as of a run",
    key=_KEY,
    endpoint=QX_SCORES,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
)
