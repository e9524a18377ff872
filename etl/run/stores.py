"""What the stages of one pipeline share: clock, chance, ledger, records, and what is hidden."""

from dataclasses import dataclass
from random import Random

from etl.lake.personal import PersonalData
from etl.lake.records import Records
from etl.ledger.threaded import LedgerThread
from etl.pacing.clock import Clock


@dataclass(frozen=True, slots=True)
class Stores:
    """Injected into every stage, so that tests need not wait and chance can be replayed."""

    clock: Clock
    random: Random
    ledger: LedgerThread
    records: Records
    personal: PersonalData

    def now_us(self) -> int:
        """Return the wall clock's time in microseconds since 1970."""
        return int(self.clock.time() * 1_000_000)
