"""Pairs of whole processes, interleaved: the floor and the export, from one sandbox.

`python -m tests.bench [TESTS] [PAIRS]`; 800 tests of 2 500 sessions and 5 pairs by default.
Only ratios are worth quoting: machines are shared, and single times are weather.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from uuid import UUID

SESSIONS = 2_500


@dataclass(frozen=True)
class Served:
    """Where the sandbox is, and what it accepts."""

    environ: dict[str, str]

    @property
    def url(self) -> str:
        """Its base."""
        return self.environ["USERTESTING_API_URL"]

    def token(self) -> str:
        """Ask for a token, for the floor."""
        form = {
            "grant_type": "client_credentials",
            "scope": "studies:read",
            "client_id": self.environ["USERTESTING_CLIENT_ID"],
            "client_secret": self.environ["USERTESTING_CLIENT_SECRET"],
        }
        data = urllib.parse.urlencode(form).encode()
        with urllib.request.urlopen(self.environ["USERTESTING_TOKEN_URL"], data) as answer:
            return str(json.load(answer)["access_token"])


@contextmanager
def sandbox() -> Iterator[Served]:
    """Serve the sandbox in a process of its own."""
    command = [sys.executable, "-m", "etl", "sandbox", "--port", "0", "--tests", "0"]
    command += ["--sessions", str(SESSIONS), "--rate-limit", "100000/1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split(maxsplit=1)[1].strip() for _ in range(4)]
        try:
            yield Served(dict(line.split("=", 1) for line in lines))
        finally:
            process.terminate()


def timed(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    """Run a process; return its seconds and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    scale = 1024 if sys.platform != "darwin" else 1024 * 1024
    return time.perf_counter() - began, usage.ru_maxrss / scale


def test_ids(count: int) -> list[str]:
    """Return the ids of the tests to export."""
    return [str(UUID(int=number, version=4)) for number in range(1, count + 1)]


def export(served: Served, folder: Path, tests: int, partition_by: str) -> tuple[float, float]:
    """Export everything afresh; return seconds and peak memory in MB."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        file = Path(place) / "pipelines.yaml"
        file.write_text(
            "version: 1\nconnections: {default: {rate_limit: {requests: 100000, seconds: 1}}}\n"
            f"pipelines: {{all: {{tests: {json.dumps(test_ids(tests))}, "
            f"lake: {{url: lake, partition_by: {partition_by}}}}}}}\n"
        )
        command = [sys.executable, "-m", "etl", "--config", str(file), "run", "--quiet"]
        return timed(command, served.environ)


def floor(served: Served, folder: Path, tests: int) -> tuple[float, float]:
    """Run the bare floor; return seconds and peak memory in MB."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        ids = Path(place) / "tests"
        ids.write_text(" ".join(test_ids(tests)))
        arguments = [served.url, served.token(), str(ids), str(SESSIONS), f"{place}/floor.parquet"]
        return timed([sys.executable, "-m", "tests.bench.floor", *arguments], {})


def start_up() -> None:
    """Print what starting costs, beside bare Python."""
    for what, command in {
        "bare python": [sys.executable, "-c", "pass"],
        "etl --version": [sys.executable, "-m", "etl", "--version"],
        "import of all that a run needs": [sys.executable, "-c", "import etl.cli.run"],
    }.items():
        print(f"{what:32} {1000 * median(timed(command, {})[0] for _ in range(7)):7.0f} ms")


def main(tests: int = 800, pairs: int = 5) -> None:
    """Measure, and print medians and ratios."""
    start_up()
    with sandbox() as served, tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        print(f"{tests} tests of {SESSIONS} sessions, {pairs} interleaved pairs; whole processes")
        for partition_by in ("[]", "[test_id]"):
            found = [
                (floor(served, folder, tests), export(served, folder, tests, partition_by))
                for _ in range(pairs)
            ]
            ratios = [least[0] / mine[0] for least, mine in found]
            print(
                f"partition_by {partition_by:10} floor {median(f[0] for f, _ in found):5.2f} s  "
                f"export {median(e[0] for _, e in found):5.2f} s  "
                f"ratio {median(ratios):4.2f} ({min(ratios):4.2f} to {max(ratios):4.2f})  "
                f"peak memory {max(e[1] for _, e in found):3.0f} MB"
            )
        few = export(served, folder, max(1, tests // 4), "[]")
        many = export(served, folder, tests, "[]")
        print(
            f"peak memory {few[1]:.0f} MB for {tests // 4 * SESSIONS:,} rows, "
            f"{many[1]:.0f} MB for {tests * SESSIONS:,}: {many[1] / few[1] - 1:+.0%}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
