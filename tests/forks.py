"""Runs commands in forks of an interpreter that has imported them: a fifth of the time.

`tests.forking` is their parent. Where coverage is measured, and on systems whose libraries do
not outlive a fork, commands are started as a user starts them.
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

ROOT = Path(__file__).parent.parent
MODULE = (sys.executable, "-m", "etl")
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
        [sys.executable, "-m", "tests.forking", path],
        cwd=ROOT,
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(process.kill)
    assert process.stdout is not None
    process.stdout.readline()
    return path
