"""What would let personal data or a secret get out, or rows land twice under two names."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from etl.errors import ConfigError
from tests.exporting import Project, open_project
from tests.faults import Case, Chapter, Ended, Provoke

KEY = "a key of sixteen bytes or more"
HASHED = "    columns: {sessions: {hash: [session_id]}}\n"


def refused(lines: str, key: str = KEY) -> Provoke:
    """Export with these lines in the pipeline: refused before anything is sent."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 3, extra=lines) as project:
            project.settings["ETL_HASH_KEY"] = key
            return await mistaken(project)

    return provoke


async def mistaken(project: Project) -> Ended:
    """Return how a run ends whose pipelines file is refused."""
    with pytest.raises(ConfigError) as caught:
        await project.ended()
    assert not project.sandbox.requests and not project.sandbox.grants
    return Ended(caught.value.exit_code, str(caught.value))


def refused_later(before: str, after: str, key: str = KEY) -> Provoke:
    """Export, change lines or key, and export again: refused, and nothing has changed."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 3, extra=before) as project:
            project.settings["ETL_HASH_KEY"] = KEY
            await project.export()
            asked, rows = len(project.sandbox.requests), await to_thread.run_sync(project.lake_rows)
            project.settings["ETL_HASH_KEY"] = key
            await to_thread.run_sync(project.write, after)
            ended = await project.ended()
            assert len(project.sandbox.requests) == asked
            assert await to_thread.run_sync(project.lake_rows) == rows
            return ended

    return provoke


async def a_secret_in_the_file(folder: Path) -> Ended:
    """Write the client secret into the pipelines file."""
    async with open_project(folder, 3) as project:
        text = await to_thread.run_sync(project.file.read_text)
        text = text.replace("default: {", "default: {client_secret: hunter2, ")
        await to_thread.run_sync(project.file.write_text, text)
        ended = await mistaken(project)
        assert "hunter2" not in ended.said
        return ended


async def a_bug(folder: Path) -> Ended:
    """Stumble over a row, with a message that quotes it."""
    code = (
        "from etl.lake.landing import Landing\n"
        "def failing(self, fetched, *rest): raise ValueError(fetched.answer.body)\n"
        "Landing._render = failing\nfrom etl.cli import main\nmain()"
    )
    async with open_project(folder, 3) as project:
        done = await to_thread.run_sync(partial(run_code, project, code))
        assert "sessionId" not in done.stderr + done.stdout
        return Ended(done.returncode, done.stderr)


def run_code(project: Project, code: str) -> subprocess.CompletedProcess[str]:
    """Run some lines of Python with the arguments of an export."""
    return subprocess.run(
        [sys.executable, "-c", code, *project.command("run")[3:]],
        env={**os.environ, **project.environ()},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


CHAPTER = Chapter(
    "personal data and secrets",
    [
        Case(
            "a pipeline hashes columns, and there is no key or one that can be guessed",
            "ETL_HASH_KEY is … accepted: 16 bytes or more that nobody can guess",
            2,
            [refused(HASHED, key=""), refused(HASHED, key="too short")],
        ),
        Case(
            "another key than the one under which rows have landed",
            "ETL_HASH_KEY is not the one under which the rows in the lake were hashed … Put",
            2,
            [refused_later(HASHED, HASHED, key="another key of sixteen bytes")],
        ),
        Case(
            "a key column is hashed from now on, or no more",
            "The rows of sessions in the lake are known by their key …, not …",
            2,
            [refused_later("", HASHED), refused_later(HASHED, "")],
        ),
        Case(
            "a key column is excluded",
            "'session_id' is of the key, which tells rows apart: hash it instead",
            2,
            [refused("    columns: {sessions: {exclude: [session_id]}}\n")],
        ),
        Case(
            "bodies are to be kept, and columns of theirs are not",
            "keep_bodies: is true; accepted: auto or false, since bodies hold what `columns` keeps",
            2,
            [
                refused(f"    columns: {{sessions: {{{hidden}}}}}\n    keep_bodies: true\n")
                for hidden in ("hash: [session_id]", "exclude: [audience_id]")
            ],
        ),
        Case(
            "a column is hidden by which a row says its file, or which file is still to be had",
            "'…' can be neither excluded nor hashed: …; accepted: …",
            2,
            [
                refused(f"    tables: [clips]\n    columns: {{clips: {{{hidden}}}}}\n")
                for hidden in ("hash: [clip_id]", "hash: [path]", "exclude: [sha256]")
            ],
        ),
        Case(
            "a secret stands in the pipelines file",
            "client_secret: a secret stands in the file; accepted: ${VARIABLE} alone",
            2,
            [a_secret_in_the_file],
        ),
        Case(
            "a bug, over a value that its message would quote",
            "ValueError (its message is left out: … This is a bug in etl. Please report it",
            1,
            [a_bug],
        ),
    ],
)
