"""What a run has landed so far: counted as it lands, told in its report."""

from collections import Counter
from dataclasses import dataclass, field

from etl.ledger.values import Ended
from etl.tables.receipts import Became, Receipt


@dataclass(slots=True)
class MediaTally:
    """What became of files; `given_up` counts those of each test by the reason."""

    files: int = 0
    bytes: int = 0
    pending: int = 0
    given_up: dict[str, Counter[str]] = field(default_factory=dict)

    def note(self, test_id: str, table: str, receipt: Receipt) -> None:
        """Count what became of a file."""
        if receipt.became is Became.FETCHED:
            self.files += 1
            self.bytes += receipt.bytes or 0
        elif receipt.became is Became.GIVEN_UP:
            self.given_up.setdefault(test_id, Counter())[f"{table}: {receipt.reason}"] += 1


@dataclass(slots=True)
class Tally:
    """What this run has landed so far."""

    rows: Counter[str] = field(default_factory=Counter)
    files: int = 0
    bytes: int = 0
    edited: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    unknown_fields: Counter[str] = field(default_factory=Counter)
    absent: Counter[str] = field(default_factory=Counter)
    looks: dict[str, Ended] = field(default_factory=dict)
    media: MediaTally = field(default_factory=MediaTally)
