"""Pace, token and session together, for hours of virtual time over a virtual network."""

import asyncio
from pathlib import Path

import pytest

from etl.config.models import RateLimit
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import TESTS
from tests.virtual_network import VirtualNetworkLoop
from tests.whole_client import Figures, fetch_for, virtual_clock


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Let hours pass at once."""
    return "asyncio", {"loop_factory": VirtualNetworkLoop}


async def virtually(
    seconds: float, folder: Path, options: SandboxOptions, rate: RateLimit, fetchers: int
) -> Figures:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualNetworkLoop)
    with virtual_clock(loop, seed=1) as clock:
        async with open_sandbox(options) as sandbox:
            sandbox.set_sessions(TESTS[0], 1)
            return await fetch_for(
                seconds, sandbox, folder, clock, rate=rate, fetchers=fetchers, pause_seconds=0.1
            )


async def test_paced_hours_with_24_token_lives_use_the_limit_and_meet_no_429(tmp_path: Path):
    # A day, with lives of an hour, is a case of the soak: `make soak ARGS=pace`.
    hours, life = 2, 300.0
    options = SandboxOptions(token_ttl_seconds=life)
    figures = await virtually(hours * 3600, tmp_path, options, RateLimit(), fetchers=8)
    assert figures.failures == figures.refused == 0
    assert figures.utilisation >= 0.97
    assert 24 <= figures.grants <= hours * 3600 / (0.8 * life) + 1


async def test_fifty_fetchers_on_tokens_of_two_seconds_ask_for_few_and_fail_never(
    tmp_path: Path,
):
    seconds = 20
    options = SandboxOptions(token_ttl_seconds=2.0, rate_requests=None)
    free = RateLimit(requests=100_000, seconds=1.0)
    figures = await virtually(seconds, tmp_path, options, free, fetchers=50)
    assert figures.failures == 0 and figures.answers > 1_000
    assert figures.grants <= seconds / (0.8 * 2) + 1
