"""Videos, clips and highlight reels: rows and files land together, each whole and once."""

import json
import os
import shutil
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import DEVNULL

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio import open_process, to_thread
from blockbuster import BlockBuster

from etl.client.values import Answer
from etl.lake.local import LocalLake
from etl.lake.verify_media import wrong_media
from etl.ledger.afresh import Span
from etl.ledger.held import not_there_yet
from etl.ledger.records import Record
from etl.ledger.store import open_ledger
from etl.plan.orders import Asked
from etl.report.values import MediaReport, RunReport, Status
from etl.run.export import Limits
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import SandboxOptions
from etl.tables.receipts import Became, Receipt, encode
from tests.crash.media_kills import kill_files
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import Project
from tests.filing import KEYS, configure, expected, filing, whole, wrong_files
from tests.test_sessions import ClockAhead

ONE_A_SESSION = "sessions, videos"
MADE = SandboxOptions(video_bytes=20_000, generating=0)
NEVER_MADE = SandboxOptions(video_bytes=20_000, generating=10_000)


def asked(project: Project) -> Counter[str]:
    """Return how often each endpoint has been asked so far."""
    return Counter(request.endpoint for request in project.sandbox.requests)


def media(report: RunReport) -> MediaReport:
    """Return what a report says of files."""
    told = report.pipelines[0].media
    assert told is not None
    return told


async def paths(project: Project, table: str) -> list[str | None]:
    """Return where the files of a table are said to be."""
    return [row["path"] for row in await to_thread.run_sync(project.lake_rows, table)]


async def some_bytes(project: Project) -> None:
    """Wait until a transfer is under way."""
    while project.sandbox.media_bytes < 1_000_000:  # noqa: ASYNC110 - another process is watched
        await anyio.sleep(0.05)


@pytest.mark.parametrize("partition_by", ["[test_id]", "[]", "[start_date, test_id]"])
async def test_each_file_lands_beside_its_row(tmp_path: Path, partition_by: str):
    async with filing(tmp_path, 5, 3, partition_by=partition_by) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        await whole(project)
        assert project.sandbox.tokens_at_media == 0
        files = sum(len(expected(project, table)) for table in KEYS)
        assert (media(report).files, media(report).pending) == (files, 0)
        rows = await to_thread.run_sync(project.lake_rows, "videos")
        assert {row["content_type"] for row in rows} == {"video/mp4"}
        folders = {Path(str(path)).parent for path in await paths(project, "clips")}
        assert {folder.name for folder in folders} == {"_files"}
        for folder in folders:
            beside = await to_thread.run_sync(os.listdir, project.lake / folder.parent)
            assert any(name.startswith("part-") for name in beside)


async def test_the_next_night_asks_for_new_files_alone(tmp_path: Path):
    async with filing(tmp_path, 5, 3, options=MADE) as project:
        await project.export()
        assert (await project.export()).requests.total == 2
        before = asked(project)
        project.sandbox.complete(project.tests[0])
        await project.export()
        made = asked(project) - before
        assert (made["video"], made["clips"], made["reels"]) == (1, 1, 1)
        await whole(project)


async def test_a_lost_state_directory_asks_for_no_file_again(tmp_path: Path):
    async with filing(tmp_path, 5) as project:
        await project.export()
        await to_thread.run_sync(shutil.rmtree, project.state)
        assert (await project.export()).requests.total == 1
        await whole(project)


async def test_a_budget_again_and_again_pays_for_no_file_twice(tmp_path: Path):
    async with filing(tmp_path, 6, 3, options=MADE) as project:
        report, runs = await project.export(limits=Limits(max_requests=5)), 1
        while report.status is Status.PAUSED:
            report, runs = await project.export(limits=Limits(max_requests=5)), runs + 1
            assert runs < 30
        assert report.status is Status.COMPLETE
        for kind, table in (("video", "videos"), ("clip", "clips"), ("reel", "highlight_reels")):
            assert asked(project)[kind] == len(expected(project, table))
        assert asked(project)["clips"] == 9
        await whole(project)


# What the API is still making.


