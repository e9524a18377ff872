"""Exports with files over a sandbox, and looks at each file with other eyes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from anyio import to_thread

from etl.sandbox.media import MediaFile
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import TESTS, Project

MEDIA = "sessions, videos, clips, highlight_reels"


@asynccontextmanager
async def filing(
    folder: Path,
    *sizes: int,
    tables: str = MEDIA,
    extra: str = "",
    options: SandboxOptions | None = None,
    partition_by: str = "[test_id]",
) -> AsyncIterator[Project]:
    """Open a project over a sandbox whose tests have these sizes, and small files."""
    options = options or SandboxOptions(video_bytes=20_000)
    async with open_sandbox(replace(options, rate_requests=None)) as sandbox:
        project = Project(folder, sandbox, TESTS[: len(sizes)])
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_product(test, "THINK_OUT_LOUD")
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(configure, project, tables, extra, partition_by)
        yield project


def configure(
    project: Project, tables: str = MEDIA, extra: str = "", partition_by: str = "[test_id]"
) -> None:
    """Write the pipelines file; `extra` are more lines of the pipeline."""
    more = "" if "media:" in extra else "    media: {keep_free_bytes: 0}\n"
    lake = f"    lake: {{url: ./lake, partition_by: {partition_by}}}\n"
    project.write(f"    tables: [{tables}]\n{lake}{more}{extra}")


def expected(project: Project, table: str) -> dict[str, MediaFile]:
    """Return the files of a table as the sandbox has them, by the key of their rows."""
    sandbox = project.sandbox
    tests = project.tests
    sessions = [session for test in tests for session in sandbox.session_ids(test)]
    if table == "videos":
        return {session: sandbox.video(session) for session in sessions}
    if table == "clips":
        clips = [clip["uuid"] for one in sessions for clip in sandbox.clips(one)["clips"]]
        return {clip: sandbox.clip_file(clip) for clip in clips}
    reels = [reel["uuid"] for test in tests for reel in sandbox.reels(test)["reels"]]
    return {reel: sandbox.reel_file(reel) for reel in reels}


KEYS = {"videos": "session_id", "clips": "clip_id", "highlight_reels": "reel_id"}


def wrong_files(project: Project, table: str) -> Iterator[str]:
    """Compare rows and files of a table with what the sandbox has; blocks."""
    files = expected(project, table)
    rows = project.lake_rows(table)
    keys = [row[KEYS[table]] for row in rows]
    if sorted(keys) != sorted(files):
        yield f"{table}: {len(keys)} rows, {len(set(keys))} keys; {len(files)} were expected"
    for row in rows:
        file = files.get(row[KEYS[table]])
        if file is None or row["path"] is None:
            yield f"{table}: row {row}"
            continue
        content = (project.lake / row["path"]).read_bytes()
        seen = sha256(content).hexdigest()
        if (seen, len(content)) != (file.sha256, file.size_bytes):
            yield f"{table}: {row['path']} is another file"
        if (row["sha256"], row["bytes"]) != (file.sha256, file.size_bytes):
            yield f"{table}: {row} tells another file"


def stray_files(project: Project) -> Iterator[str]:
    """Look for files that no row names, and parts that nobody needs any more; blocks."""
    named = {row["path"] for table in KEYS for row in project.lake_rows(table)}
    for path in project.lake.rglob("*"):
        place = path.relative_to(project.lake).as_posix()
        if path.is_file() and "_files" in path.parts and place not in named:
            yield f"no row names {place}"
    parts = project.lake / "_etl" / "media"
    yield from (f"a part is left: {path.name}" for path in parts.rglob("*") if path.is_file())


def wrong(project: Project, *tables: str) -> list[str]:
    """Look at all files, and for those that should not be there; blocks."""
    found = [one for table in tables or KEYS for one in wrong_files(project, table)]
    return found + list(stray_files(project))


async def whole(project: Project, *tables: str) -> None:
    """Assert that each file is in the lake once, as the sandbox has it, and no other."""
    assert await to_thread.run_sync(wrong, project, *tables) == []
