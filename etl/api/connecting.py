"""Opens a connection for a program's own calls: token, pace and retries are taken care of."""

import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
from anyio import to_thread

from etl.api.listing import Check
from etl.api.rows import rows_of
from etl.client.http import Client, Usage, open_client
from etl.client.values import (
    Content,
    Endpoint,
    Fetched,
    Priority,
    Request,
    Scope,
    TryKind,
    TryLater,
)
from etl.config.load import load_connection
from etl.config.models import Connection, RateLimit
from etl.config.secrets import known_secrets
from etl.errors import Unreachable, UsageError
from etl.ledger.places import make_state_dir
from etl.pacing.events import Events, no_events
from etl.pacing.rules import retry_delay
from etl.plan.orders import exportable
from etl.run.errors import single_error
from etl.run.world import Patience, World, this_world

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the API answered with status 200; the body is decompressed."""

    body: bytes = field(repr=False)
    fetched_at: datetime

    def json(self) -> Any:  # noqa: ANN401 - whatever the API says
        """Return the body as JSON; raises ValueError if it is none."""
        return json.loads(self.body)

    def text(self) -> str:
        """Return the body as text: transcripts are WebVTT."""
        return self.body.decode(errors="replace")


class Api:
    """An open connection; see `connect`. Its methods may be called side by side."""

    def __init__(self, client: Client, world: World) -> None:
        """Wrap an open client."""
        self._client = client
        self._world = world

    @property
    def usage(self) -> Usage:
        """What has been asked so far, and how near the limit that is."""
        return self._client.usage

    async def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Reply:
        """Return what the API answers for a path, such as `/usertesting/api/v1/workspaces`.

        It waits for its turn, and asks again what may pass: each try is a send. Raises
        NotFound, Forbidden, BadRequest, CredentialsRefused and Unreachable.
        """
        if not path.startswith("/") or "?" in path or "#" in path:
            raise UsageError(
                f"{path!r} is not a path of the API.",
                advice="Begin it with a slash; the query goes into `params`.",
            )
        endpoint = Endpoint(
            "get", quote(path, safe="/%:@-._~!$&'()*+,;="), Scope.ACCOUNT, Priority.DETAILS, bytes
        )
        query = tuple((name, str(value)) for name, value in (params or {}).items())
        answer = (await self._ask(Request(endpoint, query=query))).answer
        return Reply(answer.body, _EPOCH + timedelta(microseconds=answer.fetched_at_us))

    def pages(self, test_id: str) -> AsyncIterator[pa.RecordBatch]:
        """Iterate over a test's listing, a batch of the table `sessions` for each page of it.

        Each session comes once. Raises TestFailed at the end if the pages do not prove that
        these are all.
        """
        return self.batches("sessions", test_id)

    async def batches(
        self, tables: str | Sequence[str], test_id: str, *, sessions: Sequence[str] | None = None
    ) -> AsyncIterator[pa.RecordBatch]:
        """Iterate over a test's rows of one table or several, in the columns of the lake.

        Tables of sessions are asked for those given, or else for all that are listed, which is
        a request each; tables that share an answer share the request. Where several tables are
        asked for, a batch says of which it is in the `etl_table` of its schema's metadata. Name
        `rejects` to have what could not be read as well. What a session or test does not have is
        passed over. Raises as `get` and `pages` do, and UsageError for an unknown table.
        """
        names = [tables] if isinstance(tables, str) else list(tables)
        async for batch in rows_of(names, test_id, sessions, self._world, self._ask):
            yield batch

    async def _ask(
        self, request: Request[Content], check: Check[Content] | None = None
    ) -> Fetched[Content]:
        """Ask until there is an answer that `check` does not refuse, or patience ends."""
        world, began_at = self._world, self._world.clock.monotonic()
        attempt = 0
        while True:
            try:
                fetched = await self._client.fetch(replace(request, attempt=attempt))
                if check is not None:
                    check(fetched)
            except TryLater as later:
                waited = world.clock.monotonic() - began_at
                spent = attempt + 1 >= world.patience.attempts
                if (spent and later.kind is not TryKind.THROTTLED) or (
                    waited >= world.patience.outage_seconds
                ):
                    raise _gave_up(request, attempt + 1, later) from None
                await world.clock.sleep(retry_delay(attempt, later.hint_seconds, world.random))
                attempt += 1
            else:
                return fetched


def _gave_up(request: Request[Any], tries: int, later: TryLater) -> Unreachable:
    return Unreachable(
        f"The API was asked {tries} times: {later.reason}.",
        where=request.endpoint.path,
        advice="Try again in a while.",
    )


@asynccontextmanager
async def connect(  # noqa: PLR0913 - what a pipelines file and the environment may say, too
    connection: str = "default",
    *,
    config: str | Path | None = None,
    client_id: str | None = None,
    client_secret: str | None = None,
    api_url: str | None = None,
    token_url: str | None = None,
    rate_limit: RateLimit | None = None,
    state_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    on_event: Events = no_events,
    patience: Patience | None = None,
) -> AsyncIterator[Api]:
    """Open a connection; leaving the block ends all that it began.

    What is not given comes from the environment, from `.env` and from the pipelines file
    `config`, if one is named: as for `etl run`, but that arguments are over all. Nothing is
    sent before the first call. Sends are counted in the state directory (that of the
    settings, if none is given), so that runs and other programs that use these credentials
    keep one pace together. Raises ConfigError and StateError.
    """
    told = {
        "USERTESTING_CLIENT_ID": client_id,
        "USERTESTING_CLIENT_SECRET": client_secret,
        "USERTESTING_API_URL": api_url,
        "USERTESTING_TOKEN_URL": token_url,
    }
    settings = partial(
        load_connection,
        None if config is None else Path(config),
        connection,
        told={name: value for name, value in told.items() if value is not None},
        environ=os.environ if environ is None else environ,
        state_dir=None if state_dir is None else Path(state_dir),
    )
    found, folder = await to_thread.run_sync(settings)
    if rate_limit is not None:
        found = found.model_copy(update={"rate_limit": rate_limit})
    await to_thread.run_sync(make_state_dir, folder)
    await to_thread.run_sync(exportable)  # finds the tables: looked up later, it would block
    async with _opened(found, folder, this_world(patience), on_event) as api:
        yield api


@asynccontextmanager
async def _opened(
    connection: Connection, state_dir: Path, world: World, on_event: Events
) -> AsyncIterator[Api]:
    """Open a client; what the block raises is raised as it is, in no group."""
    if connection.client_secret is not None:
        known_secrets.add([connection.client_secret.get_secret_value()])
    failed: Exception | None = None
    with single_error():
        async with open_client(
            connection,
            state_dir=state_dir,
            clock=world.clock,
            random=world.random,
            on_event=on_event,
        ) as client:
            try:
                yield Api(client, world)
            except Exception as error:  # noqa: BLE001 - raised again outside of the task group
                failed = error
    if failed is not None:
        raise failed
