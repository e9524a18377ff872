"""Secrets and tokens stay in the process, however it ends; so does what answers hold."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import pyarrow.parquet as pq
import pytest
import structlog
from anyio import open_process, to_thread
from blockbuster import BlockBuster

from etl.cli.crash import story_of
from etl.config.secrets import KnownSecrets, known_secrets
from etl.report.logs import set_up_logs
from etl.report.terminal import on_one_line, printable
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from etl.sandbox.tokens import Tokens
from tests.exporting import TESTS, Project

SECRET = 'planted s3cret/with+"odd" \\signs'
HASH_KEY = "a planted key for hashes"
SETTINGS = ("USERTESTING_", "ETL_")


@pytest.fixture(autouse=True)
def _files_may_be_touched(blockbuster: BlockBuster) -> None:
    """Let these tests look into files as they go."""
    blockbuster.deactivate()


@dataclass
class Planted(Project):
    """A project whose secrets come from files, and whose tokens are all known."""

    tokens: list[str] = field(default_factory=list)

    def environ(self) -> dict[str, str]:
        """Return the environment of a process: it names the secret's file."""
        kept = {name: told for name, told in os.environ.items() if not name.startswith(SETTINGS)}
        return {
            **kept,
            "USERTESTING_API_URL": self.sandbox.url,
            "USERTESTING_TOKEN_URL": self.sandbox.token_url,
            "USERTESTING_CLIENT_ID": self.sandbox.client_id,
            "USERTESTING_CLIENT_SECRET_FILE": "secret",
            "ETL_LOG_LEVEL": "debug",
        }

    def run(self, before: str = "") -> subprocess.CompletedProcess[str]:
        """Run an export to its end, after some lines of Python."""
        code = f"{before}\nfrom etl.cli import main\nmain()"
        arguments = ("--config", str(self.file), "run", "--json", "--events", str(self.events))
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=self.environ(),
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    @property
    def events(self) -> Path:
        """The file of the events."""
        return self.folder / "events.jsonl"

    def written(self) -> str:
        """Return all that has been written into the folder but the secrets' own files."""
        found = []
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            if path.name not in ("secret", ".env"):
                found += [str(path), path.read_bytes().decode("latin-1")]
                if path.suffix == ".parquet":
                    found.append(repr(pq.read_table(path, partitioning=None).to_pylist()))
        return "\0".join(found)

    def leaks(self, text: str) -> list[str]:
        """Return the secrets that a text holds, tokens also in part."""
        quoted = SECRET.replace("\\", "\\\\")
        secrets = (SECRET, quoted, quoted.replace('"', '\\"'), "s3cret", HASH_KEY)
        tokens = (token[:60] for token in self.tokens)
        return [secret for secret in (*secrets, *tokens) if secret in text]


@pytest.fixture
async def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Planted]:
    """Return a project over a sandbox whose tokens are noted as they are granted."""
    grant, tokens = Tokens.grant, list[str]()

    def noted(self: Tokens, *told: Any) -> tuple[int, dict[str, object]]:
        status, answer = grant(self, *told)
        tokens.extend(str(answer[name]) for name in answer if name == "access_token")
        return status, answer

    monkeypatch.setattr(Tokens, "grant", noted)
    options = SandboxOptions(rate_requests=None, client_secret=SECRET)
    async with open_sandbox(options) as sandbox:
        project = Planted(tmp_path, sandbox, TESTS[:2], tokens=tokens)
        sandbox.set_sessions(project.tests[0], 1_200)
        sandbox.set_sessions(project.tests[1], 3)
        project.write("    columns: {sessions: {exclude: [audience_id], hash: [session_id]}}\n")
        for name, secret in (("secret", SECRET), (".env", f"ETL_HASH_KEY={HASH_KEY}\n")):
            (tmp_path / name).write_text(secret)
            (tmp_path / name).chmod(0o600)
        yield project


def echo_the_token(sandbox: Sandbox, _test: str) -> None:
    """Let every further page be refused with the token in the request's name."""
    (token,) = list(sandbox.tokens.living)
    fault = Fault(FaultKind.STATUS, times=0, value=404, headers={"x-request-id": token})
    sandbox.add_fault(fault)


BUG = """
import logging
from etl.client import http
send = http.Client._send
async def failing(self, *arguments):
    response, token = await send(self, *arguments)
    said = f"{token.value.get_secret_value()} {response.body!r} {self._connection.client_secret}"
    logging.getLogger("aiohttp.client").error("answered %s", said)
    raise ValueError(said) from KeyError(said)
http.Client._send = failing
"""
ENDS: dict[str, tuple[int, str, Callable[[Sandbox], object]]] = {
    "complete, with tokens that died": (
        0,
        "",
        lambda sandbox: sandbox.before_page(2, lambda sandbox, _: sandbox.revoke_tokens()),
    ),
    "refused with the secret in the answer": (
        3,
        "",
        lambda sandbox: sandbox.add_fault(Fault(FaultKind.LEAK_SECRET, on="token", times=0)),
    ),
    "failed with the token in the answer": (
        4,
        "",
        lambda sandbox: sandbox.before_page(1, echo_the_token),
    ),
    "a bug whose message holds it all": (1, BUG, lambda _: None),
}


