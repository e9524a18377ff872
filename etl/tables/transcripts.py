"""The table `transcripts`: what was said in a session, cue by cue.

Source: `GET /api/v2/sessionResults/{sessionId}/transcript` (results-v2), as WebVTT.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope, UnreadableBodyError
from etl.tables.values import (
    SESSION_ID,
    TEST_ID,
    Cells,
    Column,
    Reject,
    Rows,
    Table,
    Value,
    key_hashes,
    row_hash,
)
from etl.tables.webvtt import Transcript, parse

_encode = msgspec.json.Encoder().encode
_decode_string = msgspec.json.Decoder(str).decode

_COLUMNS: Final = (
    Column("cue_index", pa.int32(), "Place of the cue in its transcript, from 0."),
    Column("cue_id", pa.string(), "The cue's own name, if it has one."),
    Column("start_ms", pa.int64(), "Start, in milliseconds of the video."),
    Column("end_ms", pa.int64(), "End, in milliseconds of the video."),
    Column("speaker", pa.string(), "Who speaks, where a voice tag says so.", repeats=True),
    Column("text", pa.string(), "What is said, without markup."),
)

_KEY: Final = ("session_id", "cue_index")


def decode(body: bytes) -> Transcript:
    """Read a transcript; raises UnreadableBodyError if it is none.

    Also one that comes as a JSON string, since the API's documents name both types.
    """
    try:
        quoted = body.startswith(b'"')
        return parse(_decode_string(body) if quoted else body.decode(errors="replace"))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise UnreadableBodyError("it is not WebVTT") from None


def _rows_of(answer: Answer, transcript: Transcript) -> Rows:
    cues = transcript.cues
    return Rows(
        keys=key_hashes([answer.session_id] * len(cues.places), cues.places),
        hashed=lambda: [row_hash(_encode(cue)) for cue in zip(*cues, strict=True)],
        cells=_cells(cues),
        rejects=[
            Reject("a cue is malformed", text, answer.session_id) for text in transcript.malformed
        ],
    )


def _cells(cues: Iterable[Sequence[Value]]) -> dict[str, Cells]:
    return {
        column.name: Cells(column.type, values)
        for column, values in zip(_COLUMNS, cues, strict=True)
    }


TRANSCRIPT: Final = Endpoint(
    name="transcript",
    path="/api/v2/sessionResults/{session_id}/transcript",
    scope=Scope.SESSION,
    priority=Priority.TRANSCRIPTS,
    decode=decode,
    products=frozenset({"THINK_OUT_LOUD", "LIVE_CONVERSATION"}),
)
"""The transcript of a session's video."""

TABLE: Final = Table(
    name="transcripts",
    row="a WebVTT cue",
    key=_KEY,
    endpoint=TRANSCRIPT,
    columns=(TEST_ID, SESSION_ID, *_COLUMNS),
    rows_of=_rows_of,
)
