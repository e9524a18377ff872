"""Runs commands in forks of an interpreter that has imported them: a fifth of the time.

`python -m tests.forks PATH` is their parent. It listens at a socket of that path, and each of
its children is one command: with arguments, environment, folder and output of its own, from
`etl.cli.main` to the end of the interpreter. Where coverage is measured, and on systems whose
libraries do not outlive a fork, commands are started as a user starts them.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from select import select
from typing import Any

ROOT = Path(__file__).parent.parent
MODULE = (sys.executable, "-m", "etl")
_MOST_BYTES = 1 << 20
_SPARED = ("PYTHON", "LC_", "LANG", "TZ", "COVERAGE_")
"""What an interpreter reads as it starts: such a change is not for a fork."""


def run_etl(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    folder: Path | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `etl` to its end, in a folder; blocks. Raises TimeoutExpired, once it is killed."""
    command, folder = [*MODULE, *arguments], folder or Path.cwd()
    if sys.platform == "linux" and _starts_alike(environ):
        return _forked(command, dict(environ), folder, timeout)
    return subprocess.run(
        command,
        env=environ,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _starts_alike(environ: Mapping[str, str]) -> bool:
    """Say whether an interpreter of this environment starts as this one has."""
    named = {name for name in (*environ, *os.environ) if name.startswith(_SPARED)}
    alike = all(environ.get(name) == os.environ.get(name) for name in named)
    return alike and "COVERAGE_PROCESS_CONFIG" not in environ


def _forked(
    command: list[str], environ: dict[str, str], folder: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    asked = {"arguments": command[3:], "environ": environ, "folder": str(folder)}
    with ExitStack() as opened:
        output, errors = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
        parent = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        parent.connect(_parent())
        descriptors = [output.fileno(), errors.fileno()]
        socket.send_fds(parent, [json.dumps(asked).encode()], descriptors)
        pid = int(parent.recv(64))
        parent.settimeout(timeout)
        try:
            code = int(parent.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout) from None
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, output.read(), errors.read())


@cache
def _parent() -> str:
    """Start the parent of this process's commands; return where it listens."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = f"{folder}/forks"
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, path],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    return path


# The parent, and what becomes of its children.


def _serve(path: str) -> None:
    """Fork for each command; return in its process alone, where it is to be run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b"ready\n")
        while sys.stdin not in select([listener, sys.stdin], [], [])[0]:
            caller, _ = listener.accept()
            with caller:
                if not os.fork():
                    listener.close()
                    _answer(caller)
                    return
    os._exit(0)


def _answer(caller: socket.socket) -> None:
    """Fork the command, and tell the caller how it ended; return in the command's process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told, descriptors, _, _ = socket.recv_fds(caller, _MOST_BYTES, 2)
    if pid := os.fork():
        caller.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    _become(json.loads(told), *descriptors)


def _become(asked: dict[str, Any], output: int, errors: int) -> None:
    """Be in the place of a process that was started for a command."""
    import etl.__main__  # noqa: PLC0415 - which is the main module from here on

    nowhere = os.open(os.devnull, os.O_RDONLY)
    for place, descriptor in enumerate((nowhere, output, errors)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.modules["__main__"] = etl.__main__
    sys.argv = [str(etl.__main__.__file__), *asked["arguments"]]


def _import_everything() -> None:
    """Import what the commands import, so that they need not."""
    import gc  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415
    from pkgutil import iter_modules  # noqa: PLC0415

    import anyio  # noqa: PLC0415

    import etl.cli  # noqa: PLC0415

    for module in iter_modules(etl.cli.__path__, "etl.cli."):
        import_module(module.name)
    anyio.run(anyio.sleep, 0)  # which imports what it runs on
    gc.collect()
    gc.freeze()  # the children share its pages


if __name__ == "__main__":
    from etl.cli import main

    _import_everything()
    _serve(sys.argv[1])
    main()