@pytest.mark.parametrize(("code", "before", "prepare"), ENDS.values(), ids=ENDS.keys())
async def test_a_run_shows_and_writes_no_secret_no_token_and_nothing_of_a_body(
    planted: Planted, code: int, before: str, prepare: Callable[[Sandbox], object]
):
    prepare(planted.sandbox)
    done = await to_thread.run_sync(planted.run, before)
    assert done.returncode == code, done.stderr
    said = done.stdout + done.stderr + planted.events.read_text()
    everything = said + planted.written()
    assert planted.leaks(everything) == []
    assert planted.tokens or code == 3
    sessions = [name for test in planted.tests for name in planted.sandbox.session_ids(test)]
    assert not [name for name in sessions if name in everything]
    if code == 1:
        assert "ValueError (its message is left out" in said and "KeyError (its" in said
        assert "in failing" in said and '"logger": "aiohttp.client"' in said
    if code == 4:
        assert "[x-request-id [redacted]]" in said


def shown_by_the_system(pid: int) -> str:
    """Return what other processes of this user see of one; it is to leave no core file."""
    proc = Path(f"/proc/{pid}")
    if not proc.exists():  # macOS
        return ""
    assert re.search(r"Max core file size +0 ", (proc / "limits").read_text())
    return (proc / "environ").read_text() + (proc / "cmdline").read_text()


async def test_neither_environment_nor_core_file_nor_a_killed_process_leaves_a_secret(
    planted: Planted,
):
    planted.sandbox.add_fault(Fault(FaultKind.HANG, nth=3, times=0))
    asked = anyio.Event()
    planted.sandbox.before_page(3, lambda _sandbox, _test: asked.set())
    environ = {
        **planted.environ(),
        "USERTESTING_CLIENT_SECRET_FILE": "",
        "USERTESTING_CLIENT_SECRET_COMMAND": f"sh -c 'cd {planted.folder}; env >env; cat secret'",
    }
    command = planted.command("run", "--quiet")
    async with await open_process(command, env=environ, stdout=DEVNULL) as process:
        await asked.wait()
        seen = shown_by_the_system(process.pid)
        process.kill()
        await process.wait()
    assert "ETL_LOG_LEVEL" in (planted.folder / "env").read_text()
    assert planted.tokens and planted.leaks(seen + planted.written()) == []


def test_a_secret_is_masked_in_every_form_and_one_within_another_too():
    known = KnownSecrets()
    known.add(['a "quoted" one', "short", "secret", "secret-and-more"])
    known.add_token("token-1")
    shown = known.masked(
        'a "quoted" one, a \\"quoted\\" one, a%20%22quoted%22%20one, short, token-1'
    )
    assert shown == "[redacted], [redacted], [redacted], short, [redacted]"
    assert known.masked("secret-and-more") == "[redacted]"
    for number in range(2, 100):
        known.add_token(f"token-{number}-")
    assert known.masked("token-99-, token-1") == "[redacted], token-1"


@pytest.fixture
def _logs_as_before() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logs_as_before")
@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_shows_a_token_or_what_a_library_quotes(
    form: str, capsys: pytest.CaptureFixture[str]
):
    set_up_logs(form, "debug")
    known_secrets.add_token("a-token-of-this-test")
    structlog.get_logger().debug("sent", said="Bearer a-token-of-this-test\n\x1b[2J\u202e")
    logging.getLogger("aiohttp").warning("cannot read %s", "Ada Lovelace")
    shown = capsys.readouterr().err
    assert "Bearer [redacted]" in shown and "aiohttp" in shown and "test_secrets:" in shown
    assert len(shown.splitlines()) == 2
    for hidden in ("a-token", "Lovelace", "\x1b[2J", "\u202e"):
        assert hidden not in shown


def test_the_story_of_a_bug_tells_kinds_and_places_and_no_message():
    def fail() -> None:
        try:
            int("Ada Lovelace")
        except ValueError as error:
            raise ExceptionGroup("Ada Lovelace", [error, KeyError("Ada Lovelace")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        fail()
    story = story_of(caught.value)
    assert "ValueError" in story and "KeyError" in story and "ExceptionGroup" in story
    assert "in fail" in story and "Lovelace (" not in story and ": Ada" not in story


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x9b2J", "\r", "\u202e", "\x00", "\u2028", "\x7f"])
def test_foreign_text_cannot_steer_a_terminal(evil: str):
    assert evil not in printable(f"a{evil}b") and printable("é\n日\t✓") == "é\n日\t✓"
    assert on_one_line(f"a{evil}\nb\tc").isprintable()
