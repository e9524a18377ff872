"""The sandbox answers as the API is published to, and goes wrong as it is told."""

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import anyio
import msgspec
import pytest

from etl.sandbox.faults import Fault, FaultKind, fault_from
from etl.sandbox.limits import RateLimiter
from etl.sandbox.pages import Spelling
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox, serve
from tests.calling import FREE, OTHER, TEST, Caller, called


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """Return a client of a sandbox with 60 sessions a test."""
    async with called() as found:
        yield found


# The listing, as published.


async def test_a_page_has_the_published_keys_in_their_order_and_types(caller):
    answer = await caller.get()
    page = answer.json()
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert list(page) == ["testId", "sessions", "meta"]
    assert page["testId"] == TEST
    assert page["meta"] == {"pagination": {"limit": 25, "offset": 0, "totalCount": 60}}
    for row in page["sessions"]:
        assert list(row) == ["sessionId", "audienceId", "status", "startTime", "finishTime"]
        assert str(UUID(row["sessionId"])) == row["sessionId"]
        assert row["audienceId"] is None or UUID(row["audienceId"]).version == 4
        assert row["status"] in {"COMPLETE", "COMPLETE_WITH_ISSUES"}
        for time in (row["startTime"], row["finishTime"]):
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
            assert datetime.fromisoformat(time).tzinfo is UTC
        assert row["startTime"] < row["finishTime"]


async def test_rows_come_newest_first_and_none_twice(caller):
    rows = (await caller.page(limit=500))["sessions"]
    finished = [row["finishTime"] for row in rows]
    assert finished == sorted(finished, reverse=True)
    assert len({row["sessionId"] for row in rows}) == 60


async def test_both_spellings_ask_for_the_same_rows(caller):
    by_offset = await caller.page(limit=20, offset=40)
    assert by_offset == await caller.page(rowsPerPage=20, pageNumber=3)
    assert by_offset["meta"]["pagination"] == {"limit": 20, "offset": 40, "totalCount": 60}
    assert await caller.ids(limit=500) == [
        row for page in (1, 2, 3) for row in await caller.ids(rowsPerPage=20, pageNumber=page)
    ]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ({}, (0, 25)),
        ({"offset": 50}, (50, 60)),
        ({"limit": 500}, (0, 60)),
        ({"limit": 1, "offset": 59}, (59, 60)),
        ({"offset": 60}, (60, 60)),
        ({"offset": 10_000}, (60, 60)),
        ({"rowsPerPage": 30}, (0, 30)),
        ({"pageNumber": 2}, (0, 25)),
        ({"unknown": 2}, (0, 25)),
    ],
)
async def test_a_page_is_a_window_with_defaults(query, rows, caller):
    assert await caller.ids(**query) == caller.sandbox.session_ids(TEST)[slice(*rows)]


@pytest.mark.parametrize("first_page", [0, 1])
async def test_the_first_page_may_be_0_or_1(first_page):
    options = SandboxOptions(
        rate_requests=None, sessions=60, spelling=Spelling(first_page=first_page)
    )
    async with called(options) as caller:
        echo = (await caller.page(rowsPerPage=50, pageNumber=1))["meta"]["pagination"]
        assert echo["offset"] == 50 * (1 - first_page)
        status = (await caller.get(rowsPerPage=50, pageNumber=0)).status
        assert status == (200 if first_page == 0 else 400)


@pytest.mark.parametrize("known", ["page", "offset"])
@pytest.mark.parametrize("strict", [False, True])
async def test_a_server_may_know_one_spelling_alone(known, strict):
    spelling = Spelling(understands=frozenset({known}), strict=strict)
    async with called(SandboxOptions(rate_requests=None, sessions=60, spelling=spelling)) as caller:
        asks: dict[str, dict[str, Any]] = {"page": {"rowsPerPage": 50}, "offset": {"limit": 50}}
        assert len(await caller.ids(**asks.pop(known))) == 50
        (foreign,) = asks.values()
        answer = await caller.get(**foreign)
        assert answer.status == (400 if strict else 200)
        if not strict:
            assert answer.json()["meta"]["pagination"]["limit"] == 25


