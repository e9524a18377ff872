"""A media file arrives whole or not at all, from where it may, and its link is not told."""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from aiohttp import web
from anyio import open_process, to_thread
from anyio.abc import SocketStream

from etl.client.media_rules import LARGEST_CHUNK_BYTES
from etl.client.media_values import FileRefused, LinkRefused, MediaLimits
from etl.client.values import TryKind, TryLater
from etl.errors import LakeError
from etl.sandbox.faults import FaultKind
from etl.sandbox.server import SandboxOptions
from tests.calling import TEST
from tests.fetching import Fetching, fetching
from tests.scripted import served
from tests.virtual_time import HastyClock

VENDOR = "https://api.use2.usertesting.com"


@pytest.fixture
async def media(tmp_path: Path) -> AsyncIterator[Fetching]:
    async with fetching(tmp_path) as it:
        yield it


async def test_a_file_arrives_whole_and_no_token_went_with_it(media):
    received = await media.fetch()
    assert await media.is_right(received)
    assert received.content_type == "video/mp4"
    assert media.sandbox.tokens_at_media == 0
    assert media.client.bytes_received == media.file.size_bytes == media.sandbox.media_bytes


async def test_a_transfer_that_breaks_goes_on_where_it_ended(media):
    media.fail(FaultKind.CUT_BODY)
    assert (await media.fails(TryLater)).kind is TryKind.CONNECTION
    assert await media.is_right(await media.fetch())
    first, second = media.ranges()
    assert first == "bytes=0-" and second not in (None, first)
    assert media.client.bytes_received == media.file.size_bytes, "no byte was kept twice"


async def test_a_file_that_is_whole_but_for_its_last_note_asks_nothing(media):
    await media.fetch()

    def forget() -> None:
        notes = next(media.lake.root.rglob("*.notes"))
        lines = notes.read_bytes().splitlines(keepends=True)
        notes.write_bytes(b"".join(lines[:-1]))

    await to_thread.run_sync(forget)
    assert await media.is_right(await media.fetch())
    assert len(media.ranges()) == 1


# Links that open nothing, hosts that fail: each by what is to be done.


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_a_link_that_is_refused_or_expired_wants_another_one(media, status):
    media.fail(FaultKind.STATUS, status)
    refused = await media.fails(LinkRefused)
    assert (refused.status, refused.reason) == (
        status,
        f"the media host answered {status} (host 127.0.0.1)",
    )
    media.fail(FaultKind.EXPIRED)
    assert (await media.fails(LinkRefused)).status == 403
    assert await media.is_right(await media.fetch())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, TryKind.THROTTLED),
        (408, TryKind.SERVER_ERROR),
        (503, TryKind.SERVER_ERROR),
        (204, TryKind.SERVER_ERROR),
        (304, TryKind.SERVER_ERROR),
    ],
)
async def test_a_host_that_is_busy_is_asked_later_as_it_says(media, status, kind):
    media.fail(FaultKind.STATUS, status, headers={"Retry-After": "7"})
    later = await media.fails(TryLater)
    assert (later.kind, later.hint_seconds) == (kind, 7.0)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (FaultKind.RESET, TryKind.CONNECTION),
        (FaultKind.CUT_HEADERS, TryKind.CONNECTION),
        (FaultKind.HANG, TryKind.TIMEOUT),
        (FaultKind.STALL, TryKind.TIMEOUT),
    ],
)
async def test_a_host_that_hangs_or_hangs_up_is_asked_later(tmp_path, kind, expected):
    async with fetching(tmp_path, MediaLimits(silence_seconds=0.3)) as media:
        media.fail(kind, times=2)  # a connection that breaks at once is tried again at once
        assert (await media.fails(TryLater)).kind is expected
        media.sandbox.faults.clear()
        assert await media.is_right(await media.fetch())


async def test_a_byte_now_and_then_is_no_transfer_and_what_came_is_kept(tmp_path):
    limits = MediaLimits(silence_seconds=5.0, slowest_bytes_per_second=2_000_000.0)
    async with fetching(tmp_path, limits) as media:
        media.fail(FaultKind.SLOW_BODY)
        assert (await media.fails(TryLater)).kind is TryKind.TIMEOUT
        assert 1 <= media.client.bytes_received <= 5


async def test_a_host_that_cannot_be_reached_is_asked_later(media):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/_media/x?Signature=hunter2"
        assert (await media.fails(TryLater, url)).kind is TryKind.CONNECTION


# Ranges.


