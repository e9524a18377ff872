"""Kills exports at random moments, over and over, and checks every row and request.

`python -m tests.soak [SECONDS]`; five minutes by default. Prints the seed of each round,
with which `kill_again_and_again` replays it.
"""

import sys
import tempfile
import time
from pathlib import Path
from random import SystemRandom

import anyio

from tests.test_crash import kill_again_and_again, project_of

KILLS_A_ROUND = 30


async def main(seconds: float) -> None:
    """Run rounds of kills until the time is over."""
    ends_at = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < ends_at or not rounds:
        seed = SystemRandom().randrange(1 << 32)
        with tempfile.TemporaryDirectory() as place:
            sizes = [1_700, 30, 2_600, 501, 9_800, 3_000]
            async with project_of(Path(place), sizes, latency_ms=400) as project:
                await kill_again_and_again(project, KILLS_A_ROUND, seed)
        rounds += 1
        print(f"round {rounds}: seed {seed}, {KILLS_A_ROUND} kills, nothing lost, nothing doubled")


if __name__ == "__main__":
    anyio.run(main, float(sys.argv[1]) if len(sys.argv) > 1 else 300.0)
