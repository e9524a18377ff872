"""Finds what is lost where committed files are gone or changed, and what holds it instead.

Reads only; the recovery commits what is found here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from etl.lake import commits
from etl.lake.local import LocalLake
from etl.lake.names import read_data_name
from etl.lake.scan import is_known, keys_in, may_hold, table_of
from etl.ledger.records import PackedRecord, Record, pack
from etl.ledger.store import Ledger
from etl.ledger.values import File


@dataclass(slots=True)
class Mending:
    """What is to be committed so that lake, record and ledger agree again.

    `missing` are files that are gone, `broken` ones that are to be put aside, `held`
    those that count from now on by what they hold: compacted, moved or edited by
    somebody. `records` are without the lost rows, which `lost` counts by test.
    """

    missing: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    held: list[File] = field(default_factory=list)
    records: dict[str, PackedRecord] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)


def find_losses(
    lake: LocalLake, ledger: Ledger, pipeline: str, files: Mapping[str, int]
) -> Mending | None:
    """Compare the files of the lake, by size, with what was committed; None if all is well.

    Raises LakeError where a symbolic link stands in the place of a file or folder.
    """
    named = {path: file for path, file in ledger.files().items() if is_known(table_of(path))}
    here = named.keys() & files.keys()
    mending = Mending(missing=named.keys() - here, broken=lake.doubted(pipeline) & here)
    changed = {path for path in here - mending.broken if files[path] != named[path].bytes}
    if not (mending.missing or mending.broken or changed):
        return None
    for path in mending.missing:
        lake.refuse_links(path)
    intact = here - mending.broken - changed
    while True:
        suspects = mending.missing | mending.broken | changed
        tests = _tests_of(lake, pipeline, {named[path].batch for path in suspects})
        present = _Present(lake, tests)
        unreadable = [path for path in sorted(intact) if present.add(path) is None]
        if not unreadable:
            break
        mending.broken.update(unreadable)  # which may hold rows of more tests
        intact.difference_update(unreadable)
    for path in sorted(changed):
        if present.add(path) is None:
            mending.broken.add(path)
        else:
            mending.held.append(_held(lake, path, files[path], present))
    for path in sorted(path for path in files.keys() - here if _may_be_adopted(path, pipeline)):
        if present.add(path):
            mending.held.append(_held(lake, path, files[path], present))
    _forget_lost(ledger, tests, present, mending)
    return mending


def read_afresh(lake: LocalLake, ledger: Ledger, tests: Collection[str]) -> dict[str, PackedRecord]:
    """Return the records of tests as if their listings were never read.

    The rows that the data files hold stay known; what else was known of rows is dropped.
    """
    present = _Present(lake, tests)
    for path in ledger.files():
        if is_known(table_of(path)):
            present.add(path)
    records = {}
    for test_id in sorted(tests):
        record = ledger.record(test_id)
        _forget_rows(record, present.keys.get(test_id, {}))
        record.forget_listing()
        record.forget_absences()
        records[test_id] = pack(record)
    return records


def _may_be_adopted(path: str, pipeline: str) -> bool:
    """Say whether a file that no commit names may be somebody's compaction of ours."""
    name = path.rpartition("/")[2]
    if not name.endswith(".parquet") or name.startswith(("_", ".")):
        return False
    ours = read_data_name(name)
    return is_known(table_of(path)) and (ours is None or ours.pipeline == pipeline)


def _tests_of(lake: LocalLake, pipeline: str, batches: Collection[int]) -> set[str]:
    tests: set[str] = set()
    for batch in batches:
        tests |= commits.read(lake.commit_path(pipeline, batch), pipeline).test_ids
    return tests


class _Present:
    """The keys of some tests' rows that the files read so far hold, by test and table."""

    def __init__(self, lake: LocalLake, tests: Collection[str]) -> None:
        self._lake = lake
        self._tests = tests
        self.keys: dict[str, dict[str, set[int]]] = {}
        self.rows: dict[str, int] = {}

    def add(self, path: str) -> int | None:
        """Read a file; return how many keys it adds, or None if it cannot be read."""
        if not may_hold(path, self._tests):
            self.rows[path] = 0
            return 0
        rows, found = 0, set[tuple[str, int]]()
        try:
            for test_id, key in keys_in(self._lake, path):
                rows += 1
                if test_id in self._tests:
                    found.add((test_id, key))
        except ValueError:
            return None
        self.rows[path] = rows
        return sum(self._is_new(test_id, table_of(path), key) for test_id, key in found)

    def _is_new(self, test_id: str, table: str, key: int) -> bool:
        keys = self.keys.setdefault(test_id, {}).setdefault(table, set())
        if key in keys:
            return False
        keys.add(key)
        return True


def _held(lake: LocalLake, path: str, size: int, present: _Present) -> File:
    return File(path, 0, present.rows[path], size, lake.digest(lake.root / path))


def _forget_lost(
    ledger: Ledger, tests: Collection[str], present: _Present, mending: Mending
) -> None:
    for test_id in sorted(tests):
        record = ledger.record(test_id)
        lost = _forget_rows(record, present.keys.get(test_id, {}))
        if lost:
            record.forget_listing()
            mending.lost[test_id] = lost
        mending.records[test_id] = pack(record)


def _forget_rows(record: Record, present: Mapping[str, Collection[int]]) -> int:
    """Drop the rows that no file holds from a record; return how many."""
    lost = 0
    for table, rows in record.covered.items():
        missing = rows.keys() - present.get(table, ()) if is_known(table) else ()
        for key in missing:
            del rows[key]
        if missing:
            record.answered.pop(table, None)  # nobody knows whose they were: all lists are asked
        lost += len(missing)
    for table, sessions in record.answered.items():
        here = present.get(table, ()) if is_known(table) else sessions
        gone = {key: rows for key, rows in sessions.items() if rows and key not in here}
        for key in gone:
            del sessions[key]
        lost += sum(gone.values())
    return lost
