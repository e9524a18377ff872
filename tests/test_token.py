"""A token's windows are exact: when it is renewed, when it is waited for, what a refusal means."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from pydantic import SecretStr

from etl.auth.manager import (
    MOST_TOKENS,
    PATIENCE_SECONDS,
    Refusals,
    TokenManager,
    open_tokens,
)
from etl.auth.token import Token
from etl.errors import CredentialsRefused, EtlError, Unreachable
from tests.scripted import served
from tests.test_auth import Endpoint, connection_to, manager_of, value
from tests.test_rules import Extreme
from tests.virtual_time import HastyClock


class SetClock:
    """Both clocks, as told."""

    def __init__(self) -> None:
        self.now, self.wall = 1_000.0, 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    async def sleep(self, seconds: float) -> None:
        self.after(seconds)


class Errands:
    """A task group that notes what is to be done, and does it when told."""

    def __init__(self) -> None:
        self.noted: list[tuple[Callable[..., Awaitable[object]], tuple[Any, ...]]] = []

    def start_soon(self, errand: Callable[..., Awaitable[object]], *arguments: Any) -> None:
        self.noted.append((errand, arguments))

    async def do(self) -> None:
        errand, arguments = self.noted.pop()
        await errand(*arguments)


@asynccontextmanager
async def granted(
    clock: SetClock, life_seconds: float, random: Random
) -> AsyncIterator[tuple[TokenManager, Errands, list[tuple[str, dict[str, object]]]]]:
    """Yield a manager that has just got its first token, its errands, and its events."""
    errands, events = Errands(), list[tuple[str, dict[str, object]]]()
    async with (
        served(Endpoint(life_seconds).answer) as url,
        aiohttp.ClientSession() as session,
        anyio.create_task_group() as group,
    ):
        tokens = TokenManager(
            connection_to(url),
            session,
            clock,
            random,
            errands,  # type: ignore[arg-type]
            lambda event, **fields: events.append((event, fields)),
        )
        group.start_soon(tokens.token)
        await anyio.wait_all_tasks_blocked()
        await errands.do()
        await anyio.wait_all_tasks_blocked()
        yield tokens, errands, events


def token_of(life_seconds: float = 1_000.0, value: str = "t") -> Token:
    return Token(SecretStr(value), life_seconds, granted_at=50.0, granted_at_wall=9_000.0)


# Its life.


@pytest.mark.parametrize(
    ("now", "wall", "left"),
    [
        (50.0, 9_000.0, 1_000.0),
        (60.0, 9_010.0, 990.0),
        (60.0, 9_400.0, 600.0),  # suspended: only the wall clock went on
        (450.0, 8_000.0, 600.0),  # set back: only the monotonic one can be believed
        (2_000.0, 9_010.0, -950.0),
    ],
)
def test_what_is_left_of_a_life_is_told_by_the_clock_that_says_less(now, wall, left):
    assert token_of().seconds_left(now, wall) == left


async def test_an_age_is_told_only_of_a_token_and_is_never_negative():
    clock = SetClock()
    async with granted(clock, 1_000, Random(1)) as (tokens, _, events):
        ages = []
        for passed in (0, 5, -50):
            clock.after(passed)
            ages.append(tokens.age_seconds)
        token = tokens.ready()
        assert token is not None
        tokens.drop(token)
        assert [*ages, tokens.age_seconds] == [0.0, 5.0, 0.0, None]
    assert events == [("token_renewed", {"life_seconds": 1_000.0, "grants": 1})]


# Its windows.


@pytest.mark.parametrize(
    ("life", "advisory", "mandatory"),
    [
        (86_400, 300, 30),
        (1_500, 300, 30),
        (1_000, 200, 30),
        (600, 120, 30),
        (100, 20, 5),
        (10, 2, 0.5),
    ],
)
@pytest.mark.parametrize("early", [0.0, 1.0])
async def test_the_last_fifth_renews_in_the_background_and_the_last_twentieth_makes_wait(
    life, advisory, mandatory, early
):
    clock = SetClock()
    async with granted(clock, life, Extreme(early)) as (tokens, errands, _):
        renewed_at = advisory * (0.8 + 0.2 * early)
        clock.after(life - renewed_at - 1 / 64)
        token = tokens.ready()
        assert token is not None and not errands.noted, "a moment before"
        clock.after(1 / 32)
        assert tokens.ready() is token
        assert len(errands.noted) == 1
        clock.after(renewed_at - mandatory - 1 / 32)
        assert tokens.ready() is token
        clock.after(1 / 32)
        assert tokens.ready() is None
        assert len(errands.noted) == 1, "one renewal is under way, however many ask"
        await errands.do()
        new = tokens.ready()
        assert new is not None and value(new) == "t2"


async def test_each_window_begins_behind_its_first_moment():
    clock = SetClock()
    async with granted(clock, 1_000, Extreme(1.0)) as (tokens, errands, _):
        clock.after(800)
        assert tokens.ready() is not None and not errands.noted
        clock.after(170)
        assert tokens.ready() is None


async def test_a_renewal_that_is_waited_for_serves_all_who_wait():
    clock = SetClock()
    got: list[str] = []
    async with granted(clock, 100, Random(1)) as (tokens, errands, _):
        clock.after(99)

        async def ask() -> None:
            got.append(value(await tokens.token()))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert len(errands.noted) == 1
            await errands.do()
    assert got == ["t2"] * 3


# What the endpoint asks for.


async def test_a_try_that_failed_is_repeated_when_the_endpoint_asks_for_it():
    clock, endpoint = HastyClock(), Endpoint()
    endpoint.told = [web.Response(status=503, headers={"Retry-After": "7"})]
    async with manager_of(endpoint.answer, clock) as tokens:
        assert value(await tokens.token()) == "t2"
    assert 7.0 <= clock.skipped_seconds <= 8.0


async def waits_of(clock: SetClock, *answers: web.Response) -> tuple[list[float], int]:
    """Return the waits between tries, at their longest, and how often the endpoint was asked."""
    endpoint, waits = Endpoint(), list[float]()
    endpoint.told = list(answers)
    passes = clock.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await passes(seconds)

    clock.sleep = sleep  # type: ignore[method-assign]
    async with (
        served(endpoint.answer) as url,
        aiohttp.ClientSession() as session,
        open_tokens(connection_to(url), session, clock, Extreme(1.0)) as tokens,
    ):
        with suppress(Unreachable):
            await tokens.token()
    return waits, endpoint.asked


async def test_each_try_in_a_row_may_wait_twice_as_long():
    waits, asked = await waits_of(SetClock(), *(web.Response(status=500) for _ in range(4)))
    assert (waits, asked) == ([1.0, 2.0, 4.0, 8.0], 5)


async def test_the_budget_of_tries_ends_with_the_fifteenth_minute():
    asks_for_59 = (web.Response(status=503, headers={"Retry-After": "59"}) for _ in range(99))
    waits, asked = await waits_of(SetClock(), *asks_for_59)
    assert (waits, asked) == ([60.0] * 15, 16)


async def test_a_token_lives_from_the_moment_when_it_was_asked_for():
    clock = HastyClock()

    async def slowly(_: web.Request) -> web.StreamResponse:
        await clock.sleep(100)
        return web.json_response({"token_type": "bearer", "access_token": "t", "expires_in": 500})

    async with manager_of(slowly, clock) as tokens:
        token = await tokens.token()
        left = token.seconds_left(clock.monotonic(), clock.time())
        assert 390 < left <= 400


# What a refusal means.


def refused_at(*moments: float, tokens: tuple[Token, ...] = ()) -> Refusals:
    refusals = Refusals()
    for place, moment in enumerate(moments):
        refusals.add(tokens[place % len(tokens)] if tokens else token_of(), moment)
    return refusals


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_are_refused_once_a_minute_has_earned_nothing(status):
    async with granted(SetClock(), 1_000, Random(1)) as (tokens, _, _):
        tokens.judge(refused_at(10.0, 10.0 + PATIENCE_SECONDS - 0.001), status)
        with pytest.raises(CredentialsRefused, match=f"status {status}") as refused:
            tokens.judge(refused_at(10.0, 10.0 + PATIENCE_SECONDS), status)
    assert "connection 'default'" in str(refused.value)
    assert "etl check" in str(refused.value)


@pytest.mark.parametrize("good_at", [10.0, 40.0])
async def test_credentials_that_earned_a_200_since_the_first_refusal_are_not_refused(good_at):
    token = token_of()
    async with granted(SetClock(), 1_000, Random(1)) as (tokens, _, _):
        tokens.good(token, good_at)
        tokens.good(token, 5.0)  # an answer that was long under way takes nothing back
        tokens.judge(refused_at(10.0, 100.0, tokens=(token,)), 403)
        assert token.last_good_at == good_at


async def test_a_200_from_before_the_first_refusal_is_no_excuse():
    token = token_of()
    async with granted(SetClock(), 1_000, Random(1)) as (tokens, _, _):
        tokens.good(token, 9.999)
        with pytest.raises(CredentialsRefused):
            tokens.judge(refused_at(10.0, 100.0, tokens=(token,)), 403)


@pytest.mark.parametrize(
    ("status", "tokens_refused", "dropped"),
    [(401, 1, True), (401, MOST_TOKENS - 1, True), (401, MOST_TOKENS, False), (403, 1, False)],
)
async def test_a_401_drops_its_token_at_most_four_times_and_a_403_never(
    status, tokens_refused, dropped
):
    async with granted(SetClock(), 1_000, Random(1)) as (tokens, _, _):
        current = tokens.ready()
        assert current is not None
        earlier = [token_of() for _ in range(tokens_refused - 1)]
        tokens.judge(refused_at(*[10.0] * tokens_refused, tokens=(*earlier, current)), status)
        assert (tokens.ready() is None) is dropped


def test_one_token_refused_twice_is_one_token():
    one, other = token_of(), token_of()
    assert refused_at(1.0, 2.0, 3.0, tokens=(one, other)).tokens == 2
    assert refused_at(1.0, 2.0, 3.0).first_at == 1.0


@pytest.mark.parametrize(("good_at", "forbidden"), [(9.0, False), (10.0, False), (10.001, True)])
def test_a_test_is_forbidden_only_by_a_200_for_what_was_sent_after_the_refusal(good_at, forbidden):
    token = token_of()
    token.last_good_at = good_at
    assert refused_at(10.0, 30.0, tokens=(token_of(), token_of())).forbidden is False
    refusals = refused_at(10.0, 30.0, tokens=(token, token_of()))
    assert refusals.forbidden is forbidden


async def test_a_failure_is_told_to_all_who_ask_and_forgotten_with_the_next_token():
    clock, endpoint = HastyClock(), Endpoint(life_seconds=1_000)
    async with manager_of(endpoint.answer, clock) as tokens:
        first = await tokens.token()
        endpoint.told = [web.json_response({"error": "invalid_client"}, status=401)]
        await clock.sleep(980)
        for _ in range(2):
            with pytest.raises(EtlError, match="invalid_client"):
                await tokens.token()
        assert (endpoint.asked, tokens.age_seconds) == (2, None)
        assert first.seconds_left(clock.monotonic(), clock.time()) > 0