async def test_a_server_may_cap_its_pages():
    options = SandboxOptions(rate_requests=None, sessions=60, spelling=Spelling(page_cap=10))
    async with called(options) as caller:
        assert (await caller.page(limit=50))["meta"]["pagination"]["limit"] == 10
        assert (
            await caller.ids(rowsPerPage=50, pageNumber=2)
            == caller.sandbox.session_ids(TEST)[10:20]
        )


@pytest.mark.parametrize(
    "query",
    [
        {"offset": 10_001},
        {"offset": -1},
        {"offset": "x"},
        {"offset": ""},
        {"limit": 0},
        {"limit": 501},
        {"limit": "9" * 30},
        {"limit": "1.5"},
        {"rowsPerPage": 500, "pageNumber": 22},
        {"rowsPerPage": 501},
        {"rowsPerPage": 0},
        {"rowsPerPage": 1, "pageNumber": 0},
    ],
)
async def test_what_is_out_of_bounds_is_a_bad_request(query, caller):
    answer = await caller.get(**query)
    assert answer.status == 400
    assert answer.json()["error"] == "Bad Request"


@pytest.mark.parametrize("test_id", ["", "x", "../../x", TEST[:-1]])
async def test_a_test_id_that_is_none_is_a_bad_request(test_id, caller):
    assert (await caller.get(test_id)).status == 400


async def test_a_test_id_is_the_same_in_capitals(caller):
    assert await caller.page(TEST.upper()) == await caller.page(TEST)


async def test_a_slash_at_the_end_changes_nothing(caller):
    answer = await caller.get(path="/api/v2/sessionResults/")
    assert answer.json() == await caller.page()


async def test_what_the_api_has_not_is_not_found(caller):
    assert (await caller.get(path="/api/v2/nothing")).status == 404


async def test_every_test_is_served_and_some_are_listed(caller):
    assert len(set(caller.sandbox.test_ids)) == 12
    for test in (OTHER, *caller.sandbox.test_ids[:2]):
        assert (await caller.page(test))["testId"] == test


async def test_the_same_seed_serves_the_same_rows_and_another_seed_others():
    async def rows(seed: int) -> tuple[Any, tuple[str, ...]]:
        async with called(SandboxOptions(seed=seed, rate_requests=None)) as caller:
            return await caller.page(limit=500), caller.sandbox.test_ids

    first = await rows(7)
    assert first == await rows(7)
    assert first != await rows(8)


# Tokens.


async def test_a_token_is_granted_as_okta_does(caller):
    status, answer = await caller.grant()
    assert status == 200
    assert set(answer) == {"token_type", "expires_in", "access_token", "scope"}
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert answer["scope"] == "studies:read"
    assert answer["access_token"].count(".") == 2 and answer["access_token"] != caller.token
    assert caller.sandbox.grants == 2


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"client_id": "x"}, 401, "invalid_client"),
        ({"client_secret": "x"}, 401, "invalid_client"),
        ({"scope": "all"}, 400, "invalid_scope"),
        ({"scope": ""}, 400, "invalid_scope"),
    ],
)
async def test_a_token_is_refused_in_oktas_words(form, status, error, caller):
    found, answer = await caller.grant(**form)
    assert (found, answer["error"]) == (status, error)
    assert set(answer) == {"error", "error_description"}
    assert caller.sandbox.grants == 1


@pytest.mark.parametrize("token", ["", "x", "a.b.sandbox1"])
async def test_without_a_good_token_nothing_is_answered(token):
    async with called(granted=False) as caller:
        caller.token = token
        assert (await caller.get()).status == 401


async def test_a_token_expires():
    async with called(SandboxOptions(rate_requests=None, token_ttl_seconds=0)) as caller:
        assert (await caller.get()).status == 401


async def test_tokens_and_credentials_can_be_revoked(caller):
    caller.sandbox.revoke_tokens()
    assert (await caller.get()).status == 401
    _, answer = await caller.grant()
    caller.token = answer["access_token"]
    assert (await caller.get()).status == 200
    caller.sandbox.revoke_credentials()
    assert (await caller.get()).status == 401
    assert (await caller.grant())[1]["error"] == "invalid_client"


