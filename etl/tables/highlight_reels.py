"""The table `highlight_reels`: clips that somebody joined into one film.

Source: `GET /api/v2/testResults/{testId}/highlightreels` (results-v2,
HighlightReelsResponseDto).
"""

from typing import Final

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.downloads import MEDIA_PRODUCTS, reel
from etl.tables.json_text import Document, listing_of
from etl.tables.kinds import FLAG, ID, MOMENT_MS, ROUNDED, TEXT, WHOLE
from etl.tables.reading import Field, Reader, listed, surrounded
from etl.tables.receipts import FILE_COLUMNS, receipts_of
from etl.tables.values import TEST_ID, FileSource, Rows, Table

_READER: Final = Reader(
    Field("uuid", "reel_id", ID, "The highlight reel."),
    Field("name", "name", TEXT, "Its name."),
    Field("durationMs", "duration_ms", ROUNDED, "How long it is, in milliseconds."),
    Field("lastUpdatedAtMs", "last_updated_at", MOMENT_MS, "When it was last changed."),
    Field("numClips", "num_clips", WHOLE, "How many clips it is made of."),
    Field("areAllClipsInReel", "are_all_clips_in_reel", FLAG, "Whether it has all of the test."),
    derived=FILE_COLUMNS,
    within="reels",
)

_KEY: Final = ("reel_id",)


def decode(body: bytes) -> Document:
    """Read a test's highlight reels; raises UnreadableBodyError if it is no list of them."""
    return listing_of(body, "reels", "a list of highlight reels")


def _rows_of(answer: Answer, content: Document) -> Rows:
    reading = _READER.read(listed(content.value, "reels", None), odd=content.odd)
    rows = _READER.rows(reading, answer, _KEY)
    return surrounded(rows, content.value, {"reels"}, {"studyWithClips"})


HIGHLIGHT_REELS: Final = Endpoint(
    name="highlight_reels",
    path="/api/v2/testResults/{test_id}/highlightreels",
    scope=Scope.TEST,
    priority=Priority.MEDIA,
    decode=decode,
    products=MEDIA_PRODUCTS,
)
"""A test's highlight reels."""

REEL_URL: Final = Endpoint(
    name="reel_url",
    path="/api/v2/testResults/{test_id}/highlightreels/{object_id}",
    scope=Scope.OBJECT,
    priority=Priority.MEDIA,
    decode=reel,
    products=MEDIA_PRODUCTS,
)
"""How far a highlight reel's file is, and where it can be had."""

REEL: Final = receipts_of(REEL_URL, "reel")
"""What became of a highlight reel's file."""

TABLE: Final = Table(
    name="highlight_reels",
    row="a highlight reel",
    key=_KEY,
    endpoint=HIGHLIGHT_REELS,
    columns=(TEST_ID, *_READER.columns),
    rows_of=_rows_of,
    files=FileSource(REEL_URL, REEL),
)
