"""What comes of a pipeline, for the report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from etl.lake.recovery import Recovery
from etl.lake.tally import Tally
from etl.run.fetching import Stop


@dataclass(slots=True)
class Outcome:
    """What came of a pipeline: filled in as it goes, so that an error loses nothing of it.

    `failures` count, for each test, the sessions and files that were not had, by the reason.
    """

    tally: Tally = field(default_factory=Tally)
    recovery: Recovery = field(default_factory=Recovery)
    notes: list[str] = field(default_factory=list)
    stopped: Stop | None = None
    tests: int = 0
    failures: Sequence[Mapping[str, Counter[str]]] = ()