async def test_the_log_tells_tokens_apart_without_showing_them(caller):
    await caller.get()
    (logged,) = caller.sandbox.requests
    assert (logged.token, logged.status, logged.test_id) == ("sandbox1", 200, TEST)
    assert caller.token not in repr(logged)


# The limit.


async def test_the_eleventh_request_of_a_minute_is_refused():
    async with called(SandboxOptions(sessions=1)) as caller:
        answers = [await caller.get() for _ in range(12)]
        assert [answer.status for answer in answers] == [200] * 10 + [429] * 2
        remaining = [answer.headers["x-ratelimit-remaining"] for answer in answers]
        assert remaining == ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0", "0", "0"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"10"}
        assert all(1 <= int(answer.headers["x-ratelimit-reset"]) <= 60 for answer in answers)
        assert (caller.sandbox.count(200), caller.sandbox.count(429)) == (10, 2)


def test_the_limit_slides_with_each_arrival():
    limiter = RateLimiter(requests=2, seconds=60)
    arrivals = {0.0: True, 50.0: True, 59.9: False, 60.0: True, 61.0: False, 110.0: True}
    assert {now: limiter.arrive(now) for now in arrivals} == arrivals
    assert limiter.headers(111.0)["x-ratelimit-reset"] == "9"


def test_a_neighbour_takes_its_part_of_every_window():
    limiter = RateLimiter(requests=10, seconds=60, neighbour=4)
    assert [limiter.arrive(0.0) for _ in range(7)] == [True] * 6 + [False]
    assert [limiter.arrive(60.0) for _ in range(7)] == [True] * 6 + [False]


async def test_a_neighbour_is_seen_in_the_headers():
    async with called(SandboxOptions(sessions=1)) as caller:
        caller.sandbox.neighbour(7)
        assert (await caller.get()).headers["x-ratelimit-remaining"] == "2"
        assert [(await caller.get()).status for _ in range(3)] == [200, 200, 429]


async def test_without_a_limit_headers_are_sent_all_the_same(caller):
    for _ in range(15):
        answer = await caller.get()
        assert answer.status == 200 and int(answer.headers["x-ratelimit-remaining"]) > 1_000


# Changes while it runs.


async def test_sessions_come_go_and_change(caller):
    before = caller.sandbox.session_ids(TEST)
    caller.sandbox.complete(TEST, 2)
    caller.sandbox.finish_late(TEST, 10)
    caller.sandbox.remove(TEST, 3, 5)
    caller.sandbox.swap(TEST, 0, 1)
    caller.sandbox.edit(TEST, 4, status="ODD")
    page = await caller.page(limit=500)
    served = [row["sessionId"] for row in page["sessions"]]
    assert served == caller.sandbox.session_ids(TEST)
    assert page["meta"]["pagination"]["totalCount"] == 61
    assert page["sessions"][4]["status"] == "ODD"
    assert set(before) - set(served) == {before[1], before[3]}
    assert len(set(served) - set(before)) == 3
    assert caller.sandbox.rows(TEST) == page["sessions"]
    assert (await caller.page(OTHER))["meta"]["pagination"]["totalCount"] == 60


async def test_a_listing_can_change_between_two_pages(caller):
    before = caller.sandbox.session_ids(TEST)
    caller.sandbox.before_page(2, lambda sandbox, test: sandbox.complete(test), TEST)
    await caller.page(OTHER)
    first, second = [await caller.ids(limit=30, offset=offset) for offset in (0, 30)]
    assert first == before[:30]
    assert second == before[29:59], "the new row at the head has pushed the others on"
    assert len(await caller.ids(limit=30, offset=30)) == 30
    assert len(caller.sandbox.session_ids(TEST)) == 61


