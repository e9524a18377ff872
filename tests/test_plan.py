"""What `etl plan` foresees is what the next run asks, kind by kind, if nothing changes."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from anyio import to_thread

from etl.client.values import Answer
from etl.lake.bodies import kept_keys
from etl.lake.local import LocalLake
from etl.lake.sizes import sizes_seen
from etl.ledger.reading import open_state
from etl.ledger.store import open_ledger
from etl.plan.files_ahead import FilesAhead, Seen
from etl.plan.forecast import Forecast, forecast
from etl.plan.orders import Asked, orders
from etl.report.figures import size
from etl.run.export import Limits
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import Project
from tests.filing import KEYS, expected, filing
from tests.test_sessions import DETAILS, ClockAhead, discovering

PAGES = ("first pages", "deeper pages", "proofs")
SERVED_AS = {
    "workspaces": "workspaces",
    "pages of tests": "tests",
    "session_details": "details",
    "transcript": "transcript",
    "video": "video",
    "clips": "clips",
    "clip": "clip",
    "highlight_reels": "reels",
    "reel": "reel",
    "qx_scores": "qx",
}


@asynccontextmanager
async def opened(folder: Path, *sizes: int, tables: str) -> AsyncIterator[Project]:
    """Open a project whose pages have 30 rows; its tests are the sandbox's own."""
    options = SandboxOptions(rate_requests=None, tests=len(sizes))
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, sandbox.test_ids)
        for test, size in zip(project.tests, sizes, strict=True):
            sandbox.set_product(test, "NON_THINK_OUT_LOUD")
            sandbox.set_sessions(test, size)
        await to_thread.run_sync(write, project, tables)
        yield project


def write(project: Project, tables: str, more: str = "") -> None:
    """Write a pipelines file; clips are listed alone, since nobody foresees how many there are."""
    files = "    clips: {download: false}\n    media: {keep_free_bytes: 0}\n"
    more = more and f"    {more}\n"
    project.write(f"    tables: [{tables}]\n    pagination: {{rows_per_page: 30}}\n{files}{more}")


async def foreseen(project: Project) -> Forecast:
    """Return the forecast for the project's one pipeline."""

    def look() -> Forecast:
        (order,) = orders(project.config(), (), Asked())
        with open_state(project.state, "nightly") as state:
            lake, now_us = LocalLake(order.lake_path), int(project.clock.time() * 1_000_000)
            kept = partial(kept_keys, lake, order.name)
            return forecast(order, state, now_us, kept, sizes_seen(lake, order.name))

    return await to_thread.run_sync(look)


def requests_of(project: Project) -> Counter[str]:
    return Counter(request.endpoint for request in project.sandbox.requests)


async def comes_true(project: Project) -> Forecast:
    """Assert that the next run asks exactly what is foreseen; return the forecast."""
    plan, before = await foreseen(project), requests_of(project)
    report = await project.export()
    made = requests_of(project) - before
    for kind, served in SERVED_AS.items():
        assert plan.requests.get(kind, 0) == made[served], (kind, plan, made)
    assert sum(plan.requests[kind] for kind in PAGES) == made["page"], (plan, made)
    assert sum(plan.requests.values()) == report.requests.total
    return plan


async def test_before_the_first_run_it_says_what_nobody_can_know(tmp_path: Path):
    async with opened(tmp_path, 90, 5, tables="sessions, clips") as project:
        plan = await foreseen(project)
        assert plan.requests == {
            "workspaces": 1,
            "pages of tests": 1,
            "first pages": 2,
            "deeper pages": 0,
            "proofs": 0,
            "clips": 0,
        }
        assert plan.unknown_tests == 2
        said = " ".join(plan.notes)
        assert "workspaces were never read" in said and "product of 2 tests is not known" in said
        assert "2 tests were never looked at" in said and "what these take" in said
        assert not project.sandbox.requests


async def test_in_the_middle_of_a_listing_it_foresees_the_rest(tmp_path: Path):
    async with opened(tmp_path, 140, tables=f"sessions, {DETAILS}, qx_scores") as project:
        await project.export(limits=Limits(max_requests=10))
        plan = await comes_true(project)
        assert plan.requests["session_details"] == 140 and plan.requests["qx_scores"] == 1
        assert 0 < plan.requests["deeper pages"] < 5


async def test_in_the_middle_of_the_details_it_foresees_the_rest(tmp_path: Path):
    async with opened(tmp_path, 60, 20, 3, tables=f"sessions, {DETAILS}, clips") as project:
        await project.export(limits=Limits(max_requests=30))
        plan = await comes_true(project)
        assert 50 < plan.requests["session_details"] < 83 and plan.requests["clips"] == 83


async def test_a_listing_left_alone_for_long_is_read_again_from_its_head(tmp_path: Path):
    async with opened(tmp_path, 200, tables="sessions") as project:
        project.clock = clock = ClockAhead()
        await project.export(limits=Limits(max_requests=4))
        clock.hours = 3
        plan = await comes_true(project)
        assert plan.requests["first pages"] == 1


