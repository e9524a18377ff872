"""Fetchers over the whole client, in virtual or in real time: pace, token, session, server."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest.mock import patch

import anyio
from pydantic import SecretStr

from etl.client.http import open_client
from etl.client.values import Request, TryLater
from etl.config.models import Connection, RateLimit
from etl.errors import EtlError
from etl.pacing.clock import Clock
from etl.sandbox.server import Sandbox
from etl.tables.sessions import SESSION_RESULTS
from tests.exporting import TESTS
from tests.virtual_network import VirtualNetworkLoop
from tests.virtual_time import LoopClock


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of some time of fetching; `utilisation` is of what the limit allows."""

    seconds: float
    answers: int
    failures: int
    refused: int
    grants: int
    utilisation: float

    def told(self) -> str:
        """Say it in a line."""
        return (
            f"{self.answers:,} answers in {self.seconds:,.0f} s, {self.failures} failures, "
            f"{self.refused} times 429, {self.grants} grants, utilisation {self.utilisation:.4f}"
        )


@contextmanager
def virtual_clock(loop: VirtualNetworkLoop, seed: int) -> Iterator[LoopClock]:
    """Let everybody tell the loop's time, and packets travel 50 to 250 ms."""
    clock, random = LoopClock(), Random(seed)
    loop.network.delay = lambda: random.uniform(0.05, 0.25)
    with patch.object(time, "monotonic", loop.time), patch.object(time, "time", clock.time):
        yield clock


async def fetch_for(
    seconds: float,
    sandbox: Sandbox,
    state_dir: Path,
    clock: Clock,
    *,
    rate: RateLimit,
    fetchers: int,
    pause_seconds: float = 0.0,
) -> Figures:
    """Let fetchers ask first pages for so long, as fast as the pace and their pause allow."""
    connection = Connection(
        client_id=SecretStr(sandbox.client_id),
        client_secret=SecretStr(sandbox.client_secret),
        api_url=sandbox.url,
        token_url=sandbox.token_url,
        rate_limit=rate,
    )
    query = (("testId", TESTS[0]), ("limit", "1"), ("offset", "0"))
    answers = failures = 0
    async with open_client(
        connection, state_dir=state_dir, clock=clock, random=Random(1)
    ) as client:

        async def fetch() -> None:
            nonlocal answers, failures
            while True:
                try:
                    await client.fetch(Request(SESSION_RESULTS, test_id=TESTS[0], query=query))
                    answers += 1
                except (TryLater, EtlError):
                    failures += 1
                await clock.sleep(pause_seconds)

        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as group:
                for _ in range(fetchers):
                    group.start_soon(fetch)
    allowed = rate.requests * (1 + seconds / rate.seconds)
    refused = sandbox.count(429)
    return Figures(seconds, answers, failures, refused, sandbox.grants, answers / allowed)
