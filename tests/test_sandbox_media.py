"""The sandbox's media: signed links, ranges, and what goes wrong with them."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import anyio
import pytest

from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.media import MediaFile, range_of
from etl.sandbox.server import SandboxOptions
from tests.calling import TEST, Answer, Caller, called

OPTIONS = SandboxOptions(rate_requests=None, sessions=3)


async def linked(caller: Caller) -> tuple[str, MediaFile]:
    """Return a link to a video, and the file."""
    caller.sandbox.set_product(TEST, "THINK_OUT_LOUD")
    (session_id, *_) = await caller.ids()
    told = await caller.told(f"/api/v2/sessionResults/{session_id}/videoDownloadUrl")
    assert told["sessionId"] == session_id
    valid = datetime.fromisoformat(told["expiresAt"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < valid <= timedelta(hours=1)
    return told["videoUrl"], caller.sandbox.video(session_id)


class Media:
    """A client with a link to a video."""

    def __init__(self, caller: Caller, url: str, file: MediaFile) -> None:
        self.caller = caller
        self.url = url
        self.file = file
        self.whole = b"".join(file.chunks())

    async def get(self, **headers: str) -> Answer:
        """Fetch the file, or what the headers ask for of it."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.caller.fetch(self.url, told)

    def fail(self, kind: FaultKind, value: Any = None, **more: Any) -> None:
        """Let something go wrong with the next transfer."""
        self.caller.sandbox.add_fault(Fault(kind, on="media", value=value, **more))


@pytest.fixture
async def media() -> AsyncIterator[Media]:
    """Return a client with a link to a video of 200 kB."""
    async with called(OPTIONS) as caller:
        yield Media(caller, *await linked(caller))


async def test_a_link_gives_the_whole_file_without_a_token_or_a_limit(media):
    sandbox = media.caller.sandbox
    before = dict(sandbox.statuses)
    answer = await media.get()
    assert answer.status == 200
    assert hashlib.sha256(answer.body).hexdigest() == media.file.sha256
    assert len(answer.body) == media.file.size_bytes == int(answer.headers["Content-Length"])
    assert 200_000 <= media.file.size_bytes < 201_000
    assert answer.headers["Content-Type"] == "video/mp4"
    assert "x-ratelimit-limit" not in answer.headers
    assert dict(sandbox.statuses) == before, "it is no request of the API"
    (logged,) = sandbox.transfers
    assert (logged.endpoint, logged.status, logged.range) == ("media", 200, None)
    assert (sandbox.media_bytes, sandbox.tokens_at_media) == (media.file.size_bytes, 0)


async def test_a_token_must_not_be_brought(media):
    answer = await media.get(Authorization=f"Bearer {media.caller.token}")
    assert answer.status == 403
    assert media.caller.sandbox.tokens_at_media == 1


async def test_a_link_dies_and_cannot_be_made_up(media):
    for false in (
        media.url.replace("X-Amz-Expires=3600", "X-Amz-Expires=9999"),
        media.url.partition("?")[0],
        media.url.replace(media.file.object_id, TEST),
    ):
        assert (await media.caller.fetch(false)).status == 403
    async with called(SandboxOptions(rate_requests=None, sessions=1, video_link_seconds=0)) as it:
        it.sandbox.set_product(TEST, "THINK_OUT_LOUD")
        (session_id,) = await it.ids()
        told = await it.told(f"/api/v2/sessionResults/{session_id}/videoDownloadUrl")
        answer = await it.fetch(told["videoUrl"])
        assert answer.status == 403 and b"AccessDenied" in answer.body


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-", (0, 1000)),
        ("bytes=10-19", (10, 20)),
        ("bytes=990-5000", (990, 1000)),
        ("bytes=-5", (995, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("bytes=5-4", None),
        ("bytes=0-1,5-6", None),
        ("bytes=-", None),
        ("rows=1-2", None),
        ("", None),
    ],
)
def test_a_range_is_read_as_published(asked, expected):
    assert range_of(asked, 1000) == expected


