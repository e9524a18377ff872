"""What the API and the network between can do: what passes, and what lasts."""

import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from email.utils import formatdate
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
from anyio import to_thread

from etl.run.export import Limits
from etl.run.world import Patience
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from tests.exporting import TESTS, Project, open_project
from tests.faults import Case, Chapter, Ended, Provoke
from tests.virtual_time import LoopClock

BAD = 1
"""Which of three tests goes wrong."""


PACE = "{requests: 10, seconds: 60}"


def patient(project: Project) -> Project:
    """Give a project the patience that users have, in time that passes at once."""
    project.clock, project.patience = LoopClock(), Patience()
    return project


async def complete(project: Project) -> Ended:
    """Run, and assert that the lake holds every row once."""
    ended = await patient(project).ended()
    await project.exact()
    return ended


def passing(kind: FaultKind, value: Any = None, **more: Any) -> Provoke:
    """Strike the second of three pages, and assert that nothing is missing in the end."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 1_200) as project:
            fault = Fault(kind, value=value, nth=2, **more)
            project.sandbox.add_fault(fault)
            ended = await complete(project)
            assert fault.struck == fault.times
            return ended

    return provoke


def changing(change: Callable[[Sandbox, str], None], pages: int = 2) -> Provoke:
    """Change a listing while it is read, and assert that nothing is missing in the end."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 1_700) as project:
            project.sandbox.before_page(pages, change)
            return await complete(project)

    return provoke


def throttled(hint: Callable[[float], dict[str, str]]) -> Provoke:
    """Refuse three requests with a hint, and assert that none stops the run for long."""

    async def provoke(folder: Path) -> Ended:
        began_at = anyio.current_time()
        async with open_project(folder, 1_200) as project:
            await to_thread.run_sync(lambda: project.write(rate=PACE))
            headers = hint(LoopClock().time())
            fault = Fault(FaultKind.STATUS, value=429, nth=2, times=3, headers=headers)
            project.sandbox.add_fault(fault)
            ended = await complete(project)
        assert anyio.current_time() - began_at < 3 * 61
        return ended

    return provoke


async def only_one_fails(project: Project, *others: str) -> Ended:
    """Run, and assert that only one test of three fails, and the others land whole."""
    bad = project.tests[BAD]
    ended = await patient(project).ended()
    (report,) = (await to_thread.run_sync(project.last_run))["pipelines"]
    assert [failed["test_id"] for failed in report["failed"]] == [bad], report
    assert report["verified"] == 2
    landed, served = await to_thread.run_sync(project.landed), project.served()
    for test in (*others, project.tests[0], project.tests[2]):
        assert landed[test] == served[test]
    return ended


def lasting(kind: FaultKind, value: Any = None) -> Provoke:
    """Strike every page of one test for ever."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40, 1_200, 40) as project:
            fault = Fault(kind, value=value, test_id=project.tests[BAD], times=0)
            project.sandbox.add_fault(fault)
            return await only_one_fails(project)

    return provoke


def refusing(status: int, most_tokens: int = 1) -> Provoke:
    """Refuse one test with this status, and count the tokens that it costs."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 5, 5, 5) as project:
            project.sandbox.forbid(project.tests[BAD], status)
            ended = await only_one_fails(project)
            assert project.sandbox.grants <= most_tokens
            return ended

    return provoke


def lying(total: object) -> Provoke:
    """Falsify the total of one test; all that is served lands all the same."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40, 1_200, 40) as project:
            bad = project.tests[BAD]
            project.sandbox.add_fault(Fault(FaultKind.TOTAL, test_id=bad, value=total, times=0))
            return await only_one_fails(project, bad)

    return provoke


def row(kind: FaultKind, value: Any) -> Provoke:
    """Change the second row of a test of nine."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 9) as project:
            project.sandbox.add_fault(Fault(kind, value=value, times=0))
            ended = await patient(project).ended()
            assert len(await to_thread.run_sync(project.lake_rows)) >= 8
            return ended

    return provoke


async def one_bad_row(folder: Path) -> Ended:
    """Serve a test whose only row cannot be read."""
    async with open_project(folder, 40, 1, 40) as project:
        project.sandbox.edit(project.tests[BAD], 0, sessionId=None)
        await only_one_fails(project)
        again = await only_one_fails(project)
        assert len(await to_thread.run_sync(project.lake_rows, "rejects")) == 1
        return again


