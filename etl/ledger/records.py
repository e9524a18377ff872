"""What is known of a test: its listing, and the rows of it that are in the lake.

One packed form serves the ledger and the lake's own record, so that a machine which
has lost its state knows from the lake all that the ledger knew.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

import msgspec
import xxhash

from etl.paging.values import Listing, Outcome, PageView, Place

_VERSION: Final = 1
SESSIONS: Final = "sessions"
"""The table of what today's listings hold."""

_LISTED: Final = (SESSIONS, "completed_sessions")


def session_key(session_id: str) -> int:
    """Return the 64-bit hash by which a record knows a session."""
    return xxhash.xxh3_64_intdigest(session_id.encode())


@dataclass(frozen=True, slots=True)
class Session:
    """A listed session of which something is still due.

    `seen_at_us` is when it was first listed, for those that tell neither start nor finish.
    """

    started_at_us: int | None
    finished_at_us: int | None
    seen_at_us: int

    @property
    def ended_at_us(self) -> int:
        """When it ended, as far as can be told: from then on its media are awaited."""
        return self.finished_at_us or self.started_at_us or self.seen_at_us


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A row that is known and lands when its file is there, or given up.

    `session_id` and its times are those of its session, if it has one; `seen_at_us` is when
    it was first listed, `hash` that of its values, `row` these as they are to land.
    """

    session_id: str | None
    started_at_us: int | None
    finished_at_us: int | None
    seen_at_us: int
    hash: int
    row: bytes

    @property
    def session(self) -> Session:
        """The session that it belongs to, as its folder in the lake tells it."""
        return Session(self.started_at_us, self.finished_at_us, self.seen_at_us)


@dataclass(slots=True)
class Afresh:
    """What a backfill asks of a test once more.

    `began_at_us` is when the backfill began: what came before is not its own. It is about
    sessions from `since_us` to `until_us`. `is_listing` until the listing has been read anew;
    `sessions` are those that are still to be asked for, by endpoint, and `done` the keys of
    those that were answered before the listing's end.
    """

    began_at_us: int
    since_us: int | None = None
    until_us: int | None = None
    is_listing: bool = True
    sessions: dict[str, dict[str, Session]] = field(default_factory=dict)
    done: dict[str, set[int]] = field(default_factory=dict)

    def sessions_left(self) -> dict[str, Session]:
        """Return the sessions that anything is still to be asked for."""
        return {name: session for some in self.sessions.values() for name, session in some.items()}


@dataclass(slots=True)
class Record:
    """A test's listing, and what has landed of it.

    `covered` holds, for each table of the listing, the hash of each landed row by the hash of
    its key; `answered`, for each table that is asked session by session, the rows that each
    session made, by its key. `removed` are keys that landed, and that a proved listing no
    longer shows. `due` are the sessions that something is still to be asked for;
    `not_before_us` says when, by endpoint, where the API had nothing yet. `asked_at_us` is
    when the test itself was last asked for, by endpoint, `changed_at_us` when its listing
    was last found changed. `in_hand` are pages, by their spelling, that landed before the
    listing had come to them: they have left the inbox, and need not be asked again where the
    look goes on. `said` holds, for each table that is asked session by session, the hash of the
    rows that a session's answer made; `stale` the keys of landed rows (of sessions there) that
    the API has answered differently since, by table; `afresh` what a backfill has yet to ask,
    `held` the rows, by table and object, that wait for their files.
    """

    listing: Listing = field(default_factory=Listing)
    covered: dict[str, dict[int, int]] = field(default_factory=dict)
    removed: frozenset[int] = frozenset()
    in_hand: dict[str, PageView] = field(default_factory=dict)
    answered: dict[str, dict[int, int]] = field(default_factory=dict)
    due: dict[str, Session] = field(default_factory=dict)
    not_before_us: dict[str, dict[str, int]] = field(default_factory=dict)
    asked_at_us: dict[str, int] = field(default_factory=dict)
    changed_at_us: int = 0
    said: dict[str, dict[int, int]] = field(default_factory=dict)
    stale: dict[str, set[int]] = field(default_factory=dict)
    afresh: Afresh | None = None
    held: dict[str, dict[str, Held]] = field(default_factory=dict)

    def relist(self, listing: Listing, *, ended: bool) -> None:
        """Take over what a look knows now; a page that the listing holds is in hand no more."""
        self.listing = listing
        known = set() if ended else set(listing.ids)
        self.in_hand = {
            spelled: view
            for spelled, view in self.in_hand.items()
            if not ended and not known.issuperset(view.ids)
        }

    def forget_listing(self) -> None:
        """Forget how far the pages were read: they are read again."""
        self.listing, self.in_hand = Listing(), {}

    @property
    def is_unread(self) -> bool:
        """Whether no page of the listing is known: never read, or forgotten."""
        return self.listing == Listing() and not self.in_hand

    def rows(self) -> dict[str, int]:
        """Return how many rows have landed, by table."""
        rows = Counter({table: len(landed) for table, landed in self.covered.items()})
        rows.update({table: sum(made.values()) for table, made in self.answered.items()})
        return dict(rows)

    def sessions_known(self) -> set[int]:
        """Return the keys of all sessions that are listed, or were before that was forgotten."""
        if self.listing.ids:
            return set(self.listing.ids)
        listed = (self.covered.get(table, {}) for table in _LISTED)
        landed = (*self.answered.values(), *listed)
        return {key for sessions in landed for key in sessions} - self.removed

    def forget_absences(self) -> None:
        """Forget what the API had nothing for, and when it is asked again: it is asked afresh."""
        for table, sessions in self.answered.items():
            self.answered[table] = {key: rows for key, rows in sessions.items() if rows}
        self.not_before_us, self.asked_at_us, self.held = {}, {}, {}

    def rows_of(self, table: str) -> dict[int, int]:
        """Return the landed rows of a table, to be read and added to."""
        return self.covered.setdefault(table, {})

    def stale_of(self, table: str) -> set[int]:
        """Return the keys of a table's rows that are answered differently now, to be changed."""
        return self.stale.setdefault(table, set())


