"""Puts lake and ledger right at every start, by listing the lake: no request is made.

Recovery is always back, never forward: what an attempt left behind is removed and its
answers, still in the inbox, land in a new batch. So nothing depends on rendering the
same bytes again after an upgrade.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from etl.errors import AlreadyRunning, LakeError
from etl.lake import commits
from etl.lake.commits import Commit, CommitRead
from etl.lake.local import LocalLake
from etl.lake.names import DataName, finished_name, read_data_name
from etl.lake.scan import may_hold, rows_in, table_of
from etl.ledger.records import PackedRecord, Record, pack
from etl.ledger.store import Ended, File, Landed, Ledger
from etl.paging.values import Listing
from etl.tables import rejects
from etl.tables.registry import tables
from etl.tables.values import Reject, key_hash

LAKE_ID = "lake_id"


@dataclass(slots=True)
class Recovery:
    """What a start found and mended; `next_batch` is the number that the run begins with."""

    next_batch: int = 1
    adopted: list[int] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    rows_to_fetch_again: dict[str, int] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """Say what was found, for the log and the report."""
        said = []
        if self.adopted:
            said.append(f"{len(self.adopted)} commits that the state did not know were adopted.")
        if self.removed:
            said.append(f"{len(self.removed)} unfinished files of an earlier run were removed.")
        said += [f"A data file is gone: {path}." for path in self.missing]
        said += [f"A data file was damaged and moved aside: {path}." for path in self.damaged]
        said += [
            f"{rows} rows of test {test} are missing from the lake and are asked again."
            for test, rows in self.rows_to_fetch_again.items()
        ]
        said += [f"A file that etl did not write was left alone: {path}." for path in self.foreign]
        return said


def recover(lake: LocalLake, ledger: Ledger, pipeline: str) -> Recovery:
    """Bring the ledger up to the lake, and the lake back to its last commit; blocks.

    Raises LakeError where the lake is not the one that the ledger knows, or its own
    record is damaged; AlreadyRunning if another writer commits meanwhile.
    """
    recovery = Recovery()
    files = lake.data_files()
    bind(lake, ledger, files)
    _adopt(lake, ledger, pipeline, recovery)
    known = ledger.commits_known()
    recovery.next_batch = max(known, default=0) + 1
    _remove_leftovers(lake, ledger, pipeline, files, recovery)
    _mend_losses(lake, ledger, pipeline, files, recovery)
    return recovery


def bind(lake: LocalLake, ledger: Ledger, files: Collection[str]) -> None:
    """Make sure that this is the ledger's lake, or found a new one."""
    known, found = ledger.note(LAKE_ID), lake.identity()
    if known is not None and known != found and ledger.commits_known():
        raise LakeError(
            "This is not the lake that the state knows: "
            + ("its record is missing." if found is None else "it has another id."),
            where=str(lake.root),
            advice="If a disk is not mounted, mount it. If the lake was moved, put it back or "
            f"point `lake.url` to it. If a new lake is meant, move {ledger.path} away first.",
        )
    if found is None:
        if any(read_data_name(path.rpartition("/")[2]) for path in files):
            raise LakeError(
                "The lake has data files but its record, `_etl/lake.json`, is missing.",
                where=str(lake.root),
                advice="Restore the `_etl` folder from a backup, or start a new lake elsewhere; "
                "nothing was changed.",
            )
        found = lake.found()
    if known != found:
        ledger.keep_note(LAKE_ID, found)


def _adopt(lake: LocalLake, ledger: Ledger, pipeline: str, recovery: Recovery) -> None:
    """Learn the commits that the ledger does not know; it forgets all if some are gone."""
    on_lake = lake.commits(pipeline)
    known = ledger.commits_known()
    if known - set(on_lake):
        ledger.forget_lake()
        known = set()
    for batch in (batch for batch in on_lake if batch not in known):
        commit = commits.read(lake.commit_path(pipeline, batch), pipeline)
        _adopt_one(ledger, commit)
        lake.remove(commit.replaces)
        ledger.drop_from_inbox(commit.identities)
        recovery.adopted.append(batch)


def _adopt_one(ledger: Ledger, commit: CommitRead) -> None:
    records: dict[str, Record] = dict(commit.records)
    for test_id, proofs in commit.proofs.items():
        record = records.get(test_id) or ledger.record(test_id)
        records[test_id] = commits.adopted(record, proofs)
    looks = [
        Ended(
            test_id,
            commit.verdicts[test_id],
            records[test_id].listing.read_at_us,
            failed=None,
            sessions=len(records[test_id].listing.ids),
            proofs=proofs,
        )
        for test_id, proofs in commit.proofs.items()
    ]
    ledger.land(
        Landed(
            batch=commit.batch,
            files=commit.files,
            replaced=commit.replaces,
            records={test: pack(record) for test, record in records.items()},
            looks=looks,
        )
    )
    for name, value in commit.notes.items():
        if ledger.note(name) is None:
            ledger.keep_note(name, value)


