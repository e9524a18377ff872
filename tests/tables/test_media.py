"""The tables of files: videos, clips and highlight reels, and where the files can be had."""

from datetime import UTC, datetime
from typing import Any

import pytest

from etl.client.values import UnreadableBodyError
from etl.tables import clips, highlight_reels, videos
from etl.tables.downloads import Download
from tests.tables.served import BODIES, body, dicts, encoded, made_by

NO_FILE = {"path": None, "bytes": None, "sha256": None}


def test_a_clip_is_a_row_without_a_file_yet():
    first, second = dicts(made_by("clips", BODIES["clips"]))
    assert first == NO_FILE | {
        "clip_id": "clip-1",
        "name": "Confused",
        "description": "at the till",
        "time_start_ms": 10,
        "time_end_ms": 2010,
        "video_id": "video-1",
        "has_audio": True,
        "has_camera": False,
        "main_stream": "SCREEN",
        "pip_position": "TOP_LEFT",
        "pip_state": "CLOSED",
    }
    assert second == dict.fromkeys(first) | {"clip_id": "clip-2", "name": "Delighted"}


def test_what_stands_beside_the_clips_keeps_the_body():
    value = body("clips")
    assert not made_by("clips", value | {"videoRegions": None}).unknown_fields
    del value["videoRegions"]
    assert not made_by("clips", value).keeps_body
    assert made_by("clips", value | {"videoRegions": {"screen": {"widthPx": 5}}}).keeps_body
    rows = made_by("clips", value | {"mood": 1})
    assert rows.keeps_body and rows.unknown_fields == {"mood"}


def test_a_new_enum_value_is_kept_and_a_new_part_of_the_layout_too():
    value = body("clips")
    value["clips"][0]["layout"] = {"mainStream": "HOLOGRAM", "depth": 3}
    rows = made_by("clips", value)
    assert dicts(rows)[0]["main_stream"] == "HOLOGRAM"
    assert rows.extra == ['{"layout":{"depth":3}}', None]
    assert rows.unknown_fields == {"clips.layout.depth"}


def test_a_clip_without_an_id_is_rejected_and_the_others_land():
    value = body("clips")
    del value["clips"][0]["uuid"]
    rows = made_by("clips", value)
    assert [reject.reason for reject in rows.rejects] == ["uuid is missing"]
    assert [row["clip_id"] for row in dicts(rows)] == ["clip-2"]


def test_a_highlight_reel_is_a_row_without_a_file_yet():
    assert dicts(made_by("highlight_reels", BODIES["highlight_reels"])) == [
        NO_FILE
        | {
            "reel_id": "reel-1",
            "name": "Best of",
            "duration_ms": 61000,
            "last_updated_at": datetime(2025, 3, 1, 10, 0, 0, 500_000, UTC),
            "num_clips": 2,
            "are_all_clips_in_reel": False,
        }
    ]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("lastUpdatedAtMs", 1e18, "lastUpdatedAtMs is out of range"),
        ("lastUpdatedAtMs", "today", "lastUpdatedAtMs is a string, not a number"),
        ("numClips", 1.5, "numClips is not a whole number"),
        ("numClips", True, "numClips is a boolean, not a number"),
        ("areAllClipsInReel", "no", "areAllClipsInReel is a string, not a boolean"),
    ],
)
def test_a_bad_value_of_a_reel_is_named(field: str, value: object, reason: str):
    served = body("highlight_reels")
    served["reels"][0][field] = value
    assert [reject.reason for reject in made_by("highlight_reels", served).rejects] == [reason]


def test_a_whole_number_may_be_written_with_a_point():
    served = body("highlight_reels")
    served["reels"][0]["numClips"] = 4.0
    assert dicts(made_by("highlight_reels", served))[0]["num_clips"] == 4


def test_a_video_is_a_row_of_its_receipt():
    receipt = BODIES["video"]
    assert dicts(made_by("videos", receipt)) == [
        {name: receipt[name] for name in ("path", "bytes", "sha256", "content_type")}
    ]
    nothing = made_by("videos", {"became": "given up", "reason": "too large"})
    assert dicts(nothing) == [NO_FILE | {"content_type": None}]
    assert nothing.hashes != made_by("videos", receipt).hashes


@pytest.mark.parametrize("served", [{}, {"became": "lost"}, {"became": "fetched", "bytes": -1}])
def test_what_is_no_receipt_is_unreadable(served: dict[str, Any]):
    with pytest.raises(UnreadableBodyError):
        videos.VIDEO.decode(encoded(served))


def test_the_address_of_a_video_is_read_and_never_shown():
    found = videos.VIDEO_URL.decode(encoded(BODIES["video_url"]))
    assert found.url == "https://media.example/v.mp4?signature=secret"
    assert found.expires_at_us == 1_740_826_800_000_000
    assert "secret" not in repr(found)


@pytest.mark.parametrize("expires", [None, "soon", 5])
def test_an_address_that_does_not_say_when_it_ends_is_taken(expires: object):
    found = videos.VIDEO_URL.decode(encoded(body("video_url") | {"expiresAt": expires}))
    assert found.url and found.expires_at_us is None


@pytest.mark.parametrize("url", [None, "", 5, "a\0b"])
def test_a_video_without_an_address_is_unreadable(url: object):
    with pytest.raises(UnreadableBodyError):
        videos.VIDEO_URL.decode(encoded(body("video_url") | {"videoUrl": url}))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"status": "GENERATING"}, Download("clip-1", "GENERATING")),
        ({"status": "ERROR", "clipUrl": None}, Download("clip-1", "ERROR")),
        ({"status": "QUEUED"}, Download("clip-1", "QUEUED")),
        (
            {"status": "GENERATED", "clipUrl": "https://m"},
            Download("clip-1", "GENERATED", "https://m"),
        ),
    ],
)
def test_how_far_a_clip_is(told: dict[str, Any], expected: Download):
    assert clips.CLIP_URL.decode(encoded({"clipUuid": "clip-1"} | told)) == expected


def test_a_file_that_is_made_but_nowhere_is_unreadable():
    with pytest.raises(UnreadableBodyError):
        highlight_reels.REEL_URL.decode(encoded({"reelId": "r", "status": "GENERATED"}))
    found = highlight_reels.REEL_URL.decode(encoded(BODIES["reel_url"]))
    assert found.object_id == "reel-1" and found.url
