"""Reads a test's rows: asks what its tables need, and makes Arrow of the answers."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

import pyarrow as pa

from etl.api.listing import Check, pages_of
from etl.client.values import Content, Endpoint, Fetched, Request, Scope
from etl.config.models import Lake, Pipeline
from etl.errors import NotFound, TestFailed, UsageError
from etl.lake.landing_plan import LandingPlan
from etl.lake.loose import LooseRows, as_arrow
from etl.lake.personal import personal_data
from etl.lake.rendering import Gathered, Renderer
from etl.lake.tally import Tally
from etl.ledger.due import Feeds
from etl.ledger.records import Record
from etl.plan.orders import exportable
from etl.run.world import World
from etl.tables import rejects
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.values import AnyTable


class Ask(Protocol):
    """Asks until there is an answer that `check`, if given, does not refuse by a TryLater."""

    async def __call__(
        self, request: Request[Content], check: Check[Content] | None = None
    ) -> Fetched[Content]:
        """Return the answer. Raises EtlError."""


async def rows_of(
    names: Sequence[str], test_id: str, sessions: Sequence[str] | None, world: World, ask: Ask
) -> AsyncIterator[pa.RecordBatch]:
    """Yield a test's rows of these tables, of all sessions if none are given; see `Api.batches`."""
    test_id = _as_test_id(test_id)
    rendering = _Rendering(test_id, names, world.run_id)
    async for fetched in _answers(rendering.endpoints, test_id, sessions, world, ask):
        for batch in rendering.batches(fetched):
            yield batch


async def _answers(
    endpoints: Sequence[Endpoint[Any]],
    test_id: str,
    sessions: Sequence[str] | None,
    world: World,
    ask: Ask,
) -> AsyncIterator[Fetched[Any]]:
    """Yield the answers of these endpoints: of the test, its listing, then of its sessions.

    A listing that is not proved complete is told last: its sessions are asked all the same.
    """
    of_test = [one for one in endpoints if one.scope is Scope.TEST and one is not SESSION_RESULTS]
    of_session = [one for one in endpoints if one.scope is Scope.SESSION]
    async for fetched in _each(ask, [Request(endpoint, test_id) for endpoint in of_test]):
        yield fetched
    listed: list[str] = []
    not_proved: TestFailed | None = None
    if SESSION_RESULTS in endpoints or (of_session and sessions is None):
        try:
            async for page in pages_of(test_id, world, ask):
                listed += [session_id for session_id, *_ in page.content.sessions()]
                yield page
        except TestFailed as error:
            not_proved = error
    for session_id in dict.fromkeys(listed if sessions is None else sessions):
        requests = [Request(endpoint, test_id, session_id) for endpoint in of_session]
        async for fetched in _each(ask, requests):
            yield fetched
    if not_proved is not None:
        raise not_proved


async def _each(ask: Ask, requests: Sequence[Request[Any]]) -> AsyncIterator[Fetched[Any]]:
    """Yield the answers to these requests; what there is none of is passed over."""
    for request in requests:
        with suppress(NotFound):
            yield await ask(request)


def _as_test_id(text: str) -> str:
    """Return a test id as it is written everywhere. Raises UsageError."""
    try:
        return str(UUID(text))
    except ValueError:
        raise UsageError(f"{text!r} is not a test id.", advice="A test id is a UUID.") from None


def _tables_of(names: Sequence[str]) -> list[AnyTable]:
    """Return tables whose rows one can ask for by the test. Raises UsageError for any other."""
    known = {name: table for name, table in exportable().items() if _is_asked_by_test(table)}
    for name in names:
        if name not in known and name != rejects.NAME:
            raise UsageError(
                f"One cannot iterate over the table {name!r}.",
                advice=f"These can be: {', '.join((*known, rejects.NAME))}. `run_pipelines` "
                "exports the others, `get` asks for whatever the API has.",
            )
    return [known[name] for name in names if name != rejects.NAME]


def _is_asked_by_test(table: AnyTable) -> bool:
    """Say whether a test's rows are answers to a request each, or pages of its sessions.

    The pages of classic tests are proved by runs alone, and a video is made of its file.
    """
    endpoint = table.endpoint
    of_file = table.files is not None and table.files.receipt is endpoint
    return not (endpoint.is_of_account or endpoint is COMPLETED_SESSIONS or of_file)


class _Rendering:
    """Makes the answers about one test rows of some tables, each row once."""

    def __init__(self, test_id: str, names: Sequence[str], run_id: str) -> None:
        """Prepare for these tables; `rejects` is one of them if it is named."""
        tables = _tables_of(names)
        chosen = tuple(table.name for table in tables) or ("sessions",)
        pipeline = Pipeline(name="api", tests=(test_id,), tables=chosen, lake=Lake(url="."))
        plan = LandingPlan(
            pipeline=pipeline.name,
            run_id=run_id,
            tables=tables,
            partition_by=(),
            feeds=Feeds({}, {}, {}),
            personal=personal_data(pipeline, None),
            keeps_bodies=False,
        )
        self.endpoints: list[Endpoint[Any]] = list(dict.fromkeys(one.endpoint for one in tables))
        self._wanted = frozenset(names)
        self._renderer = Renderer(plan, Tally())
        self._record = Record()

    def batches(self, fetched: Fetched[Any]) -> Iterator[pa.RecordBatch]:
        """Yield what an answer holds that no earlier one did, a batch for each table."""
        for made in self._renderer.render(fetched, self._record).rows:
            if made.table in self._wanted:
                yield _arrow(made)


def _arrow(made: Gathered) -> pa.RecordBatch:
    if isinstance(made.rows, LooseRows):
        return as_arrow([made.rows], made.shape.full_schema)
    return made.rows
