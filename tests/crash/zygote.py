"""Forks whole runs of `etl` from an interpreter that has imported it: a tenth of the time.

`python -m tests.crash.zygote SHIM` is the parent of the runs: it reads a `Run` a line, forks
a child which calls the command line's `main`, and tells its pid and then how it ended.
"""

import ctypes
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import anyio
from anyio import open_process, to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from etl.cli import main
from tests.forking import import_everything

SOURCE = Path(__file__).with_name("shim.c")
CALLS = ("write", "sync", "rename", "link", "unlink", "make", "change")
"""What is counted, as in the shim; `make` is a new file or folder, `change` a mode or size."""


class Fault(IntEnum):
    """What befalls the process at the call; the order is the shim's."""

    NONE = 0
    KILL = 1  # before it
    TORN = 2  # after half of what it writes
    ERROR = 3  # it fails, once
    FULL = 4  # it fails, and so does everything that takes room from then on
    DEAD = 5  # it fails, and so does every call from then on
    CUT = 6  # the power is cut before it


@dataclass(frozen=True, slots=True)
class Strike:
    """What is to befall a run at the n-th call that changes files below `roots`.

    Only calls on paths that have `within` in them count.
    """

    roots: tuple[str, ...]
    call: str = "write"
    nth: int = 0
    fault: Fault = Fault.NONE
    error: int = 0
    flags: tuple[int, int] = (0, 0)
    within: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A command line to run, what is to befall it, and constants to make small.

    `sizes` are constants of modules by their dotted name, so that a small job passes every
    seam of a large one: several batches, row groups that fill before the batch is closed.
    """

    arguments: Sequence[str]
    environ: Mapping[str, str]
    strike: Strike
    output: str
    sizes: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: exit code or minus the signal; calls counted; whether it was struck."""

    code: int
    calls: Mapping[str, int]
    struck: bool


def lacking() -> str | None:
    """Say what this machine lacks to make the shim, or None."""
    if sys.platform != "linux":
        return "calls are struck by a shim that is made for Linux"
    if shutil.which("cc") is None:
        return "there is no C compiler (cc) to make the shim that strikes calls"
    return None


class Zygote:
    """A parent of runs, one at a time."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._put = process.stdin
        self._told = BufferedByteReceiveStream(process.stdout)

    async def run(self, run: Run, *, kill_after: float | None = None) -> Ended:
        """Run to the end; killed after some seconds if asked."""
        await self._put.send(json.dumps(asdict(run)).encode() + b"\n")
        pid = (await self._line())["pid"]
        if kill_after is None:
            told = await self._line()
        else:
            with anyio.move_on_after(kill_after):
                told = await self._line()
                return Ended(**told)
            with suppress(ProcessLookupError):  # it ended just now
                os.kill(pid, signal.SIGKILL)
            told = await self._line()
        return Ended(**told)

    async def _line(self) -> dict[str, Any]:
        line = await self._told.receive_until(b"\n", 65536)
        told: dict[str, Any] = json.loads(line)
        return told


@asynccontextmanager
async def open_zygote(folder: Path, prefix: Sequence[str] = ()) -> AsyncIterator[Zygote]:
    """Make the shim in a folder, and start a parent of runs under it.

    `prefix` is a command that starts it: one that watches its system calls.
    """
    shim = folder / "shim.so"
    make = ["cc", "-shared", "-fPIC", "-O2", "-o", str(shim), str(SOURCE)]
    await to_thread.run_sync(lambda: subprocess.run(make, check=True))
    environ = {**os.environ, "LD_PRELOAD": str(shim)}
    command = [*prefix, sys.executable, "-m", __name__, str(shim)]
    async with await open_process(command, env=environ, stderr=None) as process:
        yield Zygote(process)
        process.terminate()


class _Plan(ctypes.Structure):
    """`struct plan` of the shim."""

    _fields_ = (
        ("roots", (ctypes.c_char * 4096) * 2),
        ("within", ctypes.c_char * 64),
        ("kind", ctypes.c_int),
        ("nth", ctypes.c_int),
        ("fault", ctypes.c_int),
        ("error", ctypes.c_int),
        ("flags", ctypes.c_int * 2),
    )


class _Counts(ctypes.Structure):
    """`struct shared` of the shim."""

    _fields_ = (("calls", ctypes.c_int * len(CALLS)), ("struck", ctypes.c_int))


def _plan(strike: dict[str, Any]) -> _Plan:
    plan = _Plan()
    for place, root in enumerate(strike["roots"]):
        plan.roots[place].value = root.encode()
    plan.within = strike["within"].encode()
    plan.kind = CALLS.index(strike["call"])
    plan.nth = strike["nth"]
    plan.fault = strike["fault"]
    plan.error = strike["error"]
    plan.flags[:] = strike["flags"]
    return plan


def _child(run: dict[str, Any], shim: ctypes.CDLL, counts: _Counts) -> None:
    """Become a run of the command line."""
    output = os.open(run["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.pop("LD_PRELOAD", None)
    os.environ.update(run["environ"])
    for name, size in run["sizes"].items():
        module, _, constant = name.rpartition(".")
        setattr(sys.modules[module], constant, size)
    sys.argv = ["etl", *run["arguments"]]
    shim.shim_arm(ctypes.byref(_plan(run["strike"])), ctypes.byref(counts))
    main()


def _serve(shim: ctypes.CDLL) -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the children
    counts = _Counts.from_buffer(memory)
    for line in sys.stdin:
        ctypes.memset(ctypes.byref(counts), 0, ctypes.sizeof(counts))
        pid = os.fork()
        if not pid:
            code = 1
            try:
                _child(json.loads(line), shim, counts)
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        calls = dict(zip(CALLS, counts.calls, strict=True))
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": code, "calls": calls, "struck": bool(counts.struck)}), flush=True)


if __name__ == "__main__":
    import_everything()
    _serve(ctypes.CDLL(sys.argv[1]))