async def test_many_tests_are_served_and_changes_are_never_forgotten(caller):
    caller.sandbox.complete(TEST)
    for number in range(80):
        caller.sandbox.listing(f"{number:08x}-0000-4000-8000-000000000000")
    assert len(caller.sandbox.session_ids(TEST)) == 61


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("complete", {"test_id": TEST, "n": 2}),
    ("finish_late", {"test_id": TEST, "position": 1}),
    ("remove", {"test_id": TEST, "positions": [0, 1]}),
    ("edit", {"test_id": TEST, "position": 0, "fields": {"status": "ODD"}}),
    ("swap", {"test_id": TEST, "one": 0, "other": 1}),
    ("set_sessions", {"test_id": TEST, "count": 3}),
    ("revoke_tokens", {}),
    ("revoke_credentials", {}),
    ("forbid", {"test_id": TEST, "status": 404}),
    ("neighbour", {"requests": 3}),
    ("fault", {"kind": "total", "test_id": TEST, "value": 7}),
]


@pytest.mark.parametrize(("name", "body"), CALLS, ids=[name for name, _ in CALLS])
async def test_every_control_call_changes_what_is_answered(name, body):
    async with called(SandboxOptions(sessions=60)) as caller:
        before = await caller.get(limit=500)
        assert await caller.tell(name, body) == 200
        after = await caller.get(limit=500)
        if name == "neighbour":
            assert after.headers["x-ratelimit-remaining"] == "5"
        else:
            assert (before.body, before.status) != (after.body, after.status)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("nothing", {}),
        ("rows", {"test_id": TEST}),
        ("__init__", {}),
        ("complete", {}),
        ("complete", {"test_id": TEST, "m": 1}),
        ("remove", {"test_id": TEST, "positions": [99]}),
        ("swap", {"test_id": TEST, "one": 0, "other": 99}),
        ("fault", {"kind": "nothing"}),
        ("fault", {"kind": "hang", "on": "nothing"}),
        ("fault", {"kind": "hang", "nht": 1}),
        ("fault", {}),
        ("fault", []),
        ("complete", []),
        ("complete", "x"),
    ],
)
async def test_a_control_call_that_cannot_be_is_refused_and_changes_nothing(name, body, caller):
    before = await caller.page(limit=500)
    assert await caller.tell(name, body) == 400
    assert await caller.page(limit=500) == before


async def test_its_state_can_be_asked(caller):
    await caller.page()
    url = f"{caller.sandbox.url}/_sandbox/state"
    async with caller.session.get(url, params={"testId": TEST}) as answer:
        state = await answer.json()
    assert (state["grants"], state["statuses"], state["requests"]) == (1, {"200": 1}, 1)
    assert state["session_ids"] == caller.sandbox.session_ids(TEST)
    assert state["test_ids"] == list(caller.sandbox.test_ids)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_test_can_be_refused(status, caller):
    caller.sandbox.forbid(TEST, status)
    assert (await caller.get()).status == status
    assert (await caller.get(OTHER)).status == 200


# Everything that can go wrong.


async def page_after(caller: Caller, **fault: Any) -> dict[str, Any]:
    """Return the page that a fault makes of the second 20 rows."""
    caller.sandbox.add_fault(fault_from(fault))
    return await caller.page(limit=20, offset=20)


async def expect_page(caller: Caller, kind: FaultKind) -> None:
    """Prove a fault that falsifies a page."""
    plain = await caller.page(limit=20, offset=20)
    rows, echo = plain["sessions"], plain["meta"]["pagination"]
    expected: dict[FaultKind, tuple[Any, dict[str, Any]]] = {
        FaultKind.OTHER_TEST: (None, {"testId": "00000000-0000-4000-8000-00000000dead"}),
        FaultKind.OLD_PAGE: (None, await caller.page(limit=20)),
        FaultKind.TOTAL: (5, {"meta": {"pagination": {**echo, "totalCount": 5}}}),
        FaultKind.ECHO: ({"limit": 7}, {"meta": {"pagination": {**echo, "limit": 7}}}),
        FaultKind.REPEAT_ROW: (None, {"sessions": [*rows[:2], *rows[1:]]}),
        FaultKind.DROP_ROW: (None, {"sessions": [*rows[:1], *rows[2:]]}),
        FaultKind.RAW_ROW: ("[1]", {"sessions": [rows[0], [1], *rows[2:]]}),
        FaultKind.ROW_FIELDS: (
            {"status": 3},
            {"sessions": [rows[0], {**rows[1], "status": 3}, *rows[2:]]},
        ),
        FaultKind.TOP_FIELD: ("extra", {"extra": {"a": 1}}),
    }
    value, changed = expected[kind]
    assert await page_after(caller, kind=kind.value, value=value) == {**plain, **changed}
    assert await caller.page(limit=20, offset=20) == plain, "it strikes once"


