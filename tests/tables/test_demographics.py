"""The table of demographic answers."""

from tests.tables.served import DETAILS, body, dicts, made_by


def test_each_answer_is_a_row_with_its_place_and_participant():
    first, second = dicts(made_by("demographics", DETAILS))
    assert first == {
        "participant_id": "participant-1",
        "position": 0,
        "question_id": "question-1",
        "code": "INTERESTS",
        "label": "Was interessiert Sie?",
        "value": "Kochen, Lesen",
        "type": "DEMOGRAPHIC_QUESTION_TYPE_MULTIPLE",
    }
    assert second == dict.fromkeys(first) | {"participant_id": "participant-1", "position": 1}


def test_the_same_question_twice_is_two_rows():
    value = body("session_details")
    value["sessionParticipant"]["demographicsInfo"] *= 2
    assert len(set(made_by("demographics", value).keys)) == 4


def test_a_bad_participant_leaves_the_answers_without_one():
    value = body("session_details")
    value["sessionParticipant"]["participantId"] = 17
    rows = dicts(made_by("demographics", value))
    assert [row["participant_id"] for row in rows] == [None, None]


def test_a_new_field_is_named_by_where_it_stands():
    value = body("session_details")
    value["sessionParticipant"]["demographicsInfo"][1]["rank"] = 3
    rows = made_by("demographics", value)
    assert rows.unknown_fields == {"sessionParticipant.demographicsInfo.rank"}
    assert rows.extra == [None, '{"rank":3}']