async def twice_with_other_contents(folder: Path) -> Ended:
    """Let a session stand twice in its page, and differ."""
    async with open_project(folder, 9) as project:
        first, *_ = project.sandbox.session_ids(project.tests[0])
        fault = Fault(FaultKind.ROW_FIELDS, value={"sessionId": first}, times=0)
        project.sandbox.add_fault(fault)
        ended = await patient(project).ended()
        assert len(await to_thread.run_sync(project.lake_rows)) == 8
        again = await project.ended()
        assert "edited" not in again.said, again.said
        return ended


async def endless(folder: Path) -> Ended:
    """Serve the first page for ever, whatever is asked, and say nothing of where it lies."""
    async with open_project(folder, 1_200) as project:
        project.sandbox.add_fault(Fault(FaultKind.OLD_PAGE, times=0))
        project.sandbox.add_fault(Fault(FaultKind.ECHO, value=NO_ECHO, times=0))
        ended = await patient(project).ended()
        assert project.sandbox.count(200) <= 8
        assert len(await to_thread.run_sync(project.lake_rows)) == 500
        return ended


async def restless(folder: Path) -> Ended:
    """Let a row come and another go before each page of one test."""

    def change(sandbox: Sandbox, test: str) -> None:
        sandbox.complete(test)
        sandbox.remove(test, 700)
        sandbox.before_page(1, change, test)

    async with open_project(folder, 40, 1_200, 40) as project:
        project.sandbox.before_page(2, change, project.tests[BAD])
        return await only_one_fails(project)


async def too_long(folder: Path) -> Ended:
    """Give a test one session more than paging can reach."""
    async with open_project(folder, 40, 10_501, 40) as project:
        ended = await only_one_fails(project)
        rows = await to_thread.run_sync(project.lake_rows)
        assert len({row["session_id"] for row in rows}) == len(rows) == 10_500 + 80
        return ended


def out_of_reach(kind: FaultKind, value: Any = None, minutes: float = 10) -> Provoke:
    """Let no page be answered from the fourth one on, for some minutes."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 1_200, 40, 1_200) as project:
            await to_thread.run_sync(lambda: project.write(rate=PACE))
            fault = Fault(kind, value=value, nth=4, times=0)
            project.sandbox.add_fault(fault)
            async with anyio.create_task_group() as group:
                group.start_soon(mended_after, project.sandbox, minutes)
                ended = await patient(project).ended()
                group.cancel_scope.cancel()
            assert fault.struck > 1, ended.said
            if ended.exit_code:
                await gone_on_with(project)
            await project.exact()
            return ended

    return provoke


async def mended_after(sandbox: Sandbox, minutes: float) -> None:
    """Let the sandbox recover after so many minutes."""
    await anyio.sleep(minutes * 60)
    sandbox.faults.clear()


async def gone_on_with(project: Project) -> None:
    """Assert that the next run pays for no page again, and ends complete."""
    project.sandbox.faults.clear()
    paid = project.sandbox.count(200)
    assert (await project.ended()).exit_code == 0
    pages = {1_200: 3, 1_700: 4, 40: 1}
    whole = sum(pages[len(project.sandbox.session_ids(test))] for test in project.tests)
    assert project.sandbox.count(200) - paid <= whole


async def nobody_listens(folder: Path) -> Ended:
    """Stop the server after two of four pages, and start it again for the next run."""
    options = SandboxOptions(rate_requests=None, sessions=1_700)
    async with AsyncExitStack() as server:
        sandbox = await server.enter_async_context(open_sandbox(options))
        project = patient(Project(folder, sandbox, TESTS[:1]))
        await to_thread.run_sync(project.write)
        stopped = anyio.Event()
        sandbox.before_page(2, lambda *_: stopped.set())
        ended: list[Ended] = []

        async def export() -> None:
            ended.append(await project.ended())

        async with anyio.create_task_group() as group:
            group.start_soon(export)
            await stopped.wait()
            await server.aclose()
    port = int(sandbox.url.rpartition(":")[2])
    async with open_sandbox(options, port=port) as project.sandbox:
        await gone_on_with(project)
        await project.exact()
    return ended[0]


def without_names(failing: float) -> Provoke:
    """Let the resolver know no host for so many seconds."""

    async def provoke(folder: Path) -> Ended:
        known_from = anyio.current_time() + failing
        resolve = socket.getaddrinfo

        def resolver(host: Any, *arguments: Any, **more: Any) -> Any:
            if host == "localhost" and now() < known_from:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return resolve(host, *arguments, **more)

        now = LoopClock().monotonic
        async with open_project(folder, 40) as project:
            project.sandbox.url = project.sandbox.url.replace("127.0.0.1", "localhost")
            with patch.object(socket, "getaddrinfo", resolver):
                ended = await patient(project).ended()
            if ended.exit_code:
                assert (await project.ended()).exit_code == 0
            await project.exact()
            return ended

    return provoke


class JumpyClock(LoopClock):
    """A clock whose wall time somebody sets."""

    jumped_seconds = 0.0

    def time(self) -> float:
        """Return the wall time as it was set."""
        return super().time() + self.jumped_seconds


def with_the_clock_set(*jumps: float) -> Provoke:
    """Set the wall clock before the second page, the third, and so on."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 2_600, 40) as project:
            clock = JumpyClock()
            patient(project).clock = clock
            for page, seconds in enumerate(jumps, start=2):
                project.sandbox.before_page(
                    page, lambda *_, by=seconds: setattr(clock, "jumped_seconds", by)
                )
            ended = await project.ended()
            await project.exact()
            assert project.sandbox.count(200) <= 2 * 7
            return ended

    return provoke


