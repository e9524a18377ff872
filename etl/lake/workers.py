"""Processes that make rows of kept answers, one for each CPU, where there is much to make."""

import gc
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Final

from etl.errors import LakeError
from etl.lake.remaking import Job, Made, remake

_ENOUGH_BYTES: Final = 1024 * 1024
_JOBS_AHEAD: Final = 2


@contextmanager
def open_workers(kept_bytes: int) -> Iterator[Executor | None]:
    """Open processes that make rows of so many bytes of answers: none for a few.

    They end on every way out, and with this process.
    """
    processes = os.cpu_count() or 1
    if kept_bytes < _ENOUGH_BYTES or processes < 2:
        yield None
        return
    pool = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)
    try:
        for _ in range(processes):
            pool.submit(os.getpid)  # so that they start now: it takes half a second
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def remade_by(workers: Executor, jobs: Iterable[Job]) -> Iterator[tuple[Job, Made]]:
    """Yield jobs in their order with what was made of them; a few are ahead of the last.

    Raises LakeError if a worker has died.
    """
    ahead: deque[tuple[Job, Future[Made]]] = deque()
    try:
        for job in jobs:
            ahead.append((job, workers.submit(remake, job)))
            if len(ahead) > _JOBS_AHEAD * (os.cpu_count() or 1):
                yield _done(*ahead.popleft())
        while ahead:
            yield _done(*ahead.popleft())
    except BrokenProcessPool as error:
        raise LakeError(
            "A process that read kept answers has died.",
            advice="Perhaps the machine had no memory left. Nothing was changed: try again.",
        ) from error


def _done(job: Job, future: Future[Made]) -> tuple[Job, Made]:
    return job, future.result()


def _begin() -> None:
    """Let this process end with its parent, and by nothing typed at the terminal."""
    gc.disable()  # what is read holds no cycles, and is much to search for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:  # pragma: no cover - nothing of the process is left to tell
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
