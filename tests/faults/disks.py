"""What disks can do, and people who work on them: to the lake, and to the state."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from threading import Thread

import pyarrow.parquet as pq
import pytest
from anyio import to_thread

from etl.ledger.records import PackedRecord
from etl.ledger.store import open_ledger
from etl.ledger.values import Landed
from tests.exporting import Project, open_project
from tests.faults import Case, Chapter, Ended, Provoke

Change = Callable[[Project], object]

SIZES = (501, 40)
IDLE_REQUESTS = 3
"""What a run asks when nothing is new: two heads, and one page that is proved again."""

STRACE = shutil.which("strace")


def told(done: subprocess.CompletedProcess[str]) -> Ended:
    """Return how a process ended; a bug is none of the faults of this chapter."""
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout + done.stderr)


async def ran(project: Project, *arguments: str) -> Ended:
    """Run a command in a process of its own."""
    return told(await to_thread.run_sync(project.process, *arguments))


async def comes_right(project: Project, *, requests: int | None = None) -> None:
    """Assert that the next run ends whole, and that it asks no more than this."""
    asked = len(project.sandbox.requests)
    ended = await project.ended()
    assert ended.exit_code == 0, ended.said
    await project.exact()
    assert requests is None or len(project.sandbox.requests) - asked <= requests, ended.said


async def settled(project: Project, notes: int = 0) -> None:
    """Assert that nothing is left to mend: neither here nor on a machine without state."""
    idle = await project.export()
    assert len(idle.pipelines[0].notes) == notes, idle.pipelines[0].notes
    await to_thread.run_sync(shutil.rmtree, project.state)
    fresh = await project.export()
    assert len(fresh.pipelines[0].notes) == notes + 1, fresh.pipelines[0].notes
    assert "commits that the state did not know were adopted" in fresh.pipelines[0].notes[0]
    assert idle.requests.total == fresh.requests.total <= IDLE_REQUESTS
    assert idle.pipelines[0].rows["sessions"] == fresh.pipelines[0].rows["sessions"] == 0


def after(change: Change, *, more: int = 0) -> Provoke:
    """Export, let somebody change something, and export again: complete, for few requests."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, *SIZES) as project:
            await project.export()
            await to_thread.run_sync(change, project)
            asked = len(project.sandbox.requests)
            ended = await project.ended()
            assert len(project.sandbox.requests) - asked <= IDLE_REQUESTS + more
            await settled(project)
            await project.exact()
            return ended

    return provoke


async def a_copy(folder: Path) -> Ended:
    """Copy a data file into another folder: told at every run, and left to who made it."""
    async with open_project(folder, *SIZES) as project:
        await project.export()
        copy = await to_thread.run_sync(copied, project)
        ended = await project.ended()
        await settled(project, notes=1)
        await to_thread.run_sync(copy.unlink)
        await settled(project)
        await project.exact()
        return ended


def refused_after(change: Change) -> Provoke:
    """Export, let somebody change something, and see the next run refuse.

    No request is made, no file is touched, and with the lake as it was all goes on.
    """

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, *SIZES) as project:
            await project.export()

            def change_it() -> list[Path]:
                shutil.copytree(project.lake, folder / "was")
                change(project)
                return data_files(project)

            files = await to_thread.run_sync(change_it)
            asked = len(project.sandbox.requests)
            ended = await project.ended()
            assert len(project.sandbox.requests) == asked
            assert await to_thread.run_sync(data_files, project) == files
            await to_thread.run_sync(restore, folder / "was", project)
            await comes_right(project, requests=IDLE_REQUESTS)
            return ended

    return provoke


def restore(backup: Path, project: Project) -> None:
    """Put the lake back as it was."""
    shutil.rmtree(project.lake)
    backup.rename(project.lake)


def data_files(project: Project) -> list[Path]:
    """Return the files of the table `sessions`."""
    return sorted((project.lake / "sessions").rglob("*.parquet"))


def ledger(project: Project) -> Path:
    """Return the pipeline's ledger."""
    return project.state / "nightly.sqlite"


def record(project: Project) -> Path:
    """Return the folder of the pipeline's commits."""
    return project.lake / "_etl" / "answers" / "pipeline=nightly"


