"""Pacing uses the limit to the full and never exceeds it."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etl.config.models import RateLimit
from etl.pacing import rules
from etl.pacing.pacer import Pacer, RequestsSpent, Stopped, open_pacer
from tests.virtual_time import LoopClock, VirtualTimeLoop

MINUTE = RateLimit(requests=10, seconds=60.0)


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Let minutes pass at once."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@asynccontextmanager
async def pacer_of(
    folder: Path, clock: LoopClock, rate: RateLimit = MINUTE, max_requests: int | None = None
) -> AsyncIterator[Pacer]:
    async with open_pacer(
        rate, credentials="api me", state_dir=folder, clock=clock, max_requests=max_requests
    ) as pacer:
        yield pacer


class StrictServer:
    """Counts arrivals in a sliding window, as the vendor is taken to do."""

    def __init__(self, rate: RateLimit) -> None:
        self.rate = rate
        self.arrivals: deque[float] = deque()
        self.refused = 0
        self.served = 0

    def arrive(self, now: float) -> int:
        while self.arrivals and self.arrivals[0] <= now - self.rate.seconds:
            self.arrivals.popleft()
        if len(self.arrivals) >= self.rate.requests:
            self.refused += 1
            return 429
        self.arrivals.append(now)
        self.served += 1
        return 200

    def headers(self) -> dict[str, str]:
        left = self.rate.requests - len(self.arrivals)
        return {
            "x-ratelimit-limit": str(self.rate.requests),
            "x-ratelimit-remaining": str(left),
        }


async def send(
    pacer: Pacer,
    clock: LoopClock,
    server: StrictServer,
    random: Random,
    *,
    with_headers: bool = True,
    way: tuple[float, float] = (0.05, 0.25),
) -> None:
    """Send one request whose way there and back takes a random time."""
    async with pacer.slot(0) as slot:
        slot.sent()
        await clock.sleep(random.uniform(*way))
        status = server.arrive(clock.monotonic())
        headers = server.headers() if with_headers else {}
        await clock.sleep(random.uniform(*way))
        slot.answered(status, headers)


async def test_a_day_at_the_limit_uses_98_percent_of_it_and_meets_no_429(tmp_path: Path):
    clock, random, server = LoopClock(), Random(1), StrictServer(MINUTE)
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:

        async def fetch() -> None:
            while True:
                await send(pacer, clock, server, random)

        for _ in range(8):
            group.start_soon(fetch)
        hours = 24
        await anyio.sleep(hours * 3600)
        group.cancel_scope.cancel()
    assert server.refused == 0
    assert server.served >= 0.98 * hours * 600


async def test_requests_that_take_unequal_time_are_not_taken_for_a_neighbour(tmp_path: Path):
    rate = RateLimit(requests=10, seconds=2.0)
    clock, random, server = LoopClock(), Random(5), StrictServer(rate)
    async with pacer_of(tmp_path, clock, rate) as pacer, anyio.create_task_group() as group:

        async def fetch() -> None:
            while True:
                await send(pacer, clock, server, random, way=(0.001, 0.012))

        for _ in range(8):
            group.start_soon(fetch)
        windows = 300
        await anyio.sleep(windows * rate.seconds)
        group.cancel_scope.cancel()
    assert server.refused <= 1
    assert server.served >= 0.98 * windows * rate.requests


@pytest.mark.parametrize("with_headers", [True, False])
@pytest.mark.parametrize("neighbour", [1, 4, 8])
async def test_a_neighbour_with_the_same_credentials_is_given_way(
    tmp_path: Path, neighbour: int, with_headers: bool
):
    clock, random, server = LoopClock(), Random(2), StrictServer(MINUTE)
    windows = 60
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:

        async def disturb() -> None:
            while True:
                for _ in range(neighbour):
                    server.arrive(clock.monotonic())
                await clock.sleep(60.0)

        async def fetch() -> None:
            while True:
                await send(pacer, clock, server, random, with_headers=with_headers)

        group.start_soon(disturb)
        for _ in range(8):
            group.start_soon(fetch)
        await anyio.sleep(windows * 60)
        group.cancel_scope.cancel()
    assert server.served >= 0.97 * 10 * windows
    assert pacer.throttled <= 2 * neighbour if with_headers else pacer.throttled <= windows


async def test_a_neighbour_who_leaves_leaves_his_share_to_us(tmp_path: Path):
    clock, random, server = LoopClock(), Random(4), StrictServer(MINUTE)
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:

        async def fetch() -> None:
            while True:
                await send(pacer, clock, server, random)

        for _ in range(8):
            group.start_soon(fetch)
        for _ in range(10):
            for _ in range(5):
                server.arrive(clock.monotonic())
            await anyio.sleep(60)
        await anyio.sleep(600)
        before = server.served
        await anyio.sleep(1800)
        group.cancel_scope.cancel()
    assert server.served - before >= 0.98 * 300


async def test_a_restart_goes_on_counting(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock) as pacer:
        for _ in range(10):
            async with pacer.slot(0) as slot:
                slot.sent()
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:
        sent: list[float] = []

        async def fetch() -> None:
            async with pacer.slot(0) as slot:
                slot.sent()
                sent.append(clock.monotonic())

        group.start_soon(fetch)
        await anyio.sleep(59.0)
        assert sent == []
        await anyio.sleep(3.0)
        assert len(sent) == 1


async def test_two_runs_with_the_same_credentials_share_one_pace(tmp_path: Path):
    clock, random, server = LoopClock(), Random(3), StrictServer(MINUTE)
    async with (
        pacer_of(tmp_path, clock) as one,
        pacer_of(tmp_path, clock) as other,
        anyio.create_task_group() as group,
    ):

        async def fetch(pacer: Pacer) -> None:
            while True:
                await send(pacer, clock, server, random)

        for pacer in (one, other):
            for _ in range(4):
                group.start_soon(fetch, pacer)
        await anyio.sleep(3600)
        group.cancel_scope.cancel()
    assert server.refused == 0
    assert server.served >= 0.97 * 600


async def test_a_429_stops_all_sends_for_as_long_as_the_server_asks(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:
        async with pacer.slot(0) as slot:
            slot.sent()
            slot.answered(429, {"Retry-After": "30"})
        sent: list[float] = []

        async def fetch() -> None:
            async with pacer.slot(0) as slot:
                slot.sent()
                sent.append(clock.monotonic())

        group.start_soon(fetch)
        await anyio.sleep(29.0)
        assert sent == []
        await anyio.sleep(2.0)
        assert len(sent) == 1
        assert pacer.throttled == 1


async def test_listing_goes_before_details_and_details_before_media(tmp_path: Path):
    clock = LoopClock()
    order: list[int] = []
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:
        for _ in range(10):
            async with pacer.slot(0) as slot:
                slot.sent()

        async def fetch(priority: int) -> None:
            async with pacer.slot(priority) as slot:
                slot.sent()
                order.append(priority)

        for priority in (2, 1, 0, 2, 1, 0):
            group.start_soon(fetch, priority)
        await anyio.sleep(200.0)
    assert order == [0, 0, 1, 1, 2, 2]


async def test_the_budget_of_requests_ends_with_the_last_one(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock, max_requests=3) as pacer:
        for _ in range(3):
            async with pacer.slot(0) as slot:
                slot.sent()
        async with pacer_of(tmp_path, clock, max_requests=1) as unused:
            async with unused.slot(0):
                pass  # handed back: it costs nothing
            assert unused.sends == 0
        with pytest.raises(RequestsSpent):
            async with pacer.slot(0):
                pass


async def test_stopping_wakes_everybody_who_waits(tmp_path: Path):
    clock = LoopClock()
    stopped: list[int] = []
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:
        for _ in range(10):
            async with pacer.slot(0) as slot:
                slot.sent()

        async def fetch(number: int) -> None:
            try:
                async with pacer.slot(0):
                    pass
            except Stopped:
                stopped.append(number)

        for number in range(5):
            group.start_soon(fetch, number)
        await anyio.wait_all_tasks_blocked()
        pacer.stop()
    assert sorted(stopped) == list(range(5))


async def test_a_waiter_that_is_cancelled_leaves_the_queue_whole(tmp_path: Path):
    clock = LoopClock()
    sent: list[int] = []
    async with pacer_of(tmp_path, clock) as pacer, anyio.create_task_group() as group:
        for _ in range(10):
            async with pacer.slot(0) as slot:
                slot.sent()
        doomed = anyio.CancelScope()

        async def fetch(number: int, scope: anyio.CancelScope) -> None:
            with scope:
                async with pacer.slot(0) as slot:
                    slot.sent()
                    sent.append(number)

        group.start_soon(fetch, 1, doomed)
        group.start_soon(fetch, 2, anyio.CancelScope())
        await anyio.wait_all_tasks_blocked()
        doomed.cancel()
        await anyio.sleep(100.0)
    assert sent == [2]


async def test_the_files_of_the_pace_tell_nobody_the_client_id(tmp_path: Path):
    async with open_pacer(
        MINUTE, credentials="api my-client", state_dir=tmp_path, clock=LoopClock()
    ):
        (path,) = await anyio.to_thread.run_sync(lambda: list(tmp_path.iterdir()))
        mode = await anyio.to_thread.run_sync(lambda: path.stat().st_mode)
        assert mode & 0o777 == 0o600
        assert "client" not in path.name


@given(
    retry_after=st.one_of(st.none(), st.floats(-1e9, 1e9)),
    reset=st.one_of(st.none(), st.floats(-1e9, 1e9)),
    before=st.integers(0, 1_000),
    rest=st.floats(0, 60),
)
def test_a_429_waits_at_least_a_second_and_at_most_a_window(retry_after, reset, before, rest):
    word = rules.RateWord(reset_seconds=reset, retry_after_seconds=retry_after)
    wait = rules.throttle_seconds(
        word, rest_of_window=rest, window_seconds=60.0, throttled_before=before
    )
    assert 1.0 <= wait <= 60.0


@given(attempt=st.integers(0, 10_000), hint=st.one_of(st.none(), st.floats(-1e12, 1e12)))
def test_a_retry_waits_at_most_a_minute_and_a_second(attempt, hint):
    assert 0.0 <= rules.retry_delay(attempt, hint, Random(1)) <= 61.0


@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "Retry-After"]
        ),
        st.text(),
    )
)
@example(headers={"x-ratelimit-limit": "0\x1f"})
def test_any_header_is_read_without_a_crash(headers):
    word = rules.read_headers(headers, 1_700_000_000.0)
    assert 1 <= rules.effective_limit(10, word.limit or None) <= 10


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2000 22:13:50 GMT", -725_760_000.0 + 30.0),
        ("soon", None),
        ("1e9", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(text, seconds):
    headers = {} if text is None else {"Retry-After": text}
    told = rules.read_headers(headers, 1_700_000_000.0).retry_after_seconds
    assert told == pytest.approx(seconds) if seconds is not None else told is None
