"""Reads a lake again against its own record: no request, no state, and nothing changed.

Shallow: commits, and each file's presence, size and footer. Deep: every byte and row.
Memory does not grow with the lake: keys are compared in a temporary database on disk.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import LakeError
from etl.lake import commits
from etl.lake.commits import CommitNames
from etl.lake.keys import Keys, open_keys
from etl.lake.local import LocalLake
from etl.lake.names import read_data_name
from etl.lake.recovery import RUN_ID
from etl.lake.scan import is_known, row_keys_in, rows_elsewhere, table_of
from etl.lake.strays import Stray, judge
from etl.lake.verify_media import wrong_media
from etl.ledger.values import File
from etl.tables.registry import tables


class MendedBy(StrEnum):
    """Who puts right what differs."""

    RUN = "the next run"
    RESET = "etl reset"
    YOU = "you"
    BACKUP = "a backup"
    """Until then `etl run` refuses to touch the lake (exit 5)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the record says: what, where, and who mends it."""

    kind: str
    path: str
    says: str
    mended_by: MendedBy = MendedBy.RUN


@dataclass(slots=True)
class Verification:
    """What came of one pipeline's verification. `rows` are those of the record, by table."""

    name: str
    lake: str
    commits: int = 0
    files: int = 0
    bytes: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    doubted: set[str] = field(default_factory=set)
    """Files whose size does not tell that they are damaged: the next run is to be told."""

    def found(self, kind: str, path: str, says: str, mended_by: MendedBy = MendedBy.RUN) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, path, says, mended_by))

    def doubt(self, kind: str, path: str, says: str) -> None:
        """Add a finding of a file that a run would take for sound."""
        self.doubted.add(path)
        self.found(kind, path, says)

    @property
    def exit_code(self) -> int:
        """0 if all is as recorded, 5 if a run would refuse the lake, else 4."""
        if any(finding.mended_by is MendedBy.BACKUP for finding in self.findings):
            return LakeError.exit_code
        return 4 if self.findings else 0


@dataclass(slots=True)
class _Record:
    """What a pipeline's commits name: the files that count, and where each test's record is.

    `just_replaced` are those that the last commit has a run remove.
    """

    files: dict[str, File] = field(default_factory=dict)
    just_replaced: frozenset[str] = frozenset()
    attempts: dict[int, set[str]] = field(default_factory=dict)
    record_in: dict[str, int] = field(default_factory=dict)
    read: set[int] = field(default_factory=set)

    @property
    def next_batch(self) -> int:
        return max(self.read, default=0) + 1

    def add(self, commit: CommitNames) -> None:
        for path in commit.replaces:
            self.files.pop(path, None)
        self.just_replaced = frozenset(commit.replaces if commit.run_id != RUN_ID else ())
        self.files.update((file.path, file) for file in commit.files)
        names = (read_data_name(file.path.rpartition("/")[2]) for file in commit.files)
        self.attempts[commit.batch] = {name.attempt for name in names if name is not None}
        self.record_in.update(dict.fromkeys(commit.recorded, commit.batch))
        self.read.add(commit.batch)


def verify(lake: LocalLake, pipeline: str, *, deep: bool) -> Verification:
    """Compare what a pipeline has landed with what its commits say; blocks.

    A run may be under way meanwhile. Raises LakeError where the lake cannot be read at all.
    """
    verification = Verification(pipeline, str(lake.root))
    _identify(lake)
    busy = lake.is_busy(pipeline)
    record = _Record()
    _read_commits(lake, pipeline, record, verification)
    committed = dict(record.files)
    files = lake.data_files()
    _read_commits(lake, pipeline, record, verification)  # what was committed since
    busy = busy or lake.is_busy(pipeline)
    verification.commits = len(record.read)
    for path, file in committed.items():
        if path in record.files:
            _look_at(lake, file, files.get(path), verification)
            if files.get(path) == file.bytes:
                _look_at_media(lake, path, verification, deep=deep)
    _judge_strays(record, pipeline, files, verification, busy=busy)
    for path in lake.doubted(pipeline) & committed.keys() - verification.doubted:
        verification.doubt("altered", path, "An earlier verification found it altered.")
    if deep:
        _read_all(lake, pipeline, record, committed, files, verification)
        _read_kept(lake, pipeline, record, verification)
    return verification


def _identify(lake: LocalLake) -> None:
    if lake.identity() is None:
        raise LakeError(
            "There is no lake here: its record, `_etl/lake.json`, is missing.",
            where=str(lake.root),
            advice="If its disk is not mounted, mount it. A first `etl run` makes one.",
        )


def _read_commits(
    lake: LocalLake, pipeline: str, record: _Record, verification: Verification
) -> None:
    for batch in lake.commits(pipeline):
        if batch in record.read:
            continue
        path = lake.commit_path(pipeline, batch)
        place = str(path.relative_to(lake.root))
        record.read.add(batch)
        if batch > 1 and batch - 1 not in record.read:
            says = f"Commit {batch - 1} is missing, though later ones are there."
            verification.found("commit", place, says, MendedBy.BACKUP)
        try:
            record.add(commits.read_names(path, pipeline))
        except LakeError as error:
            verification.found("commit", place, error.what, MendedBy.BACKUP)


