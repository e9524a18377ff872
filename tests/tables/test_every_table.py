"""What every table promises, whatever an answer holds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.client.values import Fetched, UnreadableBodyError
from etl.tables.registry import endpoints, tables
from etl.tables.values import RUN_COLUMNS, AnyTable, Rows, field_name
from tests.tables.served import BODIES, FED, Fed, answer, body, encoded, proved, read

VTT = b"WEBVTT\n\n1\n00:01.000 --> 00:02.000\n<v Ann>Hello\n\n00:02.000 --> 00:03.500\nGo on"

ODD_TEXTS = st.sampled_from(
    ["", "\0", "\ud800", "\udfff\ud800", "\u202egnp.exe", "\x1b[2J", "x" * 2000]
)
TEXTS = st.text() | ODD_TEXTS
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([2**63, -(2**63) - 1, 10**400, 1e308, 0.5, float("inf"), float("nan")])
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def ids(fed: object) -> str:
    return fed.endpoint if isinstance(fed, Fed) else str(fed)


def example(endpoint: str) -> bytes:
    return VTT if endpoint == "transcript" else encoded(BODIES[endpoint])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Walk through the places of a body, its own first."""
    yield path
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[name], (*path, name))


def held(value: Any, path: tuple[Any, ...]) -> Any:
    """Return what stands in a place of a body."""
    for name in path:
        value = value[name]
    return value


