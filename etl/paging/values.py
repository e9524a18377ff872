"""What paging speaks of: a page asked, a page as served, a listing, a verdict.

A row is known here by its *id*: the 64-bit hash of its session id, or of its bytes
where it has none. So a listing of 10 000 sessions is 80 KB, and holds no personal data.
"""

from dataclasses import dataclass
from enum import StrEnum

REACH_OFFSET = 10_000
"""The largest offset that the API serves (results-v2, `offset`)."""


DEFAULT_ROWS = 25
"""The rows that the API serves where nobody says how many (results-v2, `limit`)."""


Place = tuple[int, str]
"""A row, and the cursor behind which the API goes on with the rows that follow it."""


class Style(StrEnum):
    """The two spellings of pagination that the vendor's pages name."""

    PAGE = "page"
    OFFSET = "offset"


@dataclass(frozen=True, slots=True)
class PageAsk:
    """One page as asked: `rows` rows from row `start` on.

    `number` is the page number of the `page` style. `start` is None while nobody
    knows whether numbers count from 0 or from 1.
    """

    style: Style
    rows: int
    start: int | None
    number: int | None = None

    def query(self) -> tuple[tuple[str, str], ...]:
        """Return the query parameters that ask for this page."""
        if self.style is Style.PAGE:
            return (("rowsPerPage", str(self.rows)), ("pageNumber", str(self.number)))
        return (("limit", str(self.rows)), ("offset", str(self.start)))

    def spelled(self) -> str:
        """Return the query as one string: the answer's key in inbox and lake."""
        return "&".join(f"{name}={value}" for name, value in self.query())


@dataclass(frozen=True, slots=True)
class PageView:
    """What paging sees of a page as served: its ids in order and what it echoes.

    Echoes that are missing or not believable numbers are None. `ids` keeps repeats. `goes_on`
    is where the next page begins, where entries say so: behind which row, and its cursor.
    """

    ids: tuple[int, ...]
    limit: int | None
    offset: int | None
    total: int | None
    read_at_us: int
    goes_on: "Place | None" = None


class Outcome(StrEnum):
    """How a look at a test's listing ended."""

    VERIFIED = "verified"
    DISAGREES = "disagrees"
    TRUNCATED = "truncated"
    NO_TOTAL = "no_total"
    UNSTEADY = "unsteady"
    NOT_UNDERSTOOD = "not_understood"
    ENDLESS = "endless"


@dataclass(frozen=True, slots=True)
class Listing:
    """What is known of a test's listing: ids newest first, and when each was proved.

    `whole` says that the ids reach to the listing's end. `total` is what the pages
    echoed when it was last read, at `read_at_us`. `doubt` is why those ids could not be
    proved, where reading again would change nothing until head or total change. `places`
    are rows from which it can be read on, where that takes a cursor.
    """

    ids: tuple[int, ...] = ()
    proved_at_us: tuple[int, ...] = ()
    whole: bool = False
    total: int | None = None
    read_at_us: int = 0
    doubt: Outcome | None = None
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a look: whether the pages prove the listing, and the figures.

    `seen` counts distinct rows, `total` is what the API echoed (None: nothing believable).
    """

    outcome: Outcome
    seen: int
    total: int | None

    @property
    def verified(self) -> bool:
        """Whether the listing was proved complete."""
        return self.outcome is Outcome.VERIFIED

    def sentence(self) -> str:
        """Say what happened, for the report."""
        return _SENTENCES[self.outcome].format(seen=self.seen, total=self.total)


_SENTENCES = {
    Outcome.VERIFIED: "Proved complete: {seen} sessions.",
    Outcome.DISAGREES: "The API says {total} sessions but serves {seen}; reading again "
    "changed nothing. What it serves is in the lake.",
    Outcome.TRUNCATED: "The API says {total} sessions, but rows beyond 10 500 cannot be "
    "reached by paging; {seen} are known and in the lake.",
    Outcome.NO_TOTAL: "The API gave no believable total, so nothing proves that the {seen} "
    "sessions read are all. They are in the lake.",
    Outcome.UNSTEADY: "The listing kept changing while it was read; {seen} of {total} "
    "sessions are in the lake. The next run goes on.",
    Outcome.NOT_UNDERSTOOD: "The API keeps answering other pages than were asked; {seen} of "
    "{total} sessions are known. Check `pagination` in the pipelines file.",
    Outcome.ENDLESS: "The pages have no end: a cursor comes round again, after {seen} of {total} "
    "sessions. These are in the lake; tell the vendor's support.",
}