async def test_while_nothing_changes_it_foresees_heads_and_proofs_alone(tmp_path: Path):
    tables = f"sessions, {DETAILS}, qx_scores, highlight_reels"
    async with opened(tmp_path, 50, 20, 0, tables=tables) as project:
        await project.export()
        plan = await comes_true(project)
        assert plan.requests["first pages"] == 3 and plan.requests["proofs"] == 1
        assert sum(plan.requests.values()) == 4
        project.clock = clock = ClockAhead()
        clock.hours = 25
        plan = await comes_true(project)
        assert plan.requests["qx_scores"] == 3 and plan.requests["session_details"] == 0


async def test_a_table_that_was_added_costs_its_own_requests_alone(tmp_path: Path):
    async with opened(tmp_path, 70, 12, tables="sessions, clips") as project:
        await project.export()
        await to_thread.run_sync(write, project, f"sessions, clips, {DETAILS}, transcripts")
        plan = await comes_true(project)
        assert plan.requests["session_details"] == 82 and plan.requests["clips"] == 0
        assert plan.requests["transcript"] == 0, "these products have none"
        assert plan.requests["first pages"] == 2 and plan.requests["deeper pages"] == 0


async def test_a_table_that_was_added_is_met_by_the_listing_where_no_table_holds_it(
    tmp_path: Path,
):
    async with opened(tmp_path, 70, 12, tables="clips") as project:
        await project.export()
        await to_thread.run_sync(write, project, f"clips, {DETAILS}")
        plan = await comes_true(project)
        assert plan.requests["session_details"] == 82 and plan.requests["clips"] == 0
        assert plan.requests["first pages"] == 2 and plan.requests["deeper pages"] > 0


async def test_a_table_that_kept_answers_fill_costs_nothing(tmp_path: Path):
    async with opened(tmp_path, 70, 12, tables="sessions, tasks, qx_scores") as project:
        await project.export()
        await to_thread.run_sync(write, project, f"sessions, {DETAILS}, qx_scores, clips")
        plan = await comes_true(project)
        assert plan.requests["session_details"] == plan.requests["qx_scores"] == 0
        assert plan.requests["clips"] == 82 and plan.requests["first pages"] == 2
        assert plan.requests["deeper pages"] == 0


async def test_a_table_that_kept_answers_fill_in_part_costs_the_rest(tmp_path: Path):
    async with opened(tmp_path, 20, 12, tables="session_details") as project:
        await project.export()
        await to_thread.run_sync(write, project, "session_details", "keep_bodies: false")
        project.sandbox.complete(project.tests[0], 5)
        await project.export()
        await to_thread.run_sync(write, project, "session_details, tasks")
        plan = await comes_true(project)
        assert plan.requests["session_details"] == 5


async def test_a_filter_is_foreseen_by_the_tests_that_it_found_last(tmp_path: Path):
    tables = f"sessions, {DETAILS}, transcripts, clips, qx_scores"
    async with discovering(
        tmp_path, "{product_types: [SURVEY, THINK_OUT_LOUD]}", tables
    ) as project:
        assert (await foreseen(project)).tests == 0
        report = await project.export(limits=Limits(max_requests=15))
        plan = await comes_true(project)
        assert plan.tests == report.pipelines[0].tests > 0
        assert plan.requests["pages of tests"] == 0 and plan.requests["transcript"] > 0
        assert any("those of last time" in note for note in plan.notes)
        assert (await comes_true(project)).requests["pages of tests"] > 0


async def test_files_are_foreseen_as_far_as_their_objects_are_known(tmp_path: Path):
    never = SandboxOptions(video_bytes=1_000, generating=1_000)
    async with filing(tmp_path, 9, 4, tables="sessions, videos, clips", options=never) as project:
        plan = await foreseen(project)
        assert (plan.requests["video"], plan.requests["clip"]) == (0, 0)
        assert any("How many clips are new" in note for note in plan.notes)
        await project.export(limits=Limits(max_requests=8))
        plan = await foreseen(project)
        assert plan.requests["video"] > 0 and plan.requests["clips"] > 0
        project.clock = clock = ClockAhead()
        await project.export()
        assert (await comes_true(project)).requests["clip"] == 0, "they are looked at after 6 h"
        clock.hours = 7
        project.patience = replace(project.patience, polls=())
        plan = await comes_true(project)
        assert plan.requests["clip"] == len(expected(project, "clips"))


async def test_files_to_come_are_estimated_by_those_that_came(tmp_path: Path):
    made = SandboxOptions(video_bytes=20_000, generating=0)
    async with filing(tmp_path, 60, tables="sessions, videos, clips", options=made) as project:
        assert not (await foreseen(project)).files, "there is nothing to go by"
        await project.export()
        project.sandbox.complete(project.tests[0], 50)
        await project.export(limits=Limits(max_requests=1))  # the listing
        videos = await estimated(project, "videos", within=0.05)
        assert (videos.files, videos.due, videos.by_lists) == (50, 50, 0)
        clips = await estimated(project, "clips", within=0.3)
        assert (clips.due, clips.by_lists) == (0, 60)
        shown = await to_thread.run_sync(lambda: project.process("plan", check=True))
        assert (
            f"About {clips.files} files of clips are to come, if their lists are like the "
            f"{clips.by_lists} read so far: about {size(clips.bytes or 0)}, by the average of "
            f"{clips.by_files} that came."
        ) in shown.stderr
        await project.export()
        assert not (await foreseen(project)).files