# aiohttp asks again by itself when a connection is lost before an answer has begun.
HIDDEN_ONCE = frozenset({FaultKind.CUT_HEADERS, FaultKind.RESET})


async def expect_failure(caller: Caller, kind: FaultKind) -> None:
    """Prove a fault that leaves no whole answer."""
    caller.sandbox.add_fault(Fault(kind, times=2 if kind in HIDDEN_ONCE else 1))
    if kind in {FaultKind.HANG, FaultKind.SLOW_BODY}:
        with anyio.move_on_after(0.3) as scope:
            await caller.get()
        assert scope.cancelled_caught
    else:
        with pytest.raises(aiohttp.ClientError):
            await caller.get()
    assert (await caller.get()).status == 200, "it strikes once"


async def expect_answer(caller: Caller, kind: FaultKind) -> None:
    """Prove a fault that answers with something else."""
    value: Any = {
        FaultKind.STATUS: 503,
        FaultKind.BODY: "<html>",
        FaultKind.REDIRECT: "slash",
        FaultKind.HEADERS: {"x-ratelimit-limit": "ten"},
    }.get(kind)
    caller.sandbox.add_fault(Fault(kind, value=value, headers={"Retry-After": "7"}))
    answer = await caller.get()
    if kind is FaultKind.STATUS:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
    elif kind is FaultKind.BODY:
        assert (answer.status, answer.body) == (200, b"<html>")
    elif kind is FaultKind.REDIRECT:
        assert answer.status == 307
        assert answer.headers["Location"] == f"/api/v2/sessionResults/?testId={TEST}"
    elif kind is FaultKind.HEADERS:
        assert (answer.status, answer.headers["x-ratelimit-limit"]) == (200, "ten")
    else:
        with pytest.raises(msgspec.DecodeError):
            answer.json()
    assert (await caller.get()).status == 200, "it strikes once"


async def expect_bomb(caller: Caller, kind: FaultKind) -> None:
    """Prove that little is sent which becomes much."""
    caller.sandbox.add_fault(Fault(kind))
    headers = {"Authorization": f"Bearer {caller.token}"}
    url = f"{caller.sandbox.url}/api/v2/sessionResults?testId={TEST}"
    read = 0
    async with caller.session.get(url, headers=headers) as answer:
        assert int(answer.headers["Content-Length"]) < 4_000_000
        while read < 8_000_000:
            read += len(await answer.content.read(1_000_000))
    assert read >= 8_000_000


async def expect_token(caller: Caller, kind: FaultKind) -> None:
    """Prove a fault of the token endpoint."""
    changes = {"token_type": "mac", "expires_in": "absent"}
    caller.sandbox.add_fault(Fault(kind, on="token", value=changes))
    status, answer = await caller.grant()
    if kind is FaultKind.TOKEN:
        assert (status, answer["token_type"]) == (200, "mac") and "expires_in" not in answer
    else:
        assert status == 401 and caller.sandbox.client_secret in answer["error_description"]
    assert (await caller.grant())[0] == 200, "it strikes once"


