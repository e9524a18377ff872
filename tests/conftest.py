"""What every test gets: one kind of event loop, and the nets of the house."""

import asyncio
import functools
import inspect
import os
from collections.abc import Iterator

import anyio
import pyarrow.parquet  # noqa: F401  # so that its functions can be watched
import pytest
from blockbuster import BlockBuster, BlockBusterFunction
from hypothesis import settings

from tests.virtual_time import VirtualTimeLoop

# In CI the same examples every time, so that a failure is due to the change; searching anew
# belongs to `make soak` and to every developer's run, which prints how to replay a failure.
settings.register_profile("etl", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("etl")

# What this project calls and blockbuster does not know: opening, durable writes, Parquet.
ALSO_BLOCKING = (
    "builtins.open",
    "fcntl.flock",
    "io.open",  # what pathlib calls
    "os.fdatasync",  # not on macOS, and left out there
    "os.fsync",
    "os.open",
    "os.pread",
    "os.pwrite",
    "pyarrow.parquet.ParquetFile.read",
    "pyarrow.parquet.ParquetWriter.write_batch",
    "pyarrow.parquet.ParquetWriter.write_table",
    "pyarrow.parquet.read_table",
    "sqlite3.connect",
)
MAY_BLOCK = (
    ("<frozen importlib._bootstrap>", "_find_and_load"),  # late imports
    ("asyncio/unix_events.py", "_start"),  # pipes to a process, which asyncio opens
    # `make coverage` notes each file that is first met; another thread may be noting one too.
    ("coverage/collector.py", "lock_data"),
    ("pytest_timeout.py", "timeout_sigalrm"),  # says where the test hung
    ("_pytest/capture.py", "snap"),  # reads what a test has printed
    ("etl/pacing/send_log.py", "try_lock"),  # LOCK_NB: taken or not, never waited for
    ("etl/pacing/send_log.py", "unlock"),
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests and fixtures on asyncio, the only loop that aiohttp knows."""
    return "asyncio"


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """Fail a test that blocks its event loop: what blocks belongs in `to_thread`."""
    guard = BlockBuster()
    guard.functions |= {name: BlockBusterFunction(None, name) for name in ALSO_BLOCKING}
    for function in guard.functions.values():
        for filename, name in MAY_BLOCK:
            function.can_block_in(filename, name)
    guard.activate()
    yield guard
    guard.deactivate()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """End an async test that hangs from within: where it waited is told, its fixtures close.

    Just before pytest-timeout, whose signal could only abandon the test, still waiting.
    """
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return
    marker = pyfuncitem.get_closest_marker("timeout")
    seconds = float(marker.args[0] if marker else pyfuncitem.config.getini("timeout"))

    @functools.wraps(test)
    async def in_time(**fixtures: object) -> None:
        virtual = isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        with anyio.fail_after(None if virtual else 0.9 * seconds):
            await test(**fixtures)

    pyfuncitem.obj = in_time
