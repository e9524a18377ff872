"""Bodies as the API serves them, one of each kind, and what a table makes of a body."""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.client.values import Answer
from etl.tables.registry import endpoints, tables
from etl.tables.values import AnyTable, Reject, Rows, key_hash

TEST: Final = "7b0e1c1e-0d5b-4f6e-9d39-0a4d1a1f0001"
SESSION: Final = "5e551011-0d5b-4f6e-9d39-0a4d1a1f0002"
WORKSPACE: Final = "30c5face-0d5b-4f6e-9d39-0a4d1a1f0003"

DETAILS: Final = {
    "sessionId": SESSION,
    "audienceId": "audience-1",
    "testPlanId": "plan-1",
    "sessionParticipant": {
        "participantId": "participant-1",
        "demographicsInfo": [
            {
                "id": "question-1",
                "code": "INTERESTS",
                "label": "Was interessiert Sie?",
                "value": "Kochen, Lesen",
                "type": "DEMOGRAPHIC_QUESTION_TYPE_MULTIPLE",
            },
            {"id": None, "code": None, "label": None, "value": None, "type": None},
        ],
    },
    "taskGroups": [
        {"uuid": "group-1", "type": "QX_SCORE", "response": {"score": 71.5}},
        {"uuid": "group-2", "type": "BALANCED_COMPARISON", "response": {"sequence": "BA"}},
        {"uuid": "group-3", "type": "QX_SCORE", "response": None},
    ],
    "tasks": [
        {
            "uuid": "task-1",
            "text": "Wie leicht war das?",
            "type": "RATING_SCALE",
            "response": {
                "startTimeMs": 1000,
                "endTimeMs": 2500,
                "skipped": False,
                "answer": {"blank": None, "ratingScale": {"value": 4, "label": "leicht"}},
            },
        },
        {
            "uuid": "task-2",
            "text": "لماذا؟",
            "type": "WRITTEN",
            "response": {
                "startTimeMs": 2500,
                "endTimeMs": 9000,
                "skipped": True,
                "answer": None,
            },
        },
        {"uuid": "task-3", "text": "Go on.", "type": "BLANK", "response": None},
    ],
}

BODIES: Final[Mapping[str, Any]] = {
    "session_results": {
        "testId": TEST,
        "sessions": [
            {
                "sessionId": SESSION,
                "audienceId": None,
                "status": "COMPLETE",
                "startTime": "2025-03-01T10:00:00.250Z",
                "finishTime": "2025-03-01T10:20:00.000Z",
            }
        ],
        "meta": {"pagination": {"limit": 500, "offset": 0, "totalCount": 1}},
    },
    "session_details": DETAILS,
    "video_url": {
        "videoUrl": "https://media.example/v.mp4?signature=secret",
        "sessionId": SESSION,
        "expiresAt": "2025-03-01T11:00:00Z",
    },
    "video": {
        "became": "fetched",
        "path": "videos/_files/v.mp4",
        "bytes": 12,
        "sha256": "ab" * 32,
        "content_type": "video/mp4",
    },
    "clips": {
        "studyUuid": TEST,
        "clips": [
            {
                "uuid": "clip-1",
                "name": "Confused",
                "description": "at the till",
                "timeStartMs": 10,
                "timeEndMs": 2010.5,
                "videoUuid": "video-1",
                "hasAudio": True,
                "hasCamera": False,
                "layout": {
                    "mainStream": "SCREEN",
                    "pipPosition": "TOP_LEFT",
                    "pipState": "CLOSED",
                },
            },
            {"uuid": "clip-2", "name": "Delighted", "layout": None},
        ],
        "videoRegions": None,
    },
    "clip_url": {"clipUuid": "clip-1", "status": "GENERATING", "clipUrl": None},
    "highlight_reels": {
        "reels": [
            {
                "uuid": "reel-1",
                "name": "Best of",
                "durationMs": 61000,
                "lastUpdatedAtMs": 1740823200500,
                "numClips": 2,
                "areAllClipsInReel": False,
            }
        ],
        "studyWithClips": True,
    },
    "reel_url": {
        "reelId": "reel-1",
        "status": "GENERATED",
        "reelUrl": "https://media.example/r.mp4?signature=secret",
    },
    "qx_scores": {
        "testId": TEST,
        "qxScores": [
            {
                "taskGroupId": "group-1",
                "label": "Checkout",
                "qxScore": 64,
                "components": {"behavioral": 80, "attitudinal": 48.5},
                "values": {
                    "behavioral": [100, 60],
                    "usability": 50,
                    "trust": 40,
                    "appearance": 55,
                    "loyalty": 49,
                },
            },
            {"taskGroupId": "group-2", "label": "Search", "qxScore": None},
        ],
        "meta": {"totalQxTasks": 2, "completes": 31},
    },
    "workspaces": [
        {"uuid": WORKSPACE, "id": "411", "name": "Research"},
        {"uuid": "30c5face-0000-4000-8000-000000000004", "id": "412", "name": None},
    ],
    "workspace_tests": [
        {
            "uuid": TEST,
            "title": "Checkout",
            "type": "STUDYV2",
            "productType": "SURVEY",
            "orderedAt": "2024-12-31T23:59:59Z",
            "orderedBy": {"name": "Ann", "email": "ann@example.com"},
            "cursor": "MQ",
        },
        {"uuid": "test-2", "title": "Classic", "type": "web", "orderedBy": None, "cursor": "Mg"},
    ],
    "study": {
        "title": "Old checkout",
        "sessionCount": 3,
        "testPlan": {"shortTest": True},
        "orderedBy": {"name": "Ann", "email": "ann@example.com"},
        "netPromoterScores": [{"score": 12, "promoterPercentage": 40}],
        "tasks": [
            {
                "position": 1,
                "taskType": "multiple_choice",
                "text": "Where do you live?",
                "grouping": "INITIAL",
                "taskGroup": {"id": "main", "type": "MAIN"},
                "choices": ["Oslo", "Lima"],
                "multipleAnswers": False,
                "scaleMinimum": None,
                "scaleMaximum": 5,
                "lowerEndpoint": "hard",
                "upperEndpoint": "easy",
                "launchUrl": "https://shop.example",
                "resultType": "",
                "blurPII": True,
            },
            {"position": 2, "text": "Buy a lamp."},
        ],
    },
    "completed_sessions": {
        "completedSessionCount": 2,
        "sessions": [
            {
                "sessionUuid": SESSION,
                "sessionId": 90210,
                "completedDateTime": "2023-11-30T11:24:58Z",
                "state": "completed",
                "taskOrderingCondition": "default",
                "formFactorUsed": "Mobile",
                "cursor": "MQ",
                "participant": {
                    "name": "lamp@example.com",
                    "demographics": {
                        "age": 41,
                        "gender": "Female",
                        "country": "Norway",
                        "income": "a lot",
                        "children": ["No children"],
                        "socialNetworks": ["One", "Two"],
                        "webExpertise": "Advanced",
                        "employmentStatus": "Employed",
                        "industry": "Lighting",
                        "jobFunction": "Sales",
                        "seniority": "Senior",
                        "companySize": "2-10",
                    },
                },
                "answers": [
                    {
                        "type": "multiple_choice",
                        "time": 0,
                        "duration": 51,
                        "responses": ["Oslo"],
                        "transcript": "I live in Oslo.",
                        "url": "https://old.example/v?start=0",
                    },
                    {"type": "blank", "transcript": {"words": ["a", "lamp"]}},
                ],
                "screenerResponses": [{"question": "Do you own a lamp?", "response": ["Yes"]}],
            },
            {
                "sessionUuid": "session-2",
                "sessionId": 90211,
                "cursor": "Mg",
                "answers": [{"type": "blank"}],
                "screenerResponses": [{"question": "A lamp?", "response": []}],
            },
        ],
    },
}


