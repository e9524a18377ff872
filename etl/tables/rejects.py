"""The table `rejects`: rows and bodies that could not be read, with the reason.

Every table feeds it and no endpoint of its own does, so it is no `TABLE` to ask for:
the landing writes it beside the others.
"""

from typing import Final

import pyarrow as pa

from etl.tables.values import RUN_COLUMNS, Column, schema_of

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
