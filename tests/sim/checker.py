"""Compares lake and server after each life. Shares no code with what it judges: it reads
Parquet, and remembers what the server has ever listed.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

Values = tuple[object, ...]


@dataclass
class History:
    """What the server has ever listed: each session's values, and since which life."""

    since: dict[str, dict[str, int]] = field(default_factory=dict)
    values: dict[str, dict[str, set[Values]]] = field(default_factory=dict)

    def note(self, test: str, rows: Sequence[Mapping[str, object]], life: int) -> None:
        """Note how a test's listing stands now."""
        before = self.since.get(test, {})
        self.since[test] = {}
        self.values.setdefault(test, {})
        for row in rows:
            session = str(row["sessionId"])
            self.since[test][session] = before.get(session, life)
            versions = self.values[test].setdefault(session, set())
            versions.add((row["audienceId"], row["status"], row["startTime"], row["finishTime"]))


@dataclass
class Checker:
    """Looks at the lake again and again; rows may come, and none may go."""

    lake: Path
    history: History
    landed: dict[str, set[str]] = field(default_factory=dict)
    verified_in: dict[str, int] = field(default_factory=dict)
    commits_seen: set[str] = field(default_factory=set)

    def every_file_is_whole(self) -> None:
        """Assert that no final name shows half a file, whatever instant this is."""
        for path in self.lake.rglob("*.parquet"):
            with pq.ParquetFile(path) as file:
                assert file.metadata.num_rows >= 0

    def after_a_run(self, life: int, *, full_audit: bool, rows_lied: bool) -> int:
        """Check all that is to be true when a run has ended; return how many rows landed."""
        rows = self._rows("sessions")
        found: dict[str, list[str]] = {}
        for row in rows:
            test, session = str(row["test_id"]), str(row["session_id"])
            found.setdefault(test, []).append(session)
            versions = self.history.values.get(test, {}).get(session)
            assert versions is not None, f"{session} of {test} was never served"
            assert _values(row) in versions, f"{session} of {test} was never served like that"
        for test, sessions in found.items():
            doubled = [session for session, times in Counter(sessions).items() if times > 1]
            assert not doubled, f"doubled in {test}: {doubled}"
        now = {test: set(sessions) for test, sessions in found.items()}
        for test, earlier in self.landed.items():
            lost = earlier - now.get(test, set())
            assert not lost, f"landed once and gone from {test}: {lost}"
        self.landed = now
        leftovers = [path for path in self.lake.rglob(".*") if "_etl" not in path.parts]
        assert not leftovers, f"left behind: {leftovers}"
        self._rejects_stand_once()
        self._the_verified_are_complete(life, full_audit=full_audit, rows_lied=rows_lied)
        return len(rows)

    def all_is_there(self, test: str) -> None:
        """Assert that every session that is listed now has landed."""
        lost = self.history.since[test].keys() - self.landed.get(test, set())
        assert not lost, f"lost from {test}: {lost}"

    def note_commits(self, life: int) -> None:
        """Note which tests the commits of a life that was killed call verified."""
        for test in self._newly_verified():
            self.verified_in[test] = life

    def _the_verified_are_complete(self, life: int, *, full_audit: bool, rows_lied: bool) -> None:
        """A test called verified holds every session that was listed all along.

        All along is since the first life; where every look reads every page, since before
        the test was verified last.
        """
        for test in self._newly_verified():
            before = self.verified_in.get(test, 0)
            since = self.history.since[test]
            due = {session for session, in_life in since.items() if in_life <= before}
            if full_audit or test not in self.verified_in:
                lost = due - self.landed.get(test, set())
                assert not lost or rows_lied, f"{test} is called verified without {lost}"
            self.verified_in[test] = life

    def _newly_verified(self) -> set[str]:
        verified: set[str] = set()
        for path in sorted((self.lake / "_etl" / "answers").rglob("*.parquet")):
            if path.name in self.commits_seen:
                continue
            self.commits_seen.add(path.name)
            columns = ["endpoint", "test_id", "status"]
            for row in pq.read_table(path, columns=columns, partitioning=None).to_pylist():
                if row["endpoint"] == "verified" and row["status"] == 1:
                    verified.add(row["test_id"])
        return verified

    def _rejects_stand_once(self) -> None:
        rejects = Counter(
            (row["endpoint"], row["test_id"], row["session_id"], row["body"])
            for row in self._rows("rejects")
        )
        assert all(times == 1 for times in rejects.values()), f"rejected twice: {rejects}"

    def _rows(self, table: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for path in (self.lake / table).rglob("*.parquet"):
            in_path = dict(part.split("=", 1) for part in path.parts if "=" in part)
            with pq.ParquetFile(path) as file:
                rows += [{**in_path, **row} for row in file.read().to_pylist()]
        return rows


def _values(row: Mapping[str, object]) -> Values:
    return (row["audience_id"], row["status"], _iso(row["start_time"]), _iso(row["finish_time"]))


def _iso(moment: object) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def last_run(state: Path) -> dict[str, object]:
    """Return what the run has said of itself for machines."""
    told: dict[str, object] = json.loads((state / "last_run.json").read_text())
    return told
