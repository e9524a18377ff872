"""What a part of the soak is, and what it is given when its turn comes."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

PROGRESS_SECONDS = 60.0


class Untried(Exception):
    """This machine lacks what a part needs; the message says what."""


@dataclass(slots=True)
class Turn:
    """How long a part may try, from which seed, or which one case; and what came of it.

    A part draws all chance from a case's name, so that the name alone replays it.
    """

    seed: int
    seconds: float
    most_cases: int | None = None
    replay: str | None = None
    tried: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)
    case: str | None = None
    began_at: float = field(default_factory=time.monotonic)
    said_at: float = field(default_factory=time.monotonic)

    def cases(self, names: Iterable[str]) -> Iterator[str]:
        """Yield the names of the cases to try, until they or the time are over.

        Once a minute it says how far it has come.
        """
        for name in names if self.replay is None else [self.replay]:
            now = time.monotonic()
            over = now - self.began_at >= self.seconds
            if self.tried["cases"] and (over or self.tried["cases"] == self.most_cases):
                return
            if now - self.said_at >= PROGRESS_SECONDS:
                self.said_at = now
                print(f"  … {self.told()}", flush=True)
            self.case = name
            yield name
            self.tried["cases"] += 1
            self.case = None

    def seeds(self) -> Iterator[str]:
        """Yield the names of cases that are told apart by a seed alone, without end."""
        random = Random(self.seed)
        return self.cases(str(random.randrange(1 << 32)) for _ in iter(int, 1))

    def count(self, **figures: int) -> None:
        """Add up what was tried: `turn.count(kills=3)`."""
        self.tried.update(figures)

    def highest(self, **figures: float) -> None:
        """Keep the highest of a figure: `turn.highest(repaid=5)`."""
        for name, figure in figures.items():
            self.most[name] = max(figure, self.most.get(name, figure))

    def told(self) -> str:
        """Say in a line what was tried."""
        sums = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.tried.items()]
        most = [f"at most {figure:,} {name}" for name, figure in self.most.items()]
        return ", ".join([*sums, *most, f"{time.monotonic() - self.began_at:.0f} s"])


@dataclass(frozen=True, slots=True)
class Part:
    """A way to try to break it.

    `run` tries the cases that its turn yields, and fails by an exception; it raises
    Untried where the machine lacks what it needs.
    """

    name: str
    promise: str
    run: Callable[[Turn], Awaitable[None]]
