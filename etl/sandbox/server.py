"""Puts the sandbox on a loopback socket, and does to the wire what faults ask for."""

import gzip
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final
from uuid import UUID

import anyio
import anyio.lowlevel
import msgspec
from aiohttp import web

from etl.sandbox.control import add_control
from etl.sandbox.faults import Fault, FaultKind, Page, falsified, striking
from etl.sandbox.pages import BadParameters, page_of, window_of
from etl.sandbox.state import LoggedRequest, Sandbox, SandboxOptions

__all__ = ["Sandbox", "SandboxOptions", "open_sandbox", "serve"]

_PRIVATE: Final = {"Cache-Control": "private, no-store", "Pragma": "no-cache"}
_BOMB_BYTES: Final = 64 * 1024 * 1024


@asynccontextmanager
async def open_sandbox(
    options: SandboxOptions | None = None, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Sandbox]:
    """Serve a sandbox in this event loop for as long as the block runs.

    Port 0 takes a free one. Raises OSError if it cannot listen, ValueError for a host that
    is not this machine.
    """
    if not ip_address(host).is_loopback:
        raise ValueError(f"{host} is not a loopback address")
    sandbox = Sandbox(options or SandboxOptions())
    app = web.Application()
    answers = _Answers(sandbox)
    for path in ("/api/v2/sessionResults", "/api/v2/sessionResults/"):
        app.router.add_get(path, answers.listing)
    app.router.add_post(sandbox.token_path, answers.token)
    add_control(app, sandbox)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        _, bound, *_ = runner.addresses[0]
        sandbox.url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        yield sandbox
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def serve(
    options: SandboxOptions, host: str, port: int, on_ready: Callable[[Sandbox], None]
) -> None:
    """Serve until cancelled; `on_ready` is called when it listens."""
    async with open_sandbox(options, host, port) as sandbox:
        on_ready(sandbox)
        await anyio.sleep_forever()


