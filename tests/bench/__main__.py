"""Pairs of whole processes, interleaved: the floor and the export, from one sandbox.

`python -m tests.bench [PART…] [--pairs N]`: all parts, each in 5 pairs, by default. Only
ratios are worth quoting: machines are shared, and single times are weather.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple
from uuid import UUID

import pyarrow.parquet as pq

from etl.sandbox.products import has, product_of

SEED: Final = 0


@dataclass(frozen=True)
class Part:
    """What is measured: tables that one floor fills, of so many tests of so many sessions.

    `endpoint` is what the tests' product must have, as the sandbox calls it.
    """

    name: str
    tables: Sequence[str]
    tests: int
    sessions: int
    endpoint: str = "page"
    partitions: Sequence[str] = ("[test_id]",)

    @property
    def test_ids(self) -> list[str]:
        """The tests to export."""
        ids = (str(UUID(int=number, version=4)) for number in count(1))
        return list(islice((i for i in ids if has(product_of(SEED, i), self.endpoint)), self.tests))


DETAILS: Final = ("session_details", "demographics", "task_groups", "tasks")
PARTS: Final = (
    Part("sessions", ("sessions",), 800, 2_500, partitions=("[]", "[test_id]")),
    Part("details", DETAILS, 8, 2_000),
    Part("transcripts", ("transcripts",), 2, 1_500, "transcript"),
)
PARTS_BY_NAME: Final = {part.name: part for part in PARTS}


@dataclass
class Served:
    """Where the sandbox is, what it accepts and, once it has ended, how long it computed."""

    url: str
    token_url: str
    client_id: str
    client_secret: str
    cpu_seconds: float = 0.0

    @property
    def environ(self) -> dict[str, str]:
        """What points an export to it."""
        return {
            "USERTESTING_API_URL": self.url,
            "USERTESTING_TOKEN_URL": self.token_url,
            "USERTESTING_CLIENT_ID": self.client_id,
            "USERTESTING_CLIENT_SECRET": self.client_secret,
        }

    def token(self) -> str:
        """Ask for a token, for the floor."""
        form = {
            "grant_type": "client_credentials",
            "scope": "studies:read",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.token_url, data) as answer:
            return str(json.load(answer)["access_token"])


@contextmanager
def sandbox(sessions: int) -> Iterator[Served]:
    """Serve the sandbox in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.server", str(sessions)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url, token_url, client_id, client_secret = process.stdout.readline().split()
        served = Served(url, token_url, client_id, client_secret)
        try:
            yield served
        finally:
            process.terminate()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            served.cpu_seconds = usage.ru_utime + usage.ru_stime


class Run(NamedTuple):
    """A process that has ended: seconds, its peak memory in MB, and the rows that it made."""

    seconds: float
    peak: float
    rows: int = 0


def timed(command: list[str], environ: dict[str, str]) -> Run:
    """Run a process to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    scale = 1024 if sys.platform != "darwin" else 1024 * 1024
    return Run(time.perf_counter() - began, usage.ru_maxrss / scale)


def rows_below(folder: Path) -> int:
    """Return how many rows the Parquet files below a folder hold."""
    files = folder.rglob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files if "_etl" not in file.parts)


def export(served: Served, folder: Path, part: Part, partition_by: str = "[]") -> Run:
    """Export everything afresh."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "pipelines.yaml"
        file.write_text(
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines: {{all: {{tests: {json.dumps(part.test_ids)}, "
            f"tables: {json.dumps(part.tables)}, "
            f"lake: {{url: lake, partition_by: {partition_by}}}}}}}\n"
        )
        command = [sys.executable, "-m", "etl", "--config", str(file), "run", "--quiet"]
        return timed(command, served.environ)._replace(rows=rows_below(Path(place) / "lake"))


def floor(served: Served, folder: Path, part: Part) -> Run:
    """Run the bare floor."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        ids = Path(place) / "tests"
        ids.write_text(" ".join(part.test_ids))
        arguments = [part.name, served.url, served.token(), str(ids), str(part.sessions), place]
        run = timed([sys.executable, "-m", "tests.bench.floor", *arguments], {})
        return run._replace(rows=rows_below(Path(place)))


def start_up() -> None:
    """Print what starting costs, beside bare Python."""
    for what, command in {
        "bare python": [sys.executable, "-c", "pass"],
        "etl --version": [sys.executable, "-m", "etl", "--version"],
        "import of all that a run needs": [sys.executable, "-c", "import etl.cli.run"],
    }.items():
        seconds = median(timed(command, {}).seconds for _ in range(7))
        print(f"{what:32} {1000 * seconds:7.0f} ms")


def measure(part: Part, pairs: int, partition_by: str, folder: Path) -> None:
    """Measure pairs of floor and export, and print medians and ratios."""
    with sandbox(part.sessions) as served:
        export(served, folder, part, partition_by)  # the sandbox makes what it will serve
        began = time.perf_counter()
        found = [
            (floor(served, folder, part), export(served, folder, part, partition_by))
            for _ in range(pairs)
        ]
        took = time.perf_counter() - began
    for least, mine in found:
        if least.rows != mine.rows:
            raise SystemExit(f"{part.name}: the floor has {least.rows} rows, we {mine.rows}")
    ratios = [least.seconds / mine.seconds for least, mine in found]
    rows, seconds = found[0][1].rows, median(run.seconds for _, run in found)
    print(
        f"{part.name:12} partition_by {partition_by:10} {rows:9,} rows  "
        f"floor {median(run.seconds for run, _ in found):5.2f} s  "
        f"export {seconds:5.2f} s ({rows / seconds:,.0f} rows/s)  "
        f"ratio {median(ratios):4.2f} ({min(ratios):4.2f} to {max(ratios):4.2f})  "
        f"peak memory {max(run.peak for _, run in found):3.0f} MB  "
        f"sandbox busy {served.cpu_seconds / took:.0%}",
        flush=True,
    )


def memory(part: Part, folder: Path) -> None:
    """Print the peak memory for a quarter of the tests, and for all of them."""
    with sandbox(part.sessions) as served:
        few = export(served, folder, replace(part, tests=max(1, part.tests // 4)))
        many = export(served, folder, part)
    print(
        f"{part.name:12} peak memory {few.peak:.0f} MB for {few.rows:,} rows, "
        f"{many.peak:.0f} MB for {many.rows:,}: {many.peak / few.peak - 1:+.0%}",
        flush=True,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that were asked for."""
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS_BY_NAME))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tests", type=int, help="tests of each part, instead of its own number")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - PARTS_BY_NAME.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    start_up()
    with tempfile.TemporaryDirectory() as place:
        for name in asked.parts or PARTS_BY_NAME:
            part = PARTS_BY_NAME[name]
            part = replace(part, tests=asked.tests or part.tests)
            for partition_by in part.partitions:
                measure(part, asked.pairs, partition_by, Path(place))
            memory(part, Path(place))


if __name__ == "__main__":
    main()
