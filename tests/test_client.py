"""The client sends what it was told, where it was told, and believes nothing it gets."""

import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest
import trustme
from aiohttp import web
from anyio.abc import SocketStream
from pydantic import SecretStr

from etl.client.http import Client, open_client
from etl.client.values import (
    Endpoint,
    Priority,
    Request,
    Scope,
    TryKind,
    TryLater,
    UnreadableBodyError,
)
from etl.config.models import Connection, RateLimit
from etl.errors import BadRequest, CredentialsRefused, Forbidden, NotFound, Unreachable
from etl.pacing.clock import Clock, SystemClock
from tests.scripted import served
from tests.virtual_time import HastyClock

SECRET, TOKEN = "hunter2-4b1f", "token-of-the-day"


def text_of(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise UnreadableBodyError("not text") from error


PAGE = Endpoint("page", "/tests/{test_id}/page", Scope.TEST, Priority.LISTING, text_of)


def page(test_id: str = "one", **more: Any) -> Request[str]:
    return Request(PAGE, test_id, **more)


class Api:
    """An API and its token endpoint; `answers` are told, then every request is a good one."""

    def __init__(self, *answers: web.StreamResponse | Callable[[], web.StreamResponse]) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.grants = 0
        self.refused: set[str] = set()  # test ids

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            self.grants += 1
            return web.json_response(
                {"token_type": "Bearer", "access_token": f"{TOKEN}-{self.grants}", "expires_in": 60}
            )
        self.requests.append(request)
        if any(f"/{test_id}/" in request.path for test_id in self.refused):
            return web.Response(status=403)
        if self.answers:
            answer = self.answers.pop(0)
            return answer if isinstance(answer, web.StreamResponse) else answer()
        return web.Response(text="good")

    def header(self, name: str) -> list[str]:
        return [request.headers.get(name, "") for request in self.requests]


@asynccontextmanager
async def client_of(
    folder: Path, url: str, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Client]:
    connection = Connection(
        client_id=SecretStr("me"),
        client_secret=SecretStr(SECRET),
        api_url=url,
        rate_limit=RateLimit(requests=1_000, seconds=1),
        **{"token_url": f"{url}/token", "timeout_seconds": 5, **settings},
    )
    async with open_client(
        connection, state_dir=folder, clock=clock or SystemClock(), random=Random(1)
    ) as client:
        yield client


@asynccontextmanager
async def asking(
    folder: Path, api: Api, clock: Clock | None = None, **settings: Any
) -> AsyncIterator[Client]:
    async with served(api.answer) as url, client_of(folder, url, clock, **settings) as client:
        yield client


# What is sent.


async def test_every_request_says_who_asks_and_with_which_token(tmp_path: Path):
    api = Api()
    async with asking(tmp_path, api) as client:
        fetched = await client.fetch(page())
    assert fetched.content == "good" and fetched.answer.body == b"good"
    assert api.header("Authorization") == [f"Bearer {TOKEN}-1"]
    assert api.header("User-Agent")[0].startswith("usertesting-etl/")
    assert "(+https://" in api.header("User-Agent")[0]


@pytest.mark.parametrize("test_id", ["../../token", "a/b", "a?b=c", "a#b", "a%2Fb", "ä b"])
async def test_no_id_leads_out_of_its_place_in_the_path(tmp_path: Path, test_id: str):
    api = Api()
    async with asking(tmp_path, api) as client:
        await client.fetch(page(test_id, query=(("x", "1&y=2"),)))
    (request,) = api.requests
    assert request.raw_path.count("/") == 3 and request.raw_path.startswith("/tests/")
    assert request.path == f"/tests/{test_id}/page"
    assert dict(request.query) == {"x": "1&y=2"}


async def test_cookies_are_not_kept(tmp_path: Path):
    api = Api(web.Response(headers={"Set-Cookie": "session=1"}))
    async with asking(tmp_path, api) as client:
        await client.fetch(page())
        await client.fetch(page())
    assert api.header("Cookie") == ["", ""]


# What is answered.


def encoded(body: bytes, encoding: str) -> web.Response:
    return web.Response(body=body, headers={"Content-Encoding": encoding})


async def test_a_compressed_body_is_decoded(tmp_path: Path):
    api = Api(encoded(gzip.compress(b"small"), "gzip"))
    async with asking(tmp_path, api) as client:
        assert (await client.fetch(page())).content == "small"
    assert api.header("Accept-Encoding") == ["gzip"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (web.Response(status=500), TryKind.SERVER_ERROR),
        (web.Response(status=503), TryKind.SERVER_ERROR),
        (web.Response(status=408), TryKind.SERVER_ERROR),
        (web.Response(status=429), TryKind.THROTTLED),
        (web.Response(body=b"\xff"), TryKind.UNREADABLE),
        *(
            (encoded(body, encoding), TryKind.UNREADABLE)
            for body, encoding in (
                (b"\x1f\x8b\x09\x00abc", "gzip"),
                (gzip.compress(b"whole")[:-4], "gzip"),
                (gzip.compress(b"one") + gzip.compress(b"two"), "gzip"),
                (gzip.compress(bytes(40 << 20), 1), "gzip"),
                (b"plain", "br"),
            )
        ),
        (web.Response(body=b" " * (33 << 20)), TryKind.UNREADABLE),
    ],
    ids=[
        "500",
        "503",
        "408",
        "429",
        "not readable",
        "corrupt gzip",
        "cut gzip",
        "two in one",
        "bomb",
        "br",
        "33 MB",
    ],
)
async def test_what_may_pass_is_to_be_tried_later(
    tmp_path: Path, answer: web.Response, kind: TryKind
):
    async with asking(tmp_path, Api(answer)) as client:
        with pytest.raises(TryLater) as failed:
            await client.fetch(page())
        assert failed.value.kind is kind


