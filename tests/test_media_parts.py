"""A file on its way into the lake: whatever dies when, what is proved is there and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.client.media_values import Described
from etl.errors import LakeError
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaParts
from etl.lake.names import media_path, safe_name
from tests.crash.media import (
    CHUNKS,
    FILE,
    FINAL,
    RECEIVED,
    SESSION,
    WHOLE,
    fetched,
    files_in,
    gone_on,
    lake_in,
)


@pytest.fixture
def lake(tmp_path: Path) -> LocalLake:
    return lake_in(tmp_path)


@pytest.fixture
def parts(lake: LocalLake) -> MediaParts:
    return MediaParts(lake, "nightly", 0)


def test_a_file_is_here_whole_or_as_far_as_it_came(parts):
    part = parts.part("videos", SESSION)
    assert part.whole() is None and part.resume() is None
    part.begin(FILE)
    assert part.resume() is None
    fetched(part, CHUNKS[:2])
    again = parts.part("videos", SESSION)
    begun = again.resume()
    assert begun is not None
    assert (begun.file, begun.bytes) == (FILE, len(CHUNKS[0] + CHUNKS[1]))
    again.append(CHUNKS[2])
    assert again.whole() is None
    assert again.finish() == parts.part("videos", SESSION).whole() == RECEIVED


def test_an_unfinished_file_is_nobody_elses_and_a_published_one_is_the_lakes(parts, lake):
    lake.root.chmod(0o755)
    part = parts.part("videos", SESSION)
    fetched(part)
    modes = {path.stat().st_mode & 0o777 for path in (lake.root / "_etl/media").rglob("*.*")}
    assert modes == {0o600}
    part.finish()
    part.publish(FINAL)
    assert (lake.root / FINAL).stat().st_mode & 0o777 == 0o644
    assert (lake.root / FINAL).parent.stat().st_mode & 0o777 == 0o755
    assert lake.data_files() == {}, "media are no data files"


def test_a_file_is_published_as_often_as_it_takes_and_stays_until_it_is_discarded(parts, lake):
    part = parts.part("videos", SESSION)
    fetched(part)
    with pytest.raises(LakeError, match="not whole"):
        part.publish(FINAL)
    part.finish()
    for _ in range(2):
        part.publish(FINAL)
        assert part.whole() == RECEIVED
    (lake.root / FINAL).unlink()
    (lake.root / FINAL).write_bytes(b"broken")
    part.publish(FINAL)
    part.discard()
    part.discard()
    assert files_in(lake) == [FINAL]
    assert (lake.root / FINAL).read_bytes() == WHOLE


def test_what_was_published_is_never_written_to_again(parts, lake):
    part = parts.part("videos", SESSION)
    fetched(part)
    part.finish()
    part.publish(FINAL)
    assert part.resume() is None
    fetched(part, (b"another",))
    assert (lake.root / FINAL).read_bytes() == WHOLE


def test_only_what_is_wanted_is_kept_and_pipelines_leave_each_other_alone(parts, lake):
    for part in (
        parts.part("videos", SESSION),
        parts.part("clips", SESSION),
        parts.part("videos", "Other"),
        MediaParts(lake, "weekly", 0).part("videos", SESSION),
    ):
        fetched(part)
    stray = lake.root / f"_etl/media/pipeline=nightly/videos={SESSION[:-1]}0.part"
    stray.touch()
    parts.keep_only([("videos", SESSION)])
    kept = [name.removeprefix("_etl/media/") for name in files_in(lake)]
    name = f"videos={SESSION}"
    assert kept == [
        *(f"pipeline=nightly/{name}.{ending}" for ending in ("notes", "part")),
        *(f"pipeline=weekly/{name}.{ending}" for ending in ("notes", "part")),
    ]


def test_a_folder_that_is_a_link_is_not_written_through(parts, lake, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (lake.root / "_etl" / "media").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="symbolic link"):
        parts.part("videos", SESSION).begin(FILE)
    (lake.root / "_etl" / "media").unlink()
    part = parts.part("videos", SESSION)
    fetched(part)
    part.finish()
    (lake.root / "videos").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LakeError, match="symbolic link"):
        part.publish(FINAL)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_nothing_is_written_once_another_lake_is_in_its_place(parts, lake):
    part = parts.part("videos", SESSION)
    fetched(part)
    part.finish()
    (lake.root / "_etl" / "lake.json").write_text('{"id": "another"}')
    for write in (lambda: part.append(b"x"), lambda: part.publish(FINAL), part.discard):
        with pytest.raises(LakeError, match="another one is in its place"):
            write()


# Room.


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Say how much the disk has left."""

    def left(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    return left


def test_a_disk_that_cannot_hold_a_file_and_the_reserve_is_noticed_before_its_first_byte(
    lake, disk
):
    part = MediaParts(lake, "nightly", 1000).part("videos", SESSION)
    disk(1000 + len(WHOLE) - 1)
    with pytest.raises(LakeError, match="no room for media") as failed:
        part.begin(FILE)
    assert failed.value.advice is not None
    assert files_in(lake) == []
    disk(1000 + len(WHOLE))
    part.begin(FILE)
    disk(999)
    with pytest.raises(LakeError):
        part.begin(Described(None, None, None))


def test_room_is_kept_for_what_was_begun_before(lake, disk, monkeypatch):
    parts = MediaParts(lake, "nightly", 0)
    fetched(parts.part("videos", SESSION), CHUNKS[:1])
    parts.part("videos", "of unknown length").begin(Described(None, None, None))
    stray = lake.root / "_etl/media/pipeline=nightly"
    (stray / "a.notes").write_bytes(b"nonsense")
    (stray / "a.part").touch()
    (stray / "b.notes").touch()  # whose data somebody has just discarded
    rest = len(WHOLE) - len(CHUNKS[0])
    disk(rest + len(WHOLE) - 1)
    with pytest.raises(LakeError, match="no room"):
        parts.part("videos", "other").begin(FILE)
    disk(rest + len(WHOLE))
    parts.part("videos", "other").begin(FILE)


# Deaths.


def test_a_death_after_any_line_leaves_a_file_that_goes_on(tmp_path):
    """Each in a process of its own, and all that there are."""
    command = [sys.executable, "-m", "tests.crash.media", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 100


PLACES = st.floats(0.0, 1.0)


@given(data=PLACES, notes=PLACES, garbage=st.binary(max_size=200), file=st.booleans())
def test_a_power_cut_costs_what_it_took_and_never_a_wrong_byte(
    tmp_path_factory, data, notes, garbage, file
):
    """Of data and notes any length may have reached the disk, and behind it anything may lie."""
    lake = lake_in(tmp_path_factory.mktemp("cut"))
    parts = MediaParts(lake, "nightly", 0)
    fetched(parts.part("videos", SESSION))
    for ending, share, tail in (
        ("part", data, garbage if file else b""),
        ("notes", notes, b"" if file else garbage),
    ):
        place = lake.root / f"_etl/media/pipeline=nightly/videos={SESSION}.{ending}"
        content = place.read_bytes()
        place.write_bytes(content[: round(share * len(content))] + tail)
    part = parts.part("videos", SESSION)
    assert part.whole() is None
    begun = part.resume()
    if begun is not None:
        here = (lake.root / f"_etl/media/pipeline=nightly/videos={SESSION}.part").read_bytes()
        assert begun.bytes == len(here) and WHOLE.startswith(here)
    assert gone_on(part) == RECEIVED
    part.publish(FINAL)
    assert (lake.root / FINAL).read_bytes() == WHOLE


def test_a_line_that_is_none_of_ours_ends_what_is_believed(parts, lake):
    fetched(parts.part("videos", SESSION))
    notes = lake.root / f"_etl/media/pipeline=nightly/videos={SESSION}.notes"
    first, *_ = notes.read_bytes().splitlines(keepends=True)
    notes.write_bytes(first + b"nonsense\n")
    part = parts.part("videos", SESSION)
    assert part.whole() is None and part.resume() is None
    assert gone_on(part) == RECEIVED


def test_a_file_that_shrank_after_it_was_whole_is_not_whole(parts, lake):
    part = parts.part("videos", SESSION)
    fetched(part)
    part.finish()
    os.truncate(lake.root / f"_etl/media/pipeline=nightly/videos={SESSION}.part", 10)
    assert part.whole() is None and part.resume() is None


# Names.


@given(st.text(), st.text())
def test_a_key_makes_a_name_of_its_own_that_is_safe_anywhere(one, other):
    name = safe_name(one)
    assert name == name.lower() and len(name) <= 64
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-~")
    assert (name == safe_name(other)) == (one == other)


def test_a_uuid_is_its_own_name_and_a_hostile_key_a_hash():
    assert safe_name(SESSION) == SESSION
    for key in ("", "..", "../../.ssh/x", "a/b", "A", "nul\0", "\ud800", "a" * 65, "~x"):
        assert safe_name(key).startswith("~")


@pytest.mark.parametrize(("kind", "ending"), [("video/mp4", ".mp4"), ("text/html", ""), (None, "")])
def test_a_path_tells_the_content(kind, ending):
    path = media_path("videos/test_id=a", SESSION, "0123456789abcdef" * 4, kind)
    assert path == f"videos/test_id=a/_files/{SESSION}-0123456789abcdef{ending}"
