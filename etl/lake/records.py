"""The records of the tests under way: open while they change, packed until they land."""

from etl.ledger.records import PackedRecord, Record, pack, unpack
from etl.ledger.threaded import LedgerThread


class Records:
    """The records of the tests under way; of those looked at, packed until they land.

    A row costs 16 bytes in a packed record, and some 150 in one that is open.
    """

    def __init__(self, ledger: LedgerThread) -> None:
        """Begin with none in memory."""
        self._ledger = ledger
        self._open: dict[str, Record] = {}
        self.packed: dict[str, PackedRecord] = {}

    async def of(self, test_id: str) -> Record:
        """Return a test's record, open, to be changed only by the landing."""
        record = self._open.get(test_id)
        if record is not None:
            return record
        packed = self.packed.pop(test_id, None)
        if packed is not None:
            found = unpack(packed.packed)
        else:
            found = await self._ledger.call(self._ledger.ledger.record, test_id)
        return self._open.setdefault(test_id, found)

    async def look_up(self, test_id: str) -> Record:
        """Return a test's record as it stands now, only to be read."""
        packed = self.packed.get(test_id)
        if test_id in self._open:
            return self._open[test_id]
        if packed is not None:
            return unpack(packed.packed)
        return await self._ledger.call(self._ledger.ledger.record, test_id)

    def pack(self, test_id: str, record: Record, *, keep_open: bool) -> None:
        """Pack a record as it is to land; `keep_open` while its look goes on."""
        self.packed[test_id] = pack(record)
        if not keep_open:
            self._open.pop(test_id, None)

    def counts(self, test_id: str) -> PackedRecord:
        """Return what a record in memory counts now: what came after its look may have opened it.

        Raises KeyError for one that is not in memory.
        """
        record = self._open.get(test_id)
        return self.packed[test_id] if record is None else pack(record)

    def landed(self) -> dict[str, PackedRecord]:
        """Forget what has been packed, which the ledger knows now; return it."""
        packed, self.packed = self.packed, {}
        return packed
