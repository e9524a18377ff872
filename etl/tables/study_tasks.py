"""The table `study_tasks`: what participants of a classic test are asked to do.

Source: `GET /v1/studies/{studyUuid}` (integrations-v1, StudyTaskNode).
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer
from etl.tables.json_text import Document
from etl.tables.kinds import FLAG, JSON_TEXT, TEXT, WHOLE
from etl.tables.reading import Field, Reader, listed
from etl.tables.studies import STUDY
from etl.tables.values import TEST_ID, Column, Rows, Table

_READER: Final = Reader(
    Field("position", "position", WHOLE, "Its position, as the API counts."),
    Field("taskType", "task_type", TEXT, "The kind of task.", repeats=True),
    Field("text", "text", TEXT, "What participants are asked to do."),
    Field("grouping", "grouping", TEXT, "The part of the study.", repeats=True),
    Field("taskGroup.id", "task_group_id", TEXT, "Its task group.", repeats=True),
    Field("taskGroup.type", "task_group_type", TEXT, "The kind of group.", repeats=True),
    Field("choices", "choices", JSON_TEXT, "What can be chosen, as a JSON array."),
    Field("multipleAnswers", "multiple_answers", FLAG, "Whether several may be chosen."),
    Field("scaleMinimum", "scale_minimum", WHOLE, "The scale's lowest number."),
    Field("scaleMaximum", "scale_maximum", WHOLE, "The scale's highest number."),
    Field("lowerEndpoint", "lower_endpoint", TEXT, "What the lowest number means."),
    Field("upperEndpoint", "upper_endpoint", TEXT, "What the highest number means."),
    Field("launchUrl", "launch_url", TEXT, "The page that the task opens."),
    Field("resultType", "result_type", TEXT, "What kind of answer is expected.", repeats=True),
    Field("blurPII", "blur_pii", FLAG, "Whether personal data is blurred."),
    place=Column("task_index", pa.int32(), "Place among the study's tasks, from 0."),
    within="tasks",
)

_KEY: Final = ("test_id", "task_index")


def _rows_of(answer: Answer, study: Document) -> Rows:
    reading = _READER.read(listed(study.value, "tasks", None), odd=study.odd)
    return _READER.rows(reading, answer, _KEY)


TABLE: Final = Table(
    name="study_tasks",
    row="a task of a classic test",
    key=_KEY,
    endpoint=STUDY,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
)
