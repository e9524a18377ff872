"""The parent of forked commands, and what becomes of its children; see `tests.forks`.

`python -m tests.forking PATH` listens at a socket of that path. Each of its children is one
command: with arguments, environment, folder and output of its own, from `etl.cli.main` to the
end of the interpreter.
"""

import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module
from pkgutil import iter_modules
from select import select
from typing import Any

import anyio

import etl.__main__
import etl.cli

_MOST_BYTES = 1 << 20


def import_everything() -> None:
    """Import what the commands import, so that an interpreter's forks need not."""
    for module in iter_modules(etl.cli.__path__, "etl.cli."):
        import_module(module.name)
    anyio.run(anyio.sleep, 0)  # which imports what it runs on
    gc.collect()
    gc.freeze()  # the children share its pages


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
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for place, descriptor in enumerate((nowhere, output, errors)):
        os.dup2(descriptor, place)
        os.close(descriptor)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.modules["__main__"] = etl.__main__  # which workers of a rebuild import
    sys.argv = [str(etl.__main__.__file__), *asked["arguments"]]


if __name__ == "__main__":
    import_everything()
    _serve(sys.argv[1])
    etl.cli.main()
