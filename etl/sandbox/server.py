"""Puts the sandbox on a loopback socket, and guards what it answers."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import anyio
import msgspec
from aiohttp import web

from etl.sandbox.control import add_control
from etl.sandbox.faults import Fault, FaultKind, striking
from etl.sandbox.media import MEDIA_PATH
from etl.sandbox.options import SandboxOptions
from etl.sandbox.routes import ROUTES, Answer, Asked, Refused, Route, falsify
from etl.sandbox.state import LoggedRequest, Sandbox
from etl.sandbox.transfers import transfer
from etl.sandbox.wire import WIRE, faulty

__all__ = ["Sandbox", "SandboxOptions", "open_sandbox", "serve"]

_PRIVATE: Final = {"Cache-Control": "private, no-store", "Pragma": "no-cache"}


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
    for route in ROUTES:
        app.router.add_get(route.path, partial(answers.api, route))
    # A signature is that of GET alone.
    media = f"{MEDIA_PATH}/{{folder:videos|clips|reels}}/{{object}}.mp4"
    app.router.add_get(media, partial(transfer, sandbox), allow_head=False)
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
        status, answer = self._sandbox.tokens.grant(
            form, self._sandbox.options.monotonic(), time.time()
        )
        for fault in striking(self._sandbox.faults, "token"):
            if fault.kind is FaultKind.TOKEN:
                answer = {**answer, **fault.value}
                answer = {name: value for name, value in answer.items() if value != "absent"}
            elif fault.kind is FaultKind.LEAK_SECRET:
                told = f"client secret {form.get('client_secret')} is wrong"
                status, answer = 401, {"error": "invalid_client", "error_description": told}
            else:
                return await faulty(request, fault, msgspec.json.encode(answer), {})
        return web.Response(
            body=msgspec.json.encode(answer),
            status=status,
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def api(self, route: Route, request: web.Request) -> web.StreamResponse:
        """Answer `GET` of an endpoint."""
        sandbox = self._sandbox
        if sandbox.options.latency_ms:
            await anyio.sleep(sandbox.options.latency_ms / 1000)
        now = sandbox.options.monotonic()
        within = sandbox.limiter.arrive(now)
        headers = {**_PRIVATE, **sandbox.limiter.headers(now)}
        asked = route.asked(sandbox, request.match_info, request.query)
        objects = (asked.session_id, asked.object_id)
        faults = striking(sandbox.faults, asked.endpoint, asked.test_id, objects)
        if within:
            status, answer = self._answered(route, request, asked, faults, now)
        else:
            status = HTTPStatus.TOO_MANY_REQUESTS
            answer = Answer(route.refusal(status, "Too many requests."))
        wire = next((fault for fault in faults if fault.kind in WIRE), None)
        told = wire.value if wire is not None and wire.kind is FaultKind.STATUS else status
        self._note(request, asked, now, int(told))
        if wire is not None and within:
            return await faulty(request, wire, answer.body, headers)
        for fault in faults:
            if fault.kind is FaultKind.HEADERS:
                headers |= fault.value
        return web.Response(
            body=answer.body, status=status, content_type=answer.content_type, headers=headers
        )

    def _note(self, request: web.Request, asked: Asked, now: float, status: int) -> None:
        token = self._sandbox.tokens.serial(request.headers.get("Authorization", ""))
        logged = LoggedRequest(
            at=now,
            path=request.path,
            test_id=asked.test_id,
            query=dict(asked.query),
            status=status,
            token=token,
            endpoint=asked.endpoint,
            session_id=asked.session_id,
            object_id=asked.object_id,
        )
        self._sandbox.note(logged)

    def _answered(
        self,
        route: Route,
        request: web.Request,
        asked: Asked,
        faults: Sequence[Fault],
        now: float,
    ) -> tuple[HTTPStatus, Answer]:
        """Return status and answer as published, falsified where a fault says so."""
        sandbox = self._sandbox
        status = HTTPStatus.UNAUTHORIZED
        if not sandbox.tokens.accepts(request.headers.get("Authorization", ""), now):
            return status, Answer(route.refusal(status, "Unauthorized"))
        refused = sandbox.forbidden.get(asked.test_id or "")
        if refused is not None:
            status = HTTPStatus(refused)
            return status, Answer(route.refusal(status, "Refused"))
        try:
            route.check(sandbox, asked)
            sandbox.about_to_answer(asked.test_id, asked.endpoint)
            answer = route.answer(sandbox, asked, faults)
        except Refused as refusal:
            return refusal.status, Answer(route.refusal(refusal.status, refusal.message))
        return HTTPStatus.OK, falsify(asked, answer, faults)
