"""Looks at the files that rows name: whether each is there, of its size and, in depth, its hash."""

from collections.abc import Iterator
from hashlib import file_digest
from pathlib import PurePosixPath

from etl.lake.local import LocalLake, disk_errors
from etl.lake.scan import rows_in, table_of
from etl.tables.registry import tables


def wrong_media(lake: LocalLake, path: str, *, deep: bool) -> Iterator[tuple[str, str]]:
    """Yield each file that a data file's rows name and that is not as they say, and why; blocks.

    Raises ValueError if the data file cannot be read.
    """
    table = tables().get(table_of(path))
    if table is None or table.files is None:
        return
    for _, (place, size, digest) in rows_in(lake, path, ["path", "bytes", "sha256"]):
        if place is not None:
            wrong = _mistake(lake, str(place), size, digest if deep else None)
            if wrong is not None:
                yield str(place), wrong


def _mistake(lake: LocalLake, path: str, size: object, digest: object) -> str | None:
    """Return what is wrong with a file; what a row does not tell is not looked at."""
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        return "A row names it, though it cannot be in the lake."
    place = lake.root / path
    with disk_errors(place):
        if not place.is_file():
            return "A row names it, and it is gone. Put it back, or fetch it again by a backfill."
        here = place.stat().st_size
        if size is not None and here != size:
            return f"It has {here} bytes; {size} were landed. Fetch it again by a backfill."
        if digest is not None:
            with place.open("rb") as file:
                if file_digest(file, "sha256").hexdigest() != digest:
                    return "Its bytes are not those that landed. Fetch it again by a backfill."
    return None
