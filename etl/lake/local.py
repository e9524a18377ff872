"""A lake on a disk: atomic by rename and link, durable by fsync.

Whoever reads while we write sees a file whole or not at all. The order is: write under
hidden names, sync the files side by side, rename them, sync the folders, commit.
"""

import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

import xxhash

from etl.errors import LakeError, disk_advice, disk_reason
from etl.lake.names import commit_name, hidden_name, read_commit_name
from etl.ledger.locks import held, is_held

_RECORD: Final = "_etl"
_UNFINISHED: Final = ".unfinished"
_SYNCS_AT_ONCE: Final = 8
_DIGEST_BYTES: Final = 1 << 20


class LocalLake:
    """The files of a lake under one folder. Its methods block; paths are relative, POSIX."""

    land_every_seconds: Final = 1800.0

    def __init__(self, root: Path) -> None:
        """Name the lake's folder; nothing is read or made yet."""
        self.root = root
        self._bound: str | None = None

    def bind(self, identity: str) -> None:
        """Say which lake this is to be: from now on nothing is written into another one."""
        self._bound = identity

    def _refuse_another(self) -> None:
        """Raise LakeError if the lake has gone, or another one has taken its place."""
        if self._bound is not None and self.identity() != self._bound:
            raise LakeError(
                "The lake has gone, or another one is in its place.",
                where=str(self.root),
                advice="If a disk was unmounted, mount it and run again: what was fetched is kept.",
            )

    @contextmanager
    def locked(self, pipeline: str) -> Iterator[None]:
        """Hold the pipeline's lock in this lake. Raises AlreadyRunning."""
        with disk_errors(self.root):
            self._make_folder(self.root / _RECORD)
        with held(self.root / _RECORD / f"lock-{pipeline}", f"pipeline {pipeline!r} in this lake"):
            yield

    def is_busy(self, pipeline: str) -> bool:
        """Say whether a run holds the pipeline's lock in this lake."""
        return is_held(self.root / _RECORD / f"lock-{pipeline}")

    def identity(self) -> str | None:
        """Return the lake's random id, or None if it has none (yet)."""
        with disk_errors(self.root):
            try:
                told = json.loads((self.root / _RECORD / "lake.json").read_bytes())
                return str(told["id"])
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError):
                raise LakeError(
                    "The lake's own record is damaged: lake.json cannot be read.",
                    where=str(self.root / _RECORD / "lake.json"),
                    advice="Restore the `_etl` folder from a backup, or start a new lake.",
                ) from None

    def found(self) -> str:
        """Give a new lake its id, and return it."""
        with disk_errors(self.root):
            record = self.root / _RECORD
            self._make_folder(record)
            content = json.dumps({"id": secrets.token_hex(16), "version": 1}) + "\n"
            self._create(record / "lake.json", content.encode())
        return self.identity() or ""

    def commits(self, pipeline: str) -> list[int]:
        """Return the numbers of a pipeline's commits, ascending."""
        with disk_errors(self.root):
            folder = self._commits_folder(pipeline)
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        numbers = (read_commit_name(name) for name in names)
        return sorted(number for number in numbers if number is not None)

    def pipelines(self) -> list[str]:
        """Return the names of the pipelines that have committed to this lake."""
        with disk_errors(self.root):
            folder = self.root / _RECORD / "answers"
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted(name.removeprefix("pipeline=") for name in names if "=" in name)

    def commit_path(self, pipeline: str, batch: int) -> Path:
        """Return where a commit lies."""
        return self._commits_folder(pipeline) / commit_name(batch)

    def data_files(self) -> dict[str, int]:
        """Return all files under the tables' folders with their sizes, hidden ones too."""
        with disk_errors(self.root):
            if not self.root.is_dir():
                return {}
            return dict(self._walk(self.root, ""))

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, int]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(("_", ".")):
                        yield from self._walk(Path(entry.path), f"{prefix}{entry.name}/")
                elif prefix and entry.is_symlink():
                    self.refuse_links(prefix + entry.name)
                elif prefix and entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):  # renamed meanwhile, by another pipeline
                        size = entry.stat(follow_symlinks=False).st_size
                        yield f"{prefix}{entry.name}", size

    def unfinished(self, path: str) -> Path:
        """Make the folders of a new data file and return its hidden place."""
        self._refuse_another()
        self.refuse_links(path)
        final = self.root / path
        with disk_errors(self.root):
            self._make_folder(final.parent)
        return final.with_name(hidden_name(final.name))

    def refuse_links(self, path: str) -> None:
        """Raise LakeError if a data file, or a folder above it, is a symbolic link."""
        place = self.root
        for part in PurePosixPath(path).parts:
            place /= part
            if place.is_symlink():
                raise LakeError(
                    "A file or folder of the lake is a symbolic link; etl does not follow it.",
                    where=str(place),
                    advice="Put in its place what it points to, or move the whole lake.",
                )

    def publish(self, paths: Collection[str]) -> None:
        """Give data files their final names, durably and all together."""
        self._refuse_another()
        hidden = {path: self._hidden(path) for path in paths}
        with disk_errors(self.root), ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
            mode = self._mode(0o666)
            for place in hidden.values():
                place.chmod(mode)
            list(pool.map(sync, hidden.values()))
            for path, place in hidden.items():
                place.rename(self.root / path)
            list(pool.map(sync, self._folders_of(paths)))

    def commit(self, pipeline: str, batch: int, content: bytes | memoryview) -> bool:
        """Create a commit, durably; return False if another writer already has."""
        self._refuse_another()
        with disk_errors(self.root):
            folder = self._commits_folder(pipeline)
            made = not folder.is_dir()
            self._make_folder(folder)
            created = self._create(folder / commit_name(batch), content)
            if made:
                for parent in (folder.parent, folder.parent.parent, self.root, self.root.parent):
                    sync(parent)
        return created

    def digest(self, place: Path) -> str:
        """Return the xxh3 hash of a file's bytes."""
        digest = xxhash.xxh3_64()
        with disk_errors(self.root), place.open("rb") as file:
            for some in iter(partial(file.read, _DIGEST_BYTES), b""):
                digest.update(some)
        return digest.hexdigest()

    def remove(self, paths: Iterable[str]) -> None:
        """Remove data files, under their final or hidden names; gone already is fine."""
        with disk_errors(self.root):
            for path in paths:
                (self.root / path).unlink(missing_ok=True)
                self._hidden(path).unlink(missing_ok=True)

    def remove_durably(self, paths: Collection[str]) -> None:
        """Remove data files so that no power cut brings them back."""
        self.remove(paths)
        with disk_errors(self.root):
            for folder in {(self.root / path).parent for path in paths}:
                if folder.is_dir():
                    sync(folder)

    def doubted(self, pipeline: str) -> set[str]:
        """Return the data files that `doubt` has noted: the next start is to look at them."""
        try:
            told = json.loads((self.root / _RECORD / f"doubted-{pipeline}.json").read_bytes())
            return {str(path) for path in told}
        except (OSError, ValueError, TypeError):
            return set()  # only a hint, which `etl verify` gives again

    def doubt(self, pipeline: str, paths: Collection[str]) -> None:
        """Note which data files do not hold what was committed, though their size tells nothing."""
        note = self.root / _RECORD / f"doubted-{pipeline}.json"
        with disk_errors(self.root):
            note.unlink(missing_ok=True)
            if paths:
                self._create(note, json.dumps(sorted(paths)).encode())

    def remove_unfinished_commits(self, pipeline: str) -> None:
        """Remove what deaths left of commits, and of the lake's id, that were not whole yet."""
        record = self.root / _RECORD
        with disk_errors(self.root):
            for left in self._commits_folder(pipeline).glob(f".*{_UNFINISHED}"):
                left.unlink(missing_ok=True)
            for left in record.glob(f".lake.json.*{_UNFINISHED}"):
                left.unlink(missing_ok=True)

    def put_aside(self, path: str) -> str:
        """Move a damaged file out of readers' sight, and return where it is now."""
        aside = f"{_RECORD}/damaged/{path.replace('/', '~')}"
        with disk_errors(self.root):
            self._make_folder((self.root / aside).parent)
            with suppress(FileNotFoundError):  # gone since it was listed
                (self.root / path).rename(self.root / aside)
            sync((self.root / path).parent)
        return aside

    def record_folder(self, name: str) -> Path:
        """Make a folder of the lake's own record, if it is not there, and return it."""
        self._refuse_another()
        self.refuse_links(f"{_RECORD}/{name}")
        folder = self.root / _RECORD / name
        with disk_errors(self.root):
            self._make_folder(folder)
        return folder

    def adopt(self, place: Path, path: str) -> None:
        """Give a finished file of the record a name among the data too, durably.

        By a link, so that it stays where it is as well until somebody removes it there. A file
        of that name and size is this one, adopted before; another size is a broken file.
        """
        self._refuse_another()
        self.refuse_links(path)
        final = self.root / path
        with disk_errors(self.root):
            self._make_folder(final.parent)
            place.chmod(self._mode(0o666))
            try:
                os.link(place, final)
            except FileExistsError:
                if final.stat().st_size != place.stat().st_size:
                    final.unlink()
                    os.link(place, final)
            for folder in self._folders_of([path]):
                sync(folder)

    def probe(self) -> None:
        """Write and remove a file as a landing would; raises LakeError where it could not."""
        path = f"{_RECORD}/probe-{secrets.token_hex(4)}.parquet"
        with disk_errors(self.root):
            self._make_folder(self.root / _RECORD)
            try:
                if not self._create(self.root / path, b"probe"):
                    raise LakeError("A new file could not be created.", where=str(self.root))
            finally:
                (self.root / path).unlink(missing_ok=True)

    def _commits_folder(self, pipeline: str) -> Path:
        return self.root / _RECORD / "answers" / f"pipeline={pipeline}"

    def _hidden(self, path: str) -> Path:
        final = self.root / path
        return final.with_name(hidden_name(final.name))

    def _folders_of(self, paths: Collection[str]) -> list[Path]:
        """Return every folder above these files up to the one that holds the lake."""
        folders = {self.root, self.root.parent}
        for path in paths:
            folders.update(self.root / parent for parent in PurePosixPath(path).parents)
        return sorted(folders, reverse=True)

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents; within the lake with the mode of its root."""
        if folder.is_dir():
            return
        if not self.root.is_dir():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = self._mode(0o777)
        missing = [parent for parent in (folder, *folder.parents) if self.root in parent.parents]
        for parent in reversed(missing):
            if not parent.is_dir():
                parent.mkdir(exist_ok=True)
                parent.chmod(mode)

    def _mode(self, within: int) -> int:
        """Return the root's mode as far as `within` goes: it says who may read the lake."""
        return self.root.stat().st_mode & within

    def _create(self, path: Path, content: bytes | memoryview) -> bool:
        """Create a file that must not exist yet, whole and durable; False if it does."""
        hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_UNFINISHED}")
        try:
            with hidden.open("xb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), self._mode(0o666))
                os.fsync(file.fileno())
            try:
                os.link(hidden, path)
            except FileExistsError:
                return False
            except FileNotFoundError:
                if path.exists():  # made by another run, which then tidied ours up
                    return False
                raise
            finally:
                hidden.unlink(missing_ok=True)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
        sync(path.parent)
        return True


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk_errors(root: Path) -> Iterator[None]:
    """Turn the system's errors into ours, in one place."""
    try:
        yield
    except OSError as error:
        raise LakeError(
            f"The lake could not be written or read: {disk_reason(error)}.",
            where=str(error.filename or root),
            advice=disk_advice(error),
        ) from error
