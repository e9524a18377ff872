"""The table `session_details`: who took a session, and under which plan of the test.

Source: `GET /api/v3/sessionResults/{sessionId}` (results-v2, SessionResultsV3ResponseDto).
The same answer feeds `demographics`, `task_groups` and `tasks`.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from etl.client.values import Answer, Endpoint, Fetched, Priority, Scope
from etl.tables.json_text import Document, object_with
from etl.tables.kinds import TEXT
from etl.tables.reading import Field, Reader, Served, foreign, listed, without
from etl.tables.values import TEST_ID, Column, Reject, Rows, Table, alone

PUBLISHED: Final = frozenset(
    {"sessionId", "audienceId", "testPlanId", "sessionParticipant", "taskGroups", "tasks"}
)


def decode(body: bytes) -> Document:
    """Read a session's details; raises UnreadableBodyError if it is none."""
    return object_with(body, PUBLISHED, "a session's details")


def served(fetched: Fetched[Document], path: str) -> Served:
    """Return the list at a path of a session's details, if they are of the session asked."""
    answer, details = fetched.answer, fetched.content
    session_id = answer.session_id
    found = of_another(answer, details) or listed(details.value, path, session_id)
    return Served(found, session_id, details.odd)


def of_another(answer: Answer, details: Document) -> Reject | None:
    """Return the reject of details that do not say they are of the session asked."""
    return foreign(details.value, "sessionId", answer.session_id, answer.session_id)


_READER: Final = Reader(
    Field("audienceId", "audience_id", TEXT, "The participant's audience, if any.", repeats=True),
    Field("testPlanId", "test_plan_id", TEXT, "The plan of the test's tasks.", repeats=True),
    Field("sessionParticipant.participantId", "participant_id", TEXT, "The participant."),
    besides=("sessionId",),
)

_KEY: Final = ("session_id",)


def _rows_of_each(fetched: Sequence[Fetched[Document]]) -> Sequence[Rows]:
    return _READER.rows_of_each(_READER.read_all(list(map(_own, fetched))), fetched, _KEY)


def _own(fetched: Fetched[Document]) -> Served:
    answer, details = fetched.answer, fetched.content
    own = without(details.value, "taskGroups", "tasks", "sessionParticipant.demographicsInfo")
    return Served(of_another(answer, details) or [own], answer.session_id, details.odd)


SESSION_DETAILS: Final = Endpoint(
    name="session_details",
    path="/api/v3/sessionResults/{session_id}",
    scope=Scope.SESSION,
    priority=Priority.DETAILS,
    decode=decode,
)
"""A session's details: participant, task groups, tasks."""

TABLE: Final = Table(
    name="session_details",
    row="a session's details",
    key=_KEY,
    endpoint=SESSION_DETAILS,
    columns=(TEST_ID, Column("session_id", pa.string(), "The session."), *_READER.columns),
    rows_of=alone(_rows_of_each),
    rows_of_each=_rows_of_each,
)