# Disks that fail while a run writes.


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Mount something there; only root may, and without it the test is skipped aloud."""
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TRIED, it needs root and mount: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def full(place: Path, size: str, left: int) -> Iterator[None]:
    """Mount a small disk that is full but for some KB."""
    with mounted(place, "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs"):
        space = os.statvfs(place)
        ballast = place / ".ballast"
        ballast.write_bytes(bytes(max(0, space.f_bavail * space.f_frsize - left * 1024)))
        yield


def full_lake(left: int) -> Provoke:
    """Fill the lake's disk; with room again, what was fetched lands and nothing is repaid."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 2_000, 40) as project:
            disk = full(project.lake, "4M", left)
            await to_thread.run_sync(disk.__enter__)
            try:
                ended = await project.ended()
                await to_thread.run_sync((project.lake / ".ballast").unlink)
                await comes_right(project)
                assert len(project.sandbox.requests) <= 6 + 2
                return ended
            finally:
                await to_thread.run_sync(disk.__exit__, None, None, None)

    return provoke


def full_state(left: int) -> Provoke:
    """Fill the disk of the state; with room again the next run comes right."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 2_000, 40) as project:
            with_disk = full(project.state, "4M", left)
            await to_thread.run_sync(with_disk.__enter__)
            try:
                done = await ran(project, "run")
                await to_thread.run_sync((project.state / ".ballast").unlink)
                await comes_right(project)
                return done
            finally:
                await to_thread.run_sync(with_disk.__exit__, None, None, None)

    return provoke


def read_only(which: str) -> Provoke:
    """Mount lake or state read-only, after a first export."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, *SIZES) as project:
            await project.export()
            asked = len(project.sandbox.requests)
            place = project.folder / which

            def run() -> Ended:
                with mounted(place, "--bind", str(place)):
                    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
                    return told(project.process("run"))

            ended = await to_thread.run_sync(run)
            assert len(project.sandbox.requests) == asked
            await comes_right(project, requests=IDLE_REQUESTS)
            return ended

    return provoke


def limited(blocks: int) -> Provoke:
    """Let no file grow beyond so many KB (`ulimit -f`), which needs no root."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 6_000, 40) as project:
            prefix = ("sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh")
            run = partial(project.process, "run", prefix=prefix)
            ended = told(await to_thread.run_sync(run))
            await comes_right(project)
            return ended

    return provoke


def failing(calls: str, nth: int, error: str, *, ledger_file: str = "") -> Provoke:
    """Let the n-th of some system calls fail, on the lake or on one file of the ledger."""

    async def provoke(folder: Path) -> Ended:
        if STRACE is None:
            pytest.skip("NOT TRIED, it needs strace")
        async with open_project(folder, *SIZES) as project:
            on = ["-P", str(ledger(project)) + ledger_file] if ledger_file else []
            inject = f"inject={calls}:error={error}:when={nth}"
            log = folder / "trace"
            strace = (str(STRACE), "-f", "-qq", "-o", str(log), *on, "-e", inject)
            run = partial(project.process, "run", prefix=strace)
            ended = told(await to_thread.run_sync(run))
            trace = await to_thread.run_sync(log.read_text)
            _, struck, rest = trace.partition("(INJECTED)")
            assert struck
            if ledger_file:
                assert "write" not in rest and "sync" not in rest, "it went on with that file"
            await comes_right(project)
            hidden = await to_thread.run_sync(lambda: list(project.lake.rglob(".*.unfinished")))
            assert hidden == []
            return ended

    return provoke


def gone_meanwhile(left: Change) -> Provoke:
    """Let the lake vanish while a page is read, with something `left` in its place."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 2_000, 40) as project:
            await project.export()
            for test in project.tests:
                project.sandbox.complete(test, 3)

            def vanish() -> None:
                project.lake.rename(folder / "away")
                left(project)

            def come_back() -> None:
                shutil.rmtree(project.lake, ignore_errors=True)
                (folder / "away").rename(project.lake)

            project.sandbox.before_page(2, lambda *_: in_a_thread(vanish))
            ended = await project.ended()
            assert not await to_thread.run_sync(data_files, project)
            await to_thread.run_sync(come_back)
            await comes_right(project, requests=IDLE_REQUESTS)
            return ended

    return provoke


def in_a_thread(call: Callable[[], object]) -> None:
    """Call it and wait: it blocks, and the sandbox answers on the event loop."""
    thread = Thread(target=call)
    thread.start()
    thread.join()


def nothing(_project: Project) -> None:
    """Leave nothing."""


def an_empty_folder(project: Project) -> None:
    """Leave what a mount point shows without its disk."""
    project.lake.mkdir()


def another_lake(project: Project) -> None:
    """Put the lake of somebody else in its place."""
    (project.lake / "_etl").mkdir(parents=True, exist_ok=True)
    (project.lake / "_etl" / "lake.json").write_text('{"id": "another", "version": 1}')


# The ledger.


def rewritten(write: Callable[[Path], object]) -> Provoke:
    """Damage the ledger while no run is under way; it costs no request."""
    return after(lambda project: write(ledger(project)))


