"""Decides what a run is to do for a pipeline: which tests, tables and endpoints."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from etl.client.values import Endpoint, Scope
from etl.config.models import Config, Connection, Discovery, Pipeline
from etl.errors import UsageError
from etl.ledger.afresh import Span
from etl.ledger.due import Feeds
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.registry import tables
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.values import AnyTable

PRODUCTS: Final = "product types"
TABLES: Final = "tables asked by test or session"
CATALOGUE: Final = "catalogue"
CATALOGUE_UNDER_WAY: Final = "catalogue under way"
"""The names of the ledger's notes of what decides what is asked."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to do for one pipeline.

    `tests` are the ids to look at, none where a filter is to find them. `only` are those that
    were named; without, they are all of the pipeline's, so that the look is a round to be
    gone on with. `tables` are those to ask for; an answer feeds every table of the pipeline.
    `afresh` begins a new round and reads every page. `span` makes it a backfill of the sessions
    that belong to it. `one_by_one` finishes one test before it
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
    span: Span | None = None

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
        return "full" if self.afresh or self.span is not None else self.pipeline.audit


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of a run, over what the pipelines file says.

    A `span` asks for a backfill.
    """

    tests: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    full: bool = False
    max_requests: int | None = None
    span: Span | None = None


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
        one_by_one=asked.max_requests is not None or asked.span is not None,
        span=asked.span,
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
    asked = [tables()[name] for name in pipeline.tables]
    classic = (table.endpoint.name for table in asked if table.endpoint.is_classic)
    growing = (table.endpoint.name for table in asked if table.by_session and table.lists_files)
    return Feeds(fed, products, {}, frozenset(classic), frozenset(growing))


def endpoints_asked(order: Order) -> list[Endpoint[Any]]:
    """Return what is asked by test or session, in the order of the pipeline's tables."""
    asked = dict.fromkeys(tables()[name].endpoint for name in order.tables)
    return [one for one in asked if keeps(one)]


def files_asked(order: Order) -> list[AnyTable]:
    """Return the tables whose files are asked for, in the order of the pipeline's tables."""
    asked = (tables()[name] for name in order.tables)
    return [
        table
        for table in asked
        if table.files is not None
        if not table.lists_files or order.pipeline.files(table.name).download
    ]


def recall_products(feeds: Feeds, noted: str | None) -> None:
    """Learn the product types that a ledger has noted."""
    feeds.product_of.update(msgspec.json.decode(noted or "{}", type=dict[str, str]))


def tables_asked(pipeline: Pipeline) -> str:
    """Return the tables asked for by test or session, as they are noted."""
    endpoints = {name: tables()[name].endpoint for name in pipeline.tables}
    return " ".join(
        sorted(name for name, one in endpoints.items() if keeps(one) or is_listing(one))
    )


def by_endpoint(names: Iterable[str]) -> dict[str, list[str]]:
    """Return tables by the names of the endpoints that feed them."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(tables()[name].endpoint.name, []).append(name)
    return found


def is_listing(endpoint: Endpoint[Any]) -> bool:
    """Say whether an endpoint is asked page by page, until it is proved."""
    return endpoint in (SESSION_RESULTS, COMPLETED_SESSIONS)


def keeps(endpoint: Endpoint[Any]) -> bool:
    """Say whether the lake keeps an endpoint's answers: those about one test or session."""
    return endpoint.scope in (Scope.TEST, Scope.SESSION) and not is_listing(endpoint)


def is_made_of_bodies(table: AnyTable) -> bool:
    """Say whether a table's rows can be made anew from answers alone.

    Those of files cannot: where the file lies, no answer says.
    """
    return keeps(table.endpoint) and all(column.name != "sha256" for column in table.columns)


def dialect_note(connection: Connection) -> str:
    """Return the name of the note of how an API's pages are spelled."""
    return f"dialect of {connection.api_url}"


def lists(order: Order) -> bool:
    """Say whether listings are asked: unless only other tables were named, or none needs them."""
    endpoints = {tables()[name].endpoint for name in order.tables}
    if order.tables != order.pipeline.tables:
        return SESSION_RESULTS in endpoints
    return any(not (one.is_of_account or one.is_classic) for one in endpoints)


def lists_classic(order: Order) -> bool:
    """Say whether the sessions of classic tests are asked."""
    return any(tables()[name].endpoint is COMPLETED_SESSIONS for name in order.tables)


def exportable() -> dict[str, AnyTable]:
    """Return the tables that this version can fill, by name."""
    return dict(tables())


def _refuse_foreign(asked: Collection[str], has: Collection[str], what: str, name: str) -> None:
    for value in asked:
        if value.lower() not in has:
            raise UsageError(
                f"Pipeline {name!r} has no {what} {value!r}.",
                advice=f"Add it to the pipelines file, or leave out --{what}.",
            )
