"""Puts lake and ledger right at every start, by listing the lake: no request is made.

Recovery is always back, never forward: what an attempt left behind is removed and its
answers, still in the inbox, land in a new batch. So nothing depends on rendering the
same bytes again after an upgrade.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from etl.errors import AlreadyRunning, ConfigError, LakeError
from etl.lake import commits
from etl.lake.commits import AnswerRead, Commit, CommitRead
from etl.lake.kept import NO_COMMIT_ADVICE
from etl.lake.landing_plan import LandingPlan
from etl.lake.local import LocalLake
from etl.lake.mending import find_losses, read_afresh
from etl.lake.names import DataName, finished_name, read_data_name
from etl.lake.personal import disagreement
from etl.lake.strays import Stray, judge
from etl.ledger import afresh, due
from etl.ledger.due import Feeds
from etl.ledger.held import list_answered
from etl.ledger.records import Record, pack
from etl.ledger.store import Ledger
from etl.ledger.values import Ended, Landed

LAKE_ID: Final = "lake_id"
RUN_ID: Final = "recovery"


@dataclass(slots=True)
class Recovery:
    """What a start found and mended; `next_batch` is the number that the run begins with."""

    next_batch: int = 1
    adopted: list[int] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
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
        said += [f"A data file of no commit was moved aside: {path}." for path in self.strays]
        said += [
            f"{rows} rows of test {test} are missing from the lake and are asked again."
            for test, rows in self.rows_to_fetch_again.items()
        ]
        said += [
            f"A file that was moved or written by others counts: {path}." for path in self.held
        ]
        said += [
            f"A copy of a data file was left alone: {path}. Readers see its rows twice; remove it."
            for path in self.foreign
        ]
        return said


def recover(lake: LocalLake, ledger: Ledger, plan: LandingPlan) -> Recovery:
    """Bring the ledger up to the lake, and the lake back to its last commit; blocks.

    `plan` says how the run tells rows apart, and what it asks session by session. Raises
    ConfigError where rows in the lake were told apart otherwise, LakeError where it is not
    the lake that the ledger knows, or its own record is damaged; AlreadyRunning if another
    writer commits meanwhile.
    """
    pipeline, recovery = plan.pipeline, Recovery()
    files = lake.data_files()
    bind(lake, ledger, files)
    lake.remove_unfinished_commits(pipeline)
    _adopt(lake, ledger, plan, files, recovery)
    _agree(ledger, plan.personal.notes())
    known = ledger.commits_known()
    recovery.next_batch = max(known, default=0) + 1
    _remove_leftovers(lake, ledger, pipeline, files, recovery)
    _mend_losses(lake, ledger, pipeline, files, recovery)
    return recovery


def reset(
    lake: LocalLake, ledger: Ledger, pipeline: str, tests: Collection[str], recovery: Recovery
) -> None:
    """Forget the listings and proofs of tests, by a commit: it outlives this machine's state.

    The rows that the data files hold stay known. Call it after `recover`.
    """
    records = read_afresh(lake, ledger, tests)
    commit = Commit(pipeline, recovery.next_batch, commits.RESET_RUN, records=records)
    _commit(lake, ledger, commit, recovery)


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
    lake.bind(found)


def _adopt(
    lake: LocalLake,
    ledger: Ledger,
    plan: LandingPlan,
    files: dict[str, int],
    recovery: Recovery,
) -> None:
    """Learn the commits that the ledger does not know; it forgets all if some are gone."""
    pipeline = plan.pipeline
    on_lake = lake.commits(pipeline)
    for expected, batch in enumerate(on_lake, start=1):
        if batch != expected:
            raise LakeError(
                f"Commit {expected} of the lake is missing, though later ones are there.",
                where=str(lake.commit_path(pipeline, expected)),
                advice=NO_COMMIT_ADVICE,
            )
    known = ledger.commits_known()
    if known - set(on_lake):
        ledger.forget_lake()
        known = set()
    unknown = [batch for batch in on_lake if batch not in known]
    _remove_replaced(lake, ledger, pipeline, unknown, files)
    for batch in unknown:
        commit = commits.read(lake.commit_path(pipeline, batch), pipeline)
        _adopt_one(ledger, commit, plan.feeds)
        ledger.drop_from_inbox(commit.identities, plan.personal.identity)
        recovery.adopted.append(batch)


def _remove_replaced(
    lake: LocalLake, ledger: Ledger, pipeline: str, batches: Sequence[int], files: dict[str, int]
) -> None:
    """Remove what commits replace whose writer died before it could.

    That comes before the ledger knows them: a death in between leaves it to the next start.
    """
    named, replaced = set(ledger.files()), set[str]()
    for batch in batches:
        names = commits.read_names(lake.commit_path(pipeline, batch), pipeline)
        # What one commit replaces may be back, and counted again by a later one.
        named = named.difference(names.replaces).union(file.path for file in names.files)
        replaced.update(names.replaces)
    gone = (replaced - named) & files.keys()
    lake.remove_durably(gone)
    for path in gone:
        del files[path]


def _adopt_one(ledger: Ledger, commit: CommitRead, feeds: Feeds) -> None:
    records: dict[str, Record] = dict(commit.records)
    for test_id, proofs in commit.proofs.items():
        record = records.get(test_id) or ledger.record(test_id)
        records[test_id] = commits.adopted(record, proofs)
    for answer in commit.answers:
        if answer.test_id not in records:
            records[answer.test_id] = ledger.record(answer.test_id)
        _adopt_answer(records[answer.test_id], answer, feeds)
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
            reopened=[test for test, record in records.items() if record.is_unread],
            looks=looks,
        )
    )
    for name, value in commit.notes.items():
        ledger.keep_note(name, value)


def _adopt_answer(record: Record, answer: AnswerRead, feeds: Feeds) -> None:
    endpoint, session_id, fed = answer.endpoint, answer.session_id, feeds.of(answer.test_id)
    if session_id is None:
        asked_at_us = max(answer.fetched_at_us, record.asked_at_us.get(endpoint, 0))
        record.asked_at_us[endpoint] = asked_at_us
    elif answer.rows and endpoint in feeds.growing:
        at_us = answer.fetched_at_us
        list_answered(record, fed, endpoint, session_id, answer.rows, at_us)
    elif answer.rows:
        due.answered(record, fed, endpoint, session_id, answer.rows)
    else:
        due.not_there(record, endpoint, session_id, answer.fetched_at_us)
    if session_id is not None:
        afresh.answered(record, endpoint, session_id, answer.fetched_at_us)


def _agree(ledger: Ledger, notes: Mapping[str, str]) -> None:
    """Keep how rows are told apart; raises ConfigError where it was otherwise.

    Then rows that are in the lake already would not be known, and land twice.
    """
    noted = {name: value for name in notes if (value := ledger.note(name)) is not None}
    wrong = disagreement(noted, notes)
    if wrong is not None and ledger.commits_known():
        raise ConfigError(
            wrong,
            advice="Put the key, or the pipeline's `columns`, back as they were; or export into "
            "a new lake, under a new pipeline's name. Nothing was asked or changed.",
        )
    for name, value in notes.items():
        if noted.get(name) != value:
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
    then fails to commit, and removes its own files. Where the number is taken already,
    the file's writer has lost a race or was fenced off, and died before it cleaned up.
    """
    named = ledger.files()
    ours = {path: name for path in files if (name := _name_if_of(path, pipeline)) is not None}
    judged = {
        path: judge(name, recovery.next_batch, partial(_attempts, lake, pipeline))
        for path, name in ours.items()
        if path not in named
    }
    for path, stray in judged.items():
        if stray is Stray.AHEAD:
            raise _record_damaged(path)
    leftovers = {path: ours[path] for path, stray in judged.items() if stray is Stray.LEFTOVER}
    recovery.foreign = [path for path, stray in judged.items() if stray is Stray.COPY]
    for path in (path for path, stray in judged.items() if stray is Stray.BEATEN):
        del files[path]
        recovery.strays.append(lake.put_aside(path))
    if not leftovers:
        return
    if any(name.batch >= recovery.next_batch for name in leftovers.values()):
        _commit(lake, ledger, Commit(pipeline, recovery.next_batch, run_id=RUN_ID), recovery)
    lake.remove(_final(path) for path in leftovers)
    for path in leftovers:
        del files[path]
        recovery.removed.append(path)


