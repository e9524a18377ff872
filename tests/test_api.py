"""The exporter from Python: in a loop, without one, in a thread, and cut short."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from blockbuster import BlockBuster

from etl.api import (
    Api,
    Asked,
    Limits,
    RateLimit,
    blocking,
    connect,
    run_pipelines,
)
from etl.errors import (
    BadRequest,
    ConfigError,
    CredentialsRefused,
    NotFound,
    TestFailed,
    Unreachable,
    UsageError,
)
from etl.ledger.reading import open_state
from etl.report.values import Status
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.pages import Spelling
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import IMPATIENT, TESTS, Project, open_project

WORKSPACES = "/usertesting/api/v1/workspaces"
DETAILS = ("session_details", "demographics", "task_groups", "tasks")
ALL = ("sessions", *DETAILS, "transcripts", "qx_scores")


def opened(project: Project, **more: Any) -> AbstractAsyncContextManager[Api]:
    """Open a connection to a project's sandbox, at the pace of its pipelines file."""
    named: dict[str, Any] = {"environ": project.environ(), "patience": IMPATIENT, **more}
    return connect(config=project.file, **named)


async def rows(batches: AsyncIterator[pa.RecordBatch]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all batches, by the table that each says it is of."""
    found: dict[str, list[pa.RecordBatch]] = {}
    async for batch in batches:
        found.setdefault((batch.schema.metadata or {})[b"etl_table"].decode(), []).append(batch)

    def told() -> dict[str, list[dict[str, Any]]]:
        return {
            table: [row for batch in batches for row in batch.to_pylist()]
            for table, batches in found.items()
        }

    return await to_thread.run_sync(told)


def alike(found: list[dict[str, Any]]) -> list[str]:
    """Return rows so that they can be compared, less what tells one fetch from another."""
    own = ("_run_id", "_fetched_at")
    return sorted(
        repr(sorted((name, value) for name, value in row.items() if name not in own))
        for row in found
    )


# One's own calls.


async def test_a_call_needs_neither_token_nor_pace(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        first = await api.get("/api/v2/sessionResults", {"testId": project.tests[0], "limit": 2})
        await api.get("/api/v2/sessionResults", {"testId": project.tests[0]})
        assert len(first.json()["sessions"]) == 2
        assert first.fetched_at.tzinfo is not None
        assert (api.usage.total, api.usage.token_grants) == (2, 1)
        session = first.json()["sessions"][0]["sessionId"]
        transcript = await api.get(f"/api/v2/sessionResults/{session}/transcript")
        assert transcript.text().startswith("WEBVTT")
        with pytest.raises(ValueError, match="Expecting value"):
            transcript.json()
        assert "WEBVTT" not in repr(transcript)


async def test_what_may_pass_is_asked_again_and_what_may_not_is_raised(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        ask = {"testId": project.tests[0]}
        project.sandbox.add_fault(Fault(FaultKind.STATUS, value=503, times=2))
        assert (await api.get("/api/v2/sessionResults", ask)).json()["sessions"]
        assert (api.usage.total, api.usage.retried) == (3, 2)
        project.sandbox.add_fault(Fault(FaultKind.STATUS, value=500, times=0))
        with pytest.raises(Unreachable, match="asked 4 times: the API answered 500"):
            await api.get("/api/v2/sessionResults", ask)
        with pytest.raises(NotFound, match=r"/api/v2/nowhere"):
            await api.get("/api/v2/nowhere")


@pytest.mark.parametrize("path", ["api/v2", "https://elsewhere.example/", "/x?y=1", "/x#y", ""])
async def test_a_path_that_could_lead_elsewhere_is_refused(tmp_path: Path, path: str):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        with pytest.raises(UsageError, match="not a path of the API"):
            await api.get(path)
        assert api.usage.total == 0


async def test_an_error_of_the_block_is_raised_as_it_is(tmp_path: Path):
    async with open_project(tmp_path, 3) as project:

        async def use(error: Exception | None = None, **more: Any) -> None:
            async with opened(project, **more) as api:
                await api.get(WORKSPACES)
                if error is not None:
                    raise error

        with pytest.raises(KeyError, match="theirs"):
            await use(KeyError("theirs"))
        with pytest.raises(CredentialsRefused) as refused:
            await use(client_secret="wrong-and-secret")
        assert "wrong-and-secret" not in str(refused.value)


async def test_two_connections_keep_one_pace(tmp_path: Path):
    limit = RateLimit(requests=5, seconds=0.5)
    async with open_project(tmp_path, 3) as project:

        async def ask_often() -> None:
            async with opened(project, rate_limit=limit) as api:
                for _ in range(9):
                    await api.get(WORKSPACES)

        began_at = anyio.current_time()
        async with anyio.create_task_group() as both:
            both.start_soon(ask_often)
            both.start_soon(ask_often)
        # 18 sends, 5 in a window of half a second: each for itself would take half a second.
        assert anyio.current_time() - began_at >= 1.5


# Settings.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder of the test's own the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def test_arguments_are_over_the_environment_and_it_over_the_file(here: Path):
    async with open_sandbox(SandboxOptions(rate_requests=None)) as sandbox:
        told: dict[str, Any] = {
            "client_id": sandbox.client_id,
            "client_secret": sandbox.client_secret,
            "api_url": sandbox.url,
            "token_url": sandbox.token_url,
        }
        wrong = {
            "USERTESTING_CLIENT_ID": "another",
            "USERTESTING_CLIENT_SECRET": "another secret",
            "USERTESTING_API_URL": "https://nowhere.invalid",
        }
        async with connect(environ=wrong, state_dir=here / "state", **told) as api:
            await api.get(WORKSPACES)
        assert await to_thread.run_sync(lambda: list((here / "state").iterdir()))
        file = here / "etl.yaml"
        text = "connections: {agency: {client_id: theirs, client_secret: '${AGENCY}'}}"
        await to_thread.run_sync(file.write_text, text)
        environ = {"AGENCY": "their own secret"}
        async with connect("agency", config=file, environ=environ, **told) as api:
            await api.get(WORKSPACES)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"environ": {}}, "connection 'default' has no credentials"),
        ({"connection": "nobody"}, "There is no connection 'nobody'"),
        ({"api_url": "http://elsewhere.example"}, "USERTESTING_API_URL is plain http"),
    ],
)
async def test_what_cannot_be_is_told_before_anything_is_sent(
    tmp_path: Path, more: dict[str, Any], told: str
):
    async with open_project(tmp_path, 3) as project:
        with pytest.raises(ConfigError, match=told):
            async with opened(project, **more):
                pass
        assert project.sandbox.grants == 0


# Rows.


async def test_the_pages_of_a_test_hold_each_session_once(tmp_path: Path):
    async with open_project(tmp_path, 1_300) as project, opened(project) as api:
        found = await rows(api.pages(project.tests[0].upper()))
        assert list(found) == ["sessions"]
        ids = [row["session_id"] for row in found["sessions"]]
        assert sorted(ids) == project.served()[project.tests[0]]


async def test_pages_that_do_not_prove_complete_are_handed_over_and_then_said_to_be_so(
    tmp_path: Path,
):
    async with open_project(tmp_path, 9) as project, opened(project) as api:
        project.sandbox.add_fault(Fault(FaultKind.TOTAL, value=12, times=0))
        batches = api.batches(["sessions", "tasks"], project.tests[0])
        found: list[pa.RecordBatch] = []

        async def take() -> None:
            async for batch in batches:
                found.append(batch)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(TestFailed, match="says 12 sessions, and 9 sessions were read"):
            await take()
        assert sum(batch.num_rows for batch in found[:1]) == 9
        assert len(found) == 1 + 9, "each session's tasks came all the same"


@pytest.mark.parametrize(
    "spelling",
    [
        Spelling(first_page=0),
        Spelling(page_cap=100),
        Spelling(understands=frozenset({"offset"})),
        Spelling(understands=frozenset({"offset"}), strict=True),
    ],
)
async def test_pages_are_asked_as_the_api_understands(tmp_path: Path, spelling: Spelling):
    options = SandboxOptions(rate_requests=None, spelling=spelling)
    async with open_project(tmp_path, 700, options=options) as project, opened(project) as api:
        found = await rows(api.pages(project.tests[0]))
        assert len(found["sessions"]) == 700


async def test_a_test_that_is_not_known_is_told_as_such(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, value=404, times=0))
        with pytest.raises(NotFound):
            await rows(api.pages(project.tests[0]))


async def test_a_request_that_is_refused_however_it_is_spelled_is_told_as_such(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        project.sandbox.add_fault(Fault(FaultKind.STATUS, value=400, times=0))
        with pytest.raises(BadRequest):
            await rows(api.pages(project.tests[0]))


async def test_the_rows_are_those_that_would_land(tmp_path: Path):
    extra = f"    tables: [{', '.join(ALL)}]\n    lake: {{url: ./lake, partition_by: []}}\n"
    async with open_project(tmp_path, 7, extra=extra) as project:
        bad = Fault(FaultKind.ROW_FIELDS, value={"status": 5}, times=0)
        project.sandbox.add_fault(bad)
        await project.export()
        async with opened(project) as api:
            found = await rows(api.batches([*ALL, "rejects"], project.tests[0]))
        for table in (*ALL, "rejects"):
            landed = await to_thread.run_sync(project.lake_rows, table)
            assert alike(found.get(table, [])) == alike(landed), table
        assert {"sessions", *DETAILS[:2], "tasks", "transcripts", "rejects"} <= set(found)


async def test_an_answer_that_feeds_several_tables_is_asked_once_and_only_for_those_given(
    tmp_path: Path,
):
    async with open_project(tmp_path, 7) as project, opened(project) as api:
        chosen = project.sandbox.session_ids(project.tests[0])[:2]
        found = await rows(api.batches(DETAILS, project.tests[0], sessions=chosen))
        assert api.usage.total == 2
        assert {"session_details", "demographics", "tasks"} <= set(found) <= set(DETAILS)
        assert [row["session_id"] for row in found["session_details"]] == chosen


async def test_a_session_without_what_is_asked_is_passed_over(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        first, *others = project.sandbox.session_ids(project.tests[0])
        absent = Fault(FaultKind.STATUS, on="transcript", object_id=first, value=404, times=0)
        project.sandbox.add_fault(absent)
        found = await rows(api.batches("transcripts", project.tests[0]))
        assert {row["session_id"] for row in found["transcripts"]} == set(others)


async def test_what_is_no_table_or_no_test_is_refused_before_anything_is_sent(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        for table in ("workspaces", "completed_sessions", "videos", "no such table"):
            with pytest.raises(UsageError, match=f"cannot iterate over the table '{table}'"):
                await rows(api.batches(table, project.tests[0]))
        with pytest.raises(UsageError, match="'today' is not a test id"):
            await rows(api.pages("today"))
        assert api.usage.total == 0


# Pipelines.


async def test_pipelines_run_in_the_loop_of_whoever_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.INFO, logger="etl")
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    heard: list[str] = []

    def hear(event: str, **fields: object) -> None:
        del fields
        heard.append(event)
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before

    async with open_project(tmp_path, 9) as project:
        project.sandbox.add_fault(Fault(FaultKind.ROW_FIELDS, value={"mood": 1}))
        report = await run_pipelines(
            project.file, ["nightly"], environ=project.environ(), on_event=hear
        )
        assert (report.status, report.exit_code) == (Status.COMPLETE, 0)
        assert report.pipelines[0].rows["sessions"] == 9
        await project.exact()
    assert heard[0] == "run_started" and heard[-1] == "run_finished" and "test_done" in heard
    assert "event='new_field' pipeline='nightly' field='mood'" in caplog.text
    assert capfd.readouterr() == ("", ""), "what is printed is the program's business"


async def test_what_the_command_would_warn_of_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    async with open_project(tmp_path, 3) as project:

        def provoke() -> None:
            (tmp_path / ".env").write_text("USERTESTING_CLIENT_SECRET=another\n")
            (tmp_path / ".env").chmod(0o644)
            (project.state / "last_run.json" / "in the way").mkdir(parents=True)

        await to_thread.run_sync(provoke)
        report = await run_pipelines(project.file, environ=project.environ())
        assert report.status is Status.COMPLETE
        assert "can be read by others" in caplog.text
        assert "The report of the run could not be kept" in caplog.text


async def test_options_are_those_of_the_command(tmp_path: Path):
    async with open_project(tmp_path, 9, 9) as project:
        paused = await run_pipelines(
            project.file,
            environ=project.environ(),
            limits=Limits(max_requests=1, fail_if_paused=True),
        )
        assert (paused.status, paused.exit_code) == (Status.PAUSED, 6)
        one = await run_pipelines(
            project.file, environ=project.environ(), asked=Asked(tests=TESTS[:1])
        )
        assert one.status is Status.COMPLETE
        with pytest.raises(ConfigError, match="unknown pipeline 'nothing'"):
            await run_pipelines(project.file, ["nothing"], environ=project.environ())


def details_in_inbox(project: Project) -> set[str | None]:
    """Return the sessions whose details lie in the inbox; blocks."""
    with open_state(project.state, "nightly") as state:
        found = state.in_inbox
        return {session for endpoint, _, session, *_ in found if endpoint == "session_details"}


async def test_a_run_that_is_cancelled_leaves_nothing_running_and_loses_nothing(tmp_path: Path):
    extra = "    tables: [sessions, session_details]\n"
    async with open_project(tmp_path, 30, extra=extra) as project:
        before = asyncio.all_tasks()
        project.sandbox.add_fault(Fault(FaultKind.HANG, on="details", nth=4, times=0))
        run = asyncio.create_task(run_pipelines(project.file, environ=project.environ()))
        with anyio.fail_after(10):  # only the ledger knows
            while len(kept := await to_thread.run_sync(details_in_inbox, project)) < 3:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        left = {task for task in asyncio.all_tasks() - before if "aiohttp/web" not in repr(task)}
        assert not left
        project.sandbox.faults.clear()
        asked = len(project.sandbox.requests)
        report = await project.export()
        assert report.status is Status.COMPLETE
        await project.exact()
        again = {request.session_id for request in project.sandbox.requests[asked:]}
        assert again and not again & kept, "none is paid twice"


async def test_a_call_that_is_cancelled_leaves_the_connection_usable(tmp_path: Path):
    async with open_project(tmp_path, 3) as project, opened(project) as api:
        project.sandbox.add_fault(Fault(FaultKind.HANG, on="workspaces"))
        with anyio.move_on_after(0.2):
            await api.get(WORKSPACES)
        assert (await api.get(WORKSPACES)).json()


# Without a loop.


@contextmanager
def elsewhere(folder: Path, *sizes: int) -> Iterator[Project]:
    """Open a project whose sandbox is in another thread, as that of a program of its own."""

    @asynccontextmanager
    async def project() -> AsyncIterator[Project]:
        async with open_project(folder, *sizes) as found:
            yield found

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(project()) as found:
        yield found


def use_all(project: Project) -> None:
    """Use every blocking name, and look at what comes of it."""
    report = blocking.run_pipelines(project.file, environ=project.environ())
    assert report.status is Status.COMPLETE
    assert project.landed() == project.served()
    with blocking.connect(config=project.file, environ=project.environ()) as api:
        assert api.get(WORKSPACES).json()
        ids = [row["session_id"] for batch in api.pages(TESTS[0]) for row in batch.to_pylist()]
        assert sorted(ids) == project.served()[TESTS[0]]
        first = next(iter(api.batches("tasks", TESTS[0])))
        assert first.num_rows and api.usage.total == 4
        with pytest.raises(UsageError):
            api.get("nowhere")


def test_the_blocking_names_work_in_plain_code(tmp_path: Path):
    with elsewhere(tmp_path, 9) as project:
        use_all(project)


def test_the_blocking_names_work_in_any_thread(tmp_path: Path):
    failed: list[BaseException] = []

    def work() -> None:
        try:
            use_all(project)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    with elsewhere(tmp_path, 9) as project:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not failed


async def test_the_blocking_names_work_where_a_loop_runs_already(
    tmp_path: Path, blockbuster: BlockBuster
):
    blockbuster.deactivate()  # blocking is what they do
    with elsewhere(tmp_path, 9) as project:
        use_all(project)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_block_that_is_left_by_an_error_leaves_no_thread(
    tmp_path: Path, error: Callable[[], BaseException]
):
    with elsewhere(tmp_path, 3) as project:
        before = set(threading.enumerate())

        def use() -> None:
            with blocking.connect(config=project.file, environ=project.environ()) as api:
                next(iter(api.pages(TESTS[0])))
                raise error()

        with pytest.raises(BaseException) as raised:  # noqa: PT011 - which it is, is asserted
            use()
        assert type(raised.value) is error
        ours = [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
        assert not [thread for thread in ours if "AnyIO worker" not in thread.name]
