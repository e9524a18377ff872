"""Decides what a run is to do for a pipeline, and what that will cost in requests."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from math import ceil
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from etl.client.values import Endpoint, Scope
from etl.config.models import Config, Connection, Discovery, Pipeline
from etl.errors import UsageError
from etl.ledger.due import Feeds
from etl.paging.values import REACH_OFFSET, Listing
from etl.tables.registry import tables
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.tests import ListedTest
from etl.tables.values import AnyTable

TOKEN_LIFE_SECONDS: Final = 3600.0
"""How long the vendor's tokens live (authorization page); renewed at 80 % of it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to do for one pipeline.

    `tests` are the ids to look at, none where a filter is to find them. `only` are those that
    were named; without, they are all of the pipeline's, so that the look is a round to be
    gone on with. `tables` are those to ask for; an answer feeds every table of the pipeline.
    `afresh` begins a new round and reads every page. `one_by_one` finishes one test before it
    begins the next, so that a run cut short leaves no more than one under way.
    """

    pipeline: Pipeline
    connection: Connection
    state_dir: Path
    lake_path: Path
    tests: tuple[str, ...]
    tables: tuple[str, ...]
    hash_key: SecretStr | None = None
    only: frozenset[str] = frozenset()
    afresh: bool = False
    one_by_one: bool = False

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.pipeline.name

    @property
    def filter(self) -> Discovery | None:
        """The discovery filter that finds the tests, if they are not listed one by one."""
        return self.pipeline.tests if isinstance(self.pipeline.tests, Discovery) else None

    @property
    def audit(self) -> str:
        """How deep known pages are proved again."""
        return "full" if self.afresh else self.pipeline.audit


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of a run, over what the pipelines file says."""

    tests: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    full: bool = False
    max_requests: int | None = None


def orders(config: Config, names: Sequence[str], asked: Asked) -> list[Order]:
    """Return what to do for each pipeline named, in the file's order.

    Raises UsageError for a pipeline that does not exist, and for a test or table that
    none of those named has.
    """
    for name in names:
        if name not in config.pipelines:
            raise UsageError(
                f"There is no pipeline {name!r}.",
                where=str(config.path),
                advice=f"It has: {', '.join(config.pipelines)}.",
            )
    chosen = [
        pipeline
        for pipeline in config.pipelines.values()
        if pipeline.name in (names or config.pipelines)
    ]
    for pipeline in chosen:
        if isinstance(pipeline.tests, tuple):
            _refuse_foreign(asked.tests, pipeline.tests, "test", pipeline.name)
        _refuse_foreign(asked.tables, pipeline.tables, "table", pipeline.name)
    return [_order(config, pipeline, asked) for pipeline in chosen]


def _order(config: Config, pipeline: Pipeline, asked: Asked) -> Order:
    path = pipeline.lake.path
    if path is None:
        raise UsageError(f"Pipeline {pipeline.name!r} has no local lake.", where=str(config.path))
    wanted = {test.lower() for test in asked.tests}
    tests = pipeline.tests if isinstance(pipeline.tests, tuple) else ()
    return Order(
        pipeline=pipeline,
        connection=config.connections[pipeline.connection],
        state_dir=config.state_dir,
        lake_path=path,
        tests=tuple(test for test in tests if not wanted or test in wanted),
        hash_key=config.hash_key,
        tables=tuple(
            table for table in pipeline.tables if table in (asked.tables or pipeline.tables)
        ),
        only=frozenset(wanted),
        afresh=asked.full,
        one_by_one=asked.max_requests is not None,
    )


def feeds_of(pipeline: Pipeline) -> Feeds:
    """Return what a pipeline asks session by session; no product is known yet."""
    fed: dict[str, list[str]] = {}
    products: dict[str, frozenset[str]] = {}
    for name in pipeline.tables:
        endpoint = tables()[name].endpoint
        if endpoint.scope is Scope.SESSION:
            fed.setdefault(endpoint.name, []).append(name)
        if endpoint.products is not None:
            products[endpoint.name] = endpoint.products
    return Feeds(fed, products, {})


