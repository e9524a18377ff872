"""The table `studies`: how a classic test is set up, and its Net Promoter Scores.

Source: `GET /v1/studies/{studyUuid}` (integrations-v1, Study). The same answer feeds
`study_tasks`.
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.json_text import Document, object_with
from etl.tables.kinds import FLAG, JSON_TEXT, TEXT, WHOLE
from etl.tables.reading import Field, Reader, without
from etl.tables.values import Column, Rows, Table

_READER: Final = Reader(
    Field("title", "title", TEXT, "Its title."),
    Field("sessionCount", "session_count", WHOLE, "How many sessions it has."),
    Field("testPlan.shortTest", "short_test", FLAG, "Whether it is set up as a short test."),
    Field("orderedBy.name", "ordered_by_name", TEXT, "Who ordered it."),
    Field("orderedBy.email", "ordered_by_email", TEXT, "Their e-mail address."),
    Field("netPromoterScores", "net_promoter_scores", JSON_TEXT, "NPS results, as JSON."),
)

_KEY: Final = ("test_id",)


def decode(body: bytes) -> Document:
    """Read a study; raises UnreadableBodyError if it is none."""
    return object_with(body, {"title", "tasks", "sessionCount", "testPlan"}, "a study")


def _rows_of(answer: Answer, study: Document) -> Rows:
    own = without(study.value, "tasks")
    return _READER.rows(_READER.read([own], odd=study.odd), answer, _KEY)


STUDY: Final = Endpoint(
    name="study",
    path="/usertesting/api/v1/studies/{test_id}",
    scope=Scope.TEST,
    priority=Priority.DETAILS,
    decode=decode,
)
"""A classic test's definition."""

TABLE: Final = Table(
    name="studies",
    row="a classic test",
    key=_KEY,
    endpoint=STUDY,
    columns=(Column("test_id", pa.string(), "The classic test."), *_READER.columns),
    rows_of=_rows_of,
)
