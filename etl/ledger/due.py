"""Decides which listed sessions are still to be asked for: pure functions of a record.

A session is due as long as an endpoint of the pipeline has not answered it for every table
that it feeds. So what is due follows from what is listed and what has landed, and needs no
list of its own that could disagree with them.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from etl.ledger.records import SESSIONS, Record, Session, session_key

Fed = Mapping[str, Sequence[str]]
"""The tables of a pipeline that each session-level endpoint feeds, by its name."""


CLASSIC: Final = "CLASSIC"
STUDYV2: Final = "STUDYV2"
"""What stands for the product type of a test that is classic, or of which no more is known."""


@dataclass(frozen=True, slots=True)
class Feeds:
    """What a pipeline asks session by session, and which tests have it.

    `products` are the product types that have an endpoint, by its name, where not all do;
    `product_of` the product type of each test, as far as it is known, or CLASSIC, or STUDYV2
    for one of any other; `classic` are the endpoints of classic tests, which have no others,
    `growing` those that list what may still be added to.
    """

    fed: Fed
    products: Mapping[str, frozenset[str]]
    product_of: dict[str, str]
    classic: frozenset[str] = frozenset()
    growing: frozenset[str] = frozenset()

    def has(self, test_id: str, endpoint: str) -> bool:
        """Say whether a test may have what an endpoint answers: it may, unless known not to."""
        products, product = self.products.get(endpoint), self.product_of.get(test_id)
        if product and (product == CLASSIC) is not (endpoint in self.classic):
            return False
        return products is None or not product or product == STUDYV2 or product in products

    def only(self, tables: Collection[str]) -> "Feeds":
        """Return what is asked for some tables alone."""
        fed = {name: [one for one in fed if one in tables] for name, fed in self.fed.items()}
        return replace(self, fed={name: some for name, some in fed.items() if some})

    def of(self, test_id: str) -> Fed:
        """Return what is asked of a test's sessions."""
        return {name: tables for name, tables in self.fed.items() if self.has(test_id, name)}


ROUND_LIFE_US: Final = 12 * 3600 * 1_000_000
"""A round left open is gone on with for 12 hours; after that a new one begins."""


def goes_on(
    states: Mapping[str, str], began_at_us: int | None, tests: Iterable[str], now_us: int
) -> bool:
    """Say whether the round of these states is gone on with, or a new one is to begin."""
    if began_at_us is None or abs(now_us - began_at_us) > ROUND_LIFE_US:
        return False
    return any(states.get(test) == "open" for test in tests)


HOUR_US: Final = 3_600_000_000
LOOK_AGAIN_AFTER_US: Final = (6 * HOUR_US, 24 * HOUR_US, 72 * HOUR_US, 168 * HOUR_US)
"""How long after a session's end what was not ready is looked at again, and then no more."""


def next_look_us(session: Session, looked_at_us: int) -> int | None:
    """Return when to ask again for what the API does not have yet; None: it never will."""
    ages = (session.ended_at_us + age for age in LOOK_AGAIN_AFTER_US)
    return next((at for at in ages if at > looked_at_us), None)


def note_session(record: Record, fed: Fed, session_id: str, session: Session) -> None:
    """Note a session that is listed, unless all has been answered for it."""
    if session_id not in record.due and _owes(record, fed, session_key(session_id)):
        record.due[session_id] = session


def answered(
    record: Record, fed: Fed, endpoint: str, session_id: str, made: Mapping[str, int]
) -> None:
    """Note that a session's answer is in, and how many rows it made for each table."""
    key = session_key(session_id)
    for table, rows in made.items():
        record.answered.setdefault(table, {}).setdefault(key, rows)
    record.not_before_us.get(endpoint, {}).pop(session_id, None)
    if not _owes(record, fed, key):
        record.due.pop(session_id, None)


def made_anew(
    record: Record, fed: Fed, endpoint: str, session_id: str, made: Mapping[str, int]
) -> bool:
    """Note how many rows a session's answer makes now; return whether that is another number."""
    key = session_key(session_id)
    before = {table: record.answered.get(table, {}).get(key) for table in made}
    if before == made:
        return False
    for table, rows in made.items():
        record.answered.setdefault(table, {})[key] = rows
    answered(record, fed, endpoint, session_id, {})
    return True


def unmet(record: Record, fed: Fed) -> tuple[set[int], bool]:
    """Return the keys of known sessions that owe something and are not due, for all is known.

    Also whether the table of the listing holds them all, so that nobody need list them again.
    """
    owing = {key for key in record.sessions_known() if _owes(record, fed, key)}
    missing = owing - set(map(session_key, record.due))
    return missing, missing <= record.covered.get(SESSIONS, {}).keys()


def not_there(record: Record, endpoint: str, session_id: str, looked_at_us: int) -> bool:
    """Note that the API has nothing for a session; return whether it is asked again later."""
    session = record.due.get(session_id)
    again_at_us = None if session is None else next_look_us(session, looked_at_us)
    if again_at_us is not None:
        record.not_before_us.setdefault(endpoint, {})[session_id] = again_at_us
    return again_at_us is not None


def sessions_due(
    record: Record, endpoint: str, tables: Sequence[str], now_us: int
) -> Iterator[str]:
    """Yield the sessions that this endpoint is to be asked for by now, newest first."""
    waits = record.not_before_us.get(endpoint, {})
    newest_first = sorted(record.due.items(), key=lambda item: -item[1].ended_at_us)
    for session_id, _ in newest_first:
        if waits.get(session_id, 0) <= now_us and not _is_answered(record, tables, session_id):
            yield session_id


def keys_due(
    record: Record,
    endpoint: str,
    tables: Sequence[str],
    now_us: int,
    listed_again: Collection[int],
) -> set[int]:
    """Return the keys of the sessions that this endpoint is to be asked for by now.

    Those listed again may come to be due by it, where a table has been added.
    """
    waits = record.not_before_us.get(endpoint, {})
    waiting = {session_key(session_id) for session_id, at_us in waits.items() if at_us > now_us}
    due = {session_key(session) for session in sessions_due(record, endpoint, tables, now_us)}
    due |= {
        key
        for key in listed_again
        if any(key not in record.answered.get(table, ()) for table in tables)
    }
    return due - waiting


def is_test_due(record: Record, endpoint: str, now_us: int) -> bool:
    """Say whether a test itself is to be asked for: after each change, else once a day."""
    asked_at_us = record.asked_at_us.get(endpoint, 0)
    return asked_at_us <= record.changed_at_us or now_us - asked_at_us > 24 * HOUR_US


def _is_answered(record: Record, tables: Sequence[str], session_id: str) -> bool:
    key = session_key(session_id)
    return all(key in record.answered.get(table, ()) for table in tables)


def _owes(record: Record, fed: Fed, key: int) -> bool:
    return any(
        key not in record.answered.get(table, ()) for tables in fed.values() for table in tables
    )
