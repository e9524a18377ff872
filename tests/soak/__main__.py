"""Runs the parts of the soak in turn, says what was tried, and ends at the first failure.

`make soak ARGS='--seconds 3600'`, `make soak ARGS='kills --cases 17'`; a failure prints the
command that replays it. A part that ends before its share of the time leaves it to the others.
"""

import argparse
import importlib
import pkgutil
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from random import SystemRandom

import anyio

from tests import soak
from tests.soak.turns import Part, Turn, Untried


def parts() -> dict[str, Part]:
    """Return all parts by name: every module of this folder that has a PART."""
    modules = (
        importlib.import_module(f"{soak.__name__}.{module.name}")
        for module in pkgutil.iter_modules(soak.__path__)
        if module.name != "__main__"
    )
    found = [module.PART for module in modules if hasattr(module, "PART")]
    return {part.name: part for part in found}


def arguments(known: Sequence[str], given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(known)}; else all")
    parser.add_argument("--seconds", type=float, default=300.0, help="in all; `inf`: to the end")
    parser.add_argument("--cases", type=int, help="the most cases of each part")
    parser.add_argument("--seed", type=int, help="what chance begins with; else drawn, and said")
    parser.add_argument("--replay", metavar="CASE", help="try this one case of one part")
    told = parser.parse_args(given)
    unknown = set(told.parts) - set(known)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if told.replay is not None and len(told.parts) != 1:
        parser.error("--replay needs the name of its part")
    return told


def outcome_of(part: Part, turn: Turn) -> str:
    """Run a part; return how it ended: "held", "not tried" or "failed"."""
    print(f"{part.name} (seed {turn.seed}): {part.promise}", flush=True)
    try:
        anyio.run(part.run, turn)
    except Untried as reason:
        print(f"  NOT TRIED: {reason}", flush=True)
        return "not tried"
    except Exception:  # noqa: BLE001 - whatever a part raises is what the soak is to tell
        traceback.print_exc(file=sys.stdout)
        case = f"--replay {shlex.quote(turn.case)}" if turn.case else f"--seed {turn.seed}"
        print(f"  FAILED after {turn.told()}")
        print(f'  again: make soak ARGS="{part.name} {case}"', flush=True)
        return "failed"
    print(f"  held: {turn.told()}", flush=True)
    return "held"


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; return the exit code."""
    known = parts()
    told = arguments(list(known), given)
    seed = SystemRandom().randrange(1 << 32) if told.seed is None else told.seed
    chosen = [known[name] for name in told.parts or known]
    ends_at = time.monotonic() + told.seconds
    outcomes = []
    for place, part in enumerate(chosen):
        share = max(0.0, ends_at - time.monotonic()) / (len(chosen) - place)
        turn = Turn(seed, share, told.cases, told.replay)
        outcomes.append(outcome_of(part, turn))
        if outcomes[-1] == "failed":
            return 1
    print(f"{outcomes.count('held')} parts held, {outcomes.count('not tried')} NOT TRIED.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
