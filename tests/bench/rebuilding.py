"""An export, and `etl rebuild` of all its tables from the answers that it kept.

`python -m tests.bench.rebuilding [SESSIONS]`: of each of 5 tests, 2 000 by default; once with
their details alone, once with all that is kept of a session. Fails where a row is not as it
was; says how many times as fast a rebuild is, whole processes.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.__main__ import DETAILS, Part, sandbox, timed


def content(lake: Path, tables: Sequence[str]) -> dict[str, list[str]]:
    """Return all rows by table, whatever file they lie in."""
    return {
        table: sorted(
            repr(row)
            for path in (lake / table).rglob("part-*.parquet")
            for row in pq.read_table(path, partitioning=None).to_pylist()
        )
        for table in tables
    }


def measured(part: Part, place: Path) -> str:
    """Export into a place, and rebuild three times; return what is to be said of it."""
    with sandbox(part.sessions) as served:
        file = place / "pipelines.yaml"
        file.write_text(
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines: {{all: {{tests: {json.dumps(part.test_ids)}, "
            f"tables: {json.dumps(part.tables)}, lake: {{url: lake}}}}}}\n"
        )
        command = [sys.executable, "-m", "etl", "--config", str(file)]
        exported = timed([*command, "run", "--quiet"], served.environ)
    shutil.copytree(place / "lake", place / "before")
    rebuilt = [timed([*command, "rebuild"], {}) for _ in range(3)]
    best = min(run.seconds for run in rebuilt)
    return (
        f"{5 * part.sessions:,} sessions, {part.name}: export {exported.seconds:.1f} s, "
        f"rebuild {best:.1f} s, {exported.seconds / best:.1f} times as fast; "
        f"peak memory {max(run.peak for run in rebuilt):.0f} MB"
    )


def main(sessions: int = 2_000) -> None:
    """Measure both, compare, and print."""
    tables = ("sessions", *DETAILS)
    parts = [
        Part("details", tables, 5, sessions),
        Part("all that is kept", (*tables, "transcripts"), 5, sessions),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        places = [Path(temporary) / part.name for part in parts]
        for place in places:
            place.mkdir()
        # Nothing is read here before: a process inherits the peak of the one that starts it.
        for told in list(map(measured, parts, places)):
            print(told)
        for part, place in zip(parts, places, strict=True):
            if content(place / "lake", part.tables) != content(place / "before", part.tables):
                raise SystemExit("The tables are not what they were.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
