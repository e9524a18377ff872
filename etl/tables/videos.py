"""The table `videos`: a session's recording, and the file that holds it.

Source: `GET /api/v2/sessionResults/{sessionId}/videoDownloadUrl` (results-v2,
VideoDownloadResponseDto), which says where the file can be had for an hour. Rows are made of
the receipts of these files.
"""

from typing import Final

import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.downloads import MEDIA_PRODUCTS, video
from etl.tables.receipts import FILE_COLUMNS, Receipt, receipts_of
from etl.tables.values import TEST_ID, Cells, Column, FileSource, Rows, Table, key_hash, row_hash

_KEY: Final = ("session_id",)


def _rows_of(answer: Answer, content: Receipt) -> Rows:
    """Return the one row; what it says is the file, since the API tells no more than a link."""
    told = {**content.told(), "content_type": content.content_type}
    return Rows(
        keys=[key_hash([answer.session_id])],
        hashed=lambda: [row_hash((content.sha256 or "").encode())],
        cells={
            column.name: Cells(column.type, [told[column.name]]) for column in TABLE.columns[2:]
        },
    )


VIDEO_URL: Final = Endpoint(
    name="video_url",
    path="/api/v2/sessionResults/{session_id}/videoDownloadUrl",
    scope=Scope.SESSION,
    priority=Priority.MEDIA,
    decode=video,
    products=MEDIA_PRODUCTS,
)
"""Where a session's video can be had."""

VIDEO: Final = receipts_of(VIDEO_URL, "video")
"""What became of a session's video."""

TABLE: Final = Table(
    name="videos",
    row="a session's video",
    key=_KEY,
    endpoint=VIDEO,
    columns=(
        TEST_ID,
        Column("session_id", pa.string(), "The session that was recorded."),
        *FILE_COLUMNS,
        Column("content_type", pa.string(), "What the file is, as the host says.", repeats=True),
    ),
    rows_of=_rows_of,
    files=FileSource(VIDEO_URL, VIDEO),
)
