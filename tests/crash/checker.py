"""Looks at lake and ledger with other eyes: not a line of it is the exporter's.

Parquet is read by pyarrow, the ledger by SQLite, the sandbox's rows as they were served.
Every function returns what it found wrong, as sentences; all of them block.
"""

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

Page = tuple[str, tuple[tuple[str, str], ...]]
"""A page of a test's listing, by its id and query: what is paid for once."""

_COLUMNS = {
    "audienceId": "audience_id",
    "status": "status",
    "startTime": "start_time",
    "finishTime": "finish_time",
}


def half_written(lake: Path) -> list[str]:
    """Look for files that bear a final name and cannot be read: right at any instant."""
    found = []
    for path in lake.rglob("*.parquet"):
        try:
            pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            found.append(f"{path.relative_to(lake)} bears a final name but: {error}")
    return found


def disorder(lake: Path, pipeline: str) -> list[str]:
    """Look for files that no commit names, commits that disagree with the files, leftovers."""
    named: dict[str, dict[str, Any]] = {}
    commits = sorted((lake / "_etl" / "answers" / f"pipeline={pipeline}").glob("[0-9]*.parquet"))
    found = []
    if [path.name for path in commits] != [f"{n + 1:08}.parquet" for n in range(len(commits))]:
        found.append(f"the commits do not count up from 1: {[path.name for path in commits]}")
    for commit in commits:
        told = _told(commit)
        named |= {file["path"]: file for file in told.get("files", [])}
        for replaced in told.get("replaces", []):
            named.pop(replaced, None)
    present = {
        str(path.relative_to(lake)): path
        for path in lake.rglob("*")
        if path.is_file() and not {"_etl", "_files"} & set(path.relative_to(lake).parts)
    }
    found += [f"no commit names {name}" for name in present.keys() - named.keys()]
    found += [f"a commit names {name}, which is gone" for name in named.keys() - present.keys()]
    for name in named.keys() & present.keys():
        rows, size = pq.read_metadata(present[name]).num_rows, present[name].stat().st_size
        if (rows, size) != (named[name]["rows"], named[name]["bytes"]):
            found.append(f"{name} has {rows} rows, {size} bytes; its commit says {named[name]}")
    hidden = [path for path in lake.rglob(".*") if path.is_file()]
    return [*found, *(f"a leftover: {path.relative_to(lake)}" for path in hidden)]


def wrong_cells(lake: Path, served: Mapping[str, Sequence[Mapping[str, object]]]) -> list[str]:
    """Compare every cell of the lake with what was served: lost, doubled, changed rows."""
    landed: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _rows(lake, "sessions"):
        landed.setdefault((row["test_id"], row["session_id"]), []).append(row)
    expected = {(test, str(row["sessionId"])): row for test, rows in served.items() for row in rows}
    found = [f"lost: {key}" for key in expected.keys() - landed.keys()]
    found += [f"never served: {key}" for key in landed.keys() - expected.keys()]
    for key, rows in landed.items():
        if len(rows) > 1:
            found.append(f"{len(rows)} times: {key}")
        if key in expected:
            found += [f"{key}: {wrong}" for wrong in _differences(rows[0], expected[key])]
    return found + [f"rejected: {row}" for row in _rows(lake, "rejects")]


def unproved(lake: Path, pipeline: str, tests: Collection[str]) -> list[str]:
    """Look for tests that the lake's own record does not call proved complete."""
    last: dict[str, int] = {}
    for path in sorted((lake / "_etl" / "answers" / f"pipeline={pipeline}").glob("*.parquet")):
        for row in pq.read_table(path, columns=["endpoint", "test_id", "status"]).to_pylist():
            if row["endpoint"] == "verified":
                last[row["test_id"]] = row["status"]
    return [f"{test} is not recorded as proved" for test in tests if last.get(test) != 1]


def durable_pages(lake: Path, state: Path, pipeline: str, *, since_us: int = 0) -> Counter[Page]:
    """Return the pages that would survive a death now: in a commit, or in the inbox."""
    found: Counter[Page] = Counter()
    for path in (lake / "_etl" / "answers" / f"pipeline={pipeline}").glob("[0-9]*.parquet"):
        columns = ["endpoint", "test_id", "object_id", "fetched_at"]
        for row in pq.read_table(path, columns=columns).to_pylist():
            if row["endpoint"] not in ("listing", "verified", "removed"):
                page = _page(row["test_id"], row["object_id"])
                found[page] += microseconds(row["fetched_at"]) >= since_us
    for _, test_id, _, object_id, _, fetched_at_us, *_ in inbox(state / f"{pipeline}.sqlite"):
        found[_page(test_id, object_id)] += fetched_at_us >= since_us
    return +found


def leftovers(state: Path) -> list[str]:
    """Look for hidden files that nobody will ever remove from a state directory."""
    return [f"a leftover: {path.name}" for path in state.rglob(".*") if path.is_file()]


def inbox(ledger: Path) -> list[list[Any]]:
    """Return the heads of the answers that wait in a ledger, read in a copy of it."""
    if not ledger.exists():
        return []
    with tempfile.TemporaryDirectory() as place:
        for path in (ledger, ledger.with_name(f"{ledger.name}-wal")):
            if path.exists():
                shutil.copy(path, place)
        with closing(sqlite3.connect(Path(place) / ledger.name)) as database:
            try:
                frames = database.execute("SELECT heads FROM inbox").fetchall()
            except sqlite3.OperationalError:  # died before it had a table
                return []
    return [head for (heads,) in frames for head in msgspec.msgpack.decode(heads)]


def _page(test_id: str, query: str) -> Page:
    return test_id, tuple(sorted(parse_qsl(query)))


def _told(commit: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((pq.read_schema(commit).metadata or {})[b"etl"])
    return told


def _rows(lake: Path, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((lake / table).rglob("*.parquet")):
        keys = {
            name: unquote(value)
            for name, _, value in (part.partition("=") for part in path.parts if "=" in part)
        }
        rows += [{**keys, **row} for row in pq.read_table(path, partitioning=None).to_pylist()]
    return rows


def _differences(row: Mapping[str, Any], served: Mapping[str, object]) -> list[str]:
    found = []
    for theirs, ours in _COLUMNS.items():
        expected: object = served[theirs]
        if theirs.endswith("Time"):
            expected = datetime.fromisoformat(str(expected)).astimezone(UTC)
        if row[ours] != expected:
            found.append(f"{ours} is {row[ours]!r}, served was {expected!r}")
    for partition, column in (("start", "start_time"), ("finish", "finish_time")):
        for form, name in (("%Y-%m-%d", f"{partition}_date"), ("%Y-%m", f"{partition}_month")):
            if name in row and row[name] != f"{row[column]:{form}}":
                found.append(f"it lies under {name}={row[name]}")
    if not row["_run_id"] or row["_fetched_at"] is None or row["_extra"] is not None:
        found.append("its run, time or extra is wrong")
    return found


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970."""
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)