async def set_right_between_runs(folder: Path) -> Ended:
    """Set a clock right that was a year ahead while a run left a listing half read."""
    async with open_project(folder, 2_600, 40) as project:
        clock = JumpyClock()
        patient(project).clock = clock
        clock.jumped_seconds = 365 * 86_400
        assert (await project.ended(limits=Limits(max_requests=3))).exit_code == 0
        clock.jumped_seconds = 0
        ended = await project.ended()
        await project.exact()
        assert project.sandbox.count(200) <= 3 + 7
        paid = project.sandbox.count(200)
        await project.ended()
        assert project.sandbox.count(200) - paid == 3, "two heads, and a proof of the oldest page"
        return ended


async def asleep(folder: Path) -> Ended:
    """Let three hours pass that the monotonic clock does not count, nor the token survives."""

    def sleep(sandbox: Sandbox, _test: str) -> None:
        clock.jumped_seconds += 3 * 3600
        sandbox.revoke_tokens()

    async with open_project(folder, 2_600) as project:
        clock = JumpyClock()
        patient(project).clock = clock
        project.sandbox.before_page(1, sleep)
        project.sandbox.add_fault(Fault(FaultKind.RESET, nth=2))
        ended = await project.ended()
        await project.exact()
        assert project.sandbox.count(401) == 0, "the token was known to be dead"
        return ended


HTML, NOTHING, NULL, BUSY = "<html>login</html>", "", "null", '{"error":"busy"}'
NO_ECHO = {"limit": "absent", "offset": "absent", "totalCount": "absent"}
DEEP = '{"sessions":' * 100_000
COMPLETE = "proved complete … complete in"


