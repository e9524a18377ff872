"""One session's details, read into four tables."""

import json
from typing import Any

import pytest

from etl.tables.json_text import kind_of
from etl.tables.values import Rows
from tests.tables.served import DETAILS, SESSION, body, dicts, encoded, made_by, rejected

TABLES = ("session_details", "demographics", "task_groups", "tasks")


def details() -> Any:
    return body("session_details")


def made(value: object) -> dict[str, Rows]:
    return {name: made_by(name, value) for name in TABLES}


def test_a_session_becomes_one_row_of_details():
    assert dicts(made_by("session_details", DETAILS)) == [
        {
            "audience_id": "audience-1",
            "test_plan_id": "plan-1",
            "participant_id": "participant-1",
        }
    ]


def test_a_session_without_a_participant_has_a_row_without_one():
    rows = made(details() | {"sessionParticipant": None, "audienceId": None})
    assert dicts(rows["session_details"])[0]["participant_id"] is None
    assert not rows["demographics"].keys and not rows["demographics"].rejects


@pytest.mark.parametrize("session_id", [None, "another", 5, ""])
def test_details_of_another_session_are_rejected_once_and_feed_no_table(session_id: object):
    rows = made(details() | {"sessionId": session_id})
    assert not any(found.keys for found in rows.values())
    rejects = [reject for found in rows.values() for reject in found.rejects]
    assert len(rejects) == 4 and len({reject.key for reject in rejects}) == 1
    assert rejected(rejects[0])["tasks"] == DETAILS["tasks"]
    assert rejects[0].session_id == SESSION and "sessionId" in rejects[0].reason


def test_details_that_do_not_name_their_session_are_rejected():
    value = details()
    del value["sessionId"]
    assert [reject.reason for reject in made_by("tasks", value).rejects] == ["sessionId is missing"]


def test_a_session_id_in_capitals_is_the_same_session():
    assert made_by("session_details", details() | {"sessionId": SESSION.upper()}).keys


def test_what_is_new_about_a_session_is_kept_with_its_row():
    value = details() | {"mood": {"is": "good"}}
    value["sessionParticipant"]["age"] = 41
    rows = made_by("session_details", value)
    assert rows.extra is not None and rows.extra[0] is not None
    assert json.loads(rows.extra[0]) == {"mood": {"is": "good"}, "sessionParticipant": {"age": 41}}
    assert rows.unknown_fields == {"mood", "sessionParticipant.age"}
    assert not rows.keeps_body


def test_a_bad_value_of_the_session_costs_its_row_and_no_task():
    rows = made(details() | {"testPlanId": ["secret"]})
    (reject,) = rows["session_details"].rejects
    assert reject.reason == "testPlanId is a list, not a string"
    assert "tasks" not in rejected(reject)
    assert len(rows["tasks"].keys) == 3 and len(rows["demographics"].keys) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"text": 5}, "text is a number, not a string"),
        ({"uuid": "a\0b"}, "uuid holds characters that cannot be stored"),
        ({"text": "\ud800"}, "it holds characters that cannot be stored"),
        ({"response": "yes"}, "response is a string, not an object"),
        ({"response": {"startTimeMs": "soon"}}, "response.startTimeMs is a string, not a number"),
        ({"response": {"endTimeMs": float("nan")}}, "a number is not finite"),
        ({"response": {"endTimeMs": 1e300}}, "response.endTimeMs is out of range"),
        ({"response": {"skipped": 1}}, "response.skipped is a number, not a boolean"),
        ({"response": {"answer": {"nps": "\ud800"}}}, "it holds characters that cannot be stored"),
        ({"response": {"answer": ["a"]}}, "response.answer is a list, not an object"),
    ],
)
def test_a_bad_task_costs_that_task_only(bad: dict[str, Any], reason: str):
    value = details()
    value["tasks"][1] |= bad
    rows = made(value)
    assert [reject.reason for reject in rows["tasks"].rejects] == [reason]
    assert rows["tasks"].rejects[0].session_id == SESSION
    assert [task["position"] for task in dicts(rows["tasks"])] == [0, 2]
    assert rows["tasks"].keys == [made_by("tasks", DETAILS).keys[place] for place in (0, 2)]
    for name in ("session_details", "demographics", "task_groups"):
        assert (
            rows[name] == made_by(name, DETAILS) or rows[name].keys == made_by(name, DETAILS).keys
        )
        assert not rows[name].rejects


@pytest.mark.parametrize("item", [None, 5, "text", []])
@pytest.mark.parametrize(
    ("table", "path"),
    [
        ("demographics", ("sessionParticipant", "demographicsInfo")),
        ("task_groups", ("taskGroups",)),
        ("tasks", ("tasks",)),
    ],
)
def test_an_item_that_is_no_object_is_rejected(table: str, path: tuple[str, ...], item: Any):
    value = details()
    held = value
    for name in path:
        held = held[name]
    held.insert(1, item)
    rows = made_by(table, value)
    assert [(reject.reason, rejected(reject)) for reject in rows.rejects] == [
        (f"it is {kind_of(item)}, not an object", item)
    ]
    assert len(rows.keys) == len(held) - 1


@pytest.mark.parametrize(("table", "field"), [("tasks", "tasks"), ("task_groups", "taskGroups")])
def test_a_list_that_is_missing_or_null_has_no_rows(table: str, field: str):
    value = details() | {field: None}
    assert not made_by(table, value).keys and not made_by(table, value).rejects
    del value[field]
    assert not made_by(table, value).keys and not made_by(table, value).rejects


def test_a_list_that_is_none_is_rejected_with_what_came():
    (reject,) = made_by("tasks", details() | {"tasks": {"0": "a"}}).rejects
    assert (reject.reason, reject.body) == ("tasks is an object, not a list", '{"0":"a"}')
    (reject,) = made_by("demographics", details() | {"sessionParticipant": "Ann"}).rejects
    assert (reject.reason, reject.body) == (
        "sessionParticipant is a string, not an object",
        '"Ann"',
    )


def test_a_text_of_five_megabytes_lands_whole():
    value = details()
    value["tasks"][1]["text"] = "né\u202e" * 1_250_000
    assert dicts(made_by("tasks", value))[1]["text"] == value["tasks"][1]["text"]


def test_no_reason_quotes_what_a_participant_said():
    value = details()
    for name in ("uuid", "text", "type", "response"):
        value["tasks"].append({name: ["said"]})
    value["tasks"].append({"response": {"answer": "said", "startTimeMs": "said"}})
    reasons = [reject.reason for reject in made_by("tasks", value).rejects]
    assert len(reasons) == 5 and "said" not in " ".join(reasons)


def test_bytes_that_are_not_utf_8_cost_their_task():
    raw = encoded(DETAILS).replace(b"Go on.", b"Go \xff on.")
    rows = made_by("tasks", raw)
    assert len(rows.keys) == 2 and len(rows.rejects) == 1
