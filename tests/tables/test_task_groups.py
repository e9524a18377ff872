"""The table of task groups."""

from tests.tables.served import DETAILS, body, dicts, made_by


def test_each_kind_of_group_has_its_score_or_its_sequence():
    assert dicts(made_by("task_groups", DETAILS)) == [
        {
            "task_group_id": "group-1",
            "type": "QX_SCORE",
            "score": 71.5,
            "sequence": None,
            "response": '{"score":71.5}',
        },
        {
            "task_group_id": "group-2",
            "type": "BALANCED_COMPARISON",
            "score": None,
            "sequence": "BA",
            "response": '{"sequence":"BA"}',
        },
        {
            "task_group_id": "group-3",
            "type": "QX_SCORE",
            "score": None,
            "sequence": None,
            "response": None,
        },
    ]


def test_a_kind_of_group_that_is_new_is_kept_whole():
    value = body("session_details")
    value["taskGroups"] = [{"uuid": "g", "type": "TREE", "response": {"depth": 3, "score": 1}}]
    rows = made_by("task_groups", value)
    assert dicts(rows)[0]["response"] == '{"depth":3,"score":1}'
    assert rows.extra == ['{"response":{"depth":3}}']
    assert rows.unknown_fields == {"taskGroups.response.depth"}


def test_a_score_of_another_type_is_rejected():
    value = body("session_details")
    value["taskGroups"][0]["response"]["score"] = "high"
    rows = made_by("task_groups", value)
    assert [reject.reason for reject in rows.rejects] == [
        "response.score is a string, not a number"
    ]
    assert len(rows.keys) == 2


def test_a_group_without_an_id_is_rejected():
    value = body("session_details")
    value["taskGroups"][0]["uuid"] = None
    value["taskGroups"][1]["uuid"] = "x" * 1001
    assert [reject.reason for reject in made_by("task_groups", value).rejects] == [
        "uuid is missing",
        "uuid is longer than 1000 characters",
    ]
