"""`etl check` and `etl peek`: commands that make one request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom
from typing import Final
from uuid import UUID

import anyio
from anyio import fail_after, to_thread

from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.client.http import Client, open_client
from etl.client.values import Fetched, Request, TryLater
from etl.config.models import Config, Connection, Pipeline
from etl.errors import TestFailed, Unreachable, UsageError
from etl.lake.local import LocalLake
from etl.ledger.store import make_state_dir
from etl.pacing.clock import SystemClock
from etl.plan.orders import Asked, orders
from etl.run.errors import single_error
from etl.tables.personal import PersonalData, personal_data
from etl.tables.registry import tables
from etl.tables.sessions import SESSION_RESULTS, SessionsPage
from etl.tables.values import AnyTable, rows_as_dicts

_PATIENCE_SECONDS: Final = 90.0


def check_command(path: Path) -> int:
    """Check config, credentials, API and lakes; say what was found; return the exit code."""
    config = load_config(path)
    say(f"config      {config.path}: {len(config.pipelines)} pipelines, no mistakes")
    code = 0
    for order in orders(config, (), Asked()):
        try:
            with single_error():
                asked = anyio.run(_ask_once, order.connection, config.state_dir, order.tests[0])
        except TestFailed as error:
            # The token was good: a test that cannot be seen is worth knowing, and no more.
            say(f"credentials connection {order.connection.name!r}: accepted")
            say(f"test        {error}")
            code = code or error.exit_code
        else:
            total = asked.content.total
            say(f"credentials connection {order.connection.name!r}: accepted")
            say(f"test        {order.tests[0]}: {total} sessions")
        LocalLake(order.lake_path).probe()
        say(f"lake        {order.lake_path}: can be written")
    return code


@asynccontextmanager
async def open_asking(connection: Connection, state_dir: Path) -> AsyncIterator[Client]:
    """Open a client for a few requests, at the pace of all that use these credentials."""
    await to_thread.run_sync(make_state_dir, state_dir)
    async with open_client(
        connection, state_dir=state_dir, clock=SystemClock(), random=SystemRandom()
    ) as client:
        yield client


async def _ask_once(
    connection: Connection, state_dir: Path, test_id: str, rows: int = 25
) -> Fetched[SessionsPage]:
    """Ask a test's first rows once; what may pass is an error here, since nothing retries."""
    query = (("testId", test_id), ("limit", str(rows)), ("offset", "0"))
    async with open_asking(connection, state_dir) as client:
        try:
            with fail_after(_PATIENCE_SECONDS):
                return await client.fetch(Request(SESSION_RESULTS, test_id=test_id, query=query))
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


def peek_command(path: Path, test: str, table: str, *, as_json: bool) -> None:
    """Show the rows that one request brings."""
    shown = tables().get(table)
    if shown is None:
        raise UsageError(f"There is no table {table!r}.", advice=f"It has: {', '.join(tables())}.")
    try:
        test_id = str(UUID(test))
    except ValueError:
        raise UsageError(f"{test!r} is not a test id.", advice="A test id is a UUID.") from None
    config = load_config(path)
    pipeline = _pipeline_for(config, test_id)
    connection = config.connections[pipeline.connection]
    with single_error():
        fetched = anyio.run(_ask_once, connection, config.state_dir, test_id)
    rows = _rows(shown, fetched, personal_data(pipeline, config.hash_key))
    if as_json:
        print_json({"table": table, "test_id": test_id, "rows": rows})
        return
    names = [column.name for column in shown.columns]
    print_table(names, [[row.get(name) for name in names] for row in rows])
    total = fetched.content.total
    say(f"{len(rows)} of {total if total is not None else 'an unknown number of'} rows")


def _pipeline_for(config: Config, test_id: str) -> Pipeline:
    """Return the pipeline that has this test, else the first one."""
    for pipeline in config.pipelines.values():
        if isinstance(pipeline.tests, tuple) and test_id in pipeline.tests:
            return pipeline
    return next(iter(config.pipelines.values()))


def _rows(
    table: AnyTable, fetched: Fetched[SessionsPage], personal: PersonalData
) -> list[dict[str, object]]:
    """Return the rows as they would land: what is excluded or hashed is not shown either."""
    rows = table.rows_of(fetched.answer, fetched.content)
    return rows_as_dicts(personal.rows(table, fetched.answer, rows), fetched.answer.test_id)
