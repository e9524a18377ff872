"""The one place that talks to the API: slot, then token, then send, then read.

The token is taken after the slot, since in the queue it may die. What may pass is raised
as `TryLater` and retried by whoever asked: each try is a paid send.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from anyio import Lock, to_thread
from yarl import URL

from etl.auth.bodies import ACCEPT_ENCODING, Body, CorruptBodyError
from etl.auth.grants import untrusted
from etl.auth.manager import Refusals, TokenManager, open_tokens
from etl.auth.proxies import proxy_for
from etl.auth.token import Token
from etl.client.values import (
    Answer,
    Content,
    Fetched,
    Request,
    TryKind,
    TryLater,
    UnreadableBodyError,
)
from etl.config.models import Connection
from etl.config.secrets import masked
from etl.errors import BadRequest, Forbidden, NotFound
from etl.pacing.clock import Clock
from etl.pacing.events import Events, no_events
from etl.pacing.pacer import Pacer, RequestsSpent, Slot, Stopped, open_pacer
from etl.pacing.rules import read_headers

__all__ = ["Client", "RequestsSpent", "Stopped", "Usage", "open_client"]

LARGEST_BODY_BYTES: Final = 32 * 1024 * 1024
_MOST_REDIRECTS: Final = 5
_CONTACT: Final = "https://pypi.org/project/usertesting-etl"
_REQUEST_ID_HEADERS: Final = ("x-request-id", "x-correlation-id", "x-amzn-requestid", "cf-ray")
_REPLAY_SECONDS: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the API has been asked so far, and how near the limit that is."""

    total: int
    by_status: Mapping[str, int]
    retried: int
    throttled: int
    token_grants: int
    limit: int
    window_seconds: float
    utilisation: float
    left_in_window: int
    token_age_seconds: float | None
    waiting_seconds: float


@dataclass(frozen=True, slots=True)
class _Response:
    """An answer as it came off the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float

    def request_id(self) -> str:
        """Return the server's name for the request, safe to print; empty if it has none."""
        for name in _REQUEST_ID_HEADERS:
            value = self.headers.get(name)
            if value:
                shown = "".join(c for c in masked(value)[:80] if c.isascii() and c.isprintable())
                return f" [{name} {shown}]"
        return ""