def endpoints_asked(order: Order) -> list[Endpoint[Any]]:
    """Return what is asked by test or session, in the order of the pipeline's tables."""
    asked = dict.fromkeys(tables()[name].endpoint for name in order.tables)
    scopes = (Scope.TEST, Scope.SESSION)
    return [one for one in asked if one.scope in scopes and one is not SESSION_RESULTS]


def lists(order: Order) -> bool:
    """Say whether listings are asked: unless only other tables were named, or none needs them."""
    endpoints = {tables()[name].endpoint for name in order.tables}
    if order.tables != order.pipeline.tables:
        return SESSION_RESULTS in endpoints
    return any(not (one.is_of_account or one.is_classic) for one in endpoints)


def exportable() -> dict[str, AnyTable]:
    """Return the tables that this version can fill, by name."""
    return {name: table for name, table in tables().items() if name not in _NOT_YET}


_NOT_YET: Final = frozenset(
    {"videos", "completed_sessions", "completed_session_answers", "screener_responses"}
)


def _refuse_foreign(asked: Collection[str], has: Collection[str], what: str, name: str) -> None:
    for value in asked:
        if value.lower() not in has:
            raise UsageError(
                f"Pipeline {name!r} has no {what} {value!r}.",
                advice=f"Add it to the pipelines file, or leave out --{what}.",
            )


def selected(wanted: Discovery, tests: Iterable[ListedTest]) -> list[str]:
    """Return the ids of the tests that a discovery filter means, newest first.

    Classic tests are not among them: the tables of this API do not hold them.
    """
    title = re.compile(wanted.title_matches or "")
    products = {product.upper() for product in wanted.product_types or ()}
    since_us = _midnight_us(wanted.ordered_since) if wanted.ordered_since is not None else None
    found = [
        test
        for test in tests
        if test.type == "STUDYV2"
        and (not products or (test.product_type or "").upper() in products)
        and (since_us is None or (test.ordered_at_us or 0) >= since_us)
        and title.search((test.title or "")[:_LONGEST_TITLE])
    ]
    found.sort(key=lambda test: -(test.ordered_at_us or 0))
    return [test.test_id.lower() for test in found]


_LONGEST_TITLE: Final = 500


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would ask: requests by kind, and how long that takes at the limit."""

    name: str
    tests: int
    requests: Mapping[str, int]
    duration_seconds: float
    token_grants: int
    unknown_tests: int


def forecast(order: Order, listings: Mapping[str, Listing]) -> Forecast:
    """Return what a run would ask, from what the state knows; makes no request.

    A test never looked at counts as one page: nobody knows yet how many it has.
    """
    rows = order.pipeline.pagination.rows_per_page
    heads = proofs = deeper = unknown = 0
    for test_id in order.tests:
        listing = listings.get(test_id, Listing())
        heads += 1
        if listing.total is None:
            unknown += 1
        elif order.audit == "full" or not listing.whole:
            deeper += pages_of(listing.total, rows) - max(1, pages_of(len(listing.ids), rows)) * (
                order.audit != "full"
            )
        elif order.audit == "rolling" and listing.doubt is None and len(listing.ids) > rows:
            proofs += 1
    requests = {"first pages": heads, "deeper pages": max(0, deeper), "proofs": proofs}
    seconds = seconds_for(sum(requests.values()), order.connection)
    grants = 1 + int(seconds // (0.8 * TOKEN_LIFE_SECONDS))
    return Forecast(order.name, len(order.tests), requests, seconds, grants, unknown)


def pages_of(total: int, rows: int) -> int:
    """Return how many pages show `total` rows, each overlapping the one before by a row."""
    reachable = min(total, REACH_OFFSET + rows)
    return 1 if reachable <= rows else 1 + ceil((reachable - rows) / (rows - 1))


def seconds_for(requests: int, connection: Connection) -> float:
    """Return how long so many requests take at the connection's limit."""
    limit = connection.rate_limit
    return max(0, (requests - 1) // limit.requests) * limit.seconds