async def half_done(media: Fetching) -> None:
    """Let a first try bring a part of the file."""
    media.fail(FaultKind.CUT_BODY)
    await media.fails(TryLater)


async def test_a_file_that_was_cut_short_is_not_taken_for_whole(media):
    media.fail(FaultKind.SHORT)
    assert "cut short" in (await media.fails(TryLater)).reason
    assert await media.is_right(await media.fetch())
    assert media.sandbox.media_bytes == media.file.size_bytes, "no byte was sent twice"


async def test_another_range_than_was_asked_for_is_not_taken(media):
    await half_done(media)
    media.fail(FaultKind.WRONG_RANGE)
    assert await media.is_right(await media.fetch())
    assert media.ranges()[-1] is None, "it was asked for as a whole"


async def test_a_file_that_was_replaced_meanwhile_comes_from_the_start(media):
    await half_done(media)
    before = media.file.sha256
    media.fail(FaultKind.REPLACED)
    received = await media.fetch()
    assert await media.is_right(received) and received.sha256 != before


async def test_a_part_of_another_file_is_not_added_even_if_the_host_says_so(media):
    await half_done(media)
    media.fail(FaultKind.HEADERS, {"ETag": '"another"'})
    assert await media.is_right(await media.fetch())
    assert media.ranges()[-1] is None


async def test_a_range_that_cannot_be_satisfied_is_given_up_once(media):
    await half_done(media)
    media.fail(FaultKind.STATUS, 416)
    assert await media.is_right(await media.fetch())
    media.sandbox.replace_media(TEST)
    media.fail(FaultKind.STATUS, 416, times=0)
    await to_thread.run_sync(media.part.discard)
    assert (await media.fails(TryLater)).kind is TryKind.UNREADABLE
    assert media.ranges()[-2:] == ["bytes=0-", None]


@pytest.mark.parametrize(
    ("headers", "resumed"),
    [
        ({"ETag": 'W/"weak"'}, False),
        ({"ETag": "absent"}, True),  # Last-Modified is old enough
        ({"ETag": "absent", "Last-Modified": "absent"}, False),
        ({"ETag": "absent", "Last-Modified": "yesterday"}, False),
    ],
)
async def test_a_part_is_continued_only_if_it_is_sure_to_be_of_the_same_file(
    media, headers, resumed
):
    media.fail(FaultKind.HEADERS, headers, times=0)
    await half_done(media)
    assert await media.is_right(await media.fetch())
    assert (media.ranges()[-1] != "bytes=0-") is resumed


async def test_a_file_of_unknown_length_is_whole_at_its_end_and_not_before(media):
    """Without ranges: with them, `Content-Range` tells the length."""
    media.fail(FaultKind.STATUS, 416, times=2, nth=1)
    media.fail(FaultKind.HEADERS, {"Content-Length": "absent"}, times=0)
    media.sandbox.faults[0].times = 1
    assert await media.is_right(await media.fetch())


async def test_what_the_host_calls_the_file_is_no_matter(media):
    media.fail(FaultKind.HEADERS, {"Content-Disposition": 'attachment; filename="../../.ssh/x"'})
    await media.fetch()
    names = await to_thread.run_sync(lambda: sorted(p.name for p in media.lake.root.rglob("*.*")))
    assert names == ["lake.json", f"videos={TEST}.notes", f"videos={TEST}.part"]


@pytest.mark.parametrize("kind", ["", "text/html; x=<script>", "video/" + "x" * 99, "V I D E O"])
async def test_a_content_type_is_kept_if_it_is_one(media, kind):
    media.fail(FaultKind.HEADERS, {"Content-Type": kind or "absent"})
    received = await media.fetch()
    assert received.content_type in (None, "text/html", "application/octet-stream")


# Sizes.


async def test_a_file_beyond_the_limit_is_refused_before_its_first_byte(tmp_path):
    async with fetching(tmp_path, MediaLimits(max_bytes=1_000_000)) as media:
        assert "larger than 1000000 bytes" in (await media.fails(FileRefused)).reason
        assert media.client.bytes_received == 0
        media.fail(FaultKind.HUGE, times=0)
        await media.fails(FileRefused)


async def test_a_file_that_does_not_fit_the_disk_is_not_begun(media):
    media.fail(FaultKind.HUGE, 10**17, times=0)
    error = await media.fails(LakeError)
    assert "no room" in error.what and error.advice
    assert media.client.bytes_received == 0
    left = await to_thread.run_sync(lambda: list(media.lake.root.rglob("*.part")))
    assert left == []


# Hosts that follow no standard, on a socket.

Head = tuple[bytes, bytes]