def body(endpoint: str) -> Any:
    """Return a copy of the endpoint's body, to be changed."""
    return deepcopy(BODIES[endpoint])


def encoded(value: object) -> bytes:
    """Return a value as JSON; NaN and half surrogates too, as a careless server writes them."""
    return json.dumps(value).encode()


def answer(endpoint: str, raw: bytes) -> Answer:
    """Return an answer to a request for the test and session of this page."""
    return Answer(endpoint, TEST, SESSION, WORKSPACE, 200, 1_740_823_200_123_456, raw)


def read(table: AnyTable, value: object) -> Rows:
    """Return what a table makes of a body: JSON, or bytes as they are."""
    raw = value if isinstance(value, bytes) else encoded(value)
    content = table.endpoint.decode(raw)
    return table.rows_of(answer(table.endpoint.name, raw), content)


def made_by(name: str, value: object) -> Rows:
    """Return what the table of this name makes of a body."""
    return read(tables()[name], value)


def dicts(rows: Rows) -> list[dict[str, Any]]:
    """Return rows as dicts, with their place among the others."""
    columns = {name: column.to_pylist() for name, column in rows.columns.items()}
    return [
        {name: values[place] for name, values in columns.items()} for place in range(len(rows.keys))
    ]


def rejected(reject: Reject) -> Any:
    """Return what was rejected."""
    assert reject.body is not None
    return json.loads(reject.body)


def landed(table: AnyTable, rows: Rows) -> pa.Table:
    """Return rows as the landing writes them: its columns filled in, through Parquet."""
    asked = answer(table.endpoint.name, b"")
    count = len(rows.keys)
    shared = {
        "test_id": pa.repeat(pa.scalar(asked.test_id, pa.string()), count),
        "session_id": pa.repeat(pa.scalar(asked.session_id, pa.string()), count),
        "_run_id": pa.repeat(pa.scalar("run", pa.string()), count),
        "_fetched_at": pa.array([asked.fetched_at_us] * count, pa.timestamp("us", "UTC")),
        "_extra": pa.array(rows.extra or [None] * count, pa.string()),
    }
    filled = shared | rows.columns
    schema = table.schema()
    written = pa.BufferOutputStream()
    whole = pa.table({field.name: filled[field.name] for field in schema}, schema=schema)
    pq.write_table(whole, written)
    return pq.read_table(pa.BufferReader(written.getvalue()))


def proved(table: AnyTable, rows: Rows) -> Rows:
    """Return rows that keep the promises of every table; fails where they do not."""
    count = len(rows.keys)
    assert len(rows.hashes) == count
    assert rows.extra is None or len(rows.extra) == count
    assert {len(column) for column in rows.columns.values()} <= {count}
    names = {column.name for column in table.columns}
    assert rows.columns.keys() <= names <= rows.columns.keys() | {"test_id", "session_id"}
    keys = landed(table, rows).select(list(table.identity)).to_pylist()
    assert list(rows.keys) == [key_hash(list(key.values())) for key in keys]
    for text in rows.extra or ():
        assert text is None or isinstance(json.loads(text), dict)
    for reject in rows.rejects:
        assert reject.reason and reject.body is not None
        reject.body.encode()
    return rows


@dataclass(frozen=True, slots=True)
class Fed:
    """An endpoint and the tables that its answers feed."""

    endpoint: str
    tables: tuple[AnyTable, ...]


FED: Final = [
    Fed(name, fed)
    for name in endpoints()
    if (fed := tuple(table for table in tables().values() if table.endpoint.name == name))
]