def _record_damaged(path: str) -> LakeError:
    return LakeError(
        "The lake has a data file of this pipeline that none of its commits names: "
        "its record, `_etl`, was damaged or restored from a backup.",
        where=path,
        advice="Restore `_etl` to the state of the data files, or move the file out of "
        "the lake and run again: its rows are then asked again. Nothing was changed.",
    )


def _attempts(lake: LocalLake, pipeline: str, batch: int) -> set[str]:
    """Return the attempts whose files a commit names, now or before they were replaced."""
    path = lake.commit_path(pipeline, batch)
    if not path.exists():
        return set()
    named = (file.path for file in commits.read_names(path, pipeline).files)
    return {name.attempt for path in named if (name := _name_if_of(path, pipeline)) is not None}


def _commit(lake: LocalLake, ledger: Ledger, commit: Commit, recovery: Recovery) -> None:
    """Land a commit of recovery's own, and go on to the next number."""
    if not lake.commit(commit.pipeline, commit.batch, commits.encode(commit)):
        raise AlreadyRunning(
            f"Another writer is landing batch {commit.batch} of {commit.pipeline!r}.",
            where=str(lake.root),
            advice="Run again when it has ended.",
        )
    ledger.land(
        Landed(
            commit.batch,
            files=[replace(file, batch=commit.batch) for file in commit.files],
            replaced=commit.replaces,
            records=commit.records,
            reopened=[test for test, record in commit.records.items() if not record.read_at_us],
        )
    )
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
    """Make work of the rows of committed files that are gone or damaged, by a commit.

    So the lake's own record is right again, whatever becomes of this machine's state.
    """
    mending = find_losses(lake, ledger, pipeline, files)
    if mending is not None:
        recovery.missing = sorted(mending.missing)
        recovery.damaged = [lake.put_aside(path) for path in sorted(mending.broken)]
        recovery.held = [file.path for file in mending.held]
        recovery.foreign = [path for path in recovery.foreign if path not in recovery.held]
        recovery.rows_to_fetch_again = mending.lost
        mended = Commit(
            pipeline,
            recovery.next_batch,
            RUN_ID,
            files=mending.held,
            replaces=sorted(mending.missing | mending.broken),
            records=mending.records,
        )
        _commit(lake, ledger, mended, recovery)
    lake.doubt(pipeline, ())