def _remove_leftovers(
    lake: LocalLake,
    ledger: Ledger,
    pipeline: str,
    files: dict[str, int],
    recovery: Recovery,
) -> None:
    """Remove what attempts left that did not come to a commit.

    Before any is removed an empty commit takes its number: a writer that still lives
    then fails to commit, and removes its own files.
    """
    named = ledger.files()
    ours = {path: name for path in files if (name := _name_if_of(path, pipeline)) is not None}
    unnamed = {path: name for path, name in ours.items() if path not in named}
    leftovers = {
        path: name
        for path, name in unnamed.items()
        if name.batch == recovery.next_batch or not name.finished
    }
    known_names = {path.rpartition("/")[2] for path in named}
    for path in unnamed.keys() - leftovers.keys():
        if path.rpartition("/")[2] not in known_names:
            raise LakeError(
                "The lake has a data file of this pipeline that none of its commits names: "
                "its record, `_etl`, was damaged or restored from a backup.",
                where=path,
                advice="Restore `_etl` to the state of the data files, or move the file out of "
                "the lake and run again: its rows are then asked again. Nothing was changed.",
            )
        recovery.foreign.append(path)
    if not leftovers:
        return
    if any(name.batch >= recovery.next_batch for name in leftovers.values()):
        _fence(lake, ledger, pipeline, recovery)
    lake.remove(_final(path) for path in leftovers)
    for path in leftovers:
        del files[path]
        recovery.removed.append(path)


def _fence(lake: LocalLake, ledger: Ledger, pipeline: str, recovery: Recovery) -> None:
    empty = commits.encode(Commit(pipeline, recovery.next_batch, run_id="recovery"))
    if not lake.commit(pipeline, recovery.next_batch, empty):
        raise AlreadyRunning(
            f"Another writer is landing batch {recovery.next_batch} of {pipeline!r}.",
            where=str(lake.root),
            advice="Run again when it has ended.",
        )
    ledger.land(Landed(recovery.next_batch))
    recovery.next_batch += 1


def _name_if_of(path: str, pipeline: str) -> DataName | None:
    name = read_data_name(path.rpartition("/")[2])
    return name if name is not None and name.pipeline == pipeline else None


def _final(path: str) -> str:
    """Return the final path of a file that may still bear its hidden name."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{finished_name(name)}"


def _mend_losses(
    lake: LocalLake,
    ledger: Ledger,
    pipeline: str,
    files: Mapping[str, int],
    recovery: Recovery,
) -> None:
    """Find the rows of committed files that are gone or changed; the lost are work again."""
    named = ledger.files()
    gone = {path for path in named if path not in files}
    changed = {path for path in named.keys() - gone if files[path] != named[path].bytes}
    if not gone and not changed:
        return
    recovery.missing = sorted(gone)
    tests: set[str] = set()
    for batch in {named[path].batch for path in gone | changed}:
        tests |= commits.read(lake.commit_path(pipeline, batch), pipeline).test_ids
    present, held = _rows_present(lake, files, tests, changed, recovery)
    records: dict[str, PackedRecord] = {}
    for test_id in sorted(tests):
        record = ledger.record(test_id)
        lost = _forget_rows(record, present.get(test_id, {}))
        records[test_id] = pack(record)
        if lost:
            recovery.rows_to_fetch_again[test_id] = lost
    ledger.land(Landed(None, files=held, replaced=gone, records=records))


def _rows_present(
    lake: LocalLake,
    files: Mapping[str, int],
    tests: Collection[str],
    changed: Collection[str],
    recovery: Recovery,
) -> tuple[dict[str, dict[str, set[int]]], list[File]]:
    """Return the keys of these tests' rows by test and table, and the files that hold them.

    A file that somebody compacted or edited counts by what it holds; one of ours that
    cannot be read is moved out of readers' sight.
    """
    present: dict[str, dict[str, set[int]]] = {}
    held: list[File] = []
    for path in sorted(files):
        if not path.endswith(".parquet") or path.rpartition("/")[2].startswith(("_", ".")):
            continue
        if not may_hold(path, tests):
            continue
        table = table_of(path)
        rows = 0
        try:
            for test_id, key in _keys_in(lake, path, table):
                rows += 1
                if test_id in tests:
                    present.setdefault(test_id, {}).setdefault(table, set()).add(key)
        except ValueError:
            if path in changed:
                recovery.damaged.append(lake.put_aside(path))
            continue
        if path in changed or read_data_name(path.rpartition("/")[2]) is None:
            held.append(File(path, 0, rows, files[path]))
    return present, held


def _keys_in(lake: LocalLake, path: str, table: str) -> Iterator[tuple[str, int]]:
    """Yield the test and key of each row of a data file; ValueError if it cannot be read."""
    if table == rejects.NAME:
        for test_id, (session_id, body) in rows_in(lake, path, ["session_id", "body"]):
            session = None if session_id is None else str(session_id)
            yield test_id, Reject("", str(body), session).key
    elif table in tables():
        for test_id, key in rows_in(lake, path, tables()[table].key):
            yield test_id, key_hash(key)


def _forget_rows(record: Record, present: Mapping[str, set[int]]) -> int:
    """Drop the rows that no file holds from a record; return how many."""
    lost = 0
    for table, rows in record.covered.items():
        missing = rows.keys() - present.get(table, set())
        for key in missing:
            del rows[key]
        lost += len(missing)
    if lost:
        record.listing = Listing()
    return lost
