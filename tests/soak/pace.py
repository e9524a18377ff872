"""A day at the vendor's limit with 24 token lives, in virtual time."""

import asyncio
import tempfile
from pathlib import Path

from anyio import to_process

from etl.config.models import RateLimit
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import TESTS
from tests.soak.turns import Part, Turn
from tests.virtual_network import VirtualNetworkLoop
from tests.whole_client import Figures, fetch_for, virtual_clock

DAY_SECONDS = 86_400.0
LIFE_SECONDS = 3_600.0


def day(seed: int) -> Figures:
    """Fetch for a day; the delays of the network are the seed's. Blocks, for seconds."""
    with asyncio.Runner(loop_factory=VirtualNetworkLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualNetworkLoop)
        return runner.run(_day(seed, loop))


async def _day(seed: int, loop: VirtualNetworkLoop) -> Figures:
    with tempfile.TemporaryDirectory() as place, virtual_clock(loop, seed) as clock:
        options = SandboxOptions(token_ttl_seconds=LIFE_SECONDS, log_requests=False)
        async with open_sandbox(options) as sandbox:
            sandbox.set_sessions(TESTS[0], 1)
            folder, limit = Path(place), RateLimit()
            return await fetch_for(DAY_SECONDS, sandbox, folder, clock, rate=limit, fetchers=8)


async def run(turn: Turn) -> None:
    """Try days that differ in how long packets travel."""
    for seed in turn.seeds():
        figures = await to_process.run_sync(day, int(seed))
        assert figures.failures == figures.refused == 0, figures.told()
        assert figures.utilisation >= 0.98, figures.told()
        assert 24 <= figures.grants <= DAY_SECONDS / (0.8 * LIFE_SECONDS) + 1, figures.told()
        turn.count(requests=figures.answers, grants=figures.grants, virtual_hours=24)
        print(f"  {figures.told()}", flush=True)


PART = Part("pace", "a day at the limit uses 98 % of it, renews in time and meets no 429", run)
