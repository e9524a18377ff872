"""The ledger keeps what was paid for, and tells damage from trouble."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.client.values import Answer
from etl.errors import AlreadyRunning, StateError
from etl.ledger import locks, places
from etl.ledger.blobs import seal, unseal
from etl.ledger.damage import DamagedError, set_aside, state_error
from etl.ledger.due import ROUND_LIFE_US
from etl.ledger.frames import identity
from etl.ledger.reading import open_state, read_status
from etl.ledger.records import Record, pack, pack_proofs, unpack, with_proofs
from etl.ledger.schema import VERSION
from etl.ledger.store import Ledger, open_ledger
from etl.ledger.values import File, Landed, Looked, Work, ended
from etl.paging.values import Listing, Outcome, PageView, Verdict

NOW_US = 1_700_000_000_000_000
MINUTE_US = 60_000_000


def answer(number: int, body: bytes = b"{}") -> Answer:
    return Answer("sessions", f"test-{number}", None, f"page-{number}", 200, NOW_US + number, body)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path, "nightly") as opened:
        yield opened


def spoil(folder: Path, *statements: str) -> Path:
    """Change a closed ledger's file behind its back; return the file."""
    path = folder / "nightly.sqlite"
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return path


def kept_aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*unreadable-*[0-9]"))


# The inbox.


def test_answers_come_back_as_they_were_kept_also_after_a_restart(tmp_path):
    first, second = [answer(1, b"one"), answer(2, b"")], [answer(3, b"three" * 1_000)]
    with open_ledger(tmp_path, "nightly") as ledger:
        numbers = [ledger.keep(first), ledger.keep(second)]
    with open_ledger(tmp_path, "nightly") as ledger:
        assert ledger.frames() == numbers
        assert [ledger.frame(number) for number in numbers] == [first, second]


def test_only_the_answers_that_a_commit_holds_leave_the_inbox(ledger):
    frames = [
        ledger.keep([answer(1, b"1"), answer(2, b"2")]),
        ledger.keep([answer(3)]),
        ledger.keep([answer(4)]),
    ]
    ledger.drop_from_inbox({identity(answer(1)), identity(answer(3))})
    assert ledger.frames() == [frames[0], frames[2]]
    assert ledger.frame(frames[0]) == [answer(2, b"2")]
    assert ledger.frame(frames[2]) == [answer(4)]


# The work of a round.


def begun(ledger: Ledger, *tests: str, at_us: int = NOW_US, afresh: bool = False) -> list[str]:
    work = ledger.begin_round("sessions", tests, at_us, afresh=afresh)
    return [one.test_id for one in work]


def end_look(ledger: Ledger, test_id: str, failed: str | None = None) -> None:
    verdict = None if failed else Verdict(Outcome.VERIFIED, 0, 0)
    look = ended(Looked(test_id, Listing(), verdict, NOW_US, failed))
    assert look is not None
    ledger.land(Landed(1, looks=[look]))


def test_a_look_that_goes_on_has_not_ended():
    assert ended(Looked("a", Listing())) is None


def test_a_round_left_open_is_gone_on_with_and_a_done_one_begun_anew(ledger):
    assert begun(ledger, "b", "a", "b") == ["b", "a"]
    end_look(ledger, "b")
    assert begun(ledger, "a", "b", "c") == ["a", "c"], "a test that was added is part of it"
    end_look(ledger, "a")
    end_look(ledger, "c", failed="gone")
    assert begun(ledger, "a", "b", "c") == ["a", "b", "c"]


@pytest.mark.parametrize("moved_us", [ROUND_LIFE_US, -ROUND_LIFE_US])
def test_a_round_is_open_for_twelve_hours_by_whatever_clock(ledger, moved_us):
    begun(ledger, "a", "b")
    end_look(ledger, "a")
    assert begun(ledger, "a", "b", at_us=NOW_US + moved_us) == ["b"]
    beyond = moved_us + (1 if moved_us > 0 else -1)
    assert begun(ledger, "a", "b", at_us=NOW_US + beyond) == ["a", "b"]


def test_a_round_can_be_asked_for_afresh_and_one_without_a_beginning_is(ledger):
    begun(ledger, "a", "b")
    end_look(ledger, "a")
    assert begun(ledger, "a", "b", afresh=True) == ["a", "b"]
    end_look(ledger, "a")
    with ledger._transaction() as database:  # noqa: SLF001 - a file of other hands
        database.execute("DELETE FROM meta WHERE name = 'round'")
    assert begun(ledger, "a", "b") == ["a", "b"]


