"""The table `rejects`: rows and bodies that could not be read, with the reason.

Every table feeds it and no endpoint of its own does, so it is no `TABLE` to ask for:
the landing writes it beside the others.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from etl.client.values import Answer
from etl.tables.values import RUN_COLUMNS, Cells, Column, Reject, Rows, Value, schema_of

NAME: Final = "rejects"

VERSION: Final = 1

KEY: Final = ("endpoint", "test_id", "session_id", "hash of body")

COLUMNS: Final = (
    Column("endpoint", pa.string(), "The endpoint that answered it.", repeats=True),
    Column("test_id", pa.string(), "The test that was asked.", repeats=True),
    Column("session_id", pa.string(), "The session, where it can be told."),
    Column("reason", pa.string(), "Why it could not be read.", repeats=True),
    Column("body", pa.string(), "The row or body as it came, as text."),
)
"""Its columns, as `etl schema rejects` prints them."""

SCHEMA: Final = schema_of(NAME, VERSION, (*COLUMNS, *RUN_COLUMNS))


def rows_of(answer: Answer, found: Sequence[Reject]) -> Rows:
    """Return what could not be read in an answer as rows."""
    values: Mapping[str, Sequence[Value]] = {
        "endpoint": [answer.endpoint] * len(found),
        "session_id": [reject.session_id for reject in found],
        "reason": [reject.reason for reject in found],
        "body": [reject.body for reject in found],
    }
    cells = {name: Cells(pa.string(), column) for name, column in values.items()}
    return Rows([reject.key for reject in found], lambda: [0] * len(found), cells)
