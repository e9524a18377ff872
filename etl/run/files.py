"""The files of a table: where each can be had is asked just before it is fetched.

The answer to that is a secret with an hour's life, and is not kept. What is kept is a receipt,
an answer like any other: the row, and its file beside it, land with the batch. What the API
is still making is asked for a few times more, then left to a later run.
"""

import heapq
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from anyio import CancelScope

from etl.client.media_values import FileRefused, LinkRefused, Received
from etl.client.values import Answer, Fetched, Request, TryKind, TryLater
from etl.errors import NotFound, TestFailed
from etl.lake.names import media_path
from etl.lake.partitions import Layout
from etl.ledger.afresh import asked_for
from etl.ledger.due import Feeds
from etl.ledger.held import objects_due
from etl.ledger.records import Record
from etl.ledger.values import Due
from etl.run.follow_ups import Dues
from etl.run.inbox import Key
from etl.run.line import Leased, Line
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.run.transfers import Transfers
from etl.tables.downloads import ERROR, GENERATED, Download
from etl.tables.receipts import LISTED, Became, Receipt, encode
from etl.tables.values import AnyTable, FileSource

MOST_LINKS: Final = 4
"""How often it is asked anew where a file can be had, because a link has died."""


@dataclass(frozen=True, slots=True)
class FileDue:
    """A file to be had: that of a session or, where `object_id` says so, of an object.

    `folder` is its row's in the lake. `links` counts those that have died, `polls` how often
    it was still being made.
    """

    test_id: str
    session_id: str | None
    object_id: str | None
    folder: str
    links: int = 0
    polls: int = 0

    @property
    def name(self) -> str:
        """What it is called within its table."""
        return self.object_id or self.session_id or ""


@dataclass(frozen=True, slots=True)
class Kind:
    """The files of one table: how they are had and where they lie; `download` or only list.

    `dues` decides of which sessions, where each has one.
    """

    table: AnyTable
    layout: Layout
    download: bool
    dues: Dues

    @property
    def files(self) -> FileSource:
        """What is asked where each is, and what its receipt is."""
        assert self.table.files is not None  # noqa: S101 - only tables with files are asked here
        return self.table.files

    def due(self, record: Record, feeds: Feeds, test_id: str, now_us: int) -> Iterator[FileDue]:
        """Yield the files of a test that are to be asked for by now, newest first."""
        table, receipt = self.table.name, self.files.receipt.name
        if self.table.lists_files:
            for object_id, held in objects_due(record, table, receipt, now_us):
                folder = self.layout.folder(test_id, held.session)
                yield FileDue(test_id, held.session_id, object_id, folder)
        elif feeds.has(test_id, receipt):
            for session_id in self.dues.of(record, self.files.receipt, now_us):
                name = session_id or ""
                session = record.due.get(name) or asked_for(record, receipt, name, now_us)
                yield FileDue(test_id, session_id, None, self.layout.folder(test_id, session))


