"""Makes answers durable: gathers them into frames of the inbox, then passes them on."""

from collections.abc import Sequence
from typing import Final

from anyio import EndOfStream, WouldBlock, move_on_after
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from etl.client.values import Answer, Fetched
from etl.lake.landing import Kept
from etl.ledger.threaded import LedgerThread
from etl.pacing.clock import Clock
from etl.run.queue import Item, size_of

FRAME_BYTES: Final = 4 * 1024 * 1024
GATHER_SECONDS: Final = 0.05
COMMIT_SECONDS: Final = 0.25


async def keep(
    items: MemoryObjectReceiveStream[Item],
    kept: MemoryObjectSendStream[Kept],
    ledger: LedgerThread,
    clock: Clock,
) -> None:
    """Keep answers until the stream ends, and pass each frame on in order.

    A frame is committed at once when nothing follows it, under load every 250 ms.
    """
    committed_at = clock.monotonic()
    async with items, kept:
        async for first in items:
            frame = await _gather(first, items)
            answers = [item.answer for item in frame if isinstance(item, Fetched)]
            number = None
            if answers:
                idle = items.statistics().current_buffer_used == 0
                now = clock.monotonic()
                durable = idle or now - committed_at >= COMMIT_SECONDS
                number = await ledger.call(_keep, ledger, answers, durable)
                committed_at = now if durable else committed_at
            await kept.send(Kept(number, frame))


def _keep(ledger: LedgerThread, answers: Sequence[Answer], durable: bool) -> int:  # noqa: FBT001
    number = ledger.ledger.keep(answers)
    if durable:
        ledger.ledger.commit()
    return number


async def _gather(first: Item, items: MemoryObjectReceiveStream[Item]) -> list[Item]:
    """Return what comes within 50 ms or until 4 MB, the first item included.

    It ends with what was read of its answers, where that follows at once: landed without,
    a page would be known by its rows but not to the listing, and be asked again after a kill.
    """
    frame = [first]
    size = size_of(first)
    with move_on_after(GATHER_SECONDS):
        while size < FRAME_BYTES or isinstance(frame[-1], Fetched):
            try:
                item = items.receive_nowait()
            except WouldBlock:
                try:
                    item = await items.receive()
                except EndOfStream:
                    break
            except EndOfStream:
                break
            frame.append(item)
            size += size_of(item)
    return frame
