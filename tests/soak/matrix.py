"""Every fault at every call that changes a file, in every mode of a run."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from random import Random

from tests.crash.matrix import MODES, Ground, Point, Rig, Tried, faults_of, open_rig
from tests.crash.zygote import lacking, open_zygote
from tests.soak.turns import Part, Turn, Untried

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def names(
    calls: Mapping[str, Mapping[str, int]],
    faults: Callable[[str], list[str]],
    random: Random,
    last: Callable[[], Tried],
) -> Iterator[str]:
    """Yield every point in random order, then those beyond until a run is not struck.

    `calls` is how many of each kind a run made, by mode; it may be a few more next time.
    """
    sweeps = [
        (mode, call, fault, most)
        for mode, counted in calls.items()
        for call, most in counted.items()
        for fault in faults(call)
    ]
    points = [
        str(Point(mode, call, nth, fault))
        for mode, call, fault, most in sweeps
        for nth in range(1, most + 1)
    ]
    random.shuffle(points)
    yield from points
    for mode, call, fault, most in sweeps:
        for nth in count(most + 1):
            yield str(Point(mode, call, nth, fault))
            if not last().hit:
                break


async def run(turn: Turn) -> None:
    """Try points in random order until the time is over; `--seconds inf` tries all."""
    if lack := lacking():
        raise Untried(lack)
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        await strike(turn, Path(place), Ground(Path(place) / "project"), faults_of)


async def strike(
    turn: Turn, place: Path, ground: Ground, faults: Callable[[str], list[str]]
) -> None:
    """Try the points of all modes on one ground, which each puts in order again."""
    chosen = [Point.named(turn.replay).mode] if turn.replay else list(MODES)
    tried: list[Tried] = []
    async with AsyncExitStack() as stack:
        zygote = await stack.enter_async_context(open_zygote(place))
        rigs: dict[str, Rig] = {
            mode: await stack.enter_async_context(open_rig(mode, zygote, ground, place / mode))
            for mode in chosen
        }
        calls = {mode: await rig.calls() for mode, rig in rigs.items()}
        for name in turn.cases(names(calls, faults, Random(turn.seed), lambda: tried[-1])):
            point = Point.named(name)
            tried.append(await rigs[point.mode].attempt(point))
            note(turn, point, tried[-1])


def note(turn: Turn, point: Point, tried: Tried) -> None:
    """Count a point by its mode and fault."""
    turn.count(**{"struck" if tried.hit else "passed unstruck": 1})
    turn.count(**{point.mode: 1, point.fault: 1})
    turn.count(**{"errors absorbed": tried.hit and tried.code == 0})
    turn.highest(**{"answers lost": tried.lost, "pages asked again": tried.again})


PART = Part("matrix", "no fault at any call that changes a file loses or doubles a row", run)
