"""Media files on their way into the lake: unfinished, or whole and not adopted yet.

Beside each file lie its notes: a line that says which file it is, then a line for each piece
that was written, with the SHA-256 of all bytes up to there. What the notes prove is there,
whatever a death or a power cut made of the rest; so nothing is synced before the end, and
nothing that was written is fetched again. Their last line says that the file is whole.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Final, TypeVar

import msgspec

from etl.client.media_values import Begun, Described, Received
from etl.errors import LakeError
from etl.lake.local import LocalLake, disk_errors, sync
from etl.lake.names import safe_name

RESERVE_BYTES: Final = 1 << 30
"""What a transfer leaves free on the disk: rows must land, whatever media there are."""

_DATA: Final = ".part"
_NOTES: Final = ".notes"
_LONGEST_LINE_BYTES: Final = 1024
_BLOCK_BYTES: Final = 1 << 20

_Line = TypeVar("_Line")


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the notes: the file's first `bytes` bytes have this hash."""

    bytes: int
    sha256: str
    whole: bool = False


class MediaParts:
    """The files that a pipeline is fetching, or has fetched and not adopted. Blocking."""

    def __init__(self, lake: LocalLake, pipeline: str, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Name the place; nothing is read or made yet."""
        self._lake = lake
        self._pipeline = pipeline
        self._reserve_bytes = reserve_bytes

    def part(self, table: str, object_id: str) -> "MediaPart":
        """Return the place of a row's file; nothing is read or made yet."""
        return MediaPart(self, _name(table, object_id))

    def keep_only(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Remove what belongs to none of these rows, each (table, object id)."""
        names = {_name(table, object_id) for table, object_id in wanted}
        with self.entered() as folder:
            unwanted = [place for place in folder.iterdir() if place.stem not in names]
            for place in unwanted:
                place.unlink(missing_ok=True)

    @contextmanager
    def entered(self) -> Iterator[Path]:
        """Give the folder of the files, and turn the system's errors into ours."""
        folder = self._lake.record_folder(f"media/pipeline={self._pipeline}")
        with disk_errors(folder):
            yield folder

    def check_room(self, folder: Path) -> None:
        """Raise LakeError if the disk cannot hold what was begun, and a reserve beside it."""
        lacking = sum(_lacking(notes) for notes in folder.glob(f"*{_NOTES}"))
        free = shutil.disk_usage(folder).free
        if lacking + self._reserve_bytes > free:
            raise LakeError(
                f"The disk has no room for media: {lacking >> 20} MB are to come, "
                f"{self._reserve_bytes >> 20} MB are kept free, {free >> 20} MB are left.",
                where=str(folder),
                advice="Free some space and run again: what was fetched is kept.",
            )

    def adopt(self, place: Path, path: str) -> None:
        """Give a whole file its name among the data."""
        self._lake.adopt(place, path)


class MediaPart:
    """One file on its way: a `Sink`, which `whole` and `publish` follow. Blocking."""

    def __init__(self, parts: MediaParts, name: str) -> None:
        """Name it; see `MediaParts.part`."""
        self._parts = parts
        self._name = name
        self._file = Described(None, None, None)
        self._bytes = 0
        self._digest = sha256()

    def whole(self) -> Received | None:
        """Return the file if it is here whole: then it needs neither request nor transfer."""
        with self._opened() as (data, notes):
            try:
                with notes.open("rb") as lines:
                    file = _decoded(lines.readline(_LONGEST_LINE_BYTES), Described)
                    lines.seek(max(lines.tell(), notes.stat().st_size - _LONGEST_LINE_BYTES))
                    *_, last = [b"", *lines]
                mark = _decoded(last, _Mark)
                if file is None or mark is None or not mark.whole:
                    return None
                if data.stat().st_size != mark.bytes:
                    return None
            except FileNotFoundError:
                return None
        return Received(mark.bytes, mark.sha256, file.content_type)

    def resume(self) -> Begun | None:
        """Return what is here as far as it is proved, and cut off the rest."""
        with self._opened() as (data, notes):
            try:
                with data.open("r+b") as content, notes.open("r+b") as lines:
                    if os.fstat(content.fileno()).st_nlink > 1:
                        return None  # adopted: it is the lake's, and never changed
                    file = _decoded(lines.readline(_LONGEST_LINE_BYTES), Described)
                    if file is None:
                        return None
                    self._file = file
                    lines.truncate(self._prove(content, lines))
                    content.truncate(self._bytes)
            except FileNotFoundError:
                return None
        return Begun(file, self._bytes) if self._bytes else None

    def _prove(self, content: IO[bytes], lines: IO[bytes]) -> int:
        """Read the content along the notes; return where the last line ends that holds."""
        self._bytes, self._digest = 0, sha256()
        proved = lines.tell()
        while (mark := _decoded(lines.readline(_LONGEST_LINE_BYTES), _Mark)) is not None:
            digest = self._digest.copy()
            for block in _blocks(content, mark.bytes - self._bytes):
                digest.update(block)
            if digest.hexdigest() != mark.sha256:
                break
            self._bytes, self._digest = mark.bytes, digest
            proved = lines.tell()
        return proved

    def begin(self, file: Described) -> None:
        """Begin anew. Raises LakeError if there is no room for it."""
        self.discard()
        self._file, self._bytes, self._digest = file, 0, sha256()
        with self._opened() as (data, notes):
            for place, content in ((data, b""), (notes, _encoded(file))):
                with open(place, "xb", opener=_private) as new:
                    new.write(content)
            try:
                self._parts.check_room(data.parent)
            except LakeError:
                self.discard()
                raise

    def append(self, chunk: bytes | bytearray) -> None:
        """Keep the next bytes, then the note that proves them."""
        self._digest.update(chunk)
        self._bytes += len(chunk)
        with self._opened() as (data, notes):
            _add(data, chunk)
            _add(notes, self._marked())

    def finish(self) -> Received:
        """Make the file durable, and then the note that says so."""
        with self._opened() as (data, notes):
            sync(data)
            _add(notes, self._marked(whole=True))
            sync(notes)
            sync(data.parent)
        return Received(self._bytes, self._digest.hexdigest(), self._file.content_type)

    def publish(self, path: str) -> None:
        """Give the file a place among the data, from the lake's root; again is fine.

        It stays here as well, at no cost, until its row is committed and `discard` follows: so
        a death in between changes nothing. Raises LakeError if it is not whole.
        """
        if self.whole() is None:
            raise LakeError(
                "A media file is not whole, and does not land.",
                where=path,
                advice="It was removed or changed meanwhile: run again to fetch it anew.",
            )
        with self._opened() as (data, _):
            self._parts.adopt(data, path)

    def discard(self) -> None:
        """Remove it from here; what was published stays. Gone already is fine."""
        with self._opened() as (data, notes):
            notes.unlink(missing_ok=True)
            data.unlink(missing_ok=True)

    def _marked(self, *, whole: bool = False) -> bytes:
        return _encoded(_Mark(self._bytes, self._digest.hexdigest(), whole))

    @contextmanager
    def _opened(self) -> Iterator[tuple[Path, Path]]:
        """Give the places of the data and of the notes."""
        with self._parts.entered() as folder:
            yield folder / (self._name + _DATA), folder / (self._name + _NOTES)


def _name(table: str, object_id: str) -> str:
    return f"{safe_name(table)}={safe_name(object_id)}"


def _lacking(notes: Path) -> int:
    """Return how many bytes a file that was begun still lacks, as far as it is known."""
    try:
        with notes.open("rb") as lines:
            file = _decoded(lines.readline(_LONGEST_LINE_BYTES), Described)
        here = notes.with_suffix(_DATA).stat().st_size
    except FileNotFoundError:  # discarded meanwhile, by another transfer
        return 0
    return 0 if file is None else max(0, (file.total_bytes or 0) - here)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _add(place: Path, content: bytes | bytearray) -> None:
    with place.open("ab") as file:
        file.write(content)


def _blocks(content: IO[bytes], count: int) -> Iterator[bytes]:
    """Yield the next bytes of a file; fewer where it ends before."""
    while count > 0 and (block := content.read(min(count, _BLOCK_BYTES))):
        yield block
        count -= len(block)


def _encoded(line: object) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _decoded(line: bytes, kind: type[_Line]) -> _Line | None:
    """Return a line of the notes, None if it is none, or not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.DecodeError:
        return None