class Client:
    """One connection to the API: its session, pace and token."""

    def __init__(
        self,
        connection: Connection,
        session: aiohttp.ClientSession,
        pacer: Pacer,
        tokens: TokenManager,
        clock: Clock,
        on_event: Events,
    ) -> None:
        """Wire a client; see `open_client`."""
        self._proxy = proxy_for(connection.api_url)
        self._connection = connection
        self._session = session
        self._pacer = pacer
        self._tokens = tokens
        self._clock = clock
        self._on_event = on_event
        self._base = str(URL(connection.api_url.rstrip("/")))
        self._by_status: dict[str, int] = {}
        self._retried = 0
        self._slashed: dict[str, bool] = {}
        self._last_good: Request[Any] | None = None
        self._probing = Lock()
        self._fetched_at_us = 0

    @property
    def usage(self) -> Usage:
        """What has been asked so far."""
        pacer = self._pacer
        spent = pacer.last_sent_at - (pacer.first_sent_at or pacer.last_sent_at)
        allowed = pacer.limit * (1 + spent / pacer.window_seconds)
        waiting = pacer.waiting_until - self._clock.monotonic()
        return Usage(
            total=pacer.sends,
            by_status=dict(self._by_status),
            retried=self._retried,
            throttled=pacer.throttled,
            token_grants=self._tokens.grants,
            limit=pacer.limit,
            window_seconds=pacer.window_seconds,
            utilisation=min(1.0, pacer.sends / allowed),
            left_in_window=pacer.left_in_window(),
            token_age_seconds=self._tokens.age_seconds,
            waiting_seconds=max(0.0, waiting),
        )

    def stop(self) -> None:
        """Send nothing more; whoever waits for a slot meets Stopped."""
        self._pacer.stop()

    async def fetch(self, request: Request[Content]) -> Fetched[Content]:
        """Ask once, and return the answer and what its endpoint reads in it.

        As many requests are in flight as there are callers: that they are few is theirs to see.
        Replays that belong to authorization, and redirects on the same origin, happen
        within; each is a send of its own. Raises TryLater for what may pass; BadRequest,
        NotFound and Forbidden for what may not; CredentialsRefused and Unreachable
        from the token manager; RequestsSpent and Stopped from the pacer.
        """
        if request.attempt:
            self._retried += 1
        response = await self._authorized(request)
        if response.status != 200:
            raise self._failed(request, response)
        answer = Answer(
            request.endpoint.name,
            request.test_id,
            request.session_id,
            request.object_id,
            response.status,
            self._moment_us(),
            response.body,
        )
        try:
            content = request.endpoint.decode(response.body)
        except UnreadableBodyError as error:
            reason = f"the body cannot be read: {error}{response.request_id()}"
            raise TryLater(reason, kind=TryKind.UNREADABLE, answer=answer) from None
        self._last_good = request
        return Fetched(answer, content)

    def _moment_us(self) -> int:
        """Return the wall time, yet never one that was told before: somebody may set the clock.

        By it answers are told apart, and those of a pass from older ones.
        """
        self._fetched_at_us = max(self._fetched_at_us + 1, int(self._clock.time() * 1_000_000))
        return self._fetched_at_us

    async def answers(self) -> bool | None:
        """Ask again for what was good before: does it still come? None if nothing ever was.

        So the trouble of one test is told from the API's own. Raises what `fetch` does,
        but TryLater.
        """
        if self._last_good is None:
            return None
        url, endpoint = self._url(self._last_good), self._last_good.endpoint
        try:
            response, token = await self._send(url, int(endpoint.priority))
            if response.status != 200:
                return False
            self._tokens.good(token, response.sent_at)
            endpoint.decode(response.body)
        except (TryLater, UnreadableBodyError):
            return False
        return True

    async def _authorized(self, request: Request[Content]) -> _Response:
        """Send with a token, and replay until it is clear what a refusal means."""
        refusals = Refusals()
        while True:
            response, token = await self._redirected(self._url(request), request)
            if response.status not in (401, 403):
                if response.status == 200:
                    self._tokens.good(token, response.sent_at)
                return response
            refusals.add(token, self._clock.monotonic())
            self._tokens.judge(refusals, response.status)
            await self._seek_evidence(refusals)
            if refusals.forbidden:
                raise Forbidden(
                    "These credentials may not see it, though they work elsewhere "
                    f"(status {response.status}){response.request_id()}.",
                    where=_where(request),
                    advice="Ask an admin to add the client's user to the test's workspace, "
                    "or list the test under accept_failures.",
                )
            self._retried += 1
            replays = len(refusals.met) - 1
            await self._clock.sleep(_REPLAY_SECONDS[min(replays, len(_REPLAY_SECONDS) - 1)])

    async def _seek_evidence(self, refusals: Refusals) -> None:
        """Find out whether the refused token still works, by a page that it has earned before.

        The first 401 is replayed with a new token instead: most often the old one died.
        """
        token, refused_at = refusals.met[-1]
        died_first = self._tokens.ready() is not token and len(refusals.met) == 1
        if self._last_good is None or died_first or refusals.forbidden:
            return
        async with self._probing:
            if token.last_good_at <= refused_at and self._tokens.ready() is not None:
                await self.answers()

    async def _redirected(self, url: URL, request: Request[Content]) -> tuple[_Response, Token]:
        """Send, and follow redirects on the API's own origin: each is a send of its own."""
        for _ in range(_MOST_REDIRECTS):
            response, token = await self._send(url, int(request.endpoint.priority))
            if response.status not in (301, 302, 303, 307, 308):
                return response, token
            target = self._redirect_target(url, response, request)
            if target.path.rstrip("/") == url.path.rstrip("/"):
                self._slashed[request.endpoint.path] = target.path.endswith("/")
            url = target
        raise BadRequest(
            "The API redirects in a loop.",
            where=_where(request),
            advice="Check USERTESTING_API_URL; if it is right, tell the vendor's support.",
        )

    def _redirect_target(self, url: URL, response: _Response, request: Request[Content]) -> URL:
        try:
            target = url.join(URL(response.headers.get("Location", "")))
        except ValueError:
            target = URL()
        if target.origin() != url.origin() if target.absolute else True:
            raise BadRequest(
                "The API redirects to another origin; the token is not sent there.",
                where=_where(request),
                advice="Check USERTESTING_API_URL, and whether a proxy stands in between.",
            )
        return target

    async def _send(self, url: URL, priority: int) -> tuple[_Response, Token]:
        """Send once, when slot and token have both been had."""
        while True:
            await self._tokens.token()
            async with self._pacer.slot(priority) as slot:
                token = self._tokens.ready()
                if token is not None:
                    return await self._sent(url, token, slot), token

    async def _sent(self, url: URL, token: Token, slot: Slot) -> _Response:
        """Put a request on the wire and read its answer; foreign errors become ours here."""
        try:
            async with self._session.get(
                url,
                headers={"Authorization": f"Bearer {token.value.get_secret_value()}"},
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=slot,
            ) as response:
                slot.answered(response.status, response.headers)
                self._count(str(response.status))
                body = Body(response.headers.get("Content-Encoding", ""), LARGEST_BODY_BYTES)
                async for chunk in response.content.iter_any():
                    body.feed(chunk)
                sent_at = slot.sent_at or self._clock.monotonic()
                return _Response(response.status, response.headers, body.whole(), sent_at)
        except aiohttp.ClientConnectorCertificateError:
            raise untrusted(self._connection, "API") from None
        except TimeoutError:
            self._count("error")
            raise TryLater("it timed out", kind=TryKind.TIMEOUT) from None
        except CorruptBodyError as error:
            raise TryLater(f"the body cannot be read: {error}", kind=TryKind.UNREADABLE) from None
        except (aiohttp.ClientPayloadError, aiohttp.http_exceptions.HttpProcessingError) as error:
            reason = f"the answer was cut short or corrupt ({type(error).__name__})"
            raise TryLater(reason, kind=TryKind.UNREADABLE) from None
        except (aiohttp.ClientError, OSError) as error:
            self._count("error")
            reason = f"the connection failed ({type(error).__name__})"
            raise TryLater(reason, kind=TryKind.CONNECTION) from None

    def _count(self, status: str) -> None:
        self._by_status[status] = self._by_status.get(status, 0) + 1

    def _url(self, request: Request[Content]) -> URL:
        """Return the request's URL; keys are percent-encoded, whatever is in them."""
        template = request.endpoint.path
        path = template.format(
            test_id=quote(request.test_id or "", safe=""),
            session_id=quote(request.session_id or "", safe=""),
            object_id=quote((request.object_id or "").partition("?")[0], safe=""),
        )
        if self._slashed.get(template):
            path += "/"
        query = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in request.query)
        return URL(f"{self._base}{path}{'?' if query else ''}{query}", encoded=True)

    def _failed(self, request: Request[Content], response: _Response) -> Exception:
        """Return what a status other than 200 means."""
        status, name = response.status, response.request_id()
        hint = read_headers(response.headers, self._clock.time()).retry_after_seconds
        if status == 429:
            self._on_event("throttled", test_id=request.test_id)
            # The pacer waits: whoever asks again queues behind its block.
            return TryLater(f"too many requests{name}", kind=TryKind.THROTTLED, hint_seconds=0.0)
        if status == 408 or status >= 500:
            reason = f"the API answered {status}{name}"
            return TryLater(reason, kind=TryKind.SERVER_ERROR, hint_seconds=hint)
        if status == 404:
            return NotFound(
                f"The API does not know it, or does not show it to these credentials{name}.",
                where=_where(request),
                advice="Check the id; the client's user must be a member of the test's workspace.",
            )
        return BadRequest(
            f"The API refused the request (status {status}){name}.",
            where=_where(request),
            advice="If the id is right, tell the vendor's support.",
        )


