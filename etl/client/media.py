"""The one place that talks to media hosts: a session apart, to which no token ever comes.

A link is as good as a secret, and whoever can put one into an answer would like us to fetch
from where he cannot: each hop is checked, and the address that is connected to as well.
Where HTTPS_PROXY is in use the proxy finds the address of a name, and whom it connects to is
for its owner to say; links to addresses that are not public are refused all the same.
"""

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import aiohttp
from anyio import fail_after, to_thread
from yarl import URL

from etl.auth.proxies import proxy_for
from etl.client.http import user_agent
from etl.client.media_rules import (
    Bucket,
    Promise,
    UnfitError,
    chunk_bytes,
    headers_for,
    link_mistake,
    may_connect,
    promised,
    read_link,
    spend,
)
from etl.client.media_values import (
    Begun,
    FileRefused,
    LinkRefused,
    MediaLimits,
    Received,
    Sink,
)
from etl.client.values import TryKind, TryLater
from etl.config.checks import is_loopback
from etl.config.models import Connection
from etl.pacing.clock import Clock
from etl.pacing.rules import read_headers

_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_READ_AHEAD_BYTES: Final = 512 * 1024
_CONNECT_SECONDS: Final = 15.0


class _AddressRefusedError(OSError):
    """A name led to an address that no link may lead to."""


class MediaClient:
    """Fetches files. As many at once as there are callers: that they are few is theirs to see."""

    def __init__(
        self,
        direct: aiohttp.ClientSession,
        proxied: aiohttp.ClientSession,
        limits: MediaLimits,
        clock: Clock,
        *,
        loopback: bool,
    ) -> None:
        """Wire a client; see `open_media`."""
        self._direct = direct
        self._proxied = proxied
        self._limits = limits
        self._clock = clock
        self._loopback = loopback
        self._bucket = Bucket(0.0, clock.monotonic())
        self._chunk_bytes = chunk_bytes(limits.bytes_per_second)
        self.bytes_received = 0

    async def transfer(self, url: str, sink: Sink) -> Received:
        """Fetch what the sink has not got yet, and return the file when it is there whole.

        One try: what may pass is raised as TryLater, and a later try goes on where this one
        ended. Raises LinkRefused where a new link is wanted, FileRefused where none would
        help, and what the sink raises. None of them holds more of the link than its host.
        """
        link = read_link(url)
        if link is None:
            raise FileRefused("the link is no web address")
        begun = await to_thread.run_sync(sink.resume)
        if begun is not None and begun.bytes == begun.file.total_bytes:
            return await to_thread.run_sync(sink.finish)
        try:
            return await self._try(link, sink, begun, afresh=False)
        except UnfitError:
            pass
        try:
            return await self._try(link, sink, None, afresh=True)
        except UnfitError as error:
            raise _unreadable(link, str(error)) from None

    async def _try(self, link: URL, sink: Sink, begun: Begun | None, *, afresh: bool) -> Received:
        """Ask once; raises UnfitError for an answer that helps no further."""
        with _foreign_errors(link):
            async with self._answer(link, headers_for(begun, afresh=afresh)) as answer:
                status = answer.status
                if status == 416 or (status == 206 and afresh):
                    raise UnfitError("a part was asked for or answered that is none")
                if status not in (200, 206):
                    raise self._failed(link, answer)
                promise = promised(status, answer.headers, begun)
                self._check_size(promise.file.total_bytes)
                if promise.start == 0:
                    await to_thread.run_sync(sink.begin, promise.file)
                return await self._taken(link, answer, promise, sink)

    @asynccontextmanager
    async def _answer(
        self, link: URL, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, and follow redirects by hand: each hop is checked like the first."""
        for _ in range(_MOST_REDIRECTS + 1):
            mistake = link_mistake(link, loopback=self._loopback)
            if mistake is not None:
                raise FileRefused(f"the link is not followed: {mistake}{_at(link)}")
            proxy = proxy_for(str(link))
            session = self._direct if proxy is None else self._proxied
            async with session.get(
                link, headers=headers, allow_redirects=False, proxy=proxy
            ) as answer:
                if answer.status not in _REDIRECTS:
                    yield answer
                    return
                target = read_link(answer.headers.get("Location", ""))
            if target is None:
                raise _unreadable(link, "it redirects to what is no web address")
            link = link.join(target)
        raise FileRefused(f"the link leads through too many redirects{_at(link)}")

    async def _taken(
        self, link: URL, answer: aiohttp.ClientResponse, promise: Promise, sink: Sink
    ) -> Received:
        """Give the body to the sink, piece by piece, and hold it to what was promised."""
        at = promise.start
        end = None if promise.length is None else promise.start + promise.length
        async with aclosing(self._pieces(answer.content)) as pieces:
            async for piece in pieces:
                at += len(piece)
                self._check_size(at)
                if end is not None and at > end:
                    await to_thread.run_sync(sink.discard)
                    raise _unreadable(link, "it is longer than it said")
                await to_thread.run_sync(sink.append, piece)
                await self._pace(len(piece))
        total = promise.file.total_bytes
        if total is not None and at < total:
            raise _unreadable(link, "it was cut short")
        return await to_thread.run_sync(sink.finish)

    async def _pieces(self, content: aiohttp.StreamReader) -> AsyncGenerator[bytearray, None]:
        """Yield a body in pieces that are worth a thread; what came before a break as well."""
        seconds = self._chunk_bytes / self._limits.slowest_bytes_per_second
        piece = bytearray(1)
        while piece:
            piece = bytearray()
            try:
                with fail_after(seconds):
                    while some := await content.read(self._chunk_bytes - len(piece)):
                        piece += some
            except (aiohttp.ClientError, OSError, TimeoutError):
                if piece:
                    yield piece
                raise
            if piece:
                yield piece

    async def _pace(self, count: int) -> None:
        """Count bytes, and wait until they were allowed."""
        self.bytes_received += count
        rate = self._limits.bytes_per_second
        if rate is not None:
            now = self._clock.monotonic()
            self._bucket, seconds = spend(self._bucket, count, now, rate)
            if seconds:
                await self._clock.sleep(seconds)

    def _check_size(self, count: int | None) -> None:
        most = self._limits.max_bytes
        if most is not None and count is not None and count > most:
            raise FileRefused(f"the file is larger than {most} bytes (max_bytes)")

    def _failed(self, link: URL, answer: aiohttp.ClientResponse) -> Exception:
        """Return what a status means that brings no part of the file."""
        status, reason = answer.status, f"the media host answered {answer.status}{_at(link)}"
        hint = read_headers(answer.headers, self._clock.time()).retry_after_seconds
        if status == 429:
            return TryLater(reason, kind=TryKind.THROTTLED, hint_seconds=hint)
        if 400 <= status < 500 and status not in (408, 425):
            return LinkRefused(reason, status)
        return TryLater(reason, kind=TryKind.SERVER_ERROR, hint_seconds=hint)


def _at(link: URL) -> str:
    """Return the host of a link, safe to print."""
    return f" (host {(link.host or '')[:100]})"


def _unreadable(link: URL, reason: str) -> TryLater:
    return TryLater(f"the file could not be read: {reason}{_at(link)}", kind=TryKind.UNREADABLE)


@contextmanager
def _foreign_errors(link: URL) -> Iterator[None]:
    """Turn errors of network and HTTP into ours, in one place: theirs tell the whole link."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError:
        reason = f"its TLS certificate is not trusted; see SSL_CERT_FILE{_at(link)}"
        raise TryLater(reason, kind=TryKind.CONNECTION) from None
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _AddressRefusedError):
            reason = f"the link is not followed: its address is not public{_at(link)}"
            raise FileRefused(reason) from None
        reason = f"the media host could not be reached{_at(link)}"
        raise TryLater(reason, kind=TryKind.CONNECTION) from None
    except aiohttp.InvalidURL:
        raise FileRefused(f"the link is no web address{_at(link)}") from None
    except TimeoutError:
        reason = f"the media host was silent or too slow{_at(link)}"
        raise TryLater(reason, kind=TryKind.TIMEOUT) from None
    except (aiohttp.ClientError, OSError, UnicodeError) as error:
        reason = f"the transfer broke off ({type(error).__name__}){_at(link)}"
        raise TryLater(reason, kind=TryKind.CONNECTION) from None


