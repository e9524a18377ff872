"""A network without sockets: servers and clients of one loop talk through memory.

`VirtualNetworkLoop` answers `create_server`, `sock_connect` and `create_connection` itself,
so that aiohttp's own server and client run unchanged: bytes leave one protocol and reach
the other after a delay that the test draws. With virtual time, hours of traffic take what
the code itself takes, and the same delays give the same run, byte by byte.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final

from tests.virtual_time import VirtualTimeLoop

_TICK_SECONDS: Final = 1e-6
"""Keeps what one end sends in its order: timers of the same moment have none."""

Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]


class _Socket:
    """What servers ask of their socket: a name, and to close with a reset."""

    family = socket.AF_UNIX  # so that nobody tunes it

    def __init__(self, address: Address) -> None:
        self.address = address
        self.resets = False

    def getsockname(self) -> Address:
        return self.address

    def setsockopt(self, level: int, option: int, value: object) -> None:
        self.resets = self.resets or (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)


class _End(asyncio.Transport):
    """One end of a connection."""

    peer: "_End"

    def __init__(
        self, network: "Network", protocol: asyncio.BaseProtocol, extra: dict[str, Any]
    ) -> None:
        super().__init__(extra)
        self._network = network
        self._protocol = protocol
        self._arrives_at = 0.0
        self._paused = False
        self._held: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._closing = False
        self._lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes to the other end."""
        if not self._closing and data:
            self._send(self.peer.received, bytes(data))

    def _send(self, deliver: Callable[..., None], *args: object) -> None:
        loop = self._network.loop
        due = loop.time() + self._network.delay()
        self._arrives_at = max(due, self._arrives_at + _TICK_SECONDS)
        loop.call_at(self._arrives_at, self.peer.take, deliver, *args)

    def take(self, deliver: Callable[..., None], *args: object) -> None:
        """Take in what has arrived, unless the reader has asked to wait."""
        if self._paused:
            self._held.append((deliver, args))
        elif not self._lost:
            deliver(*args)

    def received(self, data: bytes) -> None:
        """Hand bytes to the reader."""
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.data_received(data)

    def ended(self) -> None:
        """Tell the reader that nothing more comes."""
        assert isinstance(self._protocol, asyncio.Protocol)
        if not self._protocol.eof_received():
            self.lose(None)

    def lose(self, error: Exception | None) -> None:
        """End the connection for whoever is at this end."""
        if self._lost:
            return
        self._lost = self._closing = True
        self._network.ends.pop(self, None)
        self._protocol.connection_lost(error)
        used = self.get_extra_info("socket")
        if isinstance(used, socket.socket):
            used.close()

    def close(self) -> None:
        """Close in order, or with a reset if the socket was told to."""
        used = self.get_extra_info("socket")
        if isinstance(used, _Socket) and used.resets:
            self.abort()
        elif not self._closing:
            self._closing = True
            self._send(self.peer.ended)
            self._network.loop.call_soon(self.lose, None)

    def abort(self) -> None:
        """Break the connection."""
        if not self._closing:
            self._closing = True
            self._send(self.peer.lose, ConnectionResetError(104, "Connection reset by peer"))
            self._network.loop.call_soon(self.lose, None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        while self._held and not self._paused:
            deliver, args = self._held.popleft()
            self._network.loop.call_soon(self.take, deliver, *args)

    def is_reading(self) -> bool:
        return not self._paused

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return False

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol


class _Server(asyncio.AbstractServer):
    """A listener: its address, and the factory of its protocols."""

    def __init__(self, network: "Network", address: Address, factory: Factory) -> None:
        self.factory = factory
        self.sockets = [_Socket(address)]
        self._network = network
        self._address = address

    def close(self) -> None:
        self._network.listeners.pop(self._address, None)

    async def wait_closed(self) -> None:
        """Return at once: closing takes no time."""

    def is_serving(self) -> bool:
        return self._address in self._network.listeners

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._network.loop

    async def start_serving(self) -> None:
        """Do nothing: it serves from the start."""

    async def serve_forever(self) -> None:
        await asyncio.Event().wait()


class Network:
    """Who listens, who is connected, and how long bytes are under way."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.delay: Callable[[], float] = lambda: 0.001
        self.listeners: dict[Address, _Server] = {}
        self.ends: dict[_End, None] = {}
        self.unplugged = False
        self._ports = count(40_000)

    def listen(self, host: str, port: int, factory: Factory) -> _Server:
        """Listen; port 0 takes a free one."""
        address = (host, port or next(self._ports))
        self.listeners[address] = _Server(self, address, factory)
        return self.listeners[address]

    def connect(self, factory: Factory, address: Address, used: socket.socket) -> _End:
        """Connect two protocols, and return the client's end."""
        server = self.listeners[address].factory()
        protocol = factory()
        here = _End(self, protocol, {"socket": used, "peername": address})
        there = _End(self, server, {"socket": _Socket(address), "peername": ("127.0.0.1", 1)})
        here.peer, there.peer = there, here
        self.ends[here] = None
        server.connection_made(there)
        protocol.connection_made(here)
        return here

    def sever(self) -> None:
        """Break every connection as a dead client does, and let nobody connect."""
        self.unplugged = True
        for end in list(self.ends):
            end.abort()


class VirtualNetworkLoop(VirtualTimeLoop):
    """A loop in virtual time, whose sockets lead to its own servers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network(self)
        self._dialled: dict[int, Address] = {}

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Factory, host: str, port: int, **_: object
    ) -> _Server:
        return self.network.listen(host, port, protocol_factory)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await asyncio.sleep(self.network.delay())
        called = (str(address[0]), int(address[1]))
        if self.network.unplugged or called not in self.network.listeners:
            raise ConnectionRefusedError(111, "Connection refused")
        self._dialled[sock.fileno()] = called

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Factory, *, sock: socket.socket, **_: object
    ) -> tuple[_End, asyncio.BaseProtocol]:
        end = self.network.connect(protocol_factory, self._dialled.pop(sock.fileno()), sock)
        return end, end.get_protocol()