async def test_a_part_is_sent_of_the_file_that_is_meant(media):
    whole, etag = media.whole, media.file.etag
    part = await media.get(Range="bytes=70000-140000")
    assert (part.status, part.body) == (206, whole[70_000:140_001])
    assert part.headers["Content-Range"] == f"bytes 70000-140000/{len(whole)}"
    same = await media.get(Range="bytes=199000-", If_Range=etag)
    assert (same.status, same.body, same.headers["ETag"]) == (206, whole[199_000:], etag)
    media.caller.sandbox.replace_media(media.file.object_id)
    other = await media.get(Range="bytes=199000-", If_Range=etag)
    assert other.status == 200 and other.headers["ETag"] != etag
    assert len(other.body) == len(whole) and other.body != whole
    beyond = await media.get(Range=f"bytes={len(whole)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


def test_no_two_blocks_of_a_file_are_alike():
    file = MediaFile("videos", TEST, 1_000_000)
    whole = b"".join(file.chunks())
    assert len(whole) == 1_000_000
    blocks = [whole[at : at + 65_536] for at in range(0, 900_000, 65_536)]
    assert len(set(blocks)) == len(blocks)
    assert b"".join(file.chunks(65_000, 700_000)) == whole[65_000:700_000]


async def test_files_may_be_large_and_clips_are_smaller(media):
    sandbox = media.caller.sandbox
    sandbox.set_video_bytes(8_000_000_000)
    assert sandbox.video(TEST).size_bytes >= 8_000_000_000
    assert sandbox.clip_file(TEST).size_bytes < sandbox.reel_file(TEST).size_bytes < 3e9
    part = await media.get(Range="bytes=7999999990-7999999999")
    assert len(part.body) == 10, "the last bytes cost no more than the first"


async def expect_expired(media: Media) -> None:
    media.fail(FaultKind.EXPIRED)
    assert (await media.get()).status == 403


async def expect_short(media: Media) -> None:
    media.fail(FaultKind.SHORT)
    answer = await media.get()
    assert answer.status == 200 and len(answer.body) == len(media.whole) // 2


async def expect_wrong_range(media: Media) -> None:
    media.fail(FaultKind.WRONG_RANGE)
    answer = await media.get(Range="bytes=100-199")
    assert (answer.status, answer.body) == (206, media.whole[107:200])
    assert answer.headers["Content-Range"].startswith("bytes 107-199/")


async def expect_replaced(media: Media) -> None:
    media.fail(FaultKind.REPLACED)
    answer = await media.get(Range="bytes=9-", If_Range=media.file.etag)
    assert answer.status == 200 and answer.headers["ETag"] != media.file.etag
    media.file = media.caller.sandbox.video(media.file.object_id)
    media.whole = answer.body


async def expect_huge(media: Media) -> None:
    media.fail(FaultKind.HUGE)
    async with media.caller.session.get(media.url) as answer:
        assert answer.headers["Content-Length"] == "100000000000"
        read = 0
        while read < 1_000_000:
            read += len(await answer.content.read(65_536))


async def expect_somewhat_larger(media: Media) -> None:
    media.fail(FaultKind.HUGE, 300_000)
    answer = await media.get()
    assert answer.body == media.whole + bytes(300_000 - len(media.whole))


async def expect_cut(media: Media) -> None:
    media.fail(FaultKind.CUT_BODY)
    with pytest.raises(aiohttp.ClientPayloadError):
        await media.get()


async def expect_stall(media: Media) -> None:
    media.fail(FaultKind.STALL)
    half = len(media.whole) // 2
    async with media.caller.session.get(media.url) as answer:
        assert await answer.content.readexactly(half) == media.whole[:half]
        with pytest.raises(TimeoutError), anyio.fail_after(0.1):
            await answer.content.read(1)


async def expect_headers(media: Media) -> None:
    media.fail(FaultKind.HEADERS, {"Content-Length": "absent", "ETag": 'W/"weak"'})
    answer = await media.get()
    assert answer.body == media.whole
    assert "Content-Length" not in answer.headers and answer.headers["ETag"] == 'W/"weak"'
    dated = await media.get(Range="bytes=9-", If_Range=answer.headers["Last-Modified"])
    assert (dated.status, dated.body) == (206, media.whole[9:])


async def expect_status(media: Media) -> None:
    media.fail(FaultKind.STATUS, 503, headers={"Retry-After": "1"}, object_id=TEST)
    assert (await media.get()).status == 200, "it is the fault of another file"
    media.fail(FaultKind.STATUS, 503, headers={"Retry-After": "1"})
    assert (await media.get()).status == 503


async def expect_redirect(media: Media) -> None:
    media.fail(FaultKind.REDIRECT, "http://169.254.169.254/latest")
    answer = await media.get()
    assert (answer.status, answer.headers["Location"]) == (307, "http://169.254.169.254/latest")


async def expect_filename(media: Media) -> None:
    hostile = {"Content-Disposition": 'attachment; filename="../../.ssh/x"'}
    media.fail(FaultKind.HEADERS, hostile)
    answer = await media.get()
    assert answer.headers["Content-Disposition"] == hostile["Content-Disposition"]


@pytest.mark.parametrize(
    "proof",
    [
        expect_expired,
        expect_short,
        expect_wrong_range,
        expect_replaced,
        expect_huge,
        expect_somewhat_larger,
        expect_cut,
        expect_stall,
        expect_headers,
        expect_status,
        expect_redirect,
        expect_filename,
    ],
)
async def test_a_transfer_goes_wrong_as_it_is_told_and_once(proof, media):
    await proof(media)
    answer = await media.get()
    assert (answer.status, answer.body) == (200, media.whole)
