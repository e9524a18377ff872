"""The table of tasks: answers whole, as text and as number."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.tables.answers import PUBLISHED, said
from tests.tables.served import DETAILS, body, dicts, made_by


def test_a_task_is_a_row_with_its_place_times_and_answer():
    first, second, third = dicts(made_by("tasks", DETAILS))
    assert first == {
        "position": 0,
        "task_id": "task-1",
        "type": "RATING_SCALE",
        "text": "Wie leicht war das?",
        "skipped": False,
        "start_time_ms": 1000,
        "end_time_ms": 2500,
        "answer": '{"blank":null,"ratingScale":{"label":"leicht","value":4}}',
        "answer_text": "leicht",
        "answer_number": 4.0,
    }
    assert second["text"] == "لماذا؟" and second["skipped"] is True and second["answer"] is None
    assert third["skipped"] is None and third["answer_text"] is None


def test_a_fraction_of_a_millisecond_is_rounded():
    value = body("session_details")
    value["tasks"][0]["response"] |= {"startTimeMs": 1000.5, "endTimeMs": 2499.9}
    row = dicts(made_by("tasks", value))[0]
    assert (row["start_time_ms"], row["end_time_ms"]) == (1000, 2500)


def test_a_kind_of_answer_that_is_not_published_is_kept_whole_and_named():
    value = body("session_details")
    answer = {"cardSort": {"categories": [{"name": "Light", "cards": ["Lamp", "Candle"]}]}}
    value["tasks"][0] |= {"type": "UNRECOGNIZED"}
    value["tasks"][0]["response"]["answer"] = answer
    rows = made_by("tasks", value)
    assert json.loads(dicts(rows)[0]["answer"]) == answer
    assert dicts(rows)[0]["answer_text"] == "Light: Lamp, Candle"
    assert rows.unknown_fields == {"tasks.response.answer.cardSort"}
    assert rows.extra is not None and json.loads(rows.extra[0] or "") == {
        "response": {"answer": answer}
    }


OPTIONS = [{"id": "a", "text": "Oslo"}, {"id": "b", "text": "Lima"}, {"id": "c", "text": "Bern"}]

SHAPES: list[tuple[str, Any, str | None, float | None]] = [
    ("RATING_SCALE", {"ratingScale": {"value": 4, "label": "Easy", "max": 5}}, "Easy", 4),
    ("RATING_SCALE", {"ratingScale": {"rating": 2}}, "2", 2),
    ("RATING_SCALE", {"ratingScale": {"selectedOption": {"value": 5, "label": "Top"}}}, "Top", 5),
    ("RATING_SCALE", {"ratingScale": {"value": "3"}}, "3", 3),
    ("RATING_SCALE", {"ratingScale": {"value": 3.5}}, "3.5", 3.5),
    ("RATING_SCALE", {"ratingScale": 0}, "0", 0),
    ("RATING_SCALE", {"ratingScale": {}}, None, None),
    ("NPS", {"nps": {"score": 9}}, "9", 9),
    ("NPS", {"nps": 10}, "10", 10),
    ("NPS", {"value": 7}, "7", 7),
    ("MULTIPLE_CHOICE", {"multipleChoice": {"selectedOptions": ["A", "B"]}}, "A; B", None),
    ("MULTIPLE_CHOICE", {"multipleChoice": {"selectedOptions": OPTIONS[:2]}}, "Oslo; Lima", None),
    ("MULTIPLE_CHOICE", {"multipleChoice": {"selectedOption": OPTIONS[0]}}, "Oslo", None),
    (
        "MULTIPLE_CHOICE",
        {"multipleChoice": {"options": OPTIONS, "selectedOptionIds": ["c", "a"]}},
        "Bern; Oslo",
        None,
    ),
    (
        "MULTIPLE_CHOICE",
        {"multipleChoice": {"options": [one | {"selected": one["id"] != "b"} for one in OPTIONS]}},
        "Oslo; Bern",
        None,
    ),
    ("MULTIPLE_CHOICE", {"multipleChoice": {"value": "Oslo", "multiSelect": False}}, "Oslo", None),
    ("MULTIPLE_CHOICE", {"multipleChoice": {"selectedOptions": []}}, None, None),
    ("MULTIPLE_CHOICE", {"multipleChoice": ["A"]}, "A", None),
    ("RANK_ORDER", {"rankOrder": {"ranking": ["B", "A"]}}, "1. B; 2. A", None),
    (
        "RANK_ORDER",
        {"rankOrder": {"options": [{"text": "A", "rank": 2}, {"text": "B", "rank": 1}]}},
        "1. B; 2. A",
        None,
    ),
    ("RANK_ORDER", {"rankOrder": {"A": 2, "B": 1}}, "1. B; 2. A", None),
    ("RANK_ORDER", {"rankOrder": [{"label": "A"}, {"label": "B"}]}, "1. A; 2. B", None),
    (
        "MATRIX",
        {
            "matrix": {
                "rows": [{"row": "Speed", "column": "Good"}, {"row": "Look", "column": "Bad"}]
            }
        },
        "Speed: Good; Look: Bad",
        None,
    ),
    (
        "MATRIX",
        {
            "matrix": {
                "answers": [
                    {"label": "Speed", "selectedOptions": [{"text": "Good"}, {"text": "OK"}]}
                ]
            }
        },
        "Speed: Good, OK",
        None,
    ),
    ("MATRIX", {"matrix": {"Speed": "Good", "Look": 2}}, "Speed: Good; Look: 2", None),
    ("MATRIX", {"matrix": []}, None, None),
    ("WRITTEN", {"written": {"text": " I liked it.\nA lot. "}}, " I liked it.\nA lot. ", None),
    ("WRITTEN", {"written": {"response": "جيد"}}, "جيد", None),
    ("WRITTEN", {"written": "fine"}, "fine", None),
    ("WRITTEN", {"written": {"text": ""}}, None, None),
    ("WRITTEN", {"written": {"text": "a\0b"}}, "a\N{REPLACEMENT CHARACTER}b", None),
    ("VERBAL", {"verbal": {"transcript": "well …"}}, "well …", None),
    ("BLANK", {"blank": {}}, None, None),
    ("BLANK", {"blank": None}, None, None),
    ("IMAGE", {"image": {"url": "https://a.example/i.png"}}, "https://a.example/i.png", None),
    (
        "IMAGE",
        {"image": {"points": [{"x": 1.5, "y": 2}, {"x": 3, "y": 4}]}},
        "(1.5, 2); (3, 4)",
        None,
    ),
    ("URL", {"url": {"url": "https://a.example", "success": True}}, "success", None),
    ("URL", {"url": {"url": "https://a.example"}}, "https://a.example", None),
    (
        "FIGMA",
        {"figma": {"figmaPrototypeTitle": "Till", "prototypeUrl": "https://f"}},
        "Till",
        None,
    ),
    ("FIGMA", {"figma": {"completed": False}}, "not completed", None),
    (
        "CARD_SORT",
        {"cardSort": {"categories": [{"name": "A", "cards": ["x", "y"]}]}},
        "A: x, y",
        None,
    ),
    ("TREE_TEST", {"treeTest": {"path": ["Home", {"label": "Shop"}]}}, "Home > Shop", None),
    ("SLIDER", {"slider": {"value": 70}}, "70", 70),
    ("SOMETHING", {"something": {"value": 70}}, "70", 70),
    ("SOMETHING", {"something": {"left": "a", "right": "b"}}, "left: a; right: b", None),
    ("UNRECOGNIZED", {"nps": {"score": 3}}, "3", 3),
    ("UNRECOGNIZED", {"haptic": {"label": "buzz", "value": 1}, "blank": None}, "buzz", None),
    ("MATRIX", {"matrix": "all good"}, "all good", None),
    ("MULTIPLE_CHOICE", {"multipleChoice": [[[[[[[[[["deep"]]]]]]]]]]}, '["deep"]', None),
    ("RATING_SCALE", {"ratingScale": {"value": [3], "label": {}}}, "3", 3),
    ("RATING_SCALE", {"ratingScale": {"value": [3, 4]}}, "3; 4", None),
    ("", {"written": {"text": "untyped"}, "blank": None}, "untyped", None),
    ("WRITTEN", {}, None, None),
    ("WRITTEN", None, None, None),
]


@pytest.mark.parametrize(("kind", "answer", "text", "number"), SHAPES)
def test_an_answer_is_told_in_words_whatever_its_shape(
    kind: str, answer: Any, text: str | None, number: float | None
):
    assert said(kind, answer) == (text, number)


def test_every_published_kind_is_tried():
    assert set(PUBLISHED) <= {name for _, answer, _, _ in SHAPES for name in answer or {}}


NAMES = st.sampled_from(
    [
        *("label", "text", "value", "selected", "selectedOptions", "options", "rows", "row"),
        *("column", "rank", "path", "success", "id", "url", "ranking", "answers"),
    ]
)
ANSWERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.sampled_from([*(kind for kind, *_ in SHAPES), None]), st.data())
def test_no_shape_of_an_answer_is_too_odd_to_be_told(kind: str | None, data: st.DataObject):
    name = data.draw(st.sampled_from([*PUBLISHED, "verbal", "cardSort", "treeTest", "other"]))
    answer = {name: data.draw(ANSWERS)}
    found = said(kind, answer)
    assert found.text is None or (found.text and "\0" not in found.text)
    found.text is not None and found.text.encode()
