"""Foresees what a run asks, kind by kind, from what the ledger knows; makes no request."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import msgspec

from etl.client.values import Scope
from etl.config.models import Connection
from etl.ledger.due import goes_on, is_test_due, keys_due, unmet
from etl.ledger.frames import Identity
from etl.ledger.held import objects_due
from etl.ledger.reading import LedgerState
from etl.ledger.records import Record, session_key
from etl.paging.dialect import remembered, rows_in_reach
from etl.paging.foresight import DEEPER, FIRST, PROOFS, cursor_pages_ahead, pages_ahead
from etl.paging.sweep import STALE_AFTER_US
from etl.plan.catalogue import Catalogued, catalogue_need, recalled
from etl.plan.files_ahead import FilesAhead, FilesCount, Seen
from etl.plan.kinds import ABSENT_FOR_US, listing_of
from etl.plan.orders import (
    CATALOGUE,
    CATALOGUE_UNDER_WAY,
    PRODUCTS,
    TABLES,
    Order,
    by_endpoint,
    dialect_note,
    endpoints_asked,
    feeds_of,
    files_asked,
    lists_classic,
    tables_asked,
)
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.tests import WORKSPACE_TESTS
from etl.tables.workspaces import WORKSPACES

TOKEN_LIFE_SECONDS: Final = 3600.0
"""How long the vendor's tokens live (authorization page); renewed at 80 % of it."""

_WORKSPACES: Final = "workspaces"
_TESTS_PAGES: Final = "pages of tests"


KeptKeys: TypeAlias = Mapping[tuple[str, str], Collection[int | None]]
"""The sessions whose answers the lake keeps, by endpoint and test; None is the test itself."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would ask: requests by kind, and how long that takes at the limit.

    `unknown_tests` were never listed; `notes` say what only asking can tell. `files` are an
    estimate of those to come, of tables of which there is anything to go by.
    """

    name: str
    tests: int
    requests: Mapping[str, int]
    duration_seconds: float
    token_grants: int
    unknown_tests: int
    notes: Sequence[str]
    files: Sequence[FilesAhead] = ()


