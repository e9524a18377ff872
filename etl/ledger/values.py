"""What the ledger is told and tells: files, work, looks and what a commit means for it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from etl.ledger.fields import UnknownField
from etl.ledger.records import PackedRecord, pack_proofs
from etl.paging.values import Listing, Verdict


@dataclass(frozen=True, slots=True)
class File:
    """A data file that a commit names: its path in the lake, rows, bytes and their xxh3 hash.

    The hash stands in the commit alone, for `etl verify`: the ledger does not keep it.
    """

    path: str
    batch: int
    rows: int
    bytes: int
    xxh3: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A test's listing to look at, and what earlier tries came to."""

    test_id: str
    attempts: int = 0
    not_before_us: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """How many sessions of a test are due, and when the newest of them ended."""

    sessions: int = 0
    newest_us: int | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """A look at a test's listing: what is known now and, once it has ended, the verdict.

    `failed` says why a look could not be made at all; then there is no verdict.
    """

    test_id: str
    listing: Listing
    verdict: Verdict | None = None
    looked_at_us: int = 0
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a look ended, without the listing: small, since a run keeps it for each test.

    `proofs` says when each stretch of the listing was last proved, `sessions` its length.
    """

    test_id: str
    verdict: Verdict | None
    looked_at_us: int
    failed: str | None
    sessions: int
    proofs: bytes


def ended(look: Looked) -> Ended | None:
    """Return how a look ended, or None while it goes on."""
    if look.verdict is None and look.failed is None:
        return None
    listing = look.listing
    return Ended(
        look.test_id,
        look.verdict,
        look.looked_at_us,
        look.failed,
        len(listing.ids),
        pack_proofs(listing),
    )


@dataclass(frozen=True, slots=True)
class Landed:
    """What one commit of the lake means for the ledger, marked in one transaction.

    `reopened` are tests to be looked at anew: their work and proofs are forgotten.
    """

    batch: int
    files: Sequence[File] = ()
    replaced: Collection[str] = ()
    records: Mapping[str, PackedRecord] = field(default_factory=dict)
    reopened: Collection[str] = ()
    looks: Sequence[Ended] = ()
    frames: Sequence[int] = ()
    unknown_fields: Sequence[UnknownField] = ()
