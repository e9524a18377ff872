"""The queue between fetching and landing, bounded in bytes: whoever fills it waits."""

from dataclasses import dataclass
from typing import Any, Final

from anyio import Event, WouldBlock
from anyio.streams.memory import MemoryObjectSendStream

from etl.client.values import Fetched
from etl.ledger.values import Looked

Item = Fetched[Any] | Looked

BYTES_UNDER_WAY: Final = 4 * 1024 * 1024
"""Bodies that may wait between being fetched and being rendered; as read, they take ten times
the memory."""


def size_of(item: Item) -> int:
    """Return the bytes of body that an item holds in memory."""
    return len(item.answer.body) if isinstance(item, Fetched) else 0


class ByteBudget:
    """Bytes that may be under way at once; one item larger than all of it still passes."""

    def __init__(self, limit: int = BYTES_UNDER_WAY) -> None:
        """Begin with nothing under way."""
        self._limit = limit
        self._used = 0
        self._room = Event()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._used == 0

    async def take(self, size: int) -> None:
        """Wait until `size` bytes more may be under way."""
        while self._used and self._used + size > self._limit:
            await self._room.wait()
        self._used += size

    def give_back(self, size: int) -> None:
        """Say that `size` bytes have left the queue."""
        self._used -= size
        self._room.set()
        self._room = Event()  # a new one for those who find it full again


@dataclass(frozen=True, slots=True)
class Queue:
    """The fetchers' end of the queue."""

    items: MemoryObjectSendStream[Item]
    budget: ByteBudget

    async def put(self, item: Item) -> None:
        """Hand an item on, waiting while the queue is full."""
        if size := size_of(item):
            await self.budget.take(size)
        try:
            self.items.send_nowait(item)  # a third of the way of `send`, which lets others run
        except WouldBlock:
            await self.items.send(item)
