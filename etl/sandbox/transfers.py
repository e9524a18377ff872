"""Media on the wire: signed links, ranges, and what goes wrong with them.

Its host is not the API: it has no rate limit and wants no token, and whoever brings one has
made a mistake that is counted.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Final

import anyio
from aiohttp import web

from etl.sandbox.faults import Fault, FaultKind, striking
from etl.sandbox.media import MediaFile, range_of
from etl.sandbox.state import LoggedRequest, Sandbox
from etl.sandbox.wire import WIRE, faulty

_HUGE_BYTES: Final = 100_000_000_000
_ZEROS: Final = bytes(64 * 1024)


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes that are promised and those that are sent, from `start` to before `end`."""

    start: int
    end: int
    status: int = 200
    promised_bytes: int | None = None
    breaks: FaultKind | None = None


async def transfer(sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
    """Answer `GET` of a file."""
    object_id = request.match_info["object"].lower()
    faults = striking(sandbox.faults, "media", None, (object_id,))
    kinds = {fault.kind for fault in faults}
    if FaultKind.REPLACED in kinds:
        sandbox.replace_media(object_id)
    file = sandbox.file(request.match_info["folder"], object_id)
    refused = _refusal(sandbox, request, file, kinds)
    if refused is not None:
        _note(sandbox, request, object_id, 403)
        body = f"<?xml version='1.0'?><Error><Code>{refused}</Code></Error>"
        return web.Response(status=403, text=body, content_type="application/xml")
    for fault in faults:
        if fault.kind in WIRE - {FaultKind.CUT_BODY}:
            status = int(fault.value) if fault.kind is FaultKind.STATUS else 200
            _note(sandbox, request, object_id, status)
            return await faulty(request, fault, next(file.chunks(), b""), {})
    try:
        part = _part(request, file)
    except ValueError:
        _note(sandbox, request, object_id, 416)
        return web.Response(status=416, headers={"Content-Range": f"bytes */{file.size_bytes}"})
    for fault in faults:
        part = _falsified(part, file, fault)
    _note(sandbox, request, object_id, part.status)
    return await _sent(sandbox, request, file, part, faults)


def _refusal(
    sandbox: Sandbox, request: web.Request, file: MediaFile, kinds: set[FaultKind]
) -> str | None:
    if "Authorization" in request.headers:
        sandbox.tokens_at_media += 1
        return "InvalidArgument"
    if FaultKind.EXPIRED in kinds:
        return "AccessDenied"
    return sandbox.links.refusal(file.name, dict(request.query), time.time())


def _part(request: web.Request, file: MediaFile) -> _Part:
    """Return what is asked for; raises ValueError if there is nothing of it."""
    whole = _Part(0, file.size_bytes)
    condition = request.headers.get("If-Range", file.etag)
    if condition not in (file.etag, file.last_modified):
        return whole
    asked = range_of(request.headers.get("Range", ""), file.size_bytes)
    return whole if asked is None else _Part(*asked, status=206)


def _falsified(part: _Part, file: MediaFile, fault: Fault) -> _Part:
    match fault.kind:
        case FaultKind.SHORT:
            return replace(part, end=(part.start + part.end) // 2)
        case FaultKind.CUT_BODY | FaultKind.STALL:
            half, promised = (part.start + part.end) // 2, part.end - part.start
            return replace(part, end=half, promised_bytes=promised, breaks=fault.kind)
        case FaultKind.WRONG_RANGE:
            return replace(part, start=min(part.start + 7, file.size_bytes - 1), status=206)
        case FaultKind.HUGE:
            return replace(part, promised_bytes=int(fault.value or _HUGE_BYTES))
        case _:
            return part


async def _sent(
    sandbox: Sandbox, request: web.Request, file: MediaFile, part: _Part, faults: Iterable[Fault]
) -> web.StreamResponse:
    promised = part.promised_bytes or part.end - part.start
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(promised),
        "Content-Type": "video/mp4",
        "ETag": file.etag,
        "Last-Modified": file.last_modified,
    }
    if part.status == 206:
        end = part.end if part.breaks is None else part.start + promised
        headers["Content-Range"] = f"bytes {part.start}-{end - 1}/{file.size_bytes}"
    for fault in faults:
        if fault.kind is FaultKind.HEADERS:
            headers |= fault.value
    headers = {name: value for name, value in headers.items() if value != "absent"}
    response = web.StreamResponse(status=part.status, headers=headers)
    await response.prepare(request)
    chunks: Iterator[bytes] = file.chunks(part.start, part.end)
    if part.promised_bytes is not None and part.breaks is None:
        chunks = chain(chunks, repeat(_ZEROS))
    left = promised
    with suppress(ConnectionResetError):  # the client has gone
        while left > 0 and (chunk := next(chunks, None)) is not None:
            sandbox.media_bytes += len(chunk)
            left -= len(chunk)
            await response.write(chunk)
    if part.breaks is FaultKind.STALL:
        await anyio.sleep_forever()
    if part.breaks is FaultKind.CUT_BODY and request.transport is not None:
        request.transport.close()
    return response


def _note(sandbox: Sandbox, request: web.Request, object_id: str, status: int) -> None:
    logged = LoggedRequest(
        at=time.monotonic(),
        path=request.path,
        test_id=None,
        query=dict(request.query),
        status=status,
        token="",
        endpoint="media",
        object_id=object_id,
        range=request.headers.get("Range"),
    )
    sandbox.note_transfer(logged)
