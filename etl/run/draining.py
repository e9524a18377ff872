"""The last stage: takes kept frames to the landing, and closes its batches in time."""

from collections.abc import Callable
from dataclasses import dataclass

from anyio import EndOfStream, move_on_after
from anyio.streams.memory import MemoryObjectReceiveStream

from etl.client.values import Answer
from etl.lake.landing import Kept, Landing
from etl.ledger.values import Looked
from etl.pacing.clock import Clock
from etl.report.progress import Progress
from etl.run.queue import ByteBudget, size_of


@dataclass(frozen=True, slots=True)
class Drain:
    """Lands all that comes.

    `on_look` is told of each look once its pages have been read, `on_answer` of each answer
    once its record knows it, `on_idle` when all that came has been taken in.
    """

    landing: Landing
    land_every_seconds: float
    clock: Clock
    progress: Progress
    on_look: Callable[[Looked], None]
    on_answer: Callable[[Answer], None]
    on_idle: Callable[[], None]

    async def run(self, kept: MemoryObjectReceiveStream[Kept], budget: ByteBudget) -> None:
        """Take frames in order, and close a batch when it is full, old, or the last."""
        landing, clock = self.landing, self.clock
        began_at = clock.monotonic()
        async with kept:
            while True:
                due_in = began_at + self.land_every_seconds - clock.monotonic()
                frame = None
                try:
                    with move_on_after(None if landing.is_empty else max(0.0, due_in)):
                        frame = await kept.receive()
                except EndOfStream:
                    break
                if frame is not None:
                    if landing.is_empty:
                        began_at = clock.monotonic()
                    await self._add(frame)
                    budget.give_back(sum(size_of(item) for item in frame.items))
                    if budget.is_idle:
                        self.on_idle()
                if landing.is_due or frame is None:
                    await self._close_batch()
        await self._close_batch()

    async def _add(self, frame: Kept) -> None:
        await self.landing.add(frame)
        for item in frame.items:
            if isinstance(item, Looked):
                self.on_look(item)
            else:
                self.on_answer(item.answer)

    async def _close_batch(self) -> None:
        closed = await self.landing.close_batch()
        for row in closed.answers:
            self.progress.page_landed(row.answer.test_id or "", dict(row.rows))
        for name, answers in closed.new_fields.items():
            self.progress.new_field(name, answers)
        for look in closed.looks:
            self.progress.looked(look)