def noise(path: Path) -> None:
    """Overwrite a file with noise."""
    path.write_bytes(Random(7).randbytes(path.stat().st_size))


def noise_within(path: Path) -> None:
    """Overwrite every page of a ledger but the first with noise."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(16_384)
        file.write(Random(7).randbytes(size - 16_384))


def cut(path: Path) -> None:
    """Cut a file in the middle of a page."""
    os.truncate(path, path.stat().st_size // 2 + 100)


def a_wrong_byte(path: Path) -> None:
    """Alter one byte within each record that the ledger keeps."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        records = [bytes(row[0]) for row in database.execute("SELECT record FROM records")]
    content = path.read_bytes()
    for kept in records:
        assert content.count(kept[:64]) == 1
        place = content.index(kept[:64]) + 40
        content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.write_bytes(content)


def without_schema(path: Path) -> None:
    """Replace a ledger by another program's file."""
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE theirs (a)")


def newer(path: Path) -> None:
    """Let a ledger be one of a later version."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA user_version = 99")


async def newer_ledger(folder: Path) -> Ended:
    """Export, upgrade, and go back to this version."""
    async with open_project(folder, *SIZES) as project:
        await project.export()
        await to_thread.run_sync(newer, ledger(project))
        asked = len(project.sandbox.requests)
        ended = await project.ended()
        assert len(project.sandbox.requests) == asked
        await to_thread.run_sync(ledger(project).unlink)
        await comes_right(project, requests=IDLE_REQUESTS)
        return ended


async def found_in_the_middle(folder: Path) -> Ended:
    """Damage a ledger that SQLite cannot hold in memory after a run has begun to read it."""
    async with open_project(folder, *SIZES) as project:
        await project.export()
        for test in project.tests:
            project.sandbox.complete(test, 3)

        def prepare() -> None:
            text = project.file.read_text()
            project.file.write_text(text.replace("{rate_limit", "{concurrency: 1, rate_limit"))
            large = {f"x{number}": PackedRecord(RANDOM, 1, {}) for number in range(40)}
            with open_ledger(project.state, "nightly") as opened:
                opened.land(Landed(1, records=large))

        await to_thread.run_sync(prepare)
        project.sandbox.before_page(
            1, lambda *_: in_a_thread(lambda: noise_within(ledger(project)))
        )
        ended = await project.ended()
        await comes_right(project)
        return ended


RANDOM = Random(7).randbytes(100_000)


# The lake.


def first(project: Project) -> Path:
    """Return the data file of the larger test."""
    return data_files(project)[0]


def edited(project: Project) -> None:
    """Take rows out of a data file, as somebody might who forgets a person."""
    rows = pq.read_table(first(project), partitioning=None)
    pq.write_table(rows.slice(0, 400), first(project))


def compacted(project: Project) -> None:
    """Rewrite a data file under a name of one's own."""
    part = first(project)
    pq.write_table(pq.read_table(part, partitioning=None), part.with_name("part-mine.parquet"))
    part.unlink()


def copied(project: Project) -> Path:
    """Copy a data file into the folder of the other test."""
    one, other = data_files(project)
    return Path(shutil.copy(one, other.parent))


def renamed(project: Project) -> None:
    """Rename a data file."""
    first(project).rename(first(project).with_name("part-my-favourite.parquet"))


def moved(project: Project) -> None:
    """Move a data file into a folder of one's own."""
    folder = first(project).parent / "kept"
    folder.mkdir()
    first(project).rename(folder / first(project).name)


def linked(project: Project) -> None:
    """Move a partition to another disk, and leave a link."""
    partition = first(project).parent
    partition.rename(project.folder / "elsewhere")
    partition.symlink_to(project.folder / "elsewhere")


def one_commit(change: Callable[[Path], object]) -> Change:
    """Change the only commit of a lake, and forget the state that knows it."""

    def change_it(project: Project) -> None:
        (commit,) = record(project).iterdir()
        change(commit)
        shutil.rmtree(project.state)

    return change_it


def a_hole(project: Project) -> None:
    """Lose a commit that others follow."""
    (commit,) = record(project).iterdir()
    commit.rename(commit.with_name("00000002.parquet"))


def not_mounted(project: Project) -> None:
    """Unmount the lake's disk."""
    shutil.rmtree(project.lake)
    project.lake.mkdir()


