"""Transfers of files: a few at once, beside the fetchers, from hosts that are not the API.

A transfer that breaks off goes on where it ended. Stopped, it leaves what came to the next run.
"""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Final

from anyio import create_task_group, current_time, to_thread

from etl.client.media import MediaClient, open_media
from etl.client.media_values import Begun, Described, MediaLimits, Received, Sink
from etl.client.values import TryLater
from etl.config.models import Connection, Media
from etl.errors import EtlError
from etl.lake.media_parts import MediaParts
from etl.pacing.clock import Clock
from etl.pacing.rules import retry_delay
from etl.run.world import Patience

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

_PROGRESS_BYTES: Final = 1 << 20


class Transfers:
    """The slots for transfers, and those under way. `parts` is where their bytes go."""

    def __init__(
        self, media: Media, parts: MediaParts, clock: Clock, random: Random, patience: Patience
    ) -> None:
        """Begin with all slots free."""
        self.parts = parts
        self.patience = patience
        self._media = media
        self._clock = clock
        self._random = random
        self._free = media.concurrency
        self._client: MediaClient | None = None
        self._group: TaskGroup | None = None
        self._watch: Watch | None = None

    @asynccontextmanager
    async def open(self, connection: Connection, watch: "Watch") -> AsyncIterator[None]:
        """Carry out transfers for as long as the block runs, and those under way at its end."""
        limits = MediaLimits(self._media.max_bytes, self._media.bytes_per_second)
        self._watch = watch
        async with (
            open_media(connection, limits, self._clock) as self._client,
            create_task_group() as self._group,
        ):
            yield

    @property
    def has_room(self) -> bool:
        """Whether a slot is free: only then is it asked where a file can be had."""
        return self._free > 0

    @property
    def under_way(self) -> int:
        """How many slots are taken."""
        return self._media.concurrency - self._free

    @property
    def bytes_received(self) -> int:
        """The bytes that have come in this run."""
        return 0 if self._client is None else self._client.bytes_received

    def take_slot(self) -> None:
        """Take a slot, for a file to be asked for."""
        self._free -= 1

    def give_back_slot(self) -> None:
        """Give a slot back."""
        self._free += 1

    def start(self, transfer: Callable[[], Coroutine[None, None, None]]) -> None:
        """Carry out a transfer, in a slot of its own."""
        assert self._group is not None  # noqa: S101 - whoever asks is within `open`
        self.take_slot()
        self._group.start_soon(self._carry_out, transfer)

    async def _carry_out(self, transfer: Callable[[], Coroutine[None, None, None]]) -> None:
        assert self._watch is not None  # noqa: S101 - as above
        try:
            await transfer()
        except EtlError as error:
            self._watch.on_error(error)
        self.give_back_slot()
        self._watch.on_end()

    def stop(self, grace_seconds: float) -> None:
        """Let those under way go on for a while, and no longer."""
        if self._group is not None:
            self._group.cancel_scope.deadline = current_time() + grace_seconds

    async def whole(self, table: str, object_id: str) -> Received | None:
        """Return a file that an earlier run has fetched, and could not land any more."""
        return await to_thread.run_sync(self.parts.part(table, object_id).whole)

    async def fetch(self, url: str, table: str, object_id: str) -> Received:
        """Fetch a file by its link, with patience as long as it makes progress.

        Raises what `MediaClient.transfer` does: TryLater once patience has ended.
        """
        assert self._client is not None  # noqa: S101 - as above
        sink, attempt = _Meter(self.parts.part(table, object_id)), 0
        while True:
            before = sink.received
            try:
                return await self._client.transfer(url, sink)
            except TryLater as later:
                attempt = 0 if sink.received - before >= _PROGRESS_BYTES else attempt + 1
                if attempt >= self.patience.attempts:
                    raise
                delay = retry_delay(attempt, later.hint_seconds, self._random)
            await self._clock.sleep(delay)


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told when a transfer has ended, and of an error that any other would meet too."""

    on_end: Callable[[], None]
    on_error: Callable[[EtlError], None]


@dataclass(slots=True)
class _Meter:
    """A sink, and how many bytes have come to it."""

    sink: Sink
    received: int = 0

    def resume(self) -> Begun | None:
        return self.sink.resume()

    def begin(self, file: Described) -> None:
        self.sink.begin(file)

    def append(self, chunk: bytes | bytearray) -> None:
        self.received += len(chunk)
        self.sink.append(chunk)

    def finish(self) -> Received:
        return self.sink.finish()

    def discard(self) -> None:
        self.sink.discard()