class Files:
    """The files of one table that are due, as a source of errands."""

    def __init__(
        self,
        kind: Kind,
        feeds: Feeds,
        stores: Stores,
        queue: Queue,
        transfers: Transfers,
        *,
        in_inbox: Collection[Key],
    ) -> None:
        """Begin with nothing asked. `in_inbox` are answers that an earlier process has kept."""
        self.failures: dict[str, Counter[str]] = {}
        self._kind = kind
        self._feeds = feeds
        self._stores = stores
        self._queue = queue
        self._transfers = transfers
        self._in_inbox = in_inbox
        self._to_be_listed: set[str] = set()
        self._to_open: list[tuple[int, str]] = []
        self._noted: set[str] = set()  # the tests in it
        self._under_way = 0  # being opened, or transferred
        self._line = Line(self, on_end=transfers.give_back_slot)
        self._met: set[tuple[str, str]] = set()  # what the record does not tell is taken care of

    @property
    def is_done(self) -> bool:
        """Whether all that is due has been had, and no list is under way that may name more."""
        if self._to_be_listed or self._to_open or self.left:
            return False
        return self._queue.budget.is_idle or not self._kind.table.lists_files

    @property
    def left(self) -> int:
        """How many files are left, as far as it is known."""
        return self._line.left + self._under_way

    @property
    def not_had(self) -> Iterator[tuple[str, str]]:
        """The files, by table and name, that were met and not landed: some may have begun."""
        return ((self._kind.table.name, name) for _, name in self._met)

    def expect(self, test_ids: Iterable[str]) -> None:
        """Take in tests that this run is going to look at."""
        self._to_be_listed.update(test_ids)

    def known(self, due_by_test: Mapping[str, Due]) -> None:
        """Take in what is due of tests whose listing is known."""
        for test_id, due in due_by_test.items():
            if test_id not in self._to_be_listed:
                self._note(test_id, due)

    def listed(self, test_id: str, due: Due) -> None:
        """Take in that a test's look has ended, and what is due of it."""
        if test_id in self._to_be_listed:
            self._to_be_listed.discard(test_id)
            self._note(test_id, due)

    def not_listed(self, test_id: str) -> None:
        """Take in that a test could not be looked at: nothing more is asked of it."""
        self._to_be_listed.discard(test_id)

    def landing(self, answer: Answer) -> None:
        """Take in that the record knows an answer now: a list may have named files."""
        table, test_id = self._kind.table, answer.test_id or ""
        if answer.endpoint == self._kind.files.receipt.name:
            self._met.discard((test_id, answer.object_id or answer.session_id or ""))
        elif answer.endpoint == table.endpoint.name:
            self._note(test_id, Due())

    def _note(self, test_id: str, due: Due) -> None:
        if (due.sessions or self._kind.table.lists_files) and test_id not in self._noted:
            self._noted.add(test_id)
            heapq.heappush(self._to_open, (-(due.newest_us or 0), test_id))

    def next(self, now: float, now_us: int) -> Leased[FileDue] | None:
        """Lease the file to ask for next, if there is a slot for its transfer."""
        del now_us
        errand = self._line.next(now) if self._transfers.has_room else None
        if errand is not None:
            self._transfers.take_slot()
        return errand

    def to_open(self, now_us: int) -> Awaitable[None] | None:
        """Look up what is due of the next test."""
        if self._line.is_ready or not self._to_open:
            return None
        _, test_id = heapq.heappop(self._to_open)
        self._noted.discard(test_id)
        self._under_way += 1
        return self._open(test_id, now_us)

    async def _open(self, test_id: str, now_us: int) -> None:
        record = await self._stores.records.look_up(test_id)
        receipt = self._kind.files.receipt.name
        for due in list(self._kind.due(record, self._feeds, test_id, now_us)):
            key = (test_id, due.name)
            paid = (receipt, test_id, due.session_id, due.object_id) in self._in_inbox
            if paid or key in self._met:
                continue
            self._met.add(key)
            whole = await self._whole(due)
            if whole is not None:
                await self._hand_on(due, _fetched(due, whole))
            else:
                self._line.add([due])
        self._under_way -= 1

    async def _whole(self, due: FileDue) -> Received | None:
        """Return a file that is here already: its place need not be asked for."""
        if not self._kind.download:
            return None
        return await self._transfers.whole(self._kind.table.name, due.name)

    def seconds_to_next(self, now: float, now_us: int) -> float | None:
        """Return the wait for the next that was delayed; None while there is no slot for it."""
        del now_us
        return self._line.seconds_to_next(now) if self._transfers.has_room else None

    # What the errands tell.

    def request(self, wanted: FileDue, attempt: int) -> Request[Download]:
        """Return the request for a file's place."""
        return Request(
            self._kind.files.address,
            test_id=wanted.test_id,
            session_id=wanted.session_id,
            object_id=wanted.object_id,
            attempt=attempt,
        )

    async def answered(self, wanted: FileDue, fetched: Fetched[Download]) -> None:
        """Fetch a file whose place is known now; or see what became of it otherwise.

        The answer itself is a secret, and goes no further.
        """
        download = fetched.content
        if download.object_id is not None and download.object_id.lower() != wanted.name.lower():
            raise TryLater("the answer is about another file", kind=TryKind.NOT_ASKED)
        if download.status == GENERATED and download.url is not None:
            if self._kind.download:
                self._under_way += 1
                self._transfers.start(partial(self._transfer, wanted, download.url))
            else:
                await self._hand_on(wanted, LISTED)
        elif download.status == ERROR:
            gone = Receipt(Became.GIVEN_UP, reason="the API could not make it")
            await self._hand_on(wanted, gone)
        elif wanted.polls < len(polls := self._transfers.patience.polls):
            not_before = self._stores.clock.monotonic() + polls[wanted.polls]
            self._line.add_later(replace(wanted, polls=wanted.polls + 1), not_before)
        else:
            await self._hand_on(wanted, Receipt(Became.PENDING))

    async def failed(self, wanted: FileDue, error: TestFailed) -> None:
        """Pass on that the API has nothing, yet or at all; leave all else to the next run."""
        if not isinstance(error, NotFound):
            self._leave(wanted, error.what)
        elif wanted.object_id is not None:
            await self._hand_on(wanted, Receipt(Became.PENDING))
        else:
            endpoint, now_us = self._kind.files.receipt.name, self._stores.now_us()
            answer = Answer(endpoint, wanted.test_id, wanted.session_id, None, 404, now_us, b"")
            await self._queue.put(Fetched(answer, None))

    async def gave_up(self, wanted: FileDue, later: TryLater) -> None:
        """Leave it to the next run."""
        self._leave(wanted, later.reason)

    def _leave(self, due: FileDue, why: str) -> None:
        """Leave it to the next run."""
        what = f"{self._kind.files.receipt.name}: {why}"
        self.failures.setdefault(due.test_id, Counter())[what] += 1

    async def _hand_on(self, due: FileDue, receipt: Receipt) -> None:
        """Pass a receipt to the inbox."""
        endpoint, now_us = self._kind.files.receipt.name, self._stores.now_us()
        body = encode(receipt)
        answer = Answer(endpoint, due.test_id, due.session_id, due.object_id, 200, now_us, body)
        await self._queue.put(Fetched(answer, receipt))

    async def _transfer(self, due: FileDue, url: str) -> None:
        """Fetch a file; a link that has died is asked for anew."""
        table = self._kind.table.name
        try:
            received = await self._transfers.fetch(url, table, due.name)
            with CancelScope(shield=True):  # it is there: that it is known costs a moment
                await self._hand_on(due, _fetched(due, received))
        except LinkRefused as refused:
            if due.links + 1 < MOST_LINKS:
                again = replace(due, links=due.links + 1)
                self._line.add_later(again, self._stores.clock.monotonic())
            else:
                self._leave(due, refused.reason)
        except FileRefused as refused:
            await self._hand_on(due, Receipt(Became.GIVEN_UP, reason=refused.reason))
        except TryLater as later:
            self._leave(due, later.reason)
        self._under_way -= 1


def _fetched(due: FileDue, received: Received) -> Receipt:
    path = media_path(due.folder, due.name, received.sha256, received.content_type)
    return Receipt(Became.FETCHED, path, received.bytes, received.sha256, received.content_type)
