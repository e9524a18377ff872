"""The same for code that runs in no event loop: a script, an Airflow or a Dagster task.

Each call of `run_pipelines`, and each block of `connect`, has an event loop in a thread of its
own, which ends with it. So they work in any thread, and also where a loop runs already (a
notebook), though there they block it: `await etl.api.run_pipelines(…)` does not.
Ctrl-C cancels what is under way; what was fetched is kept, as in `etl.api`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
)
from functools import partial, wraps
from typing import Final, ParamSpec, TypeVar

import pyarrow as pa
from anyio.from_thread import BlockingPortal, start_blocking_portal

from etl.api import connecting, running
from etl.api.connecting import Api, Reply
from etl.client.http import Usage
from etl.report.values import RunReport

__all__ = ["BlockingApi", "Reply", "RunReport", "connect", "run_pipelines"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class BlockingApi:
    """An open connection; see `etl.api.Api`, whose methods these are. Any thread may call them."""

    def __init__(self, portal: BlockingPortal, api: Api) -> None:
        """Wrap a connection that is open in the portal's loop."""
        self._portal = portal
        self._api = api

    @property
    def usage(self) -> Usage:
        """What has been asked so far, and how near the limit that is."""
        return self._api.usage

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> Reply:
        """Ask for a path of the API and return the answer, as `Api.get` does."""
        return self._portal.call(self._api.get, path, params)

    def pages(self, test_id: str) -> Iterator[pa.RecordBatch]:
        """Iterate over a test's listing, as `Api.pages` does."""
        return self._each(self._api.pages(test_id))

    def batches(
        self, tables: str | Sequence[str], test_id: str, *, sessions: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over a test's rows, as `Api.batches` does."""
        return self._each(self._api.batches(tables, test_id, sessions=sessions))

    def _each(self, batches: AsyncIterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Take from an iterator of the loop, one by one as they are wanted."""
        while (batch := self._portal.call(_next, batches)) is not None:
            yield batch


async def _next(batches: AsyncIterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return await anext(batches, None)


def _called(
    call: Callable[Arguments, Awaitable[Result]],
) -> Callable[Arguments, Result]:
    """Return the blocking twin of a coroutine function."""

    @wraps(call)
    def twin(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        with start_blocking_portal() as portal:
            return portal.call(partial(call, *arguments, **named))

    return twin


def _opened(
    opened: Callable[Arguments, AbstractAsyncContextManager[Api]],
) -> Callable[Arguments, AbstractContextManager[BlockingApi]]:
    """Return the blocking twin of what opens a connection."""

    @contextmanager
    @wraps(opened)
    def twin(*arguments: Arguments.args, **named: Arguments.kwargs) -> Iterator[BlockingApi]:
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(opened(*arguments, **named)) as api,
        ):
            yield BlockingApi(portal, api)

    return twin


run_pipelines: Final = _called(running.run_pipelines)
"""`etl.api.run_pipelines`, for code that runs in no event loop."""

connect: Final = _opened(connecting.connect)
"""`etl.api.connect`, for code that runs in no event loop."""
