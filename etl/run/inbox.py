"""Passes on what an earlier process paid for and did not land: the inbox, frame by frame."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from etl.client.values import Answer, Fetched, UnreadableBodyError
from etl.lake.landing import Kept
from etl.lake.media_parts import MediaParts
from etl.lake.personal import PersonalData
from etl.paging.values import PageView
from etl.run.queue import ByteBudget, size_of
from etl.run.stores import Stores
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.cursor_pages import CursorPage
from etl.tables.receipts import Became, Receipt
from etl.tables.registry import endpoints, tables
from etl.tables.sessions import SessionsPage

Key = tuple[str, str | None, str | None, str | None]
"""An answer by endpoint, test, session and object."""


@dataclass(slots=True)
class Left:
    """What lay in the inbox at the start: pages of listings by test and spelling, and the rest.

    `others` holds what was read in each answer, where a later request depends on it, and
    `came_at_us` when it came; `unknown` counts the answers, by endpoint, that only a newer
    version can read: they stay.
    """

    personal: PersonalData
    pages: dict[str, dict[str, PageView]] = field(default_factory=dict)
    others: dict[Key, Any] = field(default_factory=dict)
    came_at_us: dict[Key, int] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)

    def sentences(self) -> list[str]:
        """Say what of a newer version waits for it."""
        return [
            f"Kept in the inbox: what a newer version asked of the endpoint {endpoint!r} "
            f"({count}); that version will land it."
            for endpoint, count in self.unknown.items()
        ]

    def note(self, fetched: Fetched[Any]) -> None:
        """Take in an answer."""
        answer, content = fetched.answer, fetched.content
        is_classic = answer.endpoint == COMPLETED_SESSIONS.name and isinstance(content, CursorPage)
        if isinstance(content, SessionsPage) or is_classic:
            pages = self.pages.setdefault(answer.test_id or "", {})
            pages[answer.object_id or ""] = self.personal.view(answer, content)
        else:
            key = (answer.endpoint, answer.test_id, answer.session_id, answer.object_id)
            self.others[key] = content if answer.session_id is None else None
            self.came_at_us[key] = answer.fetched_at_us

    def since(self, at_us: int) -> list[Key]:
        """Return the answers that came since then, but for pages of listings."""
        return [key for key, came_at_us in self.came_at_us.items() if came_at_us >= at_us]


async def pass_on(
    put_kept: MemoryObjectSendStream[Kept], stores: Stores, budget: ByteBudget, parts: MediaParts
) -> Left:
    """Hand every frame of the inbox to the landing, and return what it was.

    A receipt whose file is there no more is worth nothing, and left out.
    """
    left, ledger = Left(stores.personal), stores.ledger
    async with put_kept:
        for number in await ledger.call(ledger.ledger.frames):
            answers = await ledger.call(ledger.ledger.frame, number)
            strange = Counter(answer.endpoint for answer in answers if _is_unknown(answer))
            if strange:
                left.unknown += strange
                answers = await ledger.call(ledger.ledger.set_apart, number, _is_unknown)
            if not answers:
                continue
            found = [Fetched(answer, _content(answer)) for answer in answers]
            items = [item for item in found if not await _is_void(item, parts)]
            await budget.take(sum(size_of(item) for item in items))
            await put_kept.send(Kept(number, items))
            for item in items:
                left.note(item)
    return left


def _is_unknown(answer: Answer) -> bool:
    return answer.endpoint not in endpoints()


async def _is_void(item: Fetched[Any], parts: MediaParts) -> bool:
    answer, receipt = item.answer, item.content
    if not isinstance(receipt, Receipt) or receipt.became is not Became.FETCHED:
        return False
    table = next(
        name
        for name, one in tables().items()
        if one.files is not None and one.files.receipt.name == answer.endpoint
    )
    part = parts.part(table, answer.object_id or answer.session_id or "")
    whole = await to_thread.run_sync(part.whole)
    return whole is None or whole.sha256 != receipt.sha256


def _content(answer: Answer) -> Any:  # noqa: ANN401 - whatever its endpoint reads
    try:
        return endpoints()[answer.endpoint].decode(answer.body)
    except UnreadableBodyError:
        return None