def test_a_postponed_look_is_remembered_but_no_clock_can_put_it_off_for_long(ledger):
    begun(ledger, "a")
    ledger.postpone("sessions", Work("a", 3, NOW_US + MINUTE_US), "HTTP 500")
    (work,) = ledger.begin_round("sessions", ["a"], NOW_US, afresh=False)
    assert work == Work("a", 3, NOW_US + MINUTE_US)
    ledger.postpone("sessions", Work("a", 4, NOW_US + 10**15), "HTTP 500")
    (work,) = ledger.begin_round("sessions", ["a"], NOW_US, afresh=False)
    assert work == Work("a", 4, NOW_US + 61_000_000)


# What the lake is the record of.


def test_what_the_lake_records_can_be_forgotten_without_the_inbox(ledger):
    frame = ledger.keep([answer(1)])
    file = File("sessions/part.parquet", 7, 10, 1_000)
    ledger.land(Landed(7, files=[file], records={"a": pack(Record())}))
    assert (ledger.commits_known(), ledger.files(), ledger.tests_known()) == (
        {7},
        {file.path: file},
        ["a"],
    )
    ledger.forget_lake()
    assert (ledger.commits_known(), ledger.files(), ledger.tests_known()) == (set(), {}, [])
    assert ledger.frames() == [frame]


def test_a_test_that_is_reopened_is_work_again_and_proved_no_more(tmp_path):
    with open_ledger(tmp_path, "nightly") as ledger:
        ledger.land(Landed(1, records={"a": pack(Record())}))
        begun(ledger, "a", "b")
        end_look(ledger, "a")
        ledger.land(Landed(2, reopened=["a"]))
        assert begun(ledger, "a", "b") == ["a", "b"]
    (status,) = read_status(tmp_path, "nightly").tests
    assert (status.outcome, status.looked_at_us, status.verified_at_us) == (None, None, None)


def test_a_note_is_kept_and_replaced(ledger):
    assert ledger.note("lake") is None
    for value in ("one", "other"):
        ledger.keep_note("lake", value)
    assert ledger.note("lake") == "other"


def test_a_transaction_that_fails_changes_nothing(ledger):
    ledger.begin_run("run-1", NOW_US)
    with pytest.raises(StateError, match="UNIQUE"):
        ledger.begin_run("run-1", NOW_US)
    with pytest.raises(StateError, match="failed before"):
        ledger.commit()


# Records.

IDS = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=20)


