"""Fifty fetchers live on tokens of two seconds, over real HTTP and in real time."""

import tempfile
from pathlib import Path

from etl.config.models import RateLimit
from etl.pacing.clock import SystemClock
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import TESTS
from tests.soak.turns import Part, Turn
from tests.whole_client import fetch_for

FETCHERS = 50
LIFE_SECONDS = 2.0
LONGEST_SECONDS = 300.0
FREE = RateLimit(requests=100_000, seconds=1.0)


async def run(turn: Turn) -> None:
    """Fetch for the whole turn, five minutes at most, as one case."""
    seconds = min(LONGEST_SECONDS, max(5.0, turn.seconds))
    options = SandboxOptions(token_ttl_seconds=LIFE_SECONDS, rate_requests=None, log_requests=False)
    for _ in turn.cases([f"{seconds:.0f} seconds"]):
        with tempfile.TemporaryDirectory() as place:
            async with open_sandbox(options) as sandbox:
                sandbox.set_sessions(TESTS[0], 1)
                figures = await fetch_for(
                    seconds,
                    sandbox,
                    Path(place),
                    SystemClock(),
                    rate=FREE,
                    fetchers=FETCHERS,
                    pause_seconds=0.5,
                )
        print(f"  {figures.told()}", flush=True)
        assert figures.failures == 0
        assert figures.grants <= seconds / (0.8 * LIFE_SECONDS) + 1
        turn.count(requests=figures.answers, grants=figures.grants)


PART = Part(
    "tokens", "fifty fetchers on tokens of two seconds renew once each, and fail never", run
)