def forecast(
    order: Order,
    state: LedgerState,
    now_us: int,
    kept_keys: Callable[[Collection[str]], KeptKeys],
    sizes_seen: Callable[[str], Seen],
) -> Forecast:
    """Return what a run would ask if nothing has changed since the last one.

    A test never looked at counts as one page: nobody knows yet how many sessions it has.
    `kept_keys` tells whose answers to some endpoints are kept, where a table was added;
    `sizes_seen` how large a table's files are that have come.
    """
    foresight = _Foresight(order, state, now_us, kept_keys)
    requests = Counter(foresight.catalogue_pages())
    unknown_tests = 0
    for test in foresight.tests:
        ahead = foresight.of(test)
        requests.update(ahead.requests)
        unknown_tests += ahead.is_unknown
    seconds = seconds_for(requests.total(), order.connection)
    return Forecast(
        name=order.name,
        tests=len(foresight.tests),
        requests={kind: requests[kind] for kind in foresight.kinds()},
        duration_seconds=seconds,
        token_grants=1 + int(seconds // (0.8 * TOKEN_LIFE_SECONDS)),
        unknown_tests=unknown_tests,
        notes=list(foresight.unknowns(unknown_tests)),
        files=list(foresight.files(sizes_seen)),
    )


def seconds_for(requests: int, connection: Connection) -> float:
    """Return how long so many requests take at the connection's limit."""
    limit = connection.rate_limit
    return max(0, (requests - 1) // limit.requests) * limit.seconds


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is asked about one test, by kind; `is_unknown` if it was never listed."""

    requests: Counter[str]
    is_unknown: bool


def _by_test(answers: Collection[Identity]) -> dict[str | None, list[Identity]]:
    found: dict[str | None, list[Identity]] = {}
    for answer in answers:
        found.setdefault(answer[1], []).append(answer)
    return found


class _Foresight:
    """What the next run asks, as far as the state tells."""

    def __init__(
        self,
        order: Order,
        state: LedgerState,
        now_us: int,
        kept_keys: Callable[[Collection[str]], KeptKeys],
    ) -> None:
        self._order = order
        self._state = state
        self._now_us = now_us
        products = msgspec.json.decode(state.notes.get(PRODUCTS, "{}"), type=dict[str, str])
        self._feeds = replace(feeds_of(order.pipeline), product_of=products)
        self._need = catalogue_need(order, products)
        noted = state.notes.get(CATALOGUE)
        self._read = None if noted is None else msgspec.json.decode(noted, type=Catalogued)
        found = () if self._read is None else self._read.tests
        self.tests: Sequence[str] = order.tests if order.filter is None else found
        self._to_list = frozenset(self._listed_now())
        self._dialect = remembered(
            state.notes.get(dialect_note(order.connection)), order.pipeline.pagination
        )
        added = set(tables_asked(order.pipeline).split())
        added.difference_update(state.notes.get(TABLES, "").split())
        self._added = by_endpoint(added)
        self._kept = kept_keys(self._added) if self._added else {}
        self._paid = _by_test(state.in_inbox)
        self._files = [
            FilesCount(table)
            for table in files_asked(order)
            if order.pipeline.files(table.name).download
        ]

    def _listed_now(self) -> Sequence[str]:
        """Return the tests whose listing is looked at: those left of the round, or all."""
        tests = [test for test in self.tests if listing_of(self._order, self._feeds, test)]
        states, began_at_us = self._state.states, self._state.round_began_at_us
        if not goes_on(states, began_at_us, tests, self._now_us):
            return tests
        return [test for test in tests if states.get(test, "open") == "open"]

    def kinds(self) -> list[str]:
        """Return the kinds of requests, in the order in which they are asked."""
        catalogue = (_WORKSPACES, _TESTS_PAGES) if self._need is not None else ()
        classic = (COMPLETED_SESSIONS.name,) if lists_classic(self._order) else ()
        kinds = [*catalogue, FIRST, DEEPER, PROOFS, *classic]
        for endpoint in endpoints_asked(self._order):
            kinds.append(endpoint.name)
            kinds += (kind for listing, _, kind in self._listed_files() if listing == endpoint.name)
        return kinds

    def _listed_files(self) -> Iterator[tuple[str, str, str]]:
        """Yield what lists files, the table of these, and the kind of request for one."""
        for table in files_asked(self._order):
            if table.files is not None and table.lists_files:
                yield table.endpoint.name, table.name, table.files.receipt.name

    def catalogue_pages(self) -> dict[str, int]:
        """Return what the catalogue takes: as much as last time, less what has been paid."""
        if self._need is None:
            return {}
        paid = Counter(endpoint for endpoint, *_ in self._paid.get(None, ()))
        some = self._need.workspaces
        left = recalled(self._state.notes.get(CATALOGUE_UNDER_WAY), self._now_us)
        pages = self._read.pages if self._read is not None else len(some or (None,))
        return {
            _WORKSPACES: int(some is None and not (left.workspaces or paid[WORKSPACES.name])),
            _TESTS_PAGES: max(0, pages - len(left.pages) - paid[WORKSPACE_TESTS.name]),
        }

    def of(self, test: str) -> _Ahead:
        """Return what is asked about a test."""
        record, listed_now = self._state.record(test), test in self._to_list
        if self._is_absent(test, record):
            return _Ahead(Counter(), is_unknown=False)
        known, total = record.sessions_known(), record.listing.total
        if total is None and (known or record.listing.whole):
            total = len(known)
        met = self._add_tables(test, record) if self._added else set()
        listed_now |= self._is_reopened(test, record, known)
        relisted = listed_now and not record.listing.whole
        unlisted = min(total or 0, rows_in_reach(self._dialect)) - len(known) if relisted else 0
        requests = self._pages(test, record, total) if listed_now else Counter[str]()
        for endpoint in endpoints_asked(self._order):
            if not self._feeds.has(test, endpoint.name):
                continue
            if endpoint.scope is Scope.SESSION:
                due = self._sessions(test, endpoint.name, record, known if relisted else met)
                requests[endpoint.name] = due + max(0, unlisted)
            else:
                is_due = relisted or is_test_due(record, endpoint.name, self._now_us)
                requests[endpoint.name] = int(is_due and not self._paid_for(test, endpoint.name))
        for _, table, kind in self._listed_files():
            objects = {name for name, _ in objects_due(record, table, kind, self._now_us)}
            requests[kind] = len(objects - {found for _, found, _ in self._paid_for(test, kind)})
        for count in self._files:
            count.add(record, requests, self._now_us)
        return _Ahead(requests, listed_now and total is None)

    def _add_tables(self, test: str, record: Record) -> set[int]:
        """Note what the run does where tables were added; return the sessions then due."""
        fed: dict[str, Sequence[str]] = {}
        for endpoint, names in self._added.items():
            kept = self._kept.get((endpoint, test), ())
            if endpoint in self._feeds.fed:
                for table in names:
                    landed = record.answered.setdefault(table, {})
                    landed.update({key: 0 for key in kept if key is not None} | landed)
                if self._feeds.has(test, endpoint):
                    fed[endpoint] = names
            elif not kept:
                record.asked_at_us.pop(endpoint, None)
        missing, is_listed = unmet(record, fed)
        listings = (SESSION_RESULTS.name, COMPLETED_SESSIONS.name)
        if not is_listed or any(
            name in self._added and self._feeds.has(test, name) for name in listings
        ):
            record.forget_listing()
        return missing

    def _is_reopened(self, test: str, record: Record, known: Collection[int]) -> bool:
        """Say whether a test is looked at in any case: its listing is known no more."""
        listing = listing_of(self._order, self._feeds, test)
        return record.is_unread and bool(known) and listing is not None

    def _pages(self, test: str, record: Record, total: int | None) -> Counter[str]:
        """Return the pages that the look at its listing takes; those paid lately are at hand."""
        if listing_of(self._order, self._feeds, test) is COMPLETED_SESSIONS:
            return self._classic_pages(test, record, total)
        came = {page or "": at_us for _, page, at_us in self._paid_for(test, SESSION_RESULTS.name)}
        if not record.listing.whole:
            came |= {page: view.read_at_us for page, view in record.in_hand.items()}
        return pages_ahead(
            record.listing,
            total,
            self._dialect,
            audit=self._order.audit,
            now_us=self._now_us,
            paid={page for page, at_us in came.items() if self._now_us - at_us <= STALE_AFTER_US},
        )

    def _is_absent(self, test: str, record: Record) -> bool:
        """Say whether a test is not asked for, since the older API lately did not know it."""
        absent_for_us = self._now_us - record.asked_at_us.get(COMPLETED_SESSIONS.name, 0)
        is_classic = listing_of(self._order, self._feeds, test) is COMPLETED_SESSIONS
        return is_classic and 0 <= absent_for_us < ABSENT_FOR_US

    def _classic_pages(self, test: str, record: Record, total: int | None) -> Counter[str]:
        name, audit = COMPLETED_SESSIONS.name, self._order.audit
        pages = cursor_pages_ahead(record.listing, total, audit=audit, now_us=self._now_us)
        came = [at_us for _, _, at_us in self._paid_for(test, name)]
        if not record.listing.whole:
            came += [view.read_at_us for view in record.in_hand.values()]
        paid = sum(self._now_us - at_us <= STALE_AFTER_US for at_us in came)
        return Counter({name: max(0, pages - paid)})

    def _sessions(
        self, test: str, endpoint: str, record: Record, listed_again: Collection[int]
    ) -> int:
        """Return how many of its known sessions an endpoint is asked for."""
        tables = self._feeds.fed[endpoint]
        due = keys_due(record, endpoint, tables, self._now_us, listed_again)
        paid = (session for session, *_ in self._paid_for(test, endpoint) if session is not None)
        return len(due - set(map(session_key, paid)))

    def _paid_for(self, test: str, endpoint: str) -> list[tuple[str | None, str | None, int]]:
        """Return session, object and time of the answers that wait in the inbox."""
        return [
            (session, found, at_us)
            for name, _, session, found, at_us in self._paid.get(test, ())
            if name == endpoint
        ]

    def files(self, sizes_seen: Callable[[str], Seen]) -> Iterator[FilesAhead]:
        """Estimate the files to come, once all tests have been foreseen."""
        for count in self._files:
            if (ahead := count.ahead(sizes_seen)) is not None:
                yield ahead

    def unknowns(self, unknown_tests: int) -> Iterator[str]:
        """Say what only asking can tell."""
        if self._need is not None and self._read is None:
            yield "The workspaces were never read: how many pages of tests they have is not known."
        if self._order.filter is not None:
            found = "none, before the first run" if self._read is None else "those of last time"
            yield f"Which tests the filter finds is told by each run; here it is {found}."
        elif self._need is not None and self._need.enough:
            yield (
                f"The product of {len(self._need.enough)} tests is not known: they count as "
                "having all that is asked."
            )
        if listing := [table.replace("_", " ") for _, table, _ in self._listed_files()]:
            yield (
                f"How many {' and '.join(listing)} are new is told by their lists: each costs a "
                "request, and some more while its file is being made."
            )
        if unknown_tests:
            sessions = ", and what these take" if endpoints_asked(self._order) else ""
            yield (
                f"{unknown_tests} tests were never looked at and count as one page each: only "
                f"asking tells how many sessions they have{sessions}."
            )
