"""Serves the sandbox for a benchmark, from a process of its own: `python -m tests.bench.server`.

It is the sandbox that all tests use. Only transcripts are made once and then remembered:
writing one takes it longer than an export needs to read it, and the server must not be
what is measured.
"""

import sys
from functools import cache

import anyio

from etl.sandbox.contents import Contents
from etl.sandbox.server import Sandbox, SandboxOptions, serve
from etl.sandbox.transcripts import Transcript


def remember_transcripts(sandbox: Sandbox) -> None:
    """Make each transcript once; its cues, which nobody asks for here, are dropped."""

    @cache
    def remembered(session_id: str) -> Transcript:
        return Transcript(Contents.transcript(sandbox, session_id).body, ())

    sandbox.transcript = remembered  # type: ignore[method-assign]


def _announce(sandbox: Sandbox) -> None:
    remember_transcripts(sandbox)
    print(sandbox.url, sandbox.token_url, sandbox.client_id, sandbox.client_secret, flush=True)


if __name__ == "__main__":
    _options = SandboxOptions(
        tests=0, sessions=int(sys.argv[1]), rate_requests=None, log_requests=False
    )
    anyio.run(serve, _options, "127.0.0.1", 0, _announce)
