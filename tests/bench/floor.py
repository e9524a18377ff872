"""The bare floor: fetch, decode, Arrow, Parquet; nothing durable, nothing proved.

It asks for the same answers as an export does, by the same HTTP library, as many at once,
and writes a file for each table, with the same columns but those of the run. What an export
takes beyond it is the price of never losing and never doubling.

What is a matter of reading and not of care is the exporter's own here too: what an answer
says (`etl.tables.answers`), and the WebVTT parser.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from etl.tables.answers import said
from etl.tables.webvtt import parse

_TIMESTAMP = pa.timestamp("us", "UTC")
_ROW_GROUP_ROWS = 50_000
_FETCHERS = 8

_Schema: TypeAlias = dict[str, pa.DataType]
_Get: TypeAlias = Callable[[str], Awaitable[bytes]]


class _File:
    """A table's file: gathers columns, and writes a row group when one is full."""

    def __init__(self, folder: Path, table: str, schema: _Schema, repeating: Sequence[str]) -> None:
        self._schema = pa.schema(list(schema.items()))
        self._columns: list[list[Any]] = [[] for _ in schema]
        self._writer = pq.ParquetWriter(
            folder / f"{table}.parquet",
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(repeating),  # type: ignore[arg-type]
        )

    def add(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows, in the order of the schema."""
        for gathered, column in zip(self._columns, zip(*rows, strict=True), strict=False):
            gathered.extend(column)
        if len(self._columns[0]) >= _ROW_GROUP_ROWS:
            self._write()

    def close(self) -> None:
        """Write what waits, and close."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        arrays = [
            pa.array(column, pa.string()).cast(kind)
            if kind == _TIMESTAMP
            else pa.array(column, kind)
            for column, kind in zip(self._columns, self._schema.types, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        for column in self._columns:
            column.clear()


class _Summary(msgspec.Struct, rename="camel"):
    session_id: str
    audience_id: str | None = None
    status: str | None = None
    start_time: str | None = None
    finish_time: str | None = None


class _Page(msgspec.Struct):
    sessions: list[_Summary]


_decode_page = msgspec.json.Decoder(_Page).decode


class Sessions:
    """The table `sessions`: of pages alone."""

    follow_up = ""

    def __init__(self, folder: Path) -> None:
        """Begin its file."""
        columns: _Schema = dict.fromkeys(
            ("test_id", "session_id", "audience_id", "status"), pa.string()
        )
        columns |= {"start_time": _TIMESTAMP, "finish_time": _TIMESTAMP}
        self.files = [_File(folder, "sessions", columns, ("test_id", "audience_id", "status"))]

    def page(self, test_id: str, rows: Sequence[_Summary]) -> None:
        """Take the rows of a page."""
        self.files[0].add(
            (test_id, row.session_id, row.audience_id, row.status, row.start_time, row.finish_time)
            for row in rows
        )

    def answer(self, test_id: str, session_id: str, body: bytes) -> None:
        """Take nothing more: pages say it all."""


class _Demographic(msgspec.Struct):
    id: str | None = None
    code: str | None = None
    label: str | None = None
    value: str | None = None
    type: str | None = None


class _Participant(msgspec.Struct, rename="camel"):
    participant_id: str | None = None
    demographics_info: list[_Demographic] | None = None


class _Group(msgspec.Struct):
    uuid: str
    type: str | None = None
    response: dict[str, Any] | None = None


class _Response(msgspec.Struct, rename="camel"):
    skipped: bool | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    answer: Any = None


class _Task(msgspec.Struct):
    uuid: str | None = None
    type: str | None = None
    text: str | None = None
    response: _Response | None = None


class _Details(msgspec.Struct, rename="camel"):
    session_id: str
    audience_id: str | None = None
    test_plan_id: str | None = None
    session_participant: _Participant | None = None
    task_groups: list[_Group] = []
    tasks: list[_Task] = []


_decode_details = msgspec.json.Decoder(_Details).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def _json(value: object) -> str | None:
    return None if value is None else _encode(value).decode()


_TEXT: Final = pa.string()
_IDS: Final[_Schema] = {"test_id": _TEXT, "session_id": _TEXT}


class Details:
    """The four tables of a session's details."""

    follow_up = "/api/v3/sessionResults/{}"

    def __init__(self, folder: Path) -> None:
        """Begin their files."""
        details = _IDS | dict.fromkeys(("audience_id", "test_plan_id", "participant_id"), _TEXT)
        of_all = ("test_id", "audience_id", "test_plan_id")
        self._details = _File(folder, "session_details", details, of_all)
        asked = dict.fromkeys(("question_id", "code", "label", "value", "type"), _TEXT)
        demographics = _IDS | {"participant_id": _TEXT, "position": pa.int32()} | asked
        repeating = [name for name in demographics if name not in ("position", "value")]
        self._demographics = _File(folder, "demographics", demographics, repeating)
        groups = _IDS | {"task_group_id": _TEXT, "type": _TEXT, "score": pa.float64()}
        groups |= {"sequence": _TEXT, "response": _TEXT}
        repeating = ["test_id", "session_id", "task_group_id", "type"]
        self._groups = _File(folder, "task_groups", groups, repeating)
        tasks = _IDS | {"position": pa.int32(), "task_id": _TEXT, "type": _TEXT, "text": _TEXT}
        tasks |= {"skipped": pa.bool_(), "start_time_ms": pa.int64(), "end_time_ms": pa.int64()}
        tasks |= {"answer": _TEXT, "answer_text": _TEXT, "answer_number": pa.float64()}
        repeating = ["test_id", "session_id", "task_id", "type", "text"]
        self._tasks = _File(folder, "tasks", tasks, repeating)
        self.files = [self._details, self._demographics, self._groups, self._tasks]

    def page(self, test_id: str, rows: Sequence[_Summary]) -> None:
        """Take nothing: a page only names its sessions."""

    def answer(self, test_id: str, session_id: str, body: bytes) -> None:
        """Take the rows of a session's details."""
        found = _decode_details(body)
        participant = found.session_participant or _Participant()
        who = participant.participant_id
        ids = (test_id, session_id)
        self._details.add([(*ids, found.audience_id, found.test_plan_id, who)])
        self._demographics.add(
            (*ids, who, place, one.id, one.code, one.label, one.value, one.type)
            for place, one in enumerate(participant.demographics_info or ())
        )
        self._groups.add((*ids, *_group(group)) for group in found.task_groups)
        self._tasks.add((*ids, place, *_task(task)) for place, task in enumerate(found.tasks))


def _group(group: _Group) -> Sequence[Any]:
    response = group.response or {}
    told = _json(group.response)
    return (group.uuid, group.type, response.get("score"), response.get("sequence"), told)


def _task(task: _Task) -> Sequence[Any]:
    response = task.response or _Response()
    times = (response.start_time_ms, response.end_time_ms)
    text, number = said(task.type, response.answer)
    whole = _json(response.answer)
    return (task.uuid, task.type, task.text, response.skipped, *times, whole, text, number)


class Transcripts:
    """The table `transcripts`."""

    follow_up = "/api/v2/sessionResults/{}/transcript"

    def __init__(self, folder: Path) -> None:
        """Begin its file."""
        cues = _IDS | {"cue_index": pa.int32(), "cue_id": _TEXT}
        cues |= {"start_ms": pa.int64(), "end_ms": pa.int64(), "speaker": _TEXT, "text": _TEXT}
        self.files = [_File(folder, "transcripts", cues, ("test_id", "session_id", "speaker"))]

    def page(self, test_id: str, rows: Sequence[_Summary]) -> None:
        """Take nothing: a page only names its sessions."""

    def answer(self, test_id: str, session_id: str, body: bytes) -> None:
        """Take the cues of a transcript."""
        self.files[0].add(
            (test_id, session_id, *cue) for cue in zip(*parse(body.decode()).cues, strict=True)
        )


Floor: TypeAlias = Sessions | Details | Transcripts
FLOORS: Final[dict[str, type[Floor]]] = {
    "sessions": Sessions,
    "details": Details,
    "transcripts": Transcripts,
}


async def _side_by_side(
    all_jobs: Iterable[tuple[str, str]], run: Callable[[str, str], Awaitable[None]]
) -> None:
    """Run all jobs in their order, eight at a time."""
    jobs = [*all_jobs]
    jobs.reverse()

    async def work() -> None:
        while jobs:
            await run(*jobs.pop())

    async with asyncio.TaskGroup() as group:
        for _ in range(_FETCHERS):
            group.create_task(work())


async def export(floor: Floor, get: _Get, tests: Sequence[str], sessions: int) -> None:
    """Ask every page of every test, then what follows from each session."""
    starts = [0, *range(499, max(500, sessions - 1), 499)] if sessions > 500 else [0]
    pages = [(test, str(start)) for test in tests for start in starts]
    listed: dict[str, str] = {}

    async def page(test: str, start: str) -> None:
        body = await get(f"/api/v2/sessionResults?testId={test}&limit=500&offset={start}")
        rows = _decode_page(body).sessions
        if start != "0":
            del rows[0]  # the last one of the page before: each begins where that one ended
        floor.page(test, rows)
        if floor.follow_up:
            listed.update((row.session_id, test) for row in rows)

    async def answer(session: str, test: str) -> None:
        floor.answer(test, session, await get(floor.follow_up.format(session)))

    await _side_by_side(pages, page)
    await _side_by_side(listed.items(), answer)
    for file in floor.files:
        file.close()


async def main(floor: Floor, url: str, token: str, tests: Sequence[str], sessions: int) -> None:
    """Run one floor, from a client's beginning to its end."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:

        async def get(path: str) -> bytes:
            async with session.get(url + path) as response:
                response.raise_for_status()
                return await response.read()

        await export(floor, get, tests, sessions)


if __name__ == "__main__":
    _kind, _url, _token, _tests, _sessions, _folder = sys.argv[1:]
    _ids = Path(_tests).read_text().split()
    asyncio.run(main(FLOORS[_kind](Path(_folder)), _url, _token, _ids, int(_sessions)))