class _Page(msgspec.Struct, array_like=True):
    ids: bytes
    limit: int | None
    offset: int | None
    total: int | None
    read_at_us: int
    goes_on: Place | None = None


_Times = tuple[int | None, int | None, int]
"""Of a session: when it started, finished and was seen."""


class _PackedAfresh(msgspec.Struct, array_like=True):
    began_at_us: int
    since_us: int | None
    until_us: int | None
    is_listing: bool
    sessions: dict[str, _Times]
    keys: dict[str, bytes]
    done: dict[str, bytes] = {}


class _Packed(msgspec.Struct, array_like=True):
    version: int
    ids: bytes
    proofs: list[tuple[int, int]]
    whole: bool
    total: int | None
    read_at_us: int
    doubt: Outcome | None
    covered: dict[str, tuple[bytes, bytes]]
    removed: bytes
    in_hand: dict[str, _Page] = {}
    answered: dict[str, tuple[bytes, bytes]] = {}
    due: dict[str, _Times] = {}
    not_before_us: dict[str, dict[str, int]] = {}
    asked_at_us: dict[str, int] = {}
    changed_at_us: int = 0
    said: dict[str, tuple[bytes, bytes]] = {}
    stale: dict[str, bytes] = {}
    places: list[Place] = []
    afresh: _PackedAfresh | None = None
    held: dict[str, dict[str, Held]] = {}


@dataclass(frozen=True, slots=True)
class PackedRecord:
    """A record as bytes, made once for ledger and lake; `rows` counts the landed ones.

    `due` is the number of sessions that are due, `newest_us` when the newest of them ended,
    None where none is; `afresh` the number of those that a backfill has yet to ask for.
    """

    packed: bytes
    read_at_us: int
    rows: Mapping[str, int]
    due: int = 0
    newest_us: int | None = None
    afresh: int = 0


def pack(record: Record) -> PackedRecord:
    """Return a record as bytes: 8 for each id, 16 for each landed row."""
    listing = record.listing
    packed = msgspec.msgpack.encode(
        _Packed(
            version=_VERSION,
            ids=_bytes(listing.ids),
            proofs=_runs(listing.proved_at_us),
            whole=listing.whole,
            total=listing.total,
            read_at_us=listing.read_at_us,
            doubt=listing.doubt,
            covered=_pairs(record.covered),
            removed=_bytes(record.removed),
            in_hand={spelled: _page(view) for spelled, view in record.in_hand.items()},
            answered=_pairs(record.answered),
            due=_times(record.due),
            not_before_us=record.not_before_us,
            asked_at_us=record.asked_at_us,
            changed_at_us=record.changed_at_us,
            said=_pairs(record.said),
            stale={table: _bytes(keys) for table, keys in record.stale.items() if keys},
            places=list(listing.places),
            afresh=None if record.afresh is None else _packed_afresh(record.afresh),
            held=record.held,
        )
    )
    newest_us = max((session.ended_at_us for session in record.due.values()), default=None)
    rows, due = record.rows(), len(record.due)
    afresh = 0 if record.afresh is None else len(record.afresh.sessions_left())
    return PackedRecord(packed, listing.read_at_us, rows, due, newest_us, afresh)