def half(path: Path) -> None:
    """Cut a file."""
    os.truncate(path, path.stat().st_size // 2)


CHAPTER = Chapter(
    "Disks, and those who work on them",
    [
        Case(
            "the disk of the lake is full",
            "No space left on device … The disk is full: free some space and run again",
            5,
            [full_lake(left) for left in (0, 16)],
        ),
        Case(
            "the disk of the state is full",
            "The disk is full: free some space and run again",
            5,
            [
                full_state(0),
                full_state(1_060),
                failing("pwrite64", 8, "ENOSPC", ledger_file="-wal"),
            ],
        ),
        Case(
            "the quota is used up half-way",
            "The quota is used up: free some space and run again; nothing is lost",
            5,
            [failing("link,linkat", 2, "EDQUOT")],
        ),
        Case(
            "a file may not grow so large (`ulimit -f`)",
            "File too large",
            5,
            [limited(64)],
        ),
        Case(
            "the lake's disk answers a sync, rename or link with an I/O error",
            "Input/output error … Check the disk",
            5,
            [
                failing("fsync", 5, "EIO"),
                failing("rename,renameat,renameat2", 1, "EIO"),
                failing("link,linkat", 2, "EIO"),
            ],
        ),
        Case(
            "the state's disk answers a write or sync with one",
            "The ledger failed: disk I/O error. … Check the disk's space and health and run again",
            5,
            [
                failing("fdatasync,fsync", 4, "EIO", ledger_file="-wal"),
                failing("pwrite64", 8, "EIO", ledger_file="-wal"),
            ],
        ),
        Case(
            "the lake is mounted read-only",
            "Read-only file system … mount it read-write and run again",
            5,
            [read_only("lake")],
        ),
        Case(
            "the state is mounted read-only",
            "Read-only file system … mount it read-write and run again",
            5,
            [read_only(".etl")],
        ),
        Case(
            "the lake's disk is not mounted, or another lake is in its place",
            "This is not the lake that the state knows … mount it",
            5,
            [refused_after(not_mounted), refused_after(another_lake)],
        ),
        Case(
            "the lake vanishes in the middle of a run",
            "The lake has gone, or another one is in its place. … what was fetched is kept",
            5,
            [gone_meanwhile(left) for left in (nothing, an_empty_folder, another_lake)],
        ),
        Case(
            "the ledger is lost",
            "commits that the state did not know were adopted … complete in",
            0,
            [rewritten(Path.unlink)],
        ),
        Case(
            "the ledger is cut short, overwritten, altered within, or another program's file",
            "An unreadable ledger was set aside: … complete in",
            0,
            [rewritten(how) for how in (cut, noise, noise_within, a_wrong_byte, without_schema)],
        ),
        Case(
            "that shows only in the middle of a run; the next one recovers by itself",
            "The ledger is damaged: … It is set aside as … Run again",
            5,
            [found_in_the_middle],
        ),
        Case(
            "the ledger was written by a newer version",
            "The state was written by a newer version of etl",
            5,
            [newer_ledger],
        ),
        Case(
            "somebody deletes or cuts a data file: its rows are asked again",
            "501 rows of test … are missing from the lake and are asked again",
            0,
            [
                after(lambda project: first(project).unlink(), more=3),
                after(lambda project: half(first(project)), more=3),
            ],
        ),
        Case(
            "somebody takes rows out of a data file: they are asked again",
            "101 rows of test … are missing from the lake and are asked again",
            0,
            [after(edited, more=3)],
        ),
        Case(
            "somebody renames, moves or compacts data files: they count as they are",
            "A file that was moved or written by others counts: … complete in",
            0,
            [after(renamed), after(moved), after(compacted)],
        ),
        Case(
            "somebody copies a data file within the lake",
            "A copy of a data file was left alone: … Readers see its rows twice; remove it",
            0,
            [a_copy],
        ),
        Case(
            "the record of the lake, `_etl`, is deleted",
            "its record … is missing",
            5,
            [refused_after(lambda project: shutil.rmtree(project.lake / "_etl"))],
        ),
        Case(
            "`lake.json` is damaged",
            "The lake's own record is damaged: lake.json cannot be read",
            5,
            [refused_after(lambda project: half(project.lake / "_etl" / "lake.json"))],
        ),
        Case(
            "a commit of the lake is cut short",
            "A commit of the lake cannot be read. … Restore the `_etl` folder from a backup",
            5,
            [refused_after(one_commit(half)), refused_after(one_commit(noise))],
        ),
        Case(
            "a commit of the lake is lost",
            "Commit 1 of the lake is missing, though later ones are there",
            5,
            [refused_after(a_hole)],
        ),
        Case(
            "a partition is a symbolic link",
            "is a symbolic link; etl does not follow it",
            5,
            [refused_after(linked)],
        ),
    ],
)
