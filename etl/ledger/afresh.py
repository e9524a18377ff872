"""Decides what a backfill asks once more: pure functions of a record, and the backfill's note.

Each test is listed anew; its sessions within the span are noted then, and crossed out by the
answers that come since the backfill has begun, whichever run asks. So what is left to do
stands in the records, in ledger and lake, and any process can go on with it.
"""

from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from etl.ledger.due import Fed
from etl.ledger.records import Afresh, Record, Session, session_key

BACKFILL: Final = "backfill"
"""The name of the ledger's note of the last backfill."""


class Span(msgspec.Struct, frozen=True):
    """Which sessions a backfill is about, by the microsecond of their start; None is no bound."""

    since_us: int | None = None
    until_us: int | None = None

    def holds(self, session: Session) -> bool:
        """Say whether a session belongs to it: by start, else finish, else when it was seen."""
        at_us = session.started_at_us or session.finished_at_us or session.seen_at_us
        return (self.since_us is None or self.since_us <= at_us) and (
            self.until_us is None or at_us < self.until_us
        )


class Backfill(msgspec.Struct):
    """A backfill: when it began, what was asked for (`only` names tests), and all its tests.

    `opened` are those whose listing it has begun to ask for: their pages are its own, also
    where another run lands them.
    """

    began_at_us: int
    span: Span = Span()
    only: frozenset[str] = frozenset()
    tests: tuple[str, ...] = ()
    opened: set[str] = set()
    is_done: bool = False

    def packed(self) -> str:
        """Return it as a note."""
        return msgspec.json.encode(self, order="deterministic").decode()


def noted(note: str | None) -> Backfill | None:
    """Return the backfill of a note, or None."""
    return msgspec.json.decode(note, type=Backfill) if note else None


def is_of(record: Record, backfill: Backfill) -> bool:
    """Say whether a test's listing has been begun anew by this backfill."""
    return record.afresh is not None and record.afresh.began_at_us == backfill.began_at_us


def is_listed(record: Record, backfill: Backfill) -> bool:
    """Say whether it has been read to its end."""
    afresh = record.afresh
    return is_of(record, backfill) and afresh is not None and not afresh.is_listing


def is_to_begin(record: Record, backfill: Backfill, test_id: str) -> bool:
    """Say whether its next page begins a test anew: asked for, and not known to its record yet."""
    return test_id in backfill.opened and not is_of(record, backfill)


def begin(record: Record, backfill: Backfill) -> None:
    """Begin with a test: its listing is forgotten, so that whoever looks reads all of it."""
    span = backfill.span
    record.afresh = Afresh(backfill.began_at_us, span.since_us, span.until_us)
    record.forget_listing()


def is_about(record: Record, session: Session, came_at_us: int) -> bool:
    """Say whether a row of a listing that is being read anew is one of the backfill's."""
    afresh = record.afresh
    if afresh is None or not afresh.is_listing or came_at_us < afresh.began_at_us:
        return False
    return Span(afresh.since_us, afresh.until_us).holds(session)


def note_session(
    record: Record, fed: Fed, session_id: str, session: Session, came_at_us: int
) -> None:
    """Note a session of such a row: it is to be asked for."""
    if record.afresh is not None and is_about(record, session, came_at_us):
        for endpoint in fed:
            if session_key(session_id) not in record.afresh.done.get(endpoint, ()):
                record.afresh.sessions.setdefault(endpoint, {})[session_id] = session


def asked_for(record: Record, endpoint: str, session_id: str, came_at_us: int) -> Session | None:
    """Return the session that an answer was asked for by a backfill, or None."""
    afresh = record.afresh
    if afresh is None or came_at_us < afresh.began_at_us:
        return None
    return afresh.sessions.get(endpoint, {}).get(session_id)


def answered(record: Record, endpoint: str, session_id: str, came_at_us: int) -> None:
    """Cross out a session whose answer is in, whatever it says."""
    afresh = record.afresh
    if afresh is not None and came_at_us >= afresh.began_at_us:
        left = afresh.sessions.get(endpoint, {})
        left.pop(session_id, None)
        if not left:
            afresh.sessions.pop(endpoint, None)
        if afresh.is_listing:  # its page may be read once more
            afresh.done.setdefault(endpoint, set()).add(session_key(session_id))


def end_listing(record: Record) -> bool:
    """Note that a test's listing has been read to its end; return whether it was being read."""
    afresh = record.afresh
    if afresh is None or not afresh.is_listing:
        return False
    afresh.is_listing = False
    afresh.done.clear()
    return True


def sessions_left(record: Record, endpoint: str) -> Iterator[str]:
    """Yield the sessions that are still to be asked for, newest first."""
    left = {} if record.afresh is None else record.afresh.sessions.get(endpoint, {})
    newest_first = sorted(left.items(), key=lambda item: -item[1].ended_at_us)
    return (session_id for session_id, _ in newest_first)


def is_test_left(record: Record, endpoint: str, began_at_us: int) -> bool:
    """Say whether a test itself is still to be asked for."""
    return record.asked_at_us.get(endpoint, 0) < began_at_us


def requests_left(record: Record, backfill: Backfill, of_test: Collection[str] = ()) -> int:
    """Return how many requests are left of a test, as far as it is listed.

    `of_test` are the endpoints that are asked for the test itself.
    """
    if record.afresh is None or not is_listed(record, backfill):
        return 1
    tests = sum(is_test_left(record, endpoint, backfill.began_at_us) for endpoint in of_test)
    return tests + sum(map(len, record.afresh.sessions.values()))
