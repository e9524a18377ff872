"""The table `clips`: stretches that somebody cut out of a session's video.

Source: `GET /api/v2/sessionResults/{sessionId}/clips` (results-v2, ClipsResponseDto).
"""

from typing import Final

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.downloads import MEDIA_PRODUCTS, clip
from etl.tables.json_text import Document, listing_of
from etl.tables.kinds import FLAG, ID, ROUNDED, TEXT
from etl.tables.reading import Field, Reader, listed, surrounded
from etl.tables.receipts import FILE_COLUMNS, receipts_of
from etl.tables.values import SESSION_ID, TEST_ID, FileSource, Rows, Table

_READER: Final = Reader(
    Field("uuid", "clip_id", ID, "The clip."),
    Field("name", "name", TEXT, "Its name."),
    Field("description", "description", TEXT, "What somebody wrote about it."),
    Field("timeStartMs", "time_start_ms", ROUNDED, "Start, in milliseconds of the session."),
    Field("timeEndMs", "time_end_ms", ROUNDED, "End, in milliseconds of the session."),
    Field("videoUuid", "video_id", TEXT, "The video that it is cut from."),
    Field("hasAudio", "has_audio", FLAG, "Whether one hears the participant."),
    Field("hasCamera", "has_camera", FLAG, "Whether one sees the participant."),
    Field("layout.mainStream", "main_stream", TEXT, "What fills the frame.", repeats=True),
    Field("layout.pipPosition", "pip_position", TEXT, "Corner of the small one.", repeats=True),
    Field("layout.pipState", "pip_state", TEXT, "Whether the small one shows.", repeats=True),
    derived=FILE_COLUMNS,
    within="clips",
)

_KEY: Final = ("clip_id",)


def decode(body: bytes) -> Document:
    """Read a session's clips; raises UnreadableBodyError if it is no list of them."""
    return listing_of(body, "clips", "a list of clips")


def _rows_of(answer: Answer, content: Document) -> Rows:
    served = listed(content.value, "clips", answer.session_id)
    reading = _READER.read(served, odd=content.odd, session_id=answer.session_id)
    rows = _READER.rows(reading, answer, _KEY)
    return surrounded(rows, content.value, {"clips", "studyUuid"}, {"videoRegions"})


CLIPS: Final = Endpoint(
    name="clips",
    path="/api/v2/sessionResults/{session_id}/clips",
    scope=Scope.SESSION,
    priority=Priority.MEDIA,
    decode=decode,
    products=MEDIA_PRODUCTS,
)
"""The clips of a session's video."""

CLIP_URL: Final = Endpoint(
    name="clip_url",
    path="/api/v2/sessionResults/{session_id}/clips/{object_id}",
    scope=Scope.OBJECT,
    priority=Priority.MEDIA,
    decode=clip,
    products=MEDIA_PRODUCTS,
)
"""How far a clip's file is, and where it can be had."""

CLIP: Final = receipts_of(CLIP_URL, "clip")
"""What became of a clip's file."""

TABLE: Final = Table(
    name="clips",
    row="a clip of a session's video",
    key=_KEY,
    endpoint=CLIPS,
    columns=(TEST_ID, SESSION_ID, *_READER.columns),
    rows_of=_rows_of,
    files=FileSource(CLIP_URL, CLIP),
)