def date(seconds: float) -> str:
    """Return a moment as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


CHAPTER = Chapter(
    "The network and the API",
    [
        Case(
            "a connection breaks before, in or after the headers of an answer, or in its body",
            COMPLETE,
            0,
            [passing(FaultKind.RESET), passing(FaultKind.CUT_HEADERS), passing(FaultKind.CUT_BODY)],
        ),
        Case(
            "an answer takes for ever, or none comes at all",
            COMPLETE,
            0,
            [passing(FaultKind.SLOW_BODY), passing(FaultKind.HANG)],
        ),
        Case(
            "a body is cut short under a right length, or badly compressed",
            COMPLETE,
            0,
            [passing(FaultKind.TRUNCATED_JSON), passing(FaultKind.CORRUPT_GZIP)],
        ),
        Case(
            "a small body is a huge one when decoded: gzip, br, zstd",
            COMPLETE,
            0,
            [passing(FaultKind.BOMB, encoding) for encoding in ("gzip", "br", "zstd")],
        ),
        Case(
            "a 200 is a web page, empty, `null`, an error, or nested a hundred thousand deep",
            COMPLETE,
            0,
            [passing(FaultKind.BODY, body) for body in (HTML, NOTHING, NULL, BUSY, DEEP)],
        ),
        Case(
            "another test's page, an old page again, or one that was not asked for",
            COMPLETE,
            0,
            [
                passing(FaultKind.OTHER_TEST),
                passing(FaultKind.OLD_PAGE),
                passing(FaultKind.ECHO, {"offset": 3}),
                passing(FaultKind.ECHO, {"limit": 9_999}),
            ],
        ),
        Case(
            "rows come, go or swap places while they are read, or stand twice or not in their page",
            COMPLETE,
            0,
            [
                changing(lambda sandbox, test: sandbox.complete(test, 3)),
                changing(lambda sandbox, test: sandbox.remove(test, 800)),
                changing(lambda sandbox, test: sandbox.swap(test, 10, 900)),
                passing(FaultKind.REPEAT_ROW),
                passing(FaultKind.DROP_ROW),
            ],
        ),
        Case(
            "a total lies once, or moves while it is read",
            COMPLETE,
            0,
            [passing(FaultKind.TOTAL, total) for total in (-1, None, "9", 1_201, 3)],
        ),
        Case(
            "a redirect to a path of the same origin",
            COMPLETE,
            0,
            [passing(FaultKind.REDIRECT, "slash")],
        ),
        Case(
            "rate headers that mean nothing, a cookie",
            COMPLETE,
            0,
            [
                passing(FaultKind.HEADERS, {"x-ratelimit-limit": value})
                for value in ("0", "1000000000", "ten", "-4")
            ]
            + [passing(FaultKind.HEADERS, {"Set-Cookie": "a=b"})],
        ),
        Case(
            "a 401 in the middle of a run",
            COMPLETE,
            0,
            [
                passing(FaultKind.STATUS, 401),
                changing(lambda sandbox, _test: sandbox.revoke_tokens()),
            ],
        ),
        Case(
            "429 without a hint, with seconds, a date, one long past, one in a year",
            COMPLETE,
            0,
            [
                throttled(lambda _now: {}),
                throttled(lambda _now: {"Retry-After": "20"}),
                throttled(lambda now: {"Retry-After": date(now + 20)}),
                throttled(lambda now: {"Retry-After": date(now - 1e9)}),
                throttled(lambda now: {"Retry-After": date(now + 365 * 86_400)}),
                throttled(lambda now: {"x-ratelimit-reset": str(int(now + 20))}),
            ],
        ),
        Case(
            "408, 500, 502, 503 or 504, with or without `Retry-After`",
            COMPLETE,
            0,
            [
                *(passing(FaultKind.STATUS, status) for status in (408, 500, 502, 504)),
                passing(FaultKind.STATUS, 503, headers={"Retry-After": "1"}),
                passing(FaultKind.STATUS, 503, headers={"Retry-After": "1000000000"}),
            ],
        ),
        Case(
            "the API is out of reach for ten minutes, or its name is not resolved",
            COMPLETE,
            0,
            [
                out_of_reach(FaultKind.RESET),
                out_of_reach(FaultKind.HANG),
                out_of_reach(FaultKind.STATUS, 503),
                without_names(failing=600),
            ],
        ),
        Case(
            "the API is out of reach for more than a quarter of an hour",
            "error The API has answered nothing for …: … What was fetched has landed; the next "
            "run goes on from there. … partial (unreachable)",
            4,
            [
                out_of_reach(FaultKind.RESET, minutes=60),
                out_of_reach(FaultKind.HANG, minutes=60),
                out_of_reach(FaultKind.STATUS, 503, minutes=60),
                out_of_reach(FaultKind.BODY, HTML, minutes=60),
                nobody_listens,
            ],
        ),
        Case(
            "no name is resolved for more than a quarter of an hour",
            "error No token was to be had for 15 minutes: … partial (unreachable)",
            4,
            [without_names(failing=3_600)],
        ),
        Case(
            "the clock jumps an hour forth and back, or was a year ahead in an earlier run",
            COMPLETE,
            0,
            [
                with_the_clock_set(3_600, 0),
                with_the_clock_set(-3_600, 0),
                with_the_clock_set(3_600),
                with_the_clock_set(-3_600),
                set_right_between_runs,
            ],
        ),
        Case("the machine sleeps for three hours", COMPLETE, 0, [asleep]),
        Case(
            "a test is refused: 403, or 401 though the token is good",
            "failed test …: These credentials may not see it, though they work elsewhere",
            4,
            [refusing(403), refusing(401, most_tokens=5)],
        ),
        Case(
            "a test is deleted, or not shown to these credentials: 404",
            "failed test …: The API does not know it, or does not show it to these credentials",
            4,
            [refusing(404)],
        ),
        Case(
            "a test is never answered as asked: 400, 405, 410",
            "failed test …: The API refused the request (status …)",
            4,
            [lasting(FaultKind.STATUS, status) for status in (400, 405, 410)],
        ),
        Case(
            "a test is answered 500 for ever",
            "failed test …: The page … was asked … times: the API answered 500.",
            4,
            [lasting(FaultKind.STATUS, 500)],
        ),
        Case(
            "a test's answers never come, or always break off",
            "failed test …: The page … was asked … times: …",
            4,
            [lasting(FaultKind.HANG), lasting(FaultKind.RESET), lasting(FaultKind.CUT_BODY)],
        ),
        Case(
            "a test's answers can never be read",
            "failed test …: The page … was asked … times: the body cannot be read: …",
            4,
            [
                *(lasting(FaultKind.BODY, body) for body in (HTML, NOTHING, NULL, DEEP)),
                *(lasting(FaultKind.BOMB, encoding) for encoding in ("gzip", "br", "zstd")),
                lasting(FaultKind.CORRUPT_GZIP),
            ],
        ),
        Case(
            "a test is always answered with another one's page",
            "failed test …: … asked … times: the answer is about another test.",
            4,
            [lasting(FaultKind.OTHER_TEST)],
        ),
        Case(
            "the same page comes whatever is asked",
            "failed test …: … asked … times: the answer echoes offset 0, but row … was asked.",
            4,
            [lasting(FaultKind.OLD_PAGE)],
        ),
        Case(
            "a redirect to another origin, to plain http or to an address of the network's own",
            "failed test …: The API redirects to another origin; the token is not sent there.",
            4,
            [
                lasting(FaultKind.REDIRECT, target)
                for target in (
                    "https://example.org/api",
                    "http://example.org/api",
                    "http://169.254.169.254/latest",
                )
            ],
        ),
        Case(
            "redirects in a loop",
            "failed test …: The API redirects in a loop.",
            4,
            [lasting(FaultKind.REDIRECT, "loop")],
        ),
        Case(
            "a total that is wrong for ever",
            "failed test …: The API says … sessions but serves 1200; reading again changed "
            "nothing. What it serves is in the lake.",
            4,
            [lying(total) for total in (1_203, 700)],
        ),
        Case(
            "no total that can be believed: none, -1, `null`, text",
            "failed test …: The API gave no believable total, so nothing proves that the … "
            "sessions read are all. They are in the lake.",
            4,
            [
                *(lying(total) for total in (-1, None, "9", "absent", True, 1.5)),
                endless,
            ],
        ),
        Case(
            "more sessions than paging can reach",
            "failed test …: The API says 10501 sessions, but rows beyond 10 500 cannot be "
            "reached by paging; 10500 are known and in the lake.",
            4,
            [too_long],
        ),
        Case(
            "a listing that never stands still",
            "failed test …: The listing kept changing while it was read; … The next run goes on.",
            4,
            [restless],
        ),
        Case(
            "a row cannot be read: its id is missing, `NaN`, a time that is none, a lone surrogate",
            "1 new row in rejects … proved complete … complete in",
            0,
            [
                row(FaultKind.ROW_FIELDS, {"sessionId": None}),
                row(FaultKind.ROW_FIELDS, {"finishTime": "0000-01-01T00:00:00Z"}),
                row(FaultKind.RAW_ROW, '{"sessionId":"a","score":NaN}'),
                row(FaultKind.RAW_ROW, '{"sessionId":"a","status":"\\ud800"}'),
            ],
        ),
        Case(
            "no row of a test can be read",
            "failed test …: None of its 1 sessions could be read; they are in the table rejects.",
            4,
            [one_bad_row],
        ),
        Case(
            "a session stands twice with different contents",
            "edited in sessions: 1 row answered differently now … failed test …: The API says 9 "
            "sessions but serves 8",
            4,
            [twice_with_other_contents],
        ),
        Case(
            "a field that nobody knows, whose name would move the cursor",
            "new field '(no name)', which no table knows … complete in",
            0,
            [row(FaultKind.ROW_FIELDS, {"\x1b[2J": 1})],
        ),
    ],
)
