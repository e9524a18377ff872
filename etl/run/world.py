"""What every pipeline of a run shares, so that tests need not wait and chance can be replayed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random, SystemRandom
from uuid import uuid4

from etl.pacing.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class Patience:
    """How long what may pass is waited for.

    A request is made `attempts` times before it fails, while others are answered.
    Where nothing at all is answered for `outage_seconds` the run gives up, resumable.
    A stopped run waits `grace_seconds` for the answers to requests already sent. `polls` are
    the waits before a file that the API is still making is asked for again.
    """

    attempts: int = 8
    outage_seconds: float = 900.0
    grace_seconds: float = 5.0
    polls: Sequence[float] = (15.0, 30.0, 60.0, 120.0, 240.0)


@dataclass(frozen=True, slots=True)
class World:
    """What every pipeline of a run shares: its id, time, chance and patience."""

    run_id: str
    clock: Clock
    random: Random
    patience: Patience = field(default_factory=Patience)

    def now_us(self) -> int:
        """Return the wall clock's time in microseconds since 1970."""
        return int(self.clock.time() * 1_000_000)


def this_world(patience: Patience | None = None) -> World:
    """Return the machine's own time and chance, under an id that sorts by time."""
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}"
    return World(run_id, SystemClock(), SystemRandom(), patience or Patience())
