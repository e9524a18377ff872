"""The table of QXscores, which grows with every answer that differs."""

from dataclasses import replace

from etl.tables import qx_scores
from etl.tables.registry import tables
from tests.tables.served import BODIES, answer, body, dicts, encoded, made_by


def test_each_task_group_is_a_row_with_what_its_score_is_made_of():
    first, second = dicts(made_by("qx_scores", BODIES["qx_scores"]))
    assert first == {
        "task_group_id": "group-1",
        "label": "Checkout",
        "qx_score": 64.0,
        "behavioral": 80.0,
        "attitudinal": 48.5,
        "usability": 50.0,
        "trust": 40.0,
        "appearance": 55.0,
        "loyalty": 49.0,
        "behavioral_tasks": "[100,60]",
        "total_qx_tasks": 2,
        "completes": 31,
    }
    assert second["qx_score"] is None and second["completes"] == 31


def test_a_score_asked_later_is_known_as_the_same_so_that_it_lands_again_only_if_it_differs():
    raw = encoded(BODIES["qx_scores"])
    content = qx_scores.QX_SCORES.decode(raw)
    one = answer("qx_scores", raw)
    later = replace(one, fetched_at_us=one.fetched_at_us + 1)
    table = tables()["qx_scores"]
    first, second = table.rows_of(one, content), table.rows_of(later, content)
    assert table.appends
    assert (first.keys, first.hashes) == (second.keys, second.hashes)


def test_scores_of_another_test_are_rejected():
    rows = made_by("qx_scores", body("qx_scores") | {"testId": "another"})
    assert not rows.keys
    assert [reject.reason for reject in rows.rejects] == ["testId is not what was asked"]


def test_what_is_told_beside_the_scores_costs_no_row():
    rows = made_by("qx_scores", body("qx_scores") | {"meta": {"completes": "many"}})
    assert [row["completes"] for row in dicts(rows)] == [None, None]
    assert [reject.reason for reject in rows.rejects] == ["completes is a string, not a number"]
    assert not made_by("qx_scores", body("qx_scores") | {"meta": None}).rejects


def test_a_new_field_beside_the_scores_keeps_the_body():
    value = body("qx_scores")
    value["meta"]["model"] = 2
    rows = made_by("qx_scores", value)
    assert rows.keeps_body and rows.unknown_fields == {"meta.model"}
