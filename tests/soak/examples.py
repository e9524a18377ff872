"""Runs every property test of the suite with new examples, and counts them."""

import re
import subprocess
import sys

from anyio import to_thread

from tests.soak.turns import Part, Turn

_PASSED = re.compile(r"(\d+) passing, \d+ failing")


def one_round(seed: str) -> tuple[int, int]:
    """Run all property tests once; return how many tests and examples. Blocks."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "hypothesis"]
    command += [f"--hypothesis-seed={seed}", "--hypothesis-show-statistics"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-8_000:]
    passed = [int(count) for count in _PASSED.findall(ended.stdout)]
    return len(passed), sum(passed)


async def run(turn: Turn) -> None:
    """Try seeds: each is a round of all property tests."""
    for seed in turn.seeds():
        _, examples = await to_thread.run_sync(one_round, seed)
        turn.count(examples=examples)


PART = Part("examples", "every property holds for examples that nobody has tried yet", run)