class _Answers:
    """Answers requests, as published or as faults make it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def token(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST` to the token endpoint."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        status, answer = self._sandbox.tokens.grant(form, time.monotonic(), time.time())
        for fault in striking(self._sandbox.faults, "token", None):
            if fault.kind is FaultKind.TOKEN:
                answer = {**answer, **fault.value}
                answer = {name: value for name, value in answer.items() if value != "absent"}
            elif fault.kind is FaultKind.LEAK_SECRET:
                told = f"client secret {form.get('client_secret')} is wrong"
                status, answer = 401, {"error": "invalid_client", "error_description": told}
            else:
                return await self._faulty(request, fault, msgspec.json.encode(answer), {})
        return web.Response(
            body=msgspec.json.encode(answer),
            status=status,
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /api/v2/sessionResults`."""
        sandbox = self._sandbox
        if sandbox.options.latency_ms:
            await anyio.sleep(sandbox.options.latency_ms / 1000)
        now = time.monotonic()
        test_id = request.query.get("testId", "").lower()
        within = sandbox.limiter.arrive(now)
        headers = {**_PRIVATE, **sandbox.limiter.headers(now)}
        faults = list(striking(sandbox.faults, "page", test_id)) if sandbox.faults else []
        status, body = 429, b'{"message":"Too many requests."}'
        if within:
            status, body = self._answered(request, test_id, faults, now)
        wire = next((fault for fault in faults if fault.kind in _WIRE), None)
        told = wire.value if wire is not None and wire.kind is FaultKind.STATUS else status
        self._note(request, test_id, now, int(told))
        if wire is not None and within:
            return await self._faulty(request, wire, body, headers)
        for fault in faults:
            if fault.kind is FaultKind.HEADERS:
                headers |= fault.value
        return web.Response(
            body=body, status=status, content_type="application/json", headers=headers
        )

    def _note(self, request: web.Request, test_id: str, now: float, status: int) -> None:
        token = self._sandbox.tokens.serial(request.headers.get("Authorization", ""))
        logged = LoggedRequest(now, request.path, test_id, dict(request.query), status, token)
        self._sandbox.note(logged)

    def _answered(
        self, request: web.Request, test_id: str, faults: Sequence[Fault], now: float
    ) -> tuple[int, bytes]:
        """Return status and body as published, falsified where a fault says so."""
        sandbox = self._sandbox
        if not sandbox.tokens.accepts(request.headers.get("Authorization", ""), now):
            return 401, b'{"message":"Unauthorized"}'
        refused = sandbox.forbidden.get(test_id)
        if refused is not None:
            return refused, b'{"message":"Refused"}'
        try:
            UUID(test_id)
            limit, offset = window_of(request.query, sandbox.options.spelling)
        except (ValueError, BadParameters) as error:
            return 400, msgspec.json.encode({"message": [str(error)], "error": "Bad Request"})
        sandbox.about_to_answer(test_id)
        page = page_of(test_id, sandbox.listing(test_id), limit, offset)
        for fault in faults:
            page = falsified(page, fault, lambda: self._first_page(test_id, limit))
        return 200, page.body()

    def _first_page(self, test_id: str, limit: int) -> Page:
        return page_of(test_id, self._sandbox.listing(test_id), limit, 0)

    async def _faulty(
        self, request: web.Request, fault: Fault, body: bytes, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Answer as a broken server or network does."""
        match fault.kind:
            case FaultKind.STATUS:
                told = {**headers, **fault.headers}
                return web.Response(status=int(fault.value), text="fault", headers=told)
            case FaultKind.BODY:
                text = str(fault.value)
                return web.Response(body=text.encode(), headers=headers)
            case FaultKind.TRUNCATED_JSON:
                return web.Response(
                    body=body[: len(body) // 2], content_type="application/json", headers=headers
                )
            case FaultKind.REDIRECT:
                return _redirect(request, str(fault.value))
            case FaultKind.HANG:
                await anyio.sleep_forever()
            case FaultKind.CORRUPT_GZIP:
                return _encoded(b"\x1f\x8b\x08\x00" + body[:200], "gzip", headers)
            case FaultKind.BOMB:
                encoding = str(fault.value or "gzip")
                bomb = await anyio.to_thread.run_sync(_bomb, encoding)
                return _encoded(bomb, encoding, headers)
            case _:
                pass
        return await _on_the_wire(request, fault.kind, body)


_WIRE: Final = frozenset(
    {
        FaultKind.STATUS,
        FaultKind.HANG,
        FaultKind.SLOW_BODY,
        FaultKind.CUT_HEADERS,
        FaultKind.CUT_BODY,
        FaultKind.RESET,
        FaultKind.TRUNCATED_JSON,
        FaultKind.CORRUPT_GZIP,
        FaultKind.BOMB,
        FaultKind.BODY,
        FaultKind.REDIRECT,
    }
)


def _redirect(request: web.Request, target: str) -> web.Response:
    if target == "slash":
        path = request.path
        path = path.rstrip("/") if path.endswith("/") else path + "/"
        target = f"{path}?{request.query_string}"
    elif target == "loop":
        target = str(request.rel_url)
    return web.Response(status=307, headers={"Location": target})


def _encoded(body: bytes, encoding: str, headers: Mapping[str, str]) -> web.Response:
    response = web.Response(body=body, headers=headers)
    response.headers["Content-Encoding"] = encoding
    return response


def _bomb(encoding: str) -> bytes:
    """Return a small body that is a large one when it is decoded."""
    body = b'{"sessions":[' + b" " * _BOMB_BYTES + b"]}"
    if encoding == "gzip":
        return gzip.compress(body, compresslevel=1)
    import pyarrow as pa  # noqa: PLC0415 - a sandbox without bombs does not need it

    codec = pa.Codec("brotli", 1) if encoding == "br" else pa.Codec("zstd", 1)
    return codec.compress(body, asbytes=True)


async def _on_the_wire(request: web.Request, kind: FaultKind, body: bytes) -> web.StreamResponse:
    """Write to the socket itself, and break off as the fault asks."""
    transport = request.transport
    if transport is None:
        return web.Response(status=500)
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    match kind:
        case FaultKind.CUT_HEADERS:
            transport.write(head[:20])
        case FaultKind.CUT_BODY:
            transport.write(head + body[: len(body) // 2])
        case FaultKind.SLOW_BODY:
            transport.write(head)
            for byte in body:
                transport.write(bytes((byte,)))
                await anyio.sleep(0.2)
        case _:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await anyio.lowlevel.checkpoint()
    transport.close()
    return web.Response()
