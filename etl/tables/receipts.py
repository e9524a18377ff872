"""What became of a file, as the inbox keeps it: the answer to where it can be had is no such thing.

That answer is a secret with an hour's life. What lasts is a receipt: the file's place in the
lake, its size and hash, or why there is none. A row is made of it as of any answer.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
import pyarrow as pa

from etl.client.values import Endpoint, UnreadableBodyError
from etl.tables.values import Column

FILE_COLUMNS: Final = (
    Column("path", pa.string(), "The file, from the lake's root; null where there is none."),
    Column("bytes", pa.int64(), "The size of the file."),
    Column("sha256", pa.string(), "The SHA-256 of the file, in hexadecimal."),
)
"""What every table of files has; null until the file is there."""


class Became(StrEnum):
    """What became of a file."""

    FETCHED = "fetched"
    PENDING = "pending"
    """The API does not have it yet."""
    GIVEN_UP = "given up"
    LISTED = "listed"
    """It is not to be fetched."""


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a file; `path` is from the lake's root, `reason` says why there is none."""

    became: Became
    path: str | None = None
    bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    sha256: str | None = None
    content_type: str | None = None
    reason: str | None = None

    def told(self) -> dict[str, str | int | None]:
        """Return the file's columns."""
        return {column.name: getattr(self, column.name) for column in FILE_COLUMNS}


LISTED: Final = Receipt(Became.LISTED)


def receipts_of(address: Endpoint[Any], name: str) -> Endpoint[Receipt]:
    """Return what the receipts of the files are, whose places an endpoint tells."""
    return Endpoint(name, address.path, address.scope, address.priority, _decode, address.products)


def _decode(body: bytes) -> Receipt:
    """Read a receipt; raises UnreadableBodyError if it is none."""
    try:
        return msgspec.json.decode(body, type=Receipt)
    except (msgspec.DecodeError, RecursionError):
        raise UnreadableBodyError("it is no receipt of a file") from None


def encode(receipt: Receipt) -> bytes:
    """Return a receipt as the inbox keeps it."""
    return msgspec.json.encode(receipt)


def packed_row(row: Mapping[str, Any]) -> bytes:
    """Return the values of a row that waits for its file, less those that are null."""
    return msgspec.msgpack.encode({name: told for name, told in row.items() if told is not None})


def unpacked_row(row: bytes) -> dict[str, Any]:
    """Return the values of a row that has waited for its file."""
    return msgspec.msgpack.decode(row, type=dict[str, Any])