@pytest.mark.parametrize("status", [400, 405, 410, 418, 451])
async def test_what_will_not_pass_is_told_with_its_test(tmp_path: Path, status: int):
    async with asking(tmp_path, Api(web.Response(status=status))) as client:
        with pytest.raises(BadRequest, match=rf"status {status}.*test one"):
            await client.fetch(page())


async def test_a_404_says_what_it_may_mean(tmp_path: Path):
    async with asking(tmp_path, Api(web.Response(status=404))) as client:
        with pytest.raises(NotFound, match="does not show it"):
            await client.fetch(page())


async def test_an_error_carries_the_servers_name_for_the_request_and_no_control_character(
    tmp_path: Path,
):
    answer = web.Response(status=500, headers={"X-Request-Id": "r-1é\u202e" + "x" * 200})
    async with asking(tmp_path, Api(answer)) as client:
        with pytest.raises(TryLater) as failed:
            await client.fetch(page())
    assert "[x-request-id r-1xx" in failed.value.reason
    assert failed.value.reason.isascii() and len(failed.value.reason) < 150


async def test_silence_ends_with_the_time_out(tmp_path: Path):
    async def silent(request: web.Request) -> web.StreamResponse:
        if request.path != "/token":
            await anyio.sleep_forever()
        return await Api().answer(request)

    async with served(silent) as url, client_of(tmp_path, url, timeout_seconds=0.2) as client:
        with pytest.raises(TryLater) as failed:
            await client.fetch(page())
        assert failed.value.kind is TryKind.TIMEOUT


async def test_nobody_there_is_a_connection_that_failed(tmp_path: Path):
    async with AsyncExitStack() as server:
        url = await server.enter_async_context(served(Api().answer))
        async with client_of(tmp_path, url) as client:
            await client.fetch(page())
            await server.aclose()
            with pytest.raises(TryLater) as failed:
                await client.fetch(page())
            assert failed.value.kind is TryKind.CONNECTION


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", ["", "/elsewhere", "//{host}/x"])
async def test_the_token_follows_no_redirect_to_another_origin(
    tmp_path: Path, status: int, path: str
):
    other = Api()
    async with served(other.answer) as elsewhere:
        target = path.format(host=elsewhere.removeprefix("http://"))
        target = target if target.startswith("//") else elsewhere + target
        answer = web.Response(status=status, headers={"Location": target})
        async with asking(tmp_path, Api(answer)) as client:
            with pytest.raises(BadRequest, match="another origin"):
                await client.fetch(page())
    assert other.requests == []


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest", "file:///etc/passwd", "http://[", "javascript:1", "", "//"],
)
async def test_a_redirect_to_nowhere_good_is_refused(tmp_path: Path, target: str):
    def redirect() -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": target})

    async with asking(tmp_path, Api(*[redirect] * 9)) as client:
        with pytest.raises(BadRequest):
            await client.fetch(page())


async def test_a_redirect_to_a_slash_is_followed_and_learned(tmp_path: Path):
    slash = web.Response(status=308, headers={"Location": "/tests/one/page/?x=1"})
    api = Api(slash)
    async with asking(tmp_path, api) as client:
        for _ in range(3):
            assert (await client.fetch(page(query=(("x", "1"),)))).content == "good"
        assert client.usage.total == 4
    assert [request.path for request in api.requests] == [
        "/tests/one/page",
        *["/tests/one/page/"] * 3,
    ]


async def test_a_redirect_in_a_circle_ends(tmp_path: Path):
    def circle() -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "/tests/one/page"})

    api = Api(*[circle] * 20)
    async with asking(tmp_path, api) as client:
        with pytest.raises(BadRequest, match="loop"):
            await client.fetch(page())
    assert len(api.requests) <= 6