@given(
    ids=IDS,
    at=st.integers(0, 2**62),
    whole=st.booleans(),
    total=st.one_of(st.none(), st.integers(0, 10**6)),
    covered=st.dictionaries(st.text(max_size=5), st.dictionaries(st.integers(0, 9), st.just(7))),
    removed=IDS,
)
def test_a_record_is_unpacked_as_it_was_packed(ids, at, whole, total, covered, removed):
    proved_at = tuple(at + place // 3 for place in range(len(ids)))
    listing = Listing(tuple(ids), proved_at, whole, total, at, Outcome.TRUNCATED)
    view = PageView(tuple(ids), 500, 0, total, at)
    record = Record(listing, covered, frozenset(removed), {"limit=500&offset=0": view})
    packed = pack(record)
    assert unpack(packed.packed) == record
    assert packed.rows == {table: len(rows) for table, rows in covered.items()}


def test_bytes_that_are_no_record_or_one_of_another_version_are_refused():
    with pytest.raises(ValueError, match="not a record"):
        unpack(b"nonsense")
    version, *rest = msgspec.msgpack.decode(pack(Record()).packed)
    assert version == 1
    with pytest.raises(ValueError, match="version 2, not 1"):
        unpack(msgspec.msgpack.encode([2, *rest]))


def test_what_was_packed_before_a_field_was_added_is_read():
    record = Record(covered={"sessions": {1: 2}}, changed_at_us=7)
    told = msgspec.msgpack.decode(pack(record).packed)
    for fields in (9, 15):  # as the first version wrote it, and before rows were replaced
        found = unpack(msgspec.msgpack.encode(told[:fields]))
        assert found.covered == record.covered
        assert (found.said, found.stale) == ({}, {})


def test_proofs_of_another_listing_are_not_taken_over():
    known = Listing((1, 2, 3), (5, 5, 6), whole=True, read_at_us=6)
    later = pack_proofs(Listing((1, 2, 3), (9, 9, 6), read_at_us=9))
    assert with_proofs(known, later) == Listing((1, 2, 3), (9, 9, 6), whole=True, read_at_us=9)
    other = pack_proofs(Listing((1, 2), (9, 9), read_at_us=9))
    assert with_proofs(known, other) == known


# A file that is not as it was left.


def reopened(folder: Path) -> Path | None:
    with open_ledger(folder, "nightly") as ledger:
        ledger.keep_note("works", "again")
        return ledger.set_aside


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE files",
        "PRAGMA user_version = 0",
        "UPDATE inbox SET bodies = zeroblob(length(bodies))",
        "UPDATE inbox SET heads = zeroblob(length(heads))",
        "UPDATE records SET record = zeroblob(length(record))",
        "UPDATE meta SET value = 'of yesterday' WHERE name = 'records'",
    ],
)
def test_a_file_with_other_contents_is_set_aside_and_begun_anew(tmp_path, statement):
    with open_ledger(tmp_path, "nightly") as ledger:
        ledger.keep([answer(1)])
        ledger.land(Landed(1, records={"a": pack(Record())}))
    spoil(tmp_path, statement)
    aside = reopened(tmp_path)
    assert aside is not None and aside.exists()
    assert kept_aside(tmp_path) == [aside.name]


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    assert reopened(tmp_path) is None
    path = spoil(tmp_path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StateError, match="newer version of etl"), open_ledger(tmp_path, "nightly"):
        pass
    with pytest.raises(StateError, match="newer version"):
        read_status(tmp_path, "nightly")
    with pytest.raises(StateError, match="newer version"), open_state(tmp_path, "nightly"):
        pass
    assert path.exists() and not kept_aside(tmp_path)


def test_damage_that_is_met_in_a_run_ends_it_and_sets_the_file_aside(tmp_path):
    with open_ledger(tmp_path, "nightly") as ledger:
        frame = ledger.keep([answer(1)])
        with ledger._transaction() as database:  # noqa: SLF001 - a disk that alters a byte
            database.execute("UPDATE inbox SET bodies = zeroblob(length(bodies))")
        with pytest.raises(StateError, match=r"(?s)damaged.*unreadable-1"):
            ledger.frame(frame)
    assert ledger.set_aside is not None
    assert kept_aside(tmp_path) == ["nightly.sqlite.unreadable-1"]
    assert reopened(tmp_path) is None


def test_a_file_that_cannot_be_set_aside_is_told_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "nightly.sqlite"
    path.write_bytes(b"noise")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StateError, match="cannot be set aside: Permission denied"):
        set_aside(path)


def test_reading_a_file_that_is_no_ledger_says_that_a_run_puts_it_right(tmp_path):
    (tmp_path / "nightly.sqlite").write_bytes(b"noise" * 1_000)
    with pytest.raises(StateError, match="`etl run` puts it right"):
        read_status(tmp_path, "nightly")


def test_a_file_that_cannot_be_opened_is_told_and_not_set_aside(tmp_path):
    (tmp_path / "nightly.sqlite").mkdir()
    with pytest.raises(StateError, match="may write the file"), open_ledger(tmp_path, "nightly"):
        pass
    assert not kept_aside(tmp_path)


def test_a_file_that_leads_nowhere_is_told_as_the_system_tells_it(tmp_path):
    (tmp_path / "nightly.sqlite").symlink_to(tmp_path / "unmounted" / "nightly.sqlite")
    with (
        pytest.raises(StateError, match="cannot be opened: No such file"),
        open_ledger(tmp_path, "nightly"),
    ):
        pass


@pytest.mark.parametrize("length", [0, 10, 12, -1, 2**70, None])
def test_a_value_of_another_length_than_was_written_is_damage(length):
    sealed = seal(b"eleven long")
    assert unseal(11, sealed) == b"eleven long"
    with pytest.raises(DamagedError, match="not as long"):
        unseal(length, sealed)


