"""The table `videos`: a session's recording, and the file that holds it.

Source: `GET /api/v2/sessionResults/{sessionId}/videoDownloadUrl` (results-v2,
VideoDownloadResponseDto), which says where the file can be had for an hour.
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.downloads import MEDIA_PRODUCTS, Download, video
from etl.tables.values import TEST_ID, Cells, Column, Rows, Table, key_hash, row_hash

FILE_COLUMNS: Final = (
    Column("path", pa.string(), "The file, from the lake's root; null where there is none."),
    Column("bytes", pa.int64(), "The size of the file."),
    Column("sha256", pa.string(), "The SHA-256 of the file, in hexadecimal."),
)
"""What every table of files has; null until the file is there."""

_KEY: Final = ("session_id",)


def _rows_of(answer: Answer, content: Download) -> Rows:
    """Return the one row, without a file: the address says nothing that lasts."""
    del content
    nothing = {column.name: Cells(column.type, [None]) for column in TABLE.columns[2:]}
    return Rows(keys=[key_hash([answer.session_id])], hashes=[row_hash(b"")], cells=nothing)


VIDEO_URL: Final = Endpoint(
    name="video_url",
    path="/api/v2/sessionResults/{session_id}/videoDownloadUrl",
    scope=Scope.SESSION,
    priority=Priority.MEDIA,
    decode=video,
    products=MEDIA_PRODUCTS,
)
"""Where a session's video can be had."""

TABLE: Final = Table(
    name="videos",
    row="a session's video",
    key=_KEY,
    endpoint=VIDEO_URL,
    columns=(
        TEST_ID,
        Column("session_id", pa.string(), "The session that was recorded."),
        *FILE_COLUMNS,
        Column("content_type", pa.string(), "What the file is, as the host says.", repeats=True),
    ),
    rows_of=_rows_of,
)
