"""An export of details, and `etl rebuild` of all its tables from the answers that it kept.

`python -m tests.bench.rebuilding [SESSIONS]`: of each of 5 tests, 2 000 by default. Fails
where a row is not as it was; says how many times as fast a rebuild is, whole processes.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.__main__ import DETAILS, Part, sandbox, timed


def content(lake: Path) -> dict[str, list[str]]:
    """Return all rows by table, whatever file they lie in."""
    return {
        table: sorted(
            repr(row)
            for path in (lake / table).rglob("part-*.parquet")
            for row in pq.read_table(path, partitioning=None).to_pylist()
        )
        for table in ("sessions", *DETAILS)
    }


def main(sessions: int = 2_000) -> None:
    """Measure, compare, and print."""
    part = Part("details", ("sessions", *DETAILS), 5, sessions)
    with sandbox(sessions) as served, tempfile.TemporaryDirectory() as place:
        file = Path(place) / "pipelines.yaml"
        file.write_text(
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines: {{all: {{tests: {json.dumps(part.test_ids)}, "
            f"tables: {json.dumps(part.tables)}, lake: {{url: lake}}}}}}\n"
        )
        command = [sys.executable, "-m", "etl", "--config", str(file)]
        exported = timed([*command, "run", "--quiet"], served.environ)
        shutil.copytree(Path(place) / "lake", Path(place) / "before")
        # Nothing is read here before: a process inherits the peak of the one that starts it.
        rebuilt = [timed([*command, "rebuild"], {}) for _ in range(3)]
        if content(Path(place) / "lake") != content(Path(place) / "before"):
            raise SystemExit("The tables are not what they were.")
        best = min(run.seconds for run in rebuilt)
        print(
            f"{5 * sessions:,} sessions: export {exported.seconds:.1f} s, rebuild {best:.1f} s, "
            f"{exported.seconds / best:.1f} times as fast; "
            f"peak memory {max(run.peak for run in rebuilt):.0f} MB"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
