"""One token serves everybody, is renewed before it dies, and refusals are told apart."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from etl.auth.grants import GrantFailed, ask_for_token
from etl.auth.manager import (
    GRANT_BUDGET_SECONDS,
    MOST_TOKENS,
    PATIENCE_SECONDS,
    Refusals,
    TokenManager,
    open_tokens,
)
from etl.auth.token import Token
from etl.config.models import Connection
from etl.errors import CredentialsRefused, Unreachable
from etl.pacing.clock import Clock, SystemClock
from tests.scripted import Handler, served
from tests.virtual_time import HastyClock

SECRET = "hunter2-4b1f"


def connection_to(url: str, name: str = "default") -> Connection:
    return Connection(
        name=name,
        client_id=SecretStr("me"),
        client_secret=SecretStr(SECRET),
        token_url=f"{url}/token",
        timeout_seconds=5,
    )


class Endpoint:
    """A token endpoint whose answers are told; what is not told is a good grant."""

    def __init__(self, life_seconds: float = 3600.0) -> None:
        self.life_seconds = life_seconds
        self.asked = 0
        self.told: list[web.Response] = []
        self.opened = anyio.Event()
        self.opened.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        await request.post()
        await self.opened.wait()
        return self.told.pop(0) if self.told else granted(f"t{self.asked}", self.life_seconds)


def granted(token: str, expires_in: Any, **more: Any) -> web.Response:
    return web.json_response(
        {"token_type": "Bearer", "access_token": token, "expires_in": expires_in, **more}
    )


@asynccontextmanager
async def manager_of(
    handler: Handler, clock: Clock, name: str = "default"
) -> AsyncIterator[TokenManager]:
    async with (
        served(handler) as url,
        aiohttp.ClientSession() as session,
        open_tokens(connection_to(url, name), session, clock, Random(1)) as tokens,
    ):
        yield tokens


async def one_grant(response: web.Response | Handler) -> Token:
    """Ask once an endpoint that answers this."""

    async def told(_: web.Request) -> web.StreamResponse:
        assert isinstance(response, web.Response)
        return response

    handler = told if isinstance(response, web.Response) else response
    async with served(handler) as url, aiohttp.ClientSession() as session:
        return await ask_for_token(session, connection_to(url), SystemClock())


def value(token: Token) -> str:
    return token.value.get_secret_value()


async def next_token(tokens: TokenManager, last: Token) -> Token:
    """Use tokens until a new one serves: a renewal in the background tells nobody."""
    with anyio.fail_after(5):
        while (token := await tokens.token()) is last:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    return token


# How often, and when.


async def test_however_many_ask_at_once_one_token_is_granted():
    endpoint, values = Endpoint(), set[str]()
    async with manager_of(endpoint.answer, SystemClock()) as tokens:

        async def ask() -> None:
            values.add(value(await tokens.token()))

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
    assert (endpoint.asked, values) == (1, {"t1"})


async def test_fifty_fetchers_live_on_tokens_of_two_seconds():
    endpoint, failures = Endpoint(life_seconds=2), 0
    began = anyio.current_time()
    seconds = 4.5
    async with manager_of(endpoint.answer, SystemClock()) as tokens:

        async def fetch() -> None:
            nonlocal failures
            while anyio.current_time() < began + seconds:
                token = await tokens.token()
                await anyio.sleep(0.01)
                failures += token.seconds_left(anyio.current_time(), 0.0) <= 0

        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(fetch)
    # Renewed in its last fifth, of which up to a fifth is jitter.
    assert endpoint.asked <= seconds / (0.8 * 2) + 1
    assert failures == 0


async def test_in_the_advisory_window_nobody_waits_for_the_renewal():
    clock, endpoint = HastyClock(), Endpoint(life_seconds=1000)
    async with manager_of(endpoint.answer, clock) as tokens:
        first = await tokens.token()
        endpoint.opened = anyio.Event()  # from now on the endpoint is silent
        await clock.sleep(900)
        for _ in range(10):
            with anyio.fail_after(0.5):
                assert await tokens.token() is first
        endpoint.opened.set()
        await next_token(tokens, first)
        assert (endpoint.asked, tokens.grants) == (2, 2)


async def test_in_the_mandatory_window_who_needs_the_token_waits_for_the_new_one():
    clock, endpoint = HastyClock(), Endpoint(life_seconds=1000)
    async with manager_of(endpoint.answer, clock) as tokens:
        await tokens.token()
        await clock.sleep(975)
        assert tokens.ready() is None
        assert value(await tokens.token()) == "t2"


async def test_a_token_serves_on_while_its_renewal_fails():
    clock, endpoint = HastyClock(), Endpoint(life_seconds=1000)
    async with manager_of(endpoint.answer, clock) as tokens:
        first = await tokens.token()
        endpoint.told = [web.Response(status=status) for status in (429, 500, 200, 403)]
        await clock.sleep(900)
        assert value(await next_token(tokens, first)) == "t6"


async def test_a_machine_that_slept_asks_for_a_new_token():
    class Suspended(SystemClock):
        slept_seconds = 0.0

        def time(self) -> float:
            return super().time() + self.slept_seconds

    clock, endpoint = Suspended(), Endpoint()
    async with manager_of(endpoint.answer, clock) as tokens:
        await tokens.token()
        clock.slept_seconds = 4_000
        assert value(await tokens.token()) == "t2"
        clock.slept_seconds = -4_000  # the wall clock was set back: the monotonic one decides
        assert value(await tokens.token()) == "t2"


async def test_an_endpoint_that_never_grants_is_given_up_within_the_budget():
    async def silent(_: web.Request) -> web.StreamResponse:
        return web.Response(status=503, headers={"Retry-After": "1000000000"})

    clock = HastyClock()
    async with manager_of(silent, clock) as tokens:
        with pytest.raises(
            Unreachable, match="15 minutes: the token endpoint answered 503"
        ) as told:
            await tokens.token()
    assert "connection 'default'" in str(told.value)
    assert "USERTESTING_TOKEN_URL, and run again" in str(told.value)
    assert clock.skipped_seconds <= GRANT_BUDGET_SECONDS + 61


# What a token endpoint may answer.


def jwt(claims: dict[str, Any]) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"e30.{payload}.sig"


HOUR_LONG = jwt({"iat": 1_000, "exp": 4_600})


@pytest.mark.parametrize(
    ("token", "expires_in", "life_seconds"),
    [
        ("opaque", 1_800, 1_800),
        ("opaque", 1_800.5, 1_800.5),
        ("opaque", 0.2, 1),
        ("opaque", 10**12, 86_400),
        (HOUR_LONG, None, 3_600),
        (HOUR_LONG, "7200", 3_600),
        (HOUR_LONG, True, 3_600),
        (HOUR_LONG, -1, 3_600),
        (HOUR_LONG, 0, 3_600),
        (HOUR_LONG, [1], 3_600),
        ("opaque", None, 300),
        ("opaque", -1, 300),
        ("a.b.c", None, 300),
        ("a.!!!.c", None, 300),
        (jwt({"iat": 9, "exp": 3}), None, 300),
        (jwt({"iat": 9, "exp": 9}), None, 300),
        (jwt({"iat": 9}), None, 300),
        (jwt({"exp": 9}), None, 300),
        (jwt({"iat": 1_000, "exp": 4_600, "n": 1}), None, 3_600),
        (jwt({"iat": 1_000, "exp": 4_600, "n": 12}), None, 3_600),
        (jwt({"iat": 1_000, "exp": 4_600, "n": 123}), None, 3_600),
        (jwt({"iat": "x", "exp": None}), None, 300),
    ],
)
async def test_the_life_of_a_token_is_read_with_care(
    token: str, expires_in: Any, life_seconds: float
):
    assert (await one_grant(granted(token, expires_in))).life_seconds == life_seconds


PASSING = {
    "html": web.Response(text="<html>login</html>", content_type="text/html"),
    "nothing": web.Response(),
    "a list": web.json_response([1]),
    "no token": web.json_response({"token_type": "Bearer"}),
    "another kind of token": web.json_response({"token_type": "mac", "access_token": "t"}),
    "a token with a line end": granted("a\r\nHost: evil", 60),
    "an empty token": granted("", 60),
    "a token that is no text": granted(["t"], 60),  # type: ignore[arg-type]
    "a giant token": granted("t" * 70_000, 60),
    "ten megabytes": web.Response(body=b" " * 10_000_000),
    "deep JSON": web.Response(body=b"[" * 100_000),
    "a redirect": web.Response(status=307, headers={"Location": "http://127.0.0.1:9/"}),
    "a refusal without a reason": web.Response(status=401),
    "a server error": web.Response(status=500),
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING.keys())
async def test_nonsense_from_the_token_endpoint_is_a_try_that_failed(answer: web.Response):
    with pytest.raises(GrantFailed) as failed:
        await one_grant(answer)
    assert SECRET not in str(failed.value)


async def test_an_endpoint_that_nobody_serves_is_a_try_that_failed():
    async with served(Endpoint().answer) as url:
        pass
    async with aiohttp.ClientSession() as session:
        with pytest.raises(GrantFailed, match="could not be asked"):
            await ask_for_token(session, connection_to(url), SystemClock())


async def test_the_secret_follows_no_redirect():
    elsewhere: list[str] = []

    async def other(request: web.Request) -> web.StreamResponse:
        elsewhere.append(await request.text())
        return granted("stolen", 60)

    async with served(other) as url:
        for status in (301, 302, 303, 307, 308):
            with pytest.raises(GrantFailed):
                await one_grant(web.Response(status=status, headers={"Location": url}))
    assert elsewhere == []


@pytest.mark.parametrize(
    ("error", "status", "look_at"),
    [
        ("invalid_client", 401, "USERTESTING_CLIENT_ID and USERTESTING_CLIENT_SECRET"),
        ("invalid_scope", 400, "the scope of connection 'default'"),
        ("unauthorized_client", 400, "USERTESTING_CLIENT_ID"),
        ("access_denied", 403, "USERTESTING_CLIENT_ID"),
    ],
)
async def test_a_refusal_ends_at_once_and_says_where_to_look(error: str, status: int, look_at: str):
    described = {"error": error, "error_description": f"the secret {SECRET} is wrong"}
    asked = 0

    async def refuse(_: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return web.json_response(described, status=status)

    async with manager_of(refuse, SystemClock()) as tokens:
        for _ in range(3):
            with pytest.raises(CredentialsRefused) as refused:
                await tokens.token()
            assert look_at in str(refused.value)
            assert SECRET not in str(refused.value)
    assert asked == 1


async def test_a_connection_of_its_own_is_named_with_its_keys():
    async def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"error": "invalid_client"}, status=401)

    async with manager_of(refuse, SystemClock(), name="agency") as tokens:
        with pytest.raises(CredentialsRefused, match=r"connections\.agency\.client_secret"):
            await tokens.token()


# What a 401 or 403 of the API means.


async def test_only_the_current_token_is_dropped_by_the_401_that_names_it():
    endpoint = Endpoint()
    async with manager_of(endpoint.answer, SystemClock()) as tokens:
        first = await tokens.token()
        tokens.drop(first)
        second = await tokens.token()
        tokens.drop(first)  # a late 401 of the first one
        assert tokens.ready() is second
        assert endpoint.asked == 2


async def test_a_403_does_not_drop_a_token():
    endpoint = Endpoint()
    async with manager_of(endpoint.answer, SystemClock()) as tokens:
        refusals = Refusals()
        refusals.add(await tokens.token(), SystemClock().monotonic())
        tokens.judge(refusals, 403)
        assert tokens.ready() is not None


async def test_a_request_that_is_refused_for_ever_costs_at_most_five_tokens():
    clock, endpoint = HastyClock(), Endpoint()
    async with manager_of(endpoint.answer, clock) as tokens:

        async def insist(refusals: Refusals) -> None:
            while True:
                refusals.add(await tokens.token(), clock.monotonic())
                tokens.judge(refusals, 401)
                await clock.sleep(1)

        with pytest.raises(CredentialsRefused, match="has granted nothing for a minute"):
            await insist(Refusals())
        assert endpoint.asked == MOST_TOKENS
        assert clock.skipped_seconds >= PATIENCE_SECONDS


async def test_a_test_is_forbidden_only_if_its_token_earned_a_200_after_the_refusal():
    endpoint = Endpoint()
    async with manager_of(endpoint.answer, SystemClock()) as tokens:
        token = await tokens.token()
        refusals = Refusals()
        tokens.good(token, sent_at=9.0)
        refusals.add(token, 10.0)
        assert not refusals.forbidden
        tokens.good(token, sent_at=11.0)
        assert refusals.forbidden


async def test_a_token_is_shown_by_no_repr():
    token = await one_grant(granted("visible-to-nobody", 60))
    assert "visible-to-nobody" not in repr(token)