def _look_at(lake: LocalLake, file: File, size: int | None, verification: Verification) -> None:
    verification.files += 1
    verification.bytes += file.bytes
    verification.rows[table_of(file.path)] += file.rows
    if size is None:
        lake.refuse_links(file.path)
        verification.found("missing", file.path, f"It is gone, and {file.rows} rows with it.")
    elif size != file.bytes:
        says = f"It has {size} bytes; {file.bytes} were committed."
        verification.found("size", file.path, says)
    else:
        rows = _rows_by_footer(lake, file.path)
        if rows is None:
            verification.doubt("unreadable", file.path, "Its footer cannot be read.")
        elif rows != file.rows:
            says = f"It has {rows} rows by its footer; {file.rows} were committed."
            verification.doubt("rows", file.path, says)


def _look_at_media(lake: LocalLake, path: str, verification: Verification, *, deep: bool) -> None:
    """Tell what is wrong with the files that rows name; they are left to whoever moved them."""
    with suppress(ValueError):  # a data file that cannot be read is told elsewhere
        for place, wrong in wrong_media(lake, path, deep=deep):
            verification.found("media", place, wrong, MendedBy.YOU)


def _rows_by_footer(lake: LocalLake, path: str) -> int | None:
    try:
        return pq.read_metadata(lake.root / path).num_rows
    except (OSError, pa.ArrowException):
        return None


def _judge_strays(
    record: _Record,
    pipeline: str,
    files: Mapping[str, int],
    verification: Verification,
    *,
    busy: bool,
) -> None:
    for path in files.keys() - record.files.keys():
        name = read_data_name(path.rpartition("/")[2])
        if name is None or name.pipeline != pipeline:
            continue
        stray = judge(name, record.next_batch, lambda batch: record.attempts.get(batch, ()))
        if stray is Stray.LEFTOVER and not busy:
            verification.found(
                "leftover", path, "An attempt left it that did not come to a commit."
            )
        elif stray is Stray.BEATEN:
            verification.found("leftover", path, "No commit names it: another attempt was faster.")
        elif path in record.just_replaced:
            if not busy:
                says = "A commit has replaced it, and its writer died before it removed it."
                verification.found("leftover", path, says)
        elif stray is Stray.COPY:
            says = "It is a copy of a data file: readers see its rows twice. Remove it."
            verification.found("copy", path, says, MendedBy.YOU)
        elif stray is Stray.AHEAD and not busy:
            says = "None of the commits names it: the record, `_etl`, is not of its day."
            verification.found("unnamed", path, says, MendedBy.BACKUP)


def _read_all(
    lake: LocalLake,
    pipeline: str,
    record: _Record,
    committed: Mapping[str, File],
    files: Mapping[str, int],
    verification: Verification,
) -> None:
    """Read every byte and row: hashes, folders, keys, and what the record says of them."""
    suspects = {finding.path for finding in verification.findings}
    with open_keys() as keys:
        for path, file in committed.items():
            if path not in suspects and path in record.files:
                _read_file(lake, file, keys, verification)
        sound = not verification.findings
        for path in sorted(files.keys() - record.files.keys()):
            if path.rpartition("/")[2].startswith("part-") and is_known(table_of(path)):
                keys.add_foreign(path, partial(row_keys_in, lake, path))
        for path, rows in keys.doubled():
            says = f"{rows} of its rows are in other files too."
            verification.found("double", path, says, MendedBy.YOU)
        if sound and record.files == committed:  # else the difference is told already
            for test_id, landed in _records(lake, pipeline, record):
                for table, rows in keys.lost(landed):
                    says = f"{rows} rows of the table {table!r} are recorded, and in no file."
                    verification.found("lost", f"test {test_id}", says, MendedBy.RESET)


def _read_kept(lake: LocalLake, pipeline: str, record: _Record, verification: Verification) -> None:
    """Read the answers that are kept: no run does, and a rebuild would refuse them."""
    suspects = {finding.path for finding in verification.findings}
    for batch in sorted(record.read):
        path = lake.commit_path(pipeline, batch)
        place = str(path.relative_to(lake.root))
        if place in suspects:
            continue
        try:
            for _ in commits.read_kept(path, pipeline, ["body"]):
                pass
        except LakeError:
            says = "Answers that it keeps are damaged: `etl rebuild` needs it from a backup."
            verification.found("kept", place, says, MendedBy.YOU)


def _read_file(lake: LocalLake, file: File, keys: Keys, verification: Verification) -> None:
    path = file.path
    if file.xxh3 is not None and lake.digest(lake.root / path) != file.xxh3:
        verification.doubt("altered", path, "Its bytes are not those that were committed.")
        return
    if not is_known(table_of(path)):
        return
    try:
        rows = keys.add(path, row_keys_in(lake, path))
        elsewhere = rows_elsewhere(lake, path)
    except ValueError:
        verification.doubt("unreadable", path, "Its rows cannot be read.")
        return
    if rows != file.rows:
        verification.doubt("rows", path, f"It holds {rows} rows; {file.rows} were committed.")
    if elsewhere:
        verification.doubt("folder", path, f"{elsewhere} of its rows belong to another folder.")


def _records(
    lake: LocalLake, pipeline: str, record: _Record
) -> Iterator[tuple[str, Mapping[str, Mapping[int, int]]]]:
    """Yield each test with its landed keys by table, as its newest record says."""
    for batch in sorted(set(record.record_in.values())):
        commit = commits.read(lake.commit_path(pipeline, batch), pipeline)
        for test_id, known in commit.records.items():
            if record.record_in[test_id] == batch:
                yield test_id, _told_by_keys(known.covered)


def _told_by_keys(covered: Mapping[str, Mapping[int, int]]) -> dict[str, Mapping[int, int]]:
    """Return what is recorded of tables whose rows are recorded by their whole key."""
    appending = {name for name, table in tables().items() if table.appends}
    return {table: rows for table, rows in covered.items() if table not in appending}