@asynccontextmanager
async def raw_host(head: bytes, body: bytes) -> AsyncIterator[str]:
    """Answer every connection with these bytes, and hang up."""

    async def answer(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 " + head + b"\r\n\r\n" + body)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, answer)
            yield f"http://127.0.0.1:{port}/_media/x?Signature=hunter2"
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("head", "body", "told"),
    [
        (b"200 OK", b"0123456789", "where it ends"),
        (b"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2", b"01", "encoded"),
        (b"206 Part\r\nContent-Length: 2", b"01", "could not be read"),
        (b"206 Part\r\nContent-Range: bytes 0-1/*\r\nContent-Length: 2", b"01", "could not"),
        (b"206 Part\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 9", b"01", "could not"),
        (b"302 Found\r\nLocation: /\xff\xfe\r\nContent-Length: 0", b"", "redirects to"),
        (b"302 Found\r\nContent-Length: 0", b"", "redirects to"),
        (
            b"206 Part\r\nContent-Range: bytes 0-1/2\r\nTransfer-Encoding: chunked",
            b"3\r\n012\r\n0\r\n\r\n",
            "longer than it said",
        ),
        (b"nonsense", b"", "broke off"),
    ],
)
async def test_an_answer_that_does_not_prove_itself_whole_is_no_file(media, head, body, told):
    async with raw_host(head, body) as url:
        assert told in (await media.fails(TryLater, url)).reason


async def test_an_unknown_length_is_held_to_the_limit_while_it_comes(tmp_path):
    async with fetching(tmp_path, MediaLimits(max_bytes=4)) as media:
        body = b"9\r\n012345678\r\n0\r\n\r\n"
        async with raw_host(b"200 OK\r\nTransfer-Encoding: chunked", body) as url:
            await media.fails(FileRefused, url)


async def test_an_empty_file_is_a_file(media):
    async with raw_host(b"200 OK\r\nContent-Length: 0", b"") as url:
        assert (await media.fetch(url)).bytes == 0


# Where links may lead.


@asynccontextmanager
async def trap(answer: Callable[[web.Request], web.StreamResponse]) -> AsyncIterator[Any]:
    """Serve on loopback; yields the URL and the requests that came."""
    asked: list[web.Request] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return answer(request)

    async with served(handler) as url:
        yield url, asked


NO_ADDRESSES = ["https://media.example/a b", "https://[::1/x"]
"""A host that redirects there has erred, and may do better next time."""

FORBIDDEN = [
    *NO_ADDRESSES,
    "file:///etc/passwd",
    "ftp://media.example/x",
    "http://media.example/x",
    "https://user:hunter2@media.example/x",
    "https:///x",
    "/relative",
    "https://media.example/a\r\nHost: evil",
    "https://10.0.0.1/x",
    "https://169.254.169.254/latest/meta-data",
    "http://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/x",
    "https://0.0.0.0/x",
    "https://224.0.0.1/x",
    "https://[::ffff:10.0.0.1]/x",
    "https://[fe80::1]/x",
    "https://[fd00::1]/x",
    "https://[64:ff9b::a00:1]/x",
    "https://[::]/x",
    "https://127.1/x",
    "https://0x7f.0.0.1/x",
    "https://8.8.8.8.8/x",
]


@pytest.mark.parametrize("url", FORBIDDEN)
async def test_a_link_to_where_none_may_lead_is_refused_also_behind_a_redirect(media, url):
    await media.fails(FileRefused, url)
    assert media.ranges() == []
    media.fail(FaultKind.REDIRECT, url)
    if url == "/relative" or "\r\n" in url:
        return  # a lawful target, and one that no server could send
    await media.fails(TryLater if url in NO_ADDRESSES else FileRefused)


LOOPBACK = ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:7f00:1]"]


@pytest.mark.parametrize("host", LOOPBACK)
async def test_this_machine_is_refused_at_connect_unless_the_api_is_on_it(tmp_path, host):
    async with (
        trap(lambda _: web.Response(text="secret")) as (url, asked),
        fetching(tmp_path, api_url=VENDOR) as media,
    ):
        port = url.rpartition(":")[2]
        refused = await media.fails(FileRefused, f"https://{host}:{port}/x?Signature=hunter2")
        assert "not public" in refused.reason or "no web address" in refused.reason
        await media.fails(FileRefused, f"http://{host}:{port}/x")
        assert asked == []


