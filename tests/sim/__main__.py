"""Runs many seeds on all cores and adds up what they met, or tells the trace of one.

`make sim SEEDS=2000` draws the first seed and says it; `make sim SEED=17` replays one. Exits 1
if a seed has failed.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from random import SystemRandom

from tests.sim.journey import run_seed

_SHARE = 10
"""Seeds that a process is handed at once."""


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many to try")
    parser.add_argument("--first", type=int, help="the first of them; else drawn, and said")
    parser.add_argument("--seed", type=int, help="tell the trace of this one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    return parser.parse_args()


def _cpu_seconds() -> float:
    """Return what the processes of the pool have had of the cores."""
    times = os.times()
    return times.children_user + times.children_system


def replay(seed: int) -> int:
    """Print all that happens to one seed."""
    told = run_seed(seed)
    print("\n".join(told.trace))
    print(f"seed {seed}, {told.weather}: {told.error or 'held'} (trace {told.digest})")
    return 1 if told.error else 0


def main() -> int:
    """Run the seeds that are asked for; return the exit code."""
    asked = arguments()
    if asked.seed is not None:
        return replay(asked.seed)
    first = SystemRandom().randrange(1 << 31) if asked.first is None else asked.first
    print(f"{asked.seeds:,} seeds from {first} on, {asked.jobs} processes", flush=True)
    began = time.monotonic()
    sums, struck, failed = Counter[str](), Counter[str](), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(asked.jobs, mp_context=context) as pool:
        seeds = range(first, first + asked.seeds)
        for told in pool.map(run_seed, seeds, chunksize=_SHARE):
            sums.update(seeds=1, runs=told.lives, kills=told.kills, requests=told.requests)
            sums["simulated hours"] += round(told.virtual_seconds / 3600)
            struck.update(told.struck)
            if told.error is not None:
                failed += 1
                print(f"FAILED seed {told.seed}: {told.error}")
                print(f"  again: make sim SEED={told.seed}", flush=True)
    print(", ".join(f"{count:,} {name}" for name, count in sums.items()))
    for what, count in sorted(struck.items()):
        print(f"  {count:8,} {what}")
    seconds = time.monotonic() - began
    print(f"{failed} failed, {seconds:.0f} s, of which {_cpu_seconds() / asked.jobs:.0f} s at work")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
