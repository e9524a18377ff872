"""The table `demographics`: what a participant answered to demographic questions.

Source: `GET /api/v3/sessionResults/{sessionId}` (results-v2, DemographicInfoDto).
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from etl.client.values import Fetched
from etl.tables.json_text import Document, Json, storable
from etl.tables.kinds import TEXT
from etl.tables.reading import Field, Reader
from etl.tables.session_details import SESSION_DETAILS, served
from etl.tables.values import SESSION_ID, TEST_ID, Column, Rows, Table, alone

_LIST: Final = "sessionParticipant.demographicsInfo"

_READER: Final = Reader(
    Field("id", "question_id", TEXT, "The question.", repeats=True),
    Field("code", "code", TEXT, "What it asks about, such as GENDER.", repeats=True),
    Field("label", "label", TEXT, "The question as people read it.", repeats=True),
    Field("value", "value", TEXT, "The answer as served; several are separated by commas."),
    Field("type", "type", TEXT, "Whether one answer or several were asked for.", repeats=True),
    place=Column("position", pa.int32(), "Place among the session's answers, from 0."),
    before=[Column("participant_id", pa.string(), "The participant who answered.", repeats=True)],
    within=_LIST,
)

_KEY: Final = ("session_id", "position")


def _rows_of_each(fetched: Sequence[Fetched[Document]]) -> Sequence[Rows]:
    reading = _READER.read_all([served(one, _LIST) for one in fetched])
    participants = (_participant(one.content.value) for one in fetched)
    reading.derived["participant_id"] = reading.shared(participants)
    return _READER.rows_of_each(reading, fetched, _KEY)


def _participant(details: Json) -> str | None:
    """Return the participant, where `session_details` could read it."""
    participant = details.get("sessionParticipant") if isinstance(details, dict) else None
    found = participant.get("participantId") if isinstance(participant, dict) else None
    return found if isinstance(found, str) and storable(found) else None


TABLE: Final = Table(
    name="demographics",
    row="an answer to a demographic question",
    key=_KEY,
    endpoint=SESSION_DETAILS,
    columns=(TEST_ID, SESSION_ID, *_READER.columns),
    rows_of=alone(_rows_of_each),
    rows_of_each=_rows_of_each,
)