@asynccontextmanager
async def open_media(
    connection: Connection, limits: MediaLimits, clock: Clock
) -> AsyncIterator[MediaClient]:
    """Open the session for media; every way out closes it. Nothing is sent yet.

    Of the connection it needs one thing: whether the API is on this machine, where media may
    be too.
    """
    loopback = is_loopback(URL(connection.api_url).host or "")
    trust = await to_thread.run_sync(ssl.create_default_context)
    agent = await to_thread.run_sync(user_agent)
    opened = partial(_session, trust, agent, limits)
    async with opened(partial(_guarded, loopback)) as direct, opened(None) as proxied:
        yield MediaClient(direct, proxied, limits, clock, loopback=loopback)


def _session(
    trust: ssl.SSLContext,
    agent: str,
    limits: MediaLimits,
    sockets: Callable[[Any], socket.socket] | None,
) -> aiohttp.ClientSession:
    """Make a session: no cookies, no decoding, a time-out for each phase."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trust, socket_factory=sockets),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"User-Agent": agent, "Accept": "*/*", "Accept-Encoding": "identity"},
        read_bufsize=_READ_AHEAD_BYTES,
        timeout=aiohttp.ClientTimeout(
            total=None,
            sock_connect=min(_CONNECT_SECONDS, limits.silence_seconds),
            sock_read=limits.silence_seconds,
        ),
    )


def _guarded(loopback: bool, info: Any) -> socket.socket:  # noqa: ANN401, FBT001 - aiohttp's
    """Make a socket for an address, if it is one: after the name was resolved, not before.

    So a name cannot lead elsewhere between the check and the connection.
    """
    family, kind, protocol, _, address = info
    if not may_connect(str(address[0]), loopback=loopback):
        raise _AddressRefusedError("the address is not public")
    return socket.socket(family, kind, protocol)
