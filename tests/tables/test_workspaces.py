"""The tables of what an account has: workspaces and their tests."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.tables.cursor_pages import object_id_of, uuid_and_cursor
from etl.tables.tests import WORKSPACE_TESTS
from tests.tables.served import BODIES, TEST, WORKSPACE, body, dicts, encoded, made_by


def test_a_workspace_is_a_row():
    assert dicts(made_by("workspaces", BODIES["workspaces"]))[0] == {
        "workspace_id": WORKSPACE,
        "id": "411",
        "name": "Research",
    }


def test_a_test_is_a_row_with_its_workspace():
    first, second = dicts(made_by("tests", BODIES["workspace_tests"]))
    assert first == {
        "test_id": TEST,
        "workspace_id": WORKSPACE,
        "title": "Checkout",
        "type": "STUDYV2",
        "product_type": "SURVEY",
        "ordered_at": datetime(2024, 12, 31, 23, 59, 59, tzinfo=UTC),
        "ordered_by_name": "Ann",
        "ordered_by_email": "ann@example.com",
    }
    assert second["ordered_at"] is None and second["ordered_by_name"] is None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("orderedAt", "yesterday", "orderedAt is not an ISO 8601 timestamp"),
        ("orderedAt", 5, "orderedAt is a number, not a string"),
        ("orderedBy", "Ann", "orderedBy is a string, not an object"),
        ("uuid", "", "uuid is missing"),
    ],
)
def test_a_bad_value_costs_that_test(field: str, value: object, reason: str):
    served = body("workspace_tests")
    served[0][field] = value
    rows = made_by("tests", served)
    assert [reject.reason for reject in rows.rejects] == [reason] and len(rows.keys) == 1


@pytest.mark.parametrize(
    ("page", "cursor"),
    [
        (BODIES["workspace_tests"], "Mg"),
        ([], None),
        ([{"cursor": "MQ"}, "odd"], None),
        ([{"cursor": 5}], None),
        ([{"cursor": ""}], None),
    ],
)
def test_a_page_says_how_to_go_on_behind_it(page: object, cursor: str | None):
    assert WORKSPACE_TESTS.decode(encoded(page)).cursor == cursor


@given(st.uuids().map(str), st.none() | st.text(min_size=1))
def test_a_page_is_named_by_its_workspace_and_cursor(uuid: str, cursor: str | None):
    assert uuid_and_cursor(object_id_of(uuid, cursor)) == (uuid, cursor)