# Refusals.


async def test_a_401_is_replayed_with_a_new_token(tmp_path: Path):
    api = Api(web.Response(status=401))
    async with asking(tmp_path, api) as client:
        assert (await client.fetch(page())).content == "good"
        assert client.usage.retried == 1
    assert api.header("Authorization") == [f"Bearer {TOKEN}-1", f"Bearer {TOKEN}-2"]


async def test_a_403_is_forbidden_when_the_same_token_works_elsewhere(tmp_path: Path):
    api = Api()
    api.refused.add("secret")
    async with asking(tmp_path, api) as client:
        await client.fetch(page("open"))
        with pytest.raises(Forbidden, match=r"test secret.*\n.*workspace"):
            await client.fetch(page("secret"))
    assert api.grants == 1 and len(api.requests) == 3  # of which one seeks the evidence


async def test_a_403_for_everything_is_refused_credentials(tmp_path: Path):
    api = Api()
    api.refused |= {"one", "two"}
    async with asking(tmp_path, api, HastyClock()) as client:
        for test_id in ("one", "two"):
            with pytest.raises(CredentialsRefused):
                await client.fetch(page(test_id))


# The way there.


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return authority


@pytest.fixture
def server_side(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_certificate_of_an_unknown_authority_ends_at_once_and_names_the_way_out(
    tmp_path: Path, server_side: ssl.SSLContext
):
    async with (
        served(Api().answer, server_side) as url,
        client_of(tmp_path, url) as client,
    ):
        with pytest.raises(Unreachable, match="SSL_CERT_FILE"):
            await client.fetch(page())


async def test_a_token_endpoint_of_an_unknown_authority_is_not_asked_again(
    tmp_path: Path, server_side: ssl.SSLContext
):
    api = Api()
    async with (
        served(api.answer) as url,
        served(Api().answer, server_side) as token_url,
        client_of(tmp_path, url, token_url=f"{token_url}/token") as client,
    ):
        with pytest.raises(Unreachable, match="token endpoint is not trusted"):
            await client.fetch(page())


async def test_an_authority_named_in_ssl_cert_file_is_trusted(
    tmp_path: Path, server_side: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with (
        served(Api().answer, server_side) as url,
        client_of(tmp_path, url) as client,
    ):
        assert (await client.fetch(page())).content == "good"


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """Serve an HTTP proxy that tunnels; yields its URL and the targets that it was asked for."""
    targets: list[str] = []

    async def copy(source: SocketStream, sink: SocketStream) -> None:
        try:
            async for chunk in source:
                await sink.send(chunk)
        except anyio.BrokenResourceError:
            pass

    async def tunnel(stream: SocketStream) -> None:
        async with stream:
            head = await stream.receive()
            target = head.split(b" ")[1].decode()
            targets.append(target)
            host, _, port = target.rpartition(":")
            async with await anyio.connect_tcp(host, int(port)) as upstream:
                await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
                async with anyio.create_task_group() as group:
                    group.start_soon(copy, upstream, stream)
                    await copy(stream, upstream)
                    group.cancel_scope.cancel()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, tunnel)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", targets
        group.cancel_scope.cancel()


@pytest.mark.parametrize(("no_proxy", "tunnels"), [("", 2), ("127.0.0.1", 0)])
async def test_the_proxy_of_the_environment_is_used_unless_it_is_excepted(
    tmp_path: Path,
    server_side: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    no_proxy: str,
    tunnels: int,
):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    async with served(Api().answer, server_side) as url, proxy() as (way, targets):
        monkeypatch.setenv("HTTPS_PROXY", way)
        monkeypatch.setenv("NO_PROXY", no_proxy)
        async with client_of(tmp_path, url) as client:
            assert (await client.fetch(page())).content == "good"
    assert set(targets) <= {url.removeprefix("https://")}
    assert bool(targets) is bool(tunnels)


async def test_nothing_that_is_sent_in_clear_leaves_the_machine_by_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with proxy() as (way, targets):
        monkeypatch.setenv("HTTP_PROXY", way)
        monkeypatch.setenv("ALL_PROXY", way)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with asking(tmp_path, Api()) as client:
            assert (await client.fetch(page())).content == "good"
    assert targets == []


async def test_no_error_and_no_repr_holds_token_or_secret(tmp_path: Path):
    answers = [web.Response(status=status) for status in (400, 404, 429, 500)]
    async with asking(tmp_path, Api(*answers)) as client:
        for _ in range(4):
            with pytest.raises((BadRequest, NotFound, TryLater)) as failed:
                await client.fetch(page())
            told = f"{failed.value!r} {failed.value} {client!r} {vars(client)!r}"
            assert TOKEN not in told and SECRET not in told