async def test_what_is_being_made_is_asked_again_until_it_is_there(tmp_path: Path):
    options = SandboxOptions(video_bytes=20_000, generating=2)
    async with filing(tmp_path, 4, tables="sessions, clips", options=options) as project:
        assert (await project.export()).status is Status.COMPLETE
        assert asked(project)["clip"] == 3 * len(expected(project, "clips"))
        await whole(project, "clips")


async def test_what_is_not_made_for_a_week_lands_without_a_file_and_is_reported(tmp_path: Path):
    async with filing(tmp_path, 4, tables="sessions, clips", options=NEVER_MADE) as project:
        project.clock = clock = ClockAhead()
        clips, looks = len(expected(project, "clips")), []
        given_up = []
        assert clips
        for hours in (0, 2, 6, 40, 80, 24 * 5, 24 * 9):
            before = asked(project)
            clock.hours += hours
            report = await project.export()
            assert report.status is Status.COMPLETE
            looks.append(((asked(project) - before)["clip"] // clips, media(report).pending))
            given_up += [one.files for one in media(report).given_up]
        polled = 1 + len(project.patience.polls)
        pending = (polled, clips)
        assert looks == [pending, (0, 0), pending, pending, pending, (polled, 0), (0, 0)]
        assert await paths(project, "clips") == [None] * clips
        assert given_up == [clips]


async def test_what_waits_for_its_file_outlives_the_state(tmp_path: Path):
    options = SandboxOptions(video_bytes=20_000, generating=3)
    async with filing(tmp_path, 4, tables="sessions, clips", options=options) as project:
        project.clock = clock = ClockAhead()
        assert media(await project.export()).pending == len(expected(project, "clips"))
        assert await paths(project, "clips") == []
        await to_thread.run_sync(shutil.rmtree, project.state)
        clock.hours = 7
        report = await project.export()
        assert media(report).files == len(expected(project, "clips"))
        assert asked(project)["clips"] == 4
        await whole(project, "clips")


async def test_a_clip_that_is_listed_and_not_found_is_looked_at_again(tmp_path: Path):
    async with filing(tmp_path, 4, tables="sessions, clips", options=MADE) as project:
        project.clock = clock = ClockAhead()
        gone, *_ = expected(project, "clips")
        fault = Fault(FaultKind.STATUS, on="clip", object_id=gone, value=404, times=0)
        project.sandbox.add_fault(fault)
        assert media(await project.export()).pending == 1
        project.sandbox.faults.clear()
        clock.hours = 7
        await project.export()
        await whole(project, "clips")


async def test_a_video_that_is_not_there_yet_lands_when_it_is(tmp_path: Path):
    async with filing(tmp_path, 3, tables=ONE_A_SESSION) as project:
        project.clock = clock = ClockAhead()
        (test,) = project.tests
        young = project.sandbox.session_ids(test)[0]
        project.sandbox.edit(test, 0, finishTime=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        project.sandbox.not_ready(young, "video")
        assert media(await project.export()).files == 2
        project.sandbox.ready(young, "video")
        clock.hours = 7
        await project.export()
        await whole(project, "videos")


# Lists that grow and change.


async def test_the_clips_of_a_young_session_are_listed_once_more_after_a_week(tmp_path: Path):
    async with filing(tmp_path, 3, tables="sessions, clips", options=MADE) as project:
        project.clock = clock = ClockAhead()
        (test,) = project.tests
        young = project.sandbox.session_ids(test)[1]
        finished = datetime.now(UTC) - timedelta(hours=1)
        project.sandbox.edit(test, 1, finishTime=f"{finished:%Y-%m-%dT%H:%M:%SZ}")
        looks = []
        for hours in (0, 24, 24 * 7, 24 * 7):
            before = asked(project)
            clock.hours += hours
            await project.export()
            project.sandbox.add_clip(young)
            looks.append((asked(project) - before)["clips"])
        assert looks == [3, 0, 1, 0]
        clips = len(await paths(project, "clips"))
        assert clips == len(expected(project, "clips")) - 2


async def test_a_reel_that_changes_is_reported_once(tmp_path: Path):
    async with filing(tmp_path, 2, tables="sessions, highlight_reels", options=MADE) as project:
        (test,) = project.tests
        project.sandbox.add_reel(test)
        await project.export()
        project.sandbox.add_clip(project.sandbox.session_ids(test)[0])
        project.sandbox.complete(test)
        report = await project.export()
        reels = len(expected(project, "highlight_reels"))
        assert report.pipelines[0].edited == {"highlight_reels": reels}
        project.sandbox.complete(test)
        assert not (await project.export()).pipelines[0].edited
        await whole(project, "highlight_reels")


async def test_a_lost_data_file_has_its_lists_asked_again_and_doubles_no_row(tmp_path: Path):
    async with filing(tmp_path, 5, 4, tables="sessions, clips", options=MADE) as project:
        await project.export()

        def lose() -> None:
            folder = project.lake / "clips" / f"test_id={project.tests[1]}"
            next(folder.glob("part-*")).unlink()

        await to_thread.run_sync(lose)
        before = asked(project)
        await project.export()
        assert (asked(project) - before)["clips"] == 4
        await whole(project, "clips")


async def test_a_receipt_that_comes_twice_makes_no_row(tmp_path: Path):
    async with filing(tmp_path, 4, tables="sessions, clips", options=MADE) as project:
        await project.export()
        (row, *_) = await to_thread.run_sync(project.lake_rows, "clips")
        keys = (row["test_id"], row["session_id"], row["clip_id"])
        now_us = int(project.clock.time() * 1_000_000)

        def again() -> None:
            with open_ledger(project.state, "nightly") as ledger:
                for place, became in enumerate((Became.PENDING, Became.GIVEN_UP)):
                    body = encode(Receipt(became))
                    ledger.keep([Answer("clip", *keys, 200, now_us + place, body)])

        await to_thread.run_sync(again)
        report = await project.export()
        assert report.pipelines[0].rows["clips"] == 0
        await whole(project, "clips")


async def test_a_backfill_brings_back_files_that_were_lost_or_replaced(tmp_path: Path):
    async with filing(tmp_path, 3, options=MADE) as project:
        await project.export()
        lost, replaced, _ = project.sandbox.session_ids(project.tests[0])
        project.sandbox.replace_media(replaced)
        found = [str(path) for table in KEYS for path in await paths(project, table)]

        def lose() -> None:
            for path in found:
                if replaced not in path:
                    (project.lake / path).unlink()

        await to_thread.run_sync(lose)
        report = await project.export(asked=Asked(span=Span()))
        assert report.status is Status.COMPLETE
        wrong = await to_thread.run_sync(
            lambda: [list(wrong_files(project, table)) for table in KEYS]
        )
        assert wrong == [[], [], []], "the old file of what was replaced is left, and named by none"
        assert lost in " ".join(found)


async def test_a_file_that_comes_as_its_tests_look_ends_hides_nothing_that_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl.run.keeping.GATHER_SECONDS", 0.5)  # both are kept in one frame
    slow = "    media: {keep_free_bytes: 0, bytes_per_second: 10000}\n"  # the look ends before
    async with filing(tmp_path, 3, tables="sessions, clips", options=MADE, extra=slow) as project:
        (test,) = project.tests
        listed = next(one for one in project.sandbox.session_ids(test) if clips_of(project, one))
        body = json.dumps(project.sandbox.clips(listed)).encode()
        now_us = int(project.clock.time() * 1_000_000)

        def pay() -> None:
            with open_ledger(project.state, "nightly") as ledger:
                ledger.keep([Answer("clips", test, listed, None, 200, now_us, body)])

        await to_thread.run_sync(pay)
        assert (await project.export()).status is Status.COMPLETE
        await whole(project, "clips")


def clips_of(project: Project, session_id: str) -> list[str]:
    return [clip["uuid"] for clip in project.sandbox.clips(session_id)["clips"]]


# Answers about files; links and hosts are in `tests/faults/media.py`.


async def test_an_answer_about_another_file_is_asked_again(tmp_path: Path):
    async with filing(tmp_path, 3, tables=ONE_A_SESSION) as project:
        one, other, _ = project.sandbox.session_ids(project.tests[0])
        told = {"/sessionId": other}
        project.sandbox.add_fault(Fault(FaultKind.FIELDS, on="video", object_id=one, value=told))
        assert (await project.export()).status is Status.COMPLETE
        assert asked(project)["video"] == 4
        await whole(project, "videos")


async def test_a_file_whose_place_is_never_told_is_named_and_asked_again(tmp_path: Path):
    async with filing(tmp_path, 3, tables=ONE_A_SESSION) as project:
        bad = project.sandbox.session_ids(project.tests[0])[0]
        project.sandbox.add_fault(
            Fault(FaultKind.STATUS, on="video", object_id=bad, value=400, times=0)
        )
        report, codes = await project.export_with_codes()
        assert codes == [4]
        assert "video: The API refused the request" in report.pipelines[0].failed[0].error
        project.sandbox.faults.clear()
        await project.export()
        await whole(project, "videos")


# Not downloading.


async def test_files_are_listed_and_not_fetched_where_the_pipeline_says_so(tmp_path: Path):
    off = "".join(f"    {table}: {{download: false}}\n" for table in KEYS)
    async with filing(tmp_path, 4, extra=off) as project:
        report = await project.export()
        assert report.status is Status.COMPLETE
        for table in KEYS:
            files = expected(project, table)
            assert await paths(project, table) == [None] * len(files)
        made = asked(project)
        assert (made["video"], made["clip"], made["reel"]) == (4, 0, 0)
        assert not project.sandbox.transfers
        assert (await project.export()).requests.total == 1
        await to_thread.run_sync(shutil.rmtree, project.state)
        assert (await project.export()).requests.total == 1


# Disks, ends and what is found after them.


async def test_a_file_that_is_lost_before_it_lands_is_fetched_again(tmp_path: Path):
    async with filing(tmp_path, 3, tables=ONE_A_SESSION) as project:
        parts = project.lake / "_etl" / "media"

        def no_commits() -> None:
            project.lake.mkdir(mode=0o700)
            (project.lake / "videos").touch()

        await to_thread.run_sync(no_commits)  # so that no file of the table can land
        _, codes = await project.export_with_codes()
        assert codes == [5]

        def lose() -> None:
            (project.lake / "videos").unlink()
            part = next(path for path in sorted(parts.rglob("*.part")))
            part.unlink()

        await to_thread.run_sync(lose)
        before = asked(project)
        assert (await project.export()).status is Status.COMPLETE
        assert (asked(project) - before)["video"] == 1
        await whole(project, "videos")


async def test_whole_files_of_a_lost_state_need_no_request(tmp_path: Path):
    async with filing(tmp_path, 3, tables=ONE_A_SESSION) as project:

        def in_the_way() -> None:
            project.lake.mkdir(mode=0o700)
            (project.lake / "videos").touch()

        await to_thread.run_sync(in_the_way)
        await project.export_with_codes()

        def lose() -> None:
            (project.lake / "videos").unlink()
            shutil.rmtree(project.state)

        await to_thread.run_sync(lose)
        before = asked(project)
        assert (await project.export()).status is Status.COMPLETE
        assert (asked(project) - before)["video"] == 0
        await whole(project, "videos")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_leaves_what_has_come_of_a_file_to_the_next_run(
    tmp_path: Path, sent: signal.Signals
):
    slow = "    media: {bytes_per_second: 300000, keep_free_bytes: 0}\n"
    async with filing(tmp_path, 2, tables=ONE_A_SESSION, extra=slow) as project:
        project.sandbox.set_video_bytes(40_000_000)
        environ = {**os.environ, **project.environ()}
        command = project.command("run", "--json")
        async with await open_process(command, env=environ, stderr=DEVNULL) as process:
            assert process.stdout is not None
            await some_bytes(project)
            process.send_signal(sent)
            said = b"".join([chunk async for chunk in process.stdout])
            await process.wait()
        report = json.loads(said)
        assert (report["status"], report["stopped_because"]) == ("paused", sent.name)
        await to_thread.run_sync(configure, project, ONE_A_SESSION)
        assert (await project.export()).status is Status.COMPLETE
        assert any(request.range for request in project.sandbox.transfers)
        await whole(project, "videos")


# Looking at them afterwards.


async def test_verify_tells_files_that_are_gone_or_altered(tmp_path: Path):
    async with filing(tmp_path, 4, tables=ONE_A_SESSION) as project:
        await project.export()
        gone, short, altered, _ = [
            project.lake / str(path) for path in await paths(project, "videos")
        ]

        def meddle() -> None:
            gone.unlink()
            short.write_bytes(short.read_bytes()[:-1])
            altered.write_bytes(b"x" + altered.read_bytes()[1:])

        assert (await to_thread.run_sync(project.process, "verify", "--deep")).returncode == 0
        await to_thread.run_sync(meddle)
        shallow = await to_thread.run_sync(project.process, "verify")
        assert shallow.returncode == 4
        assert "it is gone" in shallow.stdout and "bytes; " in shallow.stdout
        deep = await to_thread.run_sync(project.process, "verify", "--deep", "--json")
        found = json.loads(deep.stdout)["pipelines"][0]["findings"]
        assert len([finding for finding in found if finding["kind"] == "media"]) == 3
        assert (await project.export()).requests.total == 1, "who moves files away may keep them"


@pytest.mark.parametrize("path", ["../secret", "videos/../../secret", "/etc/passwd"])
def test_verify_looks_at_nothing_outside_the_lake(tmp_path: Path, path: str):
    (tmp_path / "secret").touch()
    (tmp_path / "lake" / "videos").mkdir(parents=True)
    columns = {"test_id": ["t"], "path": [path], "bytes": [0], "sha256": ["x"]}
    pq.write_table(pa.table(columns), tmp_path / "lake" / "videos" / "part-1.parquet")
    lake = LocalLake(tmp_path / "lake")
    ((named, says),) = wrong_media(lake, "videos/part-1.parquet", deep=True)
    assert named == path and "cannot be in the lake" in says
    assert list(wrong_media(lake, "of_tomorrow/part-1.parquet", deep=True)) == []


def test_nothing_is_noted_of_a_file_that_nobody_waits_for():
    record = Record()
    assert not not_there_yet(record, "clips", "clip", "one", 5)
    assert record == Record()


async def test_columns_that_are_excluded_are_null_also_where_a_row_waited(tmp_path: Path):
    hidden = "    columns: {clips: {exclude: [name, description], hash: [video_id]}}\n"
    async with filing(tmp_path, 4, tables="clips", options=MADE, extra=hidden) as project:
        project.settings["ETL_HASH_KEY"] = "nobody-can-guess-this-key"
        await project.export()
        rows = await to_thread.run_sync(project.lake_rows, "clips")
        assert rows and {row["name"] for row in rows} == {None}
        assert all(len(row["video_id"]) == 64 for row in rows)
        await whole(project, "clips")


async def test_one_can_peek_at_videos_and_sees_no_link(tmp_path: Path):
    async with filing(tmp_path, 2, tables=ONE_A_SESSION) as project:
        said = await to_thread.run_sync(
            project.process, "peek", project.tests[0], "--table", "videos", "--json"
        )
        (row,) = json.loads(said.stdout)["rows"]
        assert row["session_id"] in project.sandbox.session_ids(project.tests[0])
        assert row["path"] is None and "Signature" not in said.stdout


@pytest.mark.timeout(180)
async def test_kills_leave_no_file_half_lost_or_doubled(tmp_path: Path, blockbuster: BlockBuster):
    blockbuster.deactivate()  # the killed runs are other processes; this one may wait for them
    if lack := lacking():
        pytest.skip(f"KILLS NOT TRIED: {lack}")
    (tmp_path / "project").mkdir()
    (tmp_path / "zygote").mkdir()
    options = SandboxOptions(video_bytes=6_000_000, generating=0)
    slow = "    media: {keep_free_bytes: 0, bytes_per_second: 10000000}\n"
    async with (
        filing(tmp_path / "project", 6, 3, options=options, extra=slow) as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        killed = await kill_files(project, zygote, kills=6, within_seconds=1.2, seed=5)
        assert killed.kills == 6
        # What lay in the sockets of a killed run was sent, and has not come: the slower, the more.
        assert killed.bytes_sent < 3 * killed.bytes, "what has come of a file is gone on with"