async def test_a_name_that_was_rebound_is_judged_by_where_it_leads_now(tmp_path, monkeypatch):
    addresses = ["10.0.0.7"]

    async def resolved(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (it, port)) for it in addresses]

    async with fetching(tmp_path, api_url=VENDOR) as media:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        await media.fails(FileRefused, "https://media.example/x?Signature=hunter2")
        addresses.append("192.168.1.1")
        await media.fails(FileRefused, "https://media.example/x?Signature=hunter2")


@pytest.fixture
def server_side() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    return context


async def test_a_certificate_that_is_not_trusted_is_told_as_such(server_side, media):
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response()

    async with served(answer, server_side) as url:
        later = await media.fails(TryLater, f"https://localhost:{url.rpartition(':')[2]}/_media")
    assert "SSL_CERT_FILE" in later.reason and later.kind is TryKind.CONNECTION


async def test_redirects_are_followed_a_few_times_and_bring_no_cookie_along(media):
    def answer(request: web.Request) -> web.StreamResponse:
        assert "Cookie" not in request.headers and "Authorization" not in request.headers
        hop = int(request.query.get("hop", "0"))
        target = f"?hop={hop + 1}" if hop < 4 else media.url
        response = web.Response(status=302, headers={"Location": target})
        response.set_cookie("track", "me")
        return response

    async with trap(answer) as (url, asked):
        assert await media.is_right(await media.fetch(f"{url}/_media?hop=0"))
        assert len(asked) == 5
    media.sandbox.replace_media(TEST)
    await to_thread.run_sync(media.part.discard)
    media.fail(FaultKind.REDIRECT, "loop", times=0)
    assert "too many redirects" in (await media.fails(FileRefused)).reason


async def test_a_proxy_is_asked_for_names_and_never_for_addresses_that_are_not_public(
    tmp_path, monkeypatch
):
    heads: list[bytes] = []

    async def refuse(stream: SocketStream) -> None:
        async with stream:
            heads.append(await stream.receive())
            await stream.send(b"HTTP/1.1 407 Proxy\r\nContent-Length: 0\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.start_soon(listener.serve, refuse)
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:proxy-pw@127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "")
        async with fetching(tmp_path, api_url=VENDOR) as media:
            later = await media.fails(TryLater, "https://media.example/_media?Signature=hunter2")
            assert later.kind is TryKind.CONNECTION and "proxy-pw" not in str(later)
            await media.fails(FileRefused, "https://10.0.0.1/x")
        tasks.cancel_scope.cancel()
    (head,) = heads
    assert head.startswith(b"CONNECT media.example:443") and b"hunter2" not in head


# Pace and death.


async def test_all_transfers_together_keep_to_the_bandwidth(tmp_path):
    clock, limits = HastyClock(), MediaLimits(bytes_per_second=1_000_000.0)
    async with fetching(tmp_path, limits, clock=clock) as media:
        begun = clock.monotonic()
        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(media.client.transfer, media.url, media.parts.part("clips", name))
        spent = clock.monotonic() - begun
        assert 3 * media.file.size_bytes / 1e6 - 1 <= spent


async def run_transfer(media: Fetching) -> Any:
    """Fetch in a process of its own."""
    command = [sys.executable, "-m", "tests.transferring", str(media.lake.root), media.url, TEST]
    return await open_process(command, stderr=None)


def bytes_here(media: Fetching) -> int:
    return sum(path.stat().st_size for path in media.lake.root.rglob("*.part"))


async def test_a_killed_process_fetches_nothing_twice(tmp_path):
    options = SandboxOptions(rate_requests=None, video_bytes=20_000_000)
    async with fetching(tmp_path, options=options) as media:
        media.fail(FaultKind.STALL)
        half = media.file.size_bytes // 2
        async with await run_transfer(media) as process:
            here = 0
            while here <= half - LARGEST_CHUNK_BYTES:
                await anyio.sleep(0.01)
                here = await to_thread.run_sync(bytes_here, media)
            process.kill()
            assert await process.wait() == -9
        assert await media.is_right(await media.fetch())
        repaid = media.sandbox.media_bytes - media.file.size_bytes
        # At most the chunk that was not written yet, and one whose note was not.
        assert 0 <= repaid < 2 * LARGEST_CHUNK_BYTES


async def test_memory_is_flat_however_large_the_file(tmp_path):
    size = int(os.environ.get("MEDIA_MB", "100")) * 1_000_000
    options = SandboxOptions(rate_requests=None, video_bytes=size)
    async with fetching(tmp_path, options=options) as media:
        async with await run_transfer(media) as process:
            grown = int((await process.stdout.receive()).split()[0])
        assert grown < 50_000_000
        assert await media.is_right(await media.fetch())