def unpack(packed: bytes) -> Record:
    """Return the record; raises ValueError if the bytes are none."""
    try:
        told = msgspec.msgpack.decode(packed, type=_Packed)
    except msgspec.DecodeError as error:
        raise ValueError(f"not a record: {error}") from None
    if told.version != _VERSION:
        raise ValueError(f"a record of version {told.version}, not {_VERSION}")
    return Record(
        listing=Listing(
            ids=_numbers(told.ids),
            proved_at_us=_spread(told.proofs),
            whole=told.whole,
            total=told.total,
            read_at_us=told.read_at_us,
            doubt=told.doubt,
            places=tuple(told.places),
        ),
        covered=_mappings(told.covered),
        removed=frozenset(_numbers(told.removed)),
        in_hand={spelled: _view(page) for spelled, page in told.in_hand.items()},
        answered=_mappings(told.answered),
        due=_sessions(told.due),
        not_before_us=told.not_before_us,
        asked_at_us=told.asked_at_us,
        changed_at_us=told.changed_at_us,
        said=_mappings(told.said),
        stale={table: set(_numbers(keys)) for table, keys in told.stale.items()},
        afresh=None if told.afresh is None else _unpacked_afresh(told.afresh),
        held=told.held,
    )


def _packed_afresh(afresh: Afresh) -> _PackedAfresh:
    """Return it with each session once, and 8 bytes for each request that is left."""
    return _PackedAfresh(
        began_at_us=afresh.began_at_us,
        since_us=afresh.since_us,
        until_us=afresh.until_us,
        is_listing=afresh.is_listing,
        sessions=_times(afresh.sessions_left()),
        keys={name: _bytes(map(session_key, some)) for name, some in afresh.sessions.items()},
        done={name: _bytes(keys) for name, keys in afresh.done.items()},
    )


def _unpacked_afresh(told: _PackedAfresh) -> Afresh:
    known = {
        session_key(session_id): (session_id, session)
        for session_id, session in _sessions(told.sessions).items()
    }
    return Afresh(
        began_at_us=told.began_at_us,
        since_us=told.since_us,
        until_us=told.until_us,
        is_listing=told.is_listing,
        sessions={
            endpoint: dict(known[key] for key in _numbers(keys))
            for endpoint, keys in told.keys.items()
        },
        done={endpoint: set(_numbers(keys)) for endpoint, keys in told.done.items()},
    )


def _times(sessions: Mapping[str, Session]) -> dict[str, _Times]:
    return {
        session_id: (session.started_at_us, session.finished_at_us, session.seen_at_us)
        for session_id, session in sessions.items()
    }


def _sessions(told: Mapping[str, _Times]) -> dict[str, Session]:
    return {session_id: Session(*times) for session_id, times in told.items()}


def _pairs(tables: Mapping[str, Mapping[int, int]]) -> dict[str, tuple[bytes, bytes]]:
    return {
        table: (_bytes(found.keys()), _bytes(found.values())) for table, found in tables.items()
    }


def _mappings(tables: Mapping[str, tuple[bytes, bytes]]) -> dict[str, dict[int, int]]:
    return {
        table: dict(zip(_numbers(keys), _numbers(values), strict=True))
        for table, (keys, values) in tables.items()
    }


def _page(view: PageView) -> _Page:
    ids, at_us = _bytes(view.ids), view.read_at_us
    return _Page(ids, view.limit, view.offset, view.total, at_us, view.goes_on)


def _view(page: _Page) -> PageView:
    ids, at_us = _numbers(page.ids), page.read_at_us
    return PageView(ids, page.limit, page.offset, page.total, at_us, page.goes_on)


def pack_proofs(listing: Listing) -> bytes:
    """Return when each stretch of a listing was last proved: small, for every look."""
    return msgspec.msgpack.encode((listing.read_at_us, _runs(listing.proved_at_us)))


def with_proofs(listing: Listing, packed: bytes) -> Listing:
    """Return the listing with the times of a later look that found it unchanged."""
    read_at_us, runs = msgspec.msgpack.decode(packed, type=tuple[int, list[tuple[int, int]]])
    proved_at_us = _spread(runs)
    if len(proved_at_us) != len(listing.ids):
        return listing
    return replace(listing, proved_at_us=proved_at_us, read_at_us=read_at_us)


def _runs(times: Iterable[int]) -> list[tuple[int, int]]:
    return [(len(list(run)), at) for at, run in groupby(times)]


def _spread(runs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    return tuple(at for count, at in runs for _ in range(count))


def _bytes(numbers: Iterable[int]) -> bytes:
    return array("Q", list(numbers)).tobytes()  # a list is read far faster than a view


def _numbers(packed: bytes) -> tuple[int, ...]:
    numbers = array("Q")
    numbers.frombytes(packed)
    return tuple(numbers)
