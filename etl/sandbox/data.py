"""The sessions of a test: a pure function of seed and test id, and what changes them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

import msgspec

from etl.sandbox.ids import uuid_of

_NEWEST: Final = datetime(2025, 6, 30, 18, 0, tzinfo=UTC)
_STATUSES: Final = ("COMPLETE",) * 49 + ("COMPLETE_WITH_ISSUES",)

Row = dict[str, object]


def test_ids(seed: int, count: int) -> tuple[str, ...]:
    """Return the ids of the tests that the sandbox lists."""
    return tuple(
        uuid_of(Random(f"{seed}:test:{number}").getrandbits(128)) for number in range(count)
    )


def sessions_of(seed: int, test_id: str, count: int | None) -> list[Row]:
    """Return a test's sessions, newest first; `count` None varies their number by seed."""
    random = Random(f"{seed}:{test_id.lower()}")
    if count is None:
        count = random.choice((0, 1, 7, 60, 240, 499, 500, 501, 730, 1100, 1800))
    audiences = [uuid_of(random.getrandbits(128)) for _ in range(3)]
    return list(_rows(random, audiences, count))


def _rows(random: Random, audiences: list[str], count: int) -> Iterator[Row]:
    finished = _NEWEST - timedelta(seconds=random.randrange(86_400))
    for _ in range(count):
        draw = random.random()
        finished -= timedelta(milliseconds=1 + int(draw * 7_200_000))
        started = finished - timedelta(milliseconds=60_000 + int(random.random() * 3_000_000))
        yield {
            "sessionId": uuid_of(random.getrandbits(128)),
            "audienceId": None if draw < 0.02 else audiences[int(draw * 3)],
            "status": _STATUSES[int(draw * len(_STATUSES))],
            "startTime": _iso(started),
            "finishTime": _iso(finished),
        }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Listing:
    """A test's listing as it stands now, with every row rendered as it is served."""

    rows: list[Row]
    rendered: list[bytes] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        """Render the rows once: a page is then a join."""
        self.rendered = [render(row) for row in self.rows]

    def insert(self, place: int, row: Row) -> None:
        """Put a row at a place."""
        self.rows.insert(place, row)
        self.rendered.insert(place, render(row))

    def remove(self, place: int) -> None:
        """Take the row at a place away."""
        del self.rows[place], self.rendered[place]

    def edit(self, place: int, fields: Mapping[str, object]) -> None:
        """Change fields of the row at a place."""
        self.rows[place] = {**self.rows[place], **fields}
        self.rendered[place] = render(self.rows[place])

    def swap(self, one: int, other: int) -> None:
        """Exchange two rows."""
        self.rows[one], self.rows[other] = self.rows[other], self.rows[one]
        rendered = self.rendered
        rendered[one], rendered[other] = rendered[other], rendered[one]

    def new_row(self, test_id: str, *, late: bool = False) -> Row:
        """Return a session that was not there: just finished, or one that took days."""
        self.made += 1
        digest = hashlib.sha256(f"{test_id}:{self.made}".encode()).digest()
        finished = _NEWEST + timedelta(days=1, seconds=self.made)
        started = finished - (timedelta(days=20) if late else timedelta(minutes=9))
        return {
            "sessionId": uuid_of(int.from_bytes(digest[:16])),
            "audienceId": None,
            "status": "COMPLETE",
            "startTime": _iso(started),
            "finishTime": _iso(finished),
        }


render = msgspec.json.Encoder().encode
"""Return a row as compact JSON, in the field order of the published answers."""