async def estimated(project: Project, table: str, within: float) -> FilesAhead:
    """Assert that what is still to come is about as much as is estimated; return the estimate."""
    (ahead,) = (files for files in (await foreseen(project)).files if files.table == table)
    there = {row[KEYS[table]] for row in await to_thread.run_sync(project.lake_rows, table)}
    left = {name: file for name, file in expected(project, table).items() if name not in there}
    assert 0 < ahead.files == pytest.approx(len(left), rel=within)
    assert ahead.bytes == pytest.approx(sum(file.size_bytes for file in left.values()), rel=within)
    assert ahead.by_files == len(there)
    return ahead


async def test_how_large_files_are_is_not_said_before_one_has_come(tmp_path: Path):
    never = SandboxOptions(video_bytes=1_000, generating=1_000)
    async with filing(tmp_path, 9, tables="clips", options=never) as project:
        project.clock = clock = ClockAhead()
        await project.export()
        assert not (await foreseen(project)).files, "they are looked at after 6 h"
        clock.hours = 7
        (clips,) = (await foreseen(project)).files
        assert clips.due == clips.files == len(expected(project, "clips"))
        assert (clips.bytes, clips.by_files, clips.by_lists) == (None, 0, 0)


async def test_sizes_are_those_of_the_pipelines_own_files_that_can_be_read(tmp_path: Path):
    async with filing(tmp_path, 2, tables="videos") as project:
        await project.export()
        seen = sizes_seen(LocalLake(project.lake), "nightly")
        whole = Seen(2, sum(file.size_bytes for file in expected(project, "videos").values()))
        assert await to_thread.run_sync(seen, "videos") == whole
        assert await to_thread.run_sync(seen, "clips") == Seen(0, 0)
        project.sandbox.complete(project.tests[0])
        await project.export()

        def meddle() -> None:
            one, other = sorted(project.lake.rglob("part-nightly-*"))
            one.with_name(one.name.replace("nightly", "weekly")).write_bytes(one.read_bytes())
            other.write_bytes(b"PAR1")

        await to_thread.run_sync(meddle)
        assert await to_thread.run_sync(seen, "videos") == whole


async def test_lists_that_are_read_again_are_not_expected_to_name_new_files(tmp_path: Path):
    made = SandboxOptions(video_bytes=1_000, generating=0)
    async with filing(tmp_path, 3, tables="clips, highlight_reels", options=made) as project:
        project.clock = clock = ClockAhead()
        finished = datetime.now(UTC) - timedelta(hours=1)
        for place in range(3):
            project.sandbox.edit(project.tests[0], place, finishTime=f"{finished:%FT%TZ}")
        await project.export()
        clock.hours = 8 * 24
        plan = await foreseen(project)
        assert (plan.requests["clips"], plan.requests["highlight_reels"]) == (3, 1)
        assert not plan.files


async def test_what_was_paid_and_has_not_landed_is_not_foreseen_again(tmp_path: Path):
    async with opened(tmp_path, 20, tables=f"sessions, {DETAILS}") as project:
        await project.export(limits=Limits(max_requests=1))  # the listing's only page
        (test,) = project.tests
        session = project.sandbox.session_ids(test)[3]
        body = json.dumps(project.sandbox.details(session)).encode()
        now_us = int(project.clock.time() * 1_000_000)

        def pay() -> None:
            with open_ledger(project.state, "nightly") as ledger:
                ledger.keep([Answer("session_details", test, session, None, 200, now_us, body)])

        await to_thread.run_sync(pay)
        plan = await comes_true(project)
        assert plan.requests["session_details"] == 19


async def test_the_command_prints_each_kind_and_writes_nothing(tmp_path: Path):
    async with opened(tmp_path, 40, tables="sessions, clips") as project:
        await project.export(limits=Limits(max_requests=9))
        before = await to_thread.run_sync(files, project)
        told = await to_thread.run_sync(lambda: project.process("plan", "--json", check=True))
        (plan,) = json.loads(told.stdout)["pipelines"]
        assert plan.keys() >= {"name", "tests", "requests", "duration_seconds", "token_grants"}
        assert plan["requests"]["clips"] > 0 and plan["unknown_tests"] == 0
        shown = await to_thread.run_sync(lambda: project.process("plan", check=True))
        assert f"clips {plan['requests']['clips']}" in " ".join(shown.stdout.split())
        assert await to_thread.run_sync(files, project) == before


def files(project: Project) -> dict[Path, bytes]:
    """Return what lies in the folder, but for what SQLite keeps beside a file that is read."""
    return {
        path: path.read_bytes()
        for path in project.folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }
