"""The bare floor: fetch, decode, Arrow, Parquet; nothing durable, nothing proved.

It asks for the same pages as an export does, by the same HTTP library, and writes one
file. What an export takes beyond it is the price of never losing and never doubling.
"""

import asyncio
import sys
from pathlib import Path

import aiohttp
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

_TIMESTAMP = pa.timestamp("us", "UTC")
_PAGES_A_ROW_GROUP = 100
_FETCHERS = 8


class _Summary(msgspec.Struct, rename="camel"):
    session_id: str
    audience_id: str | None = None
    status: str | None = None
    start_time: str | None = None
    finish_time: str | None = None


class _Page(msgspec.Struct):
    sessions: list[_Summary]


_decode = msgspec.json.Decoder(_Page).decode


def rows_of(test_id: str, body: bytes) -> pa.RecordBatch:
    """Return a page's rows as Arrow."""
    rows = _decode(body).sessions
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(pa.scalar(test_id, pa.string()), len(rows)),
            pa.array([row.session_id for row in rows], pa.string()),
            pa.array([row.audience_id for row in rows], pa.string()),
            pa.array([row.status for row in rows], pa.string()),
            pa.array([row.start_time for row in rows], pa.string()).cast(_TIMESTAMP),
            pa.array([row.finish_time for row in rows], pa.string()).cast(_TIMESTAMP),
        ],
        names=["test_id", "session_id", "audience_id", "status", "start_time", "finish_time"],
    )


class _File:
    """Writes row groups as they fill."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.RecordBatch, most: int = _PAGES_A_ROW_GROUP) -> None:
        """Add a page, and write when enough wait."""
        self._waiting.append(rows)
        if len(self._waiting) >= most:
            table = pa.Table.from_batches(self._waiting)
            self._waiting.clear()
            if self._writer is None:
                self._writer = pq.ParquetWriter(
                    self._path, table.schema, compression="zstd", compression_level=1
                )
            self._writer.write_table(table)

    def close(self) -> None:
        """Write what waits, and close."""
        if self._waiting:
            self.add(self._waiting.pop(), most=1)
        if self._writer is not None:
            self._writer.close()


async def fetch_all(url: str, token: str, tests: list[str], sessions: int, path: Path) -> None:
    """Ask every page of every test, eight at a time, into one file."""
    starts = [0, *range(499, max(500, sessions - 1), 499)] if sessions > 500 else [0]
    pages = [(test, start) for test in tests for start in starts]
    pages.reverse()
    file = _File(path)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def fetch() -> None:
            while pages:
                test, start = pages.pop()
                query = f"testId={test}&limit=500&offset={start}"
                async with session.get(f"{url}/api/v2/sessionResults?{query}") as response:
                    file.add(rows_of(test, await response.read()))

        async with asyncio.TaskGroup() as group:
            for _ in range(_FETCHERS):
                group.create_task(fetch())
    file.close()


if __name__ == "__main__":
    _url, _token, _tests, _sessions, _path = sys.argv[1:]
    asyncio.run(
        fetch_all(_url, _token, Path(_tests).read_text().split(), int(_sessions), Path(_path))
    )
