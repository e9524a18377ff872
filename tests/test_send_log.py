"""The record of sends outlives processes and boots, and is never wrong in our favour."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from etl.errors import StateError
from etl.pacing import send_log
from etl.pacing.pacer import open_pacer
from etl.pacing.send_log import SendLog, open_send_log
from tests.test_pacing import MINUTE, pacer_of
from tests.virtual_time import LoopClock, VirtualTimeLoop

LONG_AGO = float("-inf")


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Let minutes pass at once."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SendLog]:
    with open_send_log(tmp_path, "api me") as opened:
        opened.begin(100.0)
        yield opened


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ring hold four sends."""
    monkeypatch.setattr(send_log, "CAPACITY", 4)


def test_sends_are_counted_from_a_moment_on(log):
    for moment in (101.0, 102.0, 103.0):
        log.append(moment)
    assert [log.since(moment, 200.0) for moment in (100, 101, 101.5, 103, 103.5)] == [3, 3, 2, 1, 0]
    assert [log.at(number, 200.0) for number in (-1, 0, 2)] == [LONG_AGO, 101.0, 103.0]


def test_a_send_of_the_future_counts_as_made_now(log):
    number = log.append(500.0)
    assert log.at(number, 200.0) == 200.0
    assert log.since(190.0, 200.0) == 1


def test_only_the_last_grant_can_be_taken_back(log):
    first, last = log.append(101.0), log.append(102.0)
    log.take_back(first)
    assert log.count == 2
    log.take_back(last)
    assert log.count == 1


def test_a_block_only_ever_grows(log):
    log.block_until(150.0)
    log.block_until(120.0)
    assert log.blocked_until == 150.0


@pytest.mark.usefixtures("small")
def test_the_ring_forgets_the_oldest_and_corrects_only_what_it_still_holds(log):
    numbers = [log.append(100.0 + number) for number in range(6)]
    assert log.at(numbers[1], 200.0) == LONG_AGO
    assert log.at(numbers[2], 200.0) == 102.0
    assert log.since(0.0, 200.0) == 4
    log.restamp(numbers[1], 111.0)
    assert [log.at(number, 200.0) for number in numbers[2:]] == [102.0, 103.0, 104.0, 105.0]
    log.restamp(numbers[2], 102.5)
    assert log.at(numbers[2], 200.0) == 102.5


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("sends", [0, 3, 4, 9])
def test_sends_of_another_boot_count_as_made_now_and_its_block_is_over(
    tmp_path, monkeypatch, sends
):
    with open_send_log(tmp_path, "api me") as before:
        before.begin(5_000.0)
        for _ in range(sends):
            before.append(5_000.0)
        before.block_until(9_000.0)
    monkeypatch.setattr(send_log, "_boot_id", lambda: b"another boot....")
    with open_send_log(tmp_path, "api me") as after:
        after.begin(7.0)
        assert after.since(7.0, 8.0) == min(sends, 4)
        assert after.blocked_until == 0.0
    with open_send_log(tmp_path, "api me") as again:
        again.begin(50.0)
        assert again.since(7.5, 50.0) == 0, "now they are of this boot"


def test_other_credentials_have_another_record(tmp_path):
    with open_send_log(tmp_path, "api me") as mine, open_send_log(tmp_path, "api you") as yours:
        for one in (mine, yours):
            one.begin(100.0)
        mine.append(101.0)
        assert (mine.count, yours.count) == (1, 0)


def test_a_boot_is_told_by_its_moment_where_the_system_has_no_id_for_it(tmp_path, monkeypatch):
    def counted_as_made_now(now: float) -> int:
        with open_send_log(tmp_path, "api me") as log:
            log.begin(now)
            counted = log.since(now - 1, now)
            log.append(now)
            return counted

    assert counted_as_made_now(100.0) == 0
    monkeypatch.setattr(send_log, "Path", lambda _: Path("/nowhere"))
    assert counted_as_made_now(200.0) == 1, "the first one seems to be of another boot"
    assert counted_as_made_now(300.0) == 0


def test_a_record_that_cannot_be_made_names_its_file(tmp_path):
    with pytest.raises(StateError, match="No such file"), open_send_log(tmp_path / "gone", "api"):
        pass


def test_a_record_that_cannot_grow_is_closed_and_named(tmp_path):
    with open_send_log(tmp_path, "api me"):
        (place,) = tmp_path.iterdir()
    place.unlink()
    place.symlink_to("/dev/full")
    descriptors = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(StateError, match="cannot be opened"), open_send_log(tmp_path, "api me"):
        pass
    assert len(list(Path("/dev/fd").iterdir())) == descriptors


def test_a_record_is_given_its_size_where_the_system_cannot_reserve_room(tmp_path, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    counts = []
    for moment in (101.0, 102.0):
        with open_send_log(tmp_path, "api me") as log:
            log.begin(moment)
            log.append(moment)
            counts.append(log.count)
    assert counts == [1, 2]


# What the pacer makes of it.


class LettingGo(LoopClock):
    """A clock that lets another process's lock go while somebody waits for the third time."""

    def __init__(self, other: SendLog) -> None:
        super().__init__()
        self.other = other
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) % 3 == 0:
            self.other.unlock()
        await anyio.lowlevel.checkpoint()


async def test_a_lock_that_another_process_holds_is_waited_for_a_millisecond_at_a_time(
    tmp_path: Path,
):
    opened = open_send_log(tmp_path, "api me")
    other = await to_thread.run_sync(opened.__enter__)
    clock = LettingGo(other)
    assert other.try_lock()
    async with open_pacer(MINUTE, credentials="api me", state_dir=tmp_path, clock=clock) as pacer:
        assert clock.waits == [0.001] * 3
        assert other.try_lock()
        async with pacer.slot(0) as slot:
            slot.sent()
        assert clock.waits == [0.001] * 6
    await to_thread.run_sync(opened.__exit__, None, None, None)


async def test_a_slot_counts_from_its_first_send(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock) as pacer, pacer.slot(0) as slot:
        slot.sent()
        sent_at = slot.sent_at
        await clock.sleep(5.0)
        slot.sent()
        assert slot.sent_at == pacer.first_sent_at == pacer.last_sent_at == sent_at


async def test_a_window_that_others_have_used_up_is_waited_out(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock) as pacer:
        async with pacer.slot(0) as slot:
            slot.sent()
            slot.answered(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"})
        began_at = clock.monotonic()
        async with pacer.slot(0) as slot:
            slot.sent()
        assert clock.monotonic() - began_at >= 30.0


async def test_a_reset_further_away_than_a_window_is_waited_for_a_window(tmp_path: Path):
    clock = LoopClock()
    async with pacer_of(tmp_path, clock) as pacer:
        async with pacer.slot(0) as slot:
            slot.sent()
            slot.answered(200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3000"})
        began_at = clock.monotonic()
        async with pacer.slot(0) as slot:
            slot.sent()
        assert clock.monotonic() - began_at < 63.0
