"""The records of the tests that are gone through in a thread: a few open, the changed ones packed.

A row costs 16 bytes in a packed record, and some 150 in one that is open.
"""

from collections import OrderedDict
from typing import Final

from etl.ledger.records import PackedRecord, Record, pack, unpack
from etl.ledger.store import Ledger

_MOST_OPEN: Final = 8


class OpenRecords:
    """Records to be read and changed, of which a commit is to hold those that have changed."""

    def __init__(self, ledger: Ledger) -> None:
        """Begin with none in memory."""
        self._ledger = ledger
        self._open: OrderedDict[str, Record] = OrderedDict()
        self._changed: set[str] = set()
        self._packed: dict[str, PackedRecord] = {}

    def of(self, test_id: str) -> Record:
        """Return a test's record; whoever changes it says so by `changed`, before the next."""
        if test_id in self._open:
            self._open.move_to_end(test_id)
            return self._open[test_id]
        if len(self._open) >= _MOST_OPEN:
            self._close(*self._open.popitem(last=False))
        packed = self._packed.get(test_id)
        record = self._ledger.record(test_id) if packed is None else unpack(packed.packed)
        self._open[test_id] = record
        return record

    def changed(self, test_id: str) -> None:
        """Note that a test's record has been changed."""
        self._changed.add(test_id)

    def packed(self) -> dict[str, PackedRecord]:
        """Return all records that were changed, as they are to land."""
        while self._open:
            self._close(*self._open.popitem())
        return self._packed

    def _close(self, test_id: str, record: Record) -> None:
        if test_id in self._changed:
            self._changed.discard(test_id)
            self._packed[test_id] = pack(record)