def test_without_a_ledger_nothing_is_known(tmp_path):
    assert read_status(tmp_path, "nightly").tests == ()
    with open_state(tmp_path, "nightly") as state:
        assert (state.notes, state.record("a")) == ({}, Record())


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("SQLITE_READONLY_DIRECTORY", "may write the file"),
        ("SQLITE_CANTOPEN", "may write the file"),
        ("SQLITE_FULL", "disk is full"),
        ("SQLITE_BUSY_SNAPSHOT", "Another program"),
        ("SQLITE_IOERR_FSYNC", "space and health"),
    ],
)
def test_what_sqlite_meets_is_told_with_what_to_do(tmp_path, code, advice):
    error = sqlite3.OperationalError("it failed")
    error.sqlite_errorname = code
    told = state_error(error, tmp_path / "nightly.sqlite")
    assert advice in str(told) and "it failed" in str(told)


def test_damage_is_told_with_the_name_under_which_the_file_is_set_aside(tmp_path):
    (tmp_path / "nightly.sqlite.unreadable-1").touch()
    told = state_error(DamagedError("a wrong byte"), tmp_path / "nightly.sqlite")
    assert "nightly.sqlite.unreadable-2" in str(told)


# The state directory and its locks.


def test_two_runs_of_a_pipeline_are_kept_apart_and_told_who_holds_it(tmp_path):
    with (
        open_ledger(tmp_path, "nightly"),
        pytest.raises(AlreadyRunning, match=r"process \d+ on .* since 20"),
        open_ledger(tmp_path, "nightly"),
    ):
        pass


@pytest.mark.parametrize("signature", [b"", b"{", b"{}", b"[]"])
def test_a_holder_that_has_not_signed_yet_is_told_as_that(tmp_path, signature):
    lock = tmp_path / "some.lock"
    with locks.held(lock, "the lake"):
        lock.write_bytes(signature)
        with pytest.raises(AlreadyRunning, match="not signed yet"), locks.held(lock, "the lake"):
            pass


def test_whether_a_lock_is_held_can_be_seen_without_taking_it(tmp_path):
    lock = tmp_path / "some.lock"
    assert not locks.is_held(lock)
    with locks.held(lock, "the lake"):
        assert locks.is_held(lock)
    assert not locks.is_held(lock)


def test_a_child_that_was_forked_meanwhile_does_not_free_its_parents_lock(tmp_path, monkeypatch):
    lock, opened = tmp_path / "some.lock", os.open
    descriptors: list[int] = []

    def noted(*asked: Any) -> int:
        descriptors.append(opened(*asked))
        return descriptors[-1]

    monkeypatch.setattr(os, "open", noted)
    with locks.held(lock, "the lake"):
        monkeypatch.setattr(os, "open", opened)
        parents = os.dup(descriptors[0])  # a fork gives the child a copy of each
        monkeypatch.setattr(os, "getpid", lambda: -1)
    assert locks.is_held(lock), "the child has left the block, the parent has not"
    os.close(parents)
    assert not locks.is_held(lock)


def test_a_lock_or_a_folder_that_cannot_be_made_is_told_with_its_name(tmp_path):
    with (
        pytest.raises(StateError, match="lock file cannot be written"),
        locks.held(tmp_path / "gone" / "some.lock", "the lake"),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateError, match="state directory cannot be made"),
        open_ledger(tmp_path / "file" / "state", "nightly"),
    ):
        pass


@pytest.mark.parametrize(
    ("mounts", "refused"),
    [
        ("/dev/sda / ext4 rw 0 0\n", False),
        ("server:/x / nfs4 rw 0 0\n", True),
        ("server:/x / nfs rw 0 0\n/dev/sdb {folder} ext4 rw 0 0\n", False),
        ("/dev/sda / ext4 rw 0 0\nshare {folder} cifs rw 0 0\n", True),
        ("/dev/sda / ext4 rw 0 0\nshare {folder}/elsewhere cifs rw 0 0\n", False),
        ("/dev/sda / ext4 rw 0 0\nshare /a\\040place nfs rw 0 0\n", False),
        (None, False),  # a system that does not tell
    ],
)
def test_a_state_directory_on_a_network_file_system_is_refused(
    tmp_path, monkeypatch, mounts, refused
):
    told = tmp_path / "mounts"
    if mounts is not None:
        told.write_text(mounts.format(folder=tmp_path))
    monkeypatch.setattr(places, "Path", lambda _: told)
    if refused:
        with pytest.raises(StateError, match="network file system"):
            places.refuse_network_file_system(tmp_path)
    else:
        places.refuse_network_file_system(tmp_path)
