"""Decides what a data file is that no commit names; recovery acts on it, verification tells it."""

from collections.abc import Callable, Collection
from enum import Enum, auto

from etl.lake.names import DataName


class Stray(Enum):
    """What a data file of a pipeline is that none of its commits names."""

    LEFTOVER = auto()
    """Of an attempt that has not come to a commit, or is under way."""
    BEATEN = auto()
    """Of an attempt whose number another one has taken."""
    COPY = auto()
    """A file of ours under another path, or one that was replaced and is back."""
    AHEAD = auto()
    """Of a batch beyond the last commit: commits have been lost."""


def judge(name: DataName, next_batch: int, attempts: Callable[[int], Collection[str]]) -> Stray:
    """Say what an unnamed file is, by its name alone.

    `attempts` returns those whose files a commit names.
    """
    if not name.finished or name.batch == next_batch:
        return Stray.LEFTOVER
    if name.batch > next_batch:
        return Stray.AHEAD
    return Stray.COPY if name.attempt in attempts(name.batch) else Stray.BEATEN
