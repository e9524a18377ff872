"""What faults do to an answer on its way: another answer, a broken one, or none."""

import gzip
import socket
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import anyio
import anyio.lowlevel
from aiohttp import web

from etl.sandbox.faults import Fault, FaultKind

_BOMB_BYTES: Final = 64 * 1024 * 1024

WIRE: Final = frozenset(
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
"""The kinds that act on the wire; the others falsify what is answered."""


async def faulty(
    request: web.Request, fault: Fault, body: bytes, headers: Mapping[str, str]
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


@lru_cache
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