def _where(request: Request[Content]) -> str:
    if request.session_id is not None:
        return f"test {request.test_id}, session {request.session_id}"
    return f"test {request.test_id}" if request.test_id is not None else request.endpoint.path


def user_agent() -> str:
    """Return how this program names itself to servers."""
    try:
        number = version("usertesting-etl")
    except PackageNotFoundError:  # run from a source tree that is not installed
        number = "0"
    return f"usertesting-etl/{number} (+{_CONTACT})"


@asynccontextmanager
async def open_client(
    connection: Connection,
    *,
    state_dir: Path,
    clock: Clock,
    random: Random,
    max_requests: int | None = None,
    on_event: Events = no_events,
) -> AsyncIterator[Client]:
    """Open a connection's HTTP session, pace and tokens; every way out closes them.

    Nothing is sent before the first `fetch`. Raises StateError if the pace cannot be kept.
    """
    client_id = connection.client_id.get_secret_value() if connection.client_id else ""
    async with AsyncExitStack() as stack:
        pacer = await stack.enter_async_context(
            open_pacer(
                connection.rate_limit,
                credentials=f"{connection.api_url} {client_id}",
                state_dir=state_dir,
                clock=clock,
                max_requests=max_requests,
            )
        )
        session = await stack.enter_async_context(await _session(connection))
        tokens = await stack.enter_async_context(
            open_tokens(connection, session, clock, random, on_event)
        )
        yield Client(connection, session, pacer, tokens, clock, on_event)


async def _session(connection: Connection) -> aiohttp.ClientSession:
    """Make the session: no cookies, a time-out for each phase."""
    trust = await to_thread.run_sync(ssl.create_default_context)
    seconds = connection.timeout_seconds
    traces = aiohttp.TraceConfig()
    traces.on_request_headers_sent.append(_stamp)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=trust),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={
            "User-Agent": await to_thread.run_sync(user_agent),
            "Accept": "application/json",
            "Accept-Encoding": ACCEPT_ENCODING,
        },
        timeout=aiohttp.ClientTimeout(
            total=seconds,
            sock_connect=min(seconds, 15.0),
            sock_read=min(seconds, 30.0),
        ),
        trace_configs=[traces],
    )
    # aiohttp sends again by itself when a kept connection breaks: a send that no slot was
    # taken for and nobody counts. There is no public name for it; a test holds us to it.
    session._retry_connection = False  # noqa: SLF001
    return session


async def _stamp(
    session: aiohttp.ClientSession,
    context: SimpleNamespace,
    parameters: aiohttp.TraceRequestHeadersSentParams,
) -> None:
    """Stamp the slot at the moment of the send: connecting may take long before it."""
    del session, parameters
    slot = context.trace_request_ctx
    if isinstance(slot, Slot):
        slot.sent()