PROOFS: dict[FaultKind, Callable[[Caller, FaultKind], Any]] = {
    FaultKind.STATUS: expect_answer,
    FaultKind.HANG: expect_failure,
    FaultKind.SLOW_BODY: expect_failure,
    FaultKind.CUT_HEADERS: expect_failure,
    FaultKind.CUT_BODY: expect_failure,
    FaultKind.RESET: expect_failure,
    FaultKind.TRUNCATED_JSON: expect_answer,
    FaultKind.CORRUPT_GZIP: expect_failure,
    FaultKind.BOMB: expect_bomb,
    FaultKind.BODY: expect_answer,
    FaultKind.OTHER_TEST: expect_page,
    FaultKind.OLD_PAGE: expect_page,
    FaultKind.TOTAL: expect_page,
    FaultKind.ECHO: expect_page,
    FaultKind.REPEAT_ROW: expect_page,
    FaultKind.DROP_ROW: expect_page,
    FaultKind.HEADERS: expect_answer,
    FaultKind.REDIRECT: expect_answer,
    FaultKind.TOP_FIELD: expect_page,
    FaultKind.ROW_FIELDS: expect_page,
    FaultKind.RAW_ROW: expect_page,
    FaultKind.TOKEN: expect_token,
    FaultKind.LEAK_SECRET: expect_token,
}


# Proved where their endpoints are: test_sandbox_answers.py and test_sandbox_media.py.
ELSEWHERE = {
    FaultKind.FIELDS,
    FaultKind.CUE,
    FaultKind.EXPIRED,
    FaultKind.SHORT,
    FaultKind.WRONG_RANGE,
    FaultKind.REPLACED,
    FaultKind.HUGE,
    FaultKind.STALL,
}


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind not in ELSEWHERE])
async def test_a_fault_strikes_as_it_is_named(kind, caller):
    await PROOFS[kind](caller, kind)


@pytest.mark.parametrize("kind", [FaultKind.TOTAL, FaultKind.ECHO, FaultKind.ROW_FIELDS])
async def test_a_field_can_be_left_out(kind, caller):
    field = {FaultKind.TOTAL: "totalCount", FaultKind.ECHO: "offset"}.get(kind, "status")
    value = "absent" if kind is FaultKind.TOTAL else {field: "absent"}
    page = await page_after(caller, kind=kind.value, value=value)
    part = page["sessions"][1] if kind is FaultKind.ROW_FIELDS else page["meta"]["pagination"]
    assert field not in part and len(part) >= 2


@pytest.mark.parametrize("kind", [FaultKind.ROW_FIELDS, FaultKind.RAW_ROW])
async def test_a_fault_of_the_second_row_leaves_a_page_of_one_row_alone(kind, caller):
    caller.sandbox.set_sessions(TEST, 1)
    caller.sandbox.add_fault(Fault(kind, value={"status": 3}))
    assert len(await caller.ids()) == 1


async def test_a_fault_strikes_the_nth_matching_request_and_so_many_after_it(caller):
    caller.sandbox.add_fault(Fault(FaultKind.STATUS, test_id=TEST, nth=2, times=2, value=500))
    assert (await caller.get(OTHER)).status == 200
    assert [(await caller.get()).status for _ in range(4)] == [200, 500, 500, 200]


async def test_a_fault_may_last_for_ever(caller):
    caller.sandbox.add_fault(Fault(FaultKind.STATUS, nth=2, times=0, value=500))
    assert [(await caller.get()).status for _ in range(4)] == [200, 500, 500, 500]
    assert caller.sandbox.count(500) == 3


async def test_a_token_endpoint_can_break_too(caller):
    caller.sandbox.add_fault(Fault(FaultKind.BODY, on="token", value="<html>"))
    async with caller.session.post(caller.sandbox.token_url, data={}) as answer:
        assert (answer.status, await answer.text()) == (200, "<html>")


# Where it listens.


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
async def test_it_listens_on_this_machine_alone(host):
    with pytest.raises(ValueError, match=r"loopback|does not appear"):
        async with open_sandbox(FREE, host):
            pass


async def test_two_take_different_ports_and_a_taken_one_is_an_error():
    async with called() as one, called() as other:
        assert one.sandbox.url != other.sandbox.url
        port = int(one.sandbox.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            async with open_sandbox(FREE, port=port):
                pass


async def test_it_serves_until_it_is_cancelled():
    urls = []
    async with anyio.create_task_group() as group:

        def ready(sandbox: Sandbox) -> None:
            urls.append(sandbox.url)
            group.cancel_scope.cancel()

        group.start_soon(serve, FREE, "127.0.0.1", 0, ready)
    assert urls[0].startswith("http://127.0.0.1:")
