"""`etl check` and `etl peek`: commands that make a request or two."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any, Final
from uuid import UUID

import anyio
from anyio import fail_after, to_thread

from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.client.http import Client, open_client
from etl.client.values import Content, Fetched, Request, Scope, TryLater
from etl.config.models import Config, Connection, Pipeline
from etl.errors import TestFailed, Unreachable, UsageError
from etl.lake.local import LocalLake
from etl.lake.personal import PersonalData, personal_data
from etl.ledger.places import make_state_dir
from etl.pacing.clock import SystemClock
from etl.plan.orders import Asked, Order, exportable, lists, lists_classic, orders
from etl.run.errors import single_error
from etl.tables.completed_sessions import COMPLETED_SESSIONS, page_view
from etl.tables.receipts import LISTED
from etl.tables.registry import tables
from etl.tables.sessions import SESSION_RESULTS, SessionsPage
from etl.tables.values import AnyTable, rows_as_dicts
from etl.tables.workspaces import WORKSPACES, listed_workspaces

_PATIENCE_SECONDS: Final = 90.0


def check_command(path: Path) -> int:
    """Check config, credentials, API and lakes; say what was found; return the exit code."""
    config = load_config(path)
    say(f"config      {config.path}: {len(config.pipelines)} pipelines, no mistakes")
    code = 0
    for order in orders(config, (), Asked()):
        try:
            with single_error():
                said = anyio.run(_look, order)
        except TestFailed as error:
            # The token was good: what cannot be seen is worth knowing, and no more.
            said = f"test        {error}"
            code = code or error.exit_code
        say(f"credentials connection {order.connection.name!r}: accepted")
        say(said)
        LocalLake(order.lake_path).probe()
        say(f"lake        {order.lake_path}: can be written")
    return code


async def _look(order: Order) -> str:
    """Ask once for what the pipeline begins with, and say what there is."""
    connection = order.connection
    async with open_asking(connection, order.state_dir) as client:
        if order.filter is not None:
            found = (await _ask(client, connection, Request(WORKSPACES))).content
            return f"workspaces  {len(listed_workspaces(found))} are seen; each run asks for tests"
        test_id = order.tests[0]
        if lists(order) or not lists_classic(order):
            total = (await _ask(client, connection, _first_rows(test_id, 25))).content.total
        else:
            page = await _ask(client, connection, Request(COMPLETED_SESSIONS, test_id=test_id))
            total = page_view(page.answer, page.content).total
        return f"test        {test_id}: {total} sessions"


@asynccontextmanager
async def open_asking(connection: Connection, state_dir: Path) -> AsyncIterator[Client]:
    """Open a client for a few requests, at the pace of all that use these credentials."""
    await to_thread.run_sync(make_state_dir, state_dir)
    async with open_client(
        connection, state_dir=state_dir, clock=SystemClock(), random=SystemRandom()
    ) as client:
        yield client


def _first_rows(test_id: str, rows: int) -> Request[SessionsPage]:
    query = (("testId", test_id), ("limit", str(rows)), ("offset", "0"))
    return Request(SESSION_RESULTS, test_id=test_id, query=query)


async def _ask(
    client: Client, connection: Connection, request: Request[Content]
) -> Fetched[Content]:
    """Ask once; what may pass is an error here, since nothing retries."""
    try:
        with fail_after(_PATIENCE_SECONDS):
            return await client.fetch(request)
    except TimeoutError:
        raise Unreachable(
            f"There was no answer within {_PATIENCE_SECONDS:.0f} s, token and turn included.",
            where=connection.api_url,
            advice="Check the network, USERTESTING_API_URL and USERTESTING_TOKEN_URL; a run "
            "under way with the same credentials may also be using up the rate limit.",
        ) from None
    except TryLater as later:
        raise Unreachable(
            f"The API gave no answer that can be read: {later.reason}.",
            where=connection.api_url,
            advice="Try again in a while; `etl run` does so by itself.",
        ) from None


@dataclass(frozen=True, slots=True)
class _Peeked:
    """What a peek brought: an answer, or none where the test has no session; `total` sessions."""

    fetched: Fetched[Any] | None
    total: int | None = None


def peek_command(path: Path, test: str, table: str, *, as_json: bool) -> None:
    """Show the rows that one request brings, or two: the newest session, and what it has."""
    shown = _peekable(table)
    try:
        test_id = str(UUID(test))
    except ValueError:
        raise UsageError(f"{test!r} is not a test id.", advice="A test id is a UUID.") from None
    config = load_config(path)
    pipeline = _pipeline_for(config, test_id)
    connection = config.connections[pipeline.connection]
    with single_error():
        peeked = anyio.run(_peek, connection, config.state_dir, test_id, shown)
    personal = personal_data(pipeline, config.hash_key)
    rows = [] if peeked.fetched is None else _rows(shown, peeked.fetched, personal)
    if shown.by_session:
        said = f"{len(rows)} rows of the newest session, for two requests: the listing came first"
    elif shown.endpoint is SESSION_RESULTS:
        total = peeked.total if peeked.total is not None else "an unknown number of"
        said = f"{len(rows)} of {total} rows"
    else:
        said = f"{len(rows)} rows"
    say(said)
    if as_json:
        print_json({"table": table, "test_id": test_id, "rows": rows})
        return
    names = [column.name for column in shown.columns]
    print_table(names, [[row.get(name) for name in names] for row in rows])


def _peekable(table: str) -> AnyTable:
    """Return a table that can be peeked at; raises UsageError with those that can."""
    known = exportable()
    accepted = [name for name, one in known.items() if not one.endpoint.is_of_account]
    if table not in accepted:
        there = "There is no table" if table not in tables() else "One cannot peek at table"
        what = " `etl discover` shows workspaces and tests." if table in known else ""
        raise UsageError(
            f"{there} {table!r}.", advice=f"These can be shown: {', '.join(accepted)}.{what}"
        )
    return known[table]


async def _peek(connection: Connection, state_dir: Path, test_id: str, table: AnyTable) -> _Peeked:
    """Ask for a table's rows; those of a session are the newest one's."""
    async with open_asking(connection, state_dir) as client:
        if table.endpoint.scope is Scope.TEST and table.endpoint is not SESSION_RESULTS:
            return _Peeked(await _ask(client, connection, Request(table.endpoint, test_id=test_id)))
        listing = await _ask(
            client, connection, _first_rows(test_id, 1 if table.by_session else 25)
        )
        if not table.by_session:
            return _Peeked(listing, listing.content.total)
        newest = next((session_id for session_id, *_ in listing.content.sessions()), None)
        if newest is None:
            return _Peeked(None)
        if table.files is not None and not table.lists_files:
            request = Request(table.files.address, test_id=test_id, session_id=newest)
            answer = (await _ask(client, connection, request)).answer
            return _Peeked(Fetched(answer, LISTED))  # where it can be had is a secret
        request = Request(table.endpoint, test_id=test_id, session_id=newest)
        return _Peeked(await _ask(client, connection, request))


def _pipeline_for(config: Config, test_id: str) -> Pipeline:
    """Return the pipeline that has this test, else the first one."""
    for pipeline in config.pipelines.values():
        if isinstance(pipeline.tests, tuple) and test_id in pipeline.tests:
            return pipeline
    return next(iter(config.pipelines.values()))


def _rows(
    table: AnyTable, fetched: Fetched[Any], personal: PersonalData
) -> list[dict[str, object]]:
    """Return the rows as they would land: what is excluded or hashed is not shown either."""
    rows = table.rows_of(fetched.answer, fetched.content)
    answer = personal.answer(fetched.answer)
    return rows_as_dicts(personal.rows(table, fetched.answer, rows), answer)
