"""What files in a lake are called, and how a name is read back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"

_DATA_FILE: Final = re.compile(
    r"(?P<hidden>\.?)part-(?P<pipeline>.+)-(?P<batch>\d{8})-(?P<attempt>[0-9a-f]{8})-(?P<number>\d+)"
    r"\.(?P<ending>parquet|unfinished)"
)
_SAFE: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ENDINGS: Final[Mapping[str | None, str]] = {
    "audio/mpeg": ".mp3",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
}
_COMMIT: Final = re.compile(r"(?P<batch>\d{8})\.parquet")


@dataclass(frozen=True, slots=True)
class DataName:
    """What the name of a data file tells. `finished` is false under its hidden name."""

    pipeline: str
    batch: int
    attempt: str
    finished: bool


def data_name(pipeline: str, batch: int, attempt: str, number: int) -> str:
    """Return the name of a data file; `attempt` is 8 hex digits of chance."""
    return f"part-{pipeline}-{batch:08}-{attempt}-{number}.parquet"


def hidden_name(name: str) -> str:
    """Return the name under which a file is written until it is whole.

    It does not end in `.parquet`, since DuckDB and Polars read dot-files too.
    """
    return f".{name.removesuffix('.parquet')}.unfinished"


def finished_name(name: str) -> str:
    """Return the final name of a data file, whichever of its two names it bears."""
    if not name.startswith("."):
        return name
    return name.removeprefix(".").removesuffix(".unfinished") + ".parquet"


def read_data_name(name: str) -> DataName | None:
    """Return what a data file's name tells, or None if it is not one of ours."""
    match = _DATA_FILE.fullmatch(name)
    if match is None or bool(match["hidden"]) == (match["ending"] == "parquet"):
        return None
    finished = match["ending"] == "parquet"
    return DataName(match["pipeline"], int(match["batch"]), match["attempt"], finished)


def commit_name(batch: int) -> str:
    """Return the name of a commit in its pipeline's folder."""
    return f"{batch:08}.parquet"


def read_commit_name(name: str) -> int | None:
    """Return the number of a commit by its file's name, or None if it is none."""
    match = _COMMIT.fullmatch(name)
    return None if match is None else int(match["batch"])


@lru_cache(maxsize=1024)
def partition_folder(column: str, value: str | None) -> str:
    """Return the Hive-style folder of a partition value, safe whatever the value is."""
    return f"{column}={NULL_PARTITION if value is None else quote(value, safe=' :+')}"


def partition_value(folder: str) -> tuple[str, str | None]:
    """Return the column and value that a partition folder's name holds."""
    column, _, value = folder.partition("=")
    return column, None if value == NULL_PARTITION else unquote(value)


def safe_name(key: str) -> str:
    """Return a file name for a key: a UUID and its like as they are, all else as a hash.

    No two keys share one, also where a file system knows no case.
    """
    if _SAFE.fullmatch(key):
        return key
    return "~" + sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def media_path(folder: str, object_id: str, digest: str, content_type: str | None) -> str:
    """Return where a media file lies, from the lake's root; `folder` is its row's.

    The name tells the content (`digest`, its SHA-256), so that a row's file never changes: one
    that was replaced at its source is another file here. What the host calls it is no matter.
    """
    ending = _ENDINGS.get(content_type, "")
    return f"{folder}/_files/{safe_name(object_id)}-{digest[:16]}{ending}"
