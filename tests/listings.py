"""Random listings against paging: what is served, what has changed, and how late it is known.

A seed draws a server and nights. The listing changes between the looks and while they read,
some looks are cut short; paging is to know every row within the delay that the rolling proof
states, about as many proved looks as there are pages, and to call nothing proved that is not.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from etl.config.models import Pagination
from etl.paging import dialect as dialects
from etl.paging import sweep as sweeps
from etl.paging.values import Listing, Style
from tests.test_paging import DAY_US, MINUTE_US, Model, changed

_KINDS: Final = ("arrive", "arrive", "remove", "late", "tie", "swap")
_FEWEST_ROWS: Final = 11
"""Of fewer rows pages cannot always overlap (`dialect.ask_from`), so a swap may hide."""

_FROM_THE_START: Final = -1
_RESTS_US: Final = (0, MINUTE_US, 11 * MINUTE_US, DAY_US, DAY_US)


@dataclass
class Nights:
    """One listing under looks. `since` is how many looks had been proved when a row came."""

    random: Random
    server: Model
    audit: str
    spoken: dialects.Dialect
    tried: Counter[str] = field(default_factory=Counter)
    known: Listing = field(default_factory=Listing)
    seen: set[int] = field(default_factory=set)
    since: dict[int, int] = field(default_factory=dict)
    proved: int = 0
    most_rows: int = 0

    def change(self) -> None:
        """Change the listing as the world does: a swap leaves the total as it is."""
        kind = self.random.choice(_KINDS)
        self.tried[kind] += 1
        for what in {"swap": ("remove", "late"), "tie": ("swap",)}.get(kind, (kind,)):
            row = 1_000_000 + sum(self.tried.values())
            changed(self.server, (what, self.random.randrange(10_000)), row)
        self.note()

    def note(self) -> None:
        """Note which rows stand now, and since when."""
        self.since = {row: self.since.get(row, self.proved) for row in self.server.ids}
        self.most_rows = max(self.most_rows, len(self.server.ids))

    def look(self, disturbed: float = 0.0, most_pages: int = 10_000) -> None:
        """Look once, while the listing changes before a part of the answers."""
        self.server.before_answer = lambda _: (
            self.change() if self.random.random() < disturbed else None
        )
        sweep = sweeps.begin(self.known, audit=self.audit, now_us=self.server.now_us)
        for _ in range(most_pages):
            sweep = sweeps.refreshed(sweep, self.server.now_us)
            asks = sweeps.wanted(sweep, self.spoken, 1)
            if not asks:
                break
            view = self.server.answer(asks[0])
            self.tried["pages"] += 1
            self.seen.update(view.ids)
            self.spoken = dialects.after_answer(self.spoken, asks[0], view)
            sweep = sweeps.read(sweep, self.spoken, asks[0], view)
        self.known = sweep.listing
        self.tried["looks"] += 1
        if sweep.verdict is not None and sweep.verdict.verified:
            self._is_proved()

    def _is_proved(self) -> None:
        """Check what a look that calls the listing proved must have seen."""
        self.proved += 1
        self.tried["proved looks"] += 1
        due_after = 2 if self.audit == "full" else self.pages + 2  # it came during the first
        for row, proved_before in self.since.items():
            late = self.proved - proved_before
            if late >= due_after or proved_before == _FROM_THE_START:
                assert row in self.seen, f"row {row} is missed by {late} proved looks"

    @property
    def pages(self) -> int:
        """How many pages the listing ever had."""
        return 1 + -(-self.most_rows // self.server.cap)


def try_listing(seed: int) -> Counter[str]:
    """Try one seed; return what it tried. Raises AssertionError where a row is lost."""
    random = Random(f"listing:{seed}")
    cap = random.randint(_FEWEST_ROWS, 40)
    server = Model(list(range(random.randint(0, 150))), cap=cap, first_page=random.choice((0, 1)))
    server.understands = random.choice(
        (frozenset(Style), frozenset({Style.PAGE}), frozenset({Style.OFFSET}))
    )
    pagination = Pagination(rows_per_page=random.choice((25, 500)))
    spoken = dialects.first_dialect(pagination)
    nights = Nights(random, server, random.choice(("rolling", "rolling", "full")), spoken)
    nights.most_rows = len(server.ids)
    nights.since = dict.fromkeys(server.ids, _FROM_THE_START)
    for _ in range(random.randint(2, 9)):
        for _ in range(random.choice((0, 0, 1, 3))):
            nights.change()
        cut_short = random.random() < 0.25
        nights.look(
            disturbed=random.choice((0.0, 0.0, 0.1, 0.5)),
            most_pages=random.randint(1, 6) if cut_short else 10_000,
        )
        if not nights.known.whole:
            # What the next look goes on from may have changed meanwhile, rows and order: the
            # delay is promised for that too, not the first look.
            nights.since = dict.fromkeys(nights.since, nights.proved)
        server.now_us += random.choice(_RESTS_US)
    for _ in range(nights.pages + 1):
        server.now_us += DAY_US
        nights.look()
    assert nights.known.ids == tuple(server.ids), "a listing that rests is not known to the row"
    assert nights.seen.issuperset(server.ids)
    nights.tried["listings"] += 1
    return nights.tried