def changed(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """Return a body with something else in one place."""
    if not path:
        return change
    held(value, path[:-1])[path[-1]] = change
    return value


def read_all(fed: Fed, raw: bytes) -> list[Rows] | None:
    """Return what the tables make of a body, None if it is not the endpoint's."""
    try:
        fed.tables[0].endpoint.decode(raw)
    except UnreadableBodyError:
        return None
    return [proved(table, read(table, raw)) for table in fed.tables]


@pytest.mark.parametrize("table", tables().values(), ids=lambda table: table.name)
def test_a_table_says_what_each_of_its_columns_means(table: AnyTable):
    names = [column.name for column in (*table.columns, *RUN_COLUMNS)]
    assert len(names) == len(set(names))
    assert set(table.key) <= set(names)
    for column in table.columns:
        assert column.meaning[0].isupper() and column.meaning.endswith(".")


def test_an_endpoint_has_one_name_and_one_path():
    receipts = {table.files.receipt.name for table in tables().values() if table.files is not None}
    paths = [endpoint.path for name, endpoint in endpoints().items() if name not in receipts]
    assert len(paths) == len(set(paths))
    assert all(name == endpoint.name for name, endpoint in endpoints().items())


@pytest.mark.parametrize("fed", FED, ids=ids)
def test_a_published_answer_makes_rows_and_neither_rejects_nor_extras(fed: Fed):
    found = read_all(fed, example(fed.endpoint))
    assert found is not None
    for rows in found:
        assert rows.keys and not rows.rejects and rows.extra is None and not rows.unknown_fields


@pytest.mark.parametrize("fed", FED, ids=ids)
def test_the_same_answer_makes_the_same_rows_whatever_the_order_of_its_fields(fed: Fed):
    if fed.endpoint == "transcript":
        return
    turned = json.dumps(BODIES[fed.endpoint], sort_keys=True).encode()
    for table in fed.tables:
        one, other = read(table, example(fed.endpoint)), read(table, turned)
        assert (one.keys, one.hashes) == (other.keys, other.hashes)


@pytest.mark.parametrize("fed", FED, ids=ids)
@settings(max_examples=40)
@given(st.data())
def test_any_value_in_any_place_ends_as_a_row_or_a_reject(fed: Fed, data: st.DataObject):
    if fed.endpoint == "transcript":
        return
    path = data.draw(st.sampled_from(list(places(BODIES[fed.endpoint]))))
    value = changed(body(fed.endpoint), path, data.draw(ANY_JSON))
    read_all(fed, encoded(value))


def told(rows: Rows) -> Sequence[object]:
    """Return all that rows say, wherever they lie."""
    about = (rows.keys, rows.hashes, rows.rejects, rows.unknown_fields, rows.keeps_body)
    extra = rows.own_extra if any(rows.own_extra or ()) else None
    return (*about, rows.order, extra, rows.columns)


@pytest.mark.parametrize(
    "table", [table for table in tables().values() if table.rows_of_each], ids=lambda one: one.name
)
@settings(max_examples=60)
@given(st.data())
def test_answers_read_together_make_the_rows_that_each_makes_alone(
    table: AnyTable, data: st.DataObject
):
    assert table.rows_of_each is not None
    endpoint = table.endpoint.name
    fetched = []
    for place in range(data.draw(st.integers(0, 4))):
        value = body(endpoint)
        for path in data.draw(st.lists(st.sampled_from(list(places(value))), max_size=1)):
            value = changed(value, path, data.draw(ANY_JSON))
        try:
            content = table.endpoint.decode(encoded(value))
        except UnreadableBodyError:
            continue
        fetched.append(Fetched(replace(answer(endpoint, b""), fetched_at_us=place), content))
    together = table.rows_of_each(fetched)
    alone = [table.rows_of(one.answer, one.content) for one in fetched]
    assert list(map(told, together)) == list(map(told, alone))


LISTS: dict[str, tuple[Any, ...]] = {
    "sessions": ("sessions",),
    "demographics": ("sessionParticipant", "demographicsInfo"),
    "task_groups": ("taskGroups",),
    "tasks": ("tasks",),
    "clips": ("clips",),
    "highlight_reels": ("reels",),
    "qx_scores": ("qxScores",),
    "workspaces": (),
    "tests": (),
    "study_tasks": ("tasks",),
    "completed_sessions": ("sessions",),
    "completed_session_answers": ("sessions", 0, "answers"),
    "screener_responses": ("sessions", 0, "screenerResponses"),
}


@pytest.mark.parametrize("name", LISTS)
@settings(max_examples=40)
@given(st.data())
def test_each_thing_served_is_a_row_or_a_reject_and_costs_no_other(name: str, data: st.DataObject):
    table = tables()[name]
    value = body(table.endpoint.name)
    before = read(table, value)
    served = held(value, LISTS[name])
    whole = ANY_JSON | st.dictionaries(st.sampled_from(sorted(served[0])), ANY_JSON)
    more = data.draw(st.lists(whole, min_size=1, max_size=3))
    served += more
    after = proved(table, read(table, value))
    assert len(after.keys) + len(after.rejects) == len(before.keys) + len(more)
    assert (
        list(after.keys)[: len(served) - len(more)] == list(before.keys)[: len(served) - len(more)]
    )
    assert set(before.hashes) <= set(after.hashes)


@pytest.mark.parametrize("fed", FED, ids=ids)
@settings(max_examples=40)
@given(st.binary() | st.builds(encoded, ANY_JSON))
def test_any_body_is_read_or_called_unreadable(fed: Fed, raw: bytes):
    read_all(fed, raw)


@pytest.mark.parametrize("fed", FED, ids=ids)
@pytest.mark.parametrize("depth", [150, 250, 990, 991, 992, 100_000])
def test_a_body_nested_without_end_is_read_or_called_unreadable(fed: Fed, depth: int):
    nested = b"[" * depth + b"]" * depth
    read_all(fed, nested)
    if isinstance(BODIES.get(fed.endpoint), dict):
        read_all(fed, example(fed.endpoint)[:-1] + b', "newField": ' + nested + b"}")


@pytest.mark.parametrize("fed", FED, ids=ids)
@pytest.mark.parametrize(
    "raw", [b"", b"null", b"{}", b"42", b'{"error": "no"}', b"<html>", b"\xff\xfe"]
)
def test_a_body_of_another_shape_is_called_unreadable(fed: Fed, raw: bytes):
    assert read_all(fed, raw) is None


def objects(value: Any) -> Iterator[tuple[Any, ...]]:
    return (path for path in places(value) if isinstance(held(value, path), dict))


@pytest.mark.parametrize(
    "fed", [fed for fed in FED if fed.endpoint not in ("transcript", "video")], ids=ids
)
def test_a_field_that_nobody_knows_is_kept_wherever_it_appears(fed: Fed):
    for path in objects(BODIES[fed.endpoint]):
        if path[:1] == ("meta",) and fed.endpoint == "session_results":
            continue  # the echo of the paging, which is no data
        value = body(fed.endpoint)
        held(value, path)["newField"] = {"deep": ["0815"]}
        found = read_all(fed, encoded(value))
        assert found is not None
        assert not any(rows.rejects for rows in found)
        kept = any(rows.keeps_body for rows in found) or any(
            "0815" in text
            for rows in found
            for texts in (
                rows.extra or (),
                *(column.to_pylist() for column in rows.columns.values()),
            )
            for text in texts
            if isinstance(text, str)
        )
        assert kept, path


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("tasks.response.answer.treeTest", "tasks.response.answer.treeTest"),
        ("people.jane@example", "people.(no name)"),
        ("\x1b[2J", "(no name)"),
    ],
)
def test_the_path_of_an_unknown_field_is_told_without_what_may_be_data(path: str, told: str):
    assert field_name(path) == told
