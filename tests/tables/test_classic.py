"""The tables of classic tests: their definition, and their sessions."""

from datetime import UTC, datetime

from tests.tables.served import BODIES, SESSION, body, dicts, made_by, rejected


def test_a_study_is_a_row_with_its_scores():
    assert dicts(made_by("studies", BODIES["study"])) == [
        {
            "title": "Old checkout",
            "session_count": 3,
            "short_test": True,
            "ordered_by_name": "Ann",
            "ordered_by_email": "ann@example.com",
            "net_promoter_scores": '[{"promoterPercentage":40,"score":12}]',
        }
    ]


def test_a_study_without_tasks_has_no_tasks():
    rows = made_by("study_tasks", {"title": "Empty"})
    assert not rows.keys and not rows.rejects


def test_a_task_of_a_study_is_a_row():
    first, second = dicts(made_by("study_tasks", BODIES["study"]))
    assert first == {
        "task_index": 0,
        "position": 1,
        "task_type": "multiple_choice",
        "text": "Where do you live?",
        "grouping": "INITIAL",
        "task_group_id": "main",
        "task_group_type": "MAIN",
        "choices": '["Oslo","Lima"]',
        "multiple_answers": False,
        "scale_minimum": None,
        "scale_maximum": 5,
        "lower_endpoint": "hard",
        "upper_endpoint": "easy",
        "launch_url": "https://shop.example",
        "result_type": "",
        "blur_pii": True,
    }
    assert second["task_index"] == 1 and second["text"] == "Buy a lamp."


def test_a_session_is_a_row_with_its_participant():
    first, second = dicts(made_by("completed_sessions", BODIES["completed_sessions"]))
    assert first == {
        "session_id": SESSION,
        "session_number": 90210,
        "completed_at": datetime(2023, 11, 30, 11, 24, 58, tzinfo=UTC),
        "state": "completed",
        "task_ordering_condition": "default",
        "form_factor_used": "Mobile",
        "participant_name": "lamp@example.com",
        "age": 41,
        "gender": "Female",
        "country": "Norway",
        "income": "a lot",
        "children": '["No children"]',
        "social_networks": '["One","Two"]',
        "web_expertise": "Advanced",
        "employment_status": "Employed",
        "industry": "Lighting",
        "job_function": "Sales",
        "seniority": "Senior",
        "company_size": "2-10",
    }
    assert second == dict.fromkeys(first) | {"session_id": "session-2", "session_number": 90211}


def test_answers_and_screeners_are_rows_of_their_session():
    answers = dicts(made_by("completed_session_answers", BODIES["completed_sessions"]))
    assert [(row["session_id"], row["position"]) for row in answers] == [
        (SESSION, 0),
        (SESSION, 1),
        ("session-2", 0),
    ]
    assert answers[0]["transcript"] == "I live in Oslo." and answers[0]["responses"] == '["Oslo"]'
    assert answers[1]["transcript"] == '{"words":["a","lamp"]}'
    first, second = dicts(made_by("screener_responses", BODIES["completed_sessions"]))
    assert first == {
        "session_id": SESSION,
        "position": 0,
        "question": "Do you own a lamp?",
        "response": '["Yes"]',
    }
    assert second["session_id"] == "session-2" and second["response"] == "[]"


def test_a_session_without_an_id_is_rejected_with_its_answers():
    value = body("completed_sessions")
    value["sessions"][0]["sessionUuid"] = None
    sessions = made_by("completed_sessions", value)
    assert [row["session_id"] for row in dicts(sessions)] == ["session-2"]
    (reject,) = sessions.rejects
    assert reject.reason == "sessionUuid is missing" and "answers" not in rejected(reject)
    (reject,) = made_by("completed_session_answers", value).rejects
    assert rejected(reject) == value["sessions"][0]["answers"]


def test_a_bad_answer_costs_that_answer_only():
    value = body("completed_sessions")
    value["sessions"][0]["answers"][0]["time"] = "later"
    rows = made_by("completed_session_answers", value)
    assert [(reject.reason, reject.session_id) for reject in rows.rejects] == [
        ("time is a string, not a number", SESSION)
    ]
    assert [row["position"] for row in dicts(rows)] == [1, 0]
    assert len(made_by("completed_sessions", value).keys) == 2


def test_a_transcript_that_cannot_be_stored_costs_its_answer():
    value = body("completed_sessions")
    value["sessions"][0]["answers"][0]["transcript"] = "a\0b"
    (reject,) = made_by("completed_session_answers", value).rejects
    assert reject.reason == "transcript holds characters that cannot be stored"


def test_an_endless_number_costs_its_session_only():
    value = body("completed_sessions")
    value["sessions"][0]["participant"]["demographics"]["age"] = float("inf")
    rows = made_by("completed_sessions", value)
    assert [reject.reason for reject in rows.rejects] == ["a number is not finite"]
    assert len(rows.keys) == 1
    assert len(made_by("completed_session_answers", value).keys) == 3
