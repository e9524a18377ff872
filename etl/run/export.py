"""Runs pipelines in order: limits, signals, clients, and the report of the whole."""

import fcntl
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from anyio import CancelScope, create_task_group, open_signal_receiver, to_thread

from etl.client.http import Client, open_client
from etl.errors import AlreadyRunning, EtlError, SchemaDrift, StateError, disk_advice, disk_reason
from etl.lake.tally import MediaTally, Tally
from etl.ledger.places import make_state_dir
from etl.ledger.values import Ended
from etl.plan.orders import Order, files_asked
from etl.report.progress import LOOK_EVERY_SECONDS, Progress
from etl.report.values import (
    FailedTest,
    GivenUp,
    MediaReport,
    PipelineReport,
    Rate,
    Requests,
    RunReport,
    Status,
    to_json,
)
from etl.run.errors import first_error
from etl.run.outcome import Outcome
from etl.run.pipeline import PipelineRun
from etl.run.world import World
from etl.tables import rejects

PAUSES: Final = frozenset({"max_runtime", "max_requests"})
_SIGNAL_EXITS: Final = {signal.SIGINT: 130, signal.SIGTERM: 143}


@dataclass(frozen=True, slots=True)
class Limits:
    """What may end a run before its work is done, and what it calls by a code of its own.

    `strict` calls a row that could not be read, and is new in `rejects`, a failure.
    """

    max_runtime_seconds: float | None = None
    max_requests: int | None = None
    fail_if_paused: bool = False
    strict: bool = False
    wait_for_lock_seconds: float = 0.0


class Export:
    """A run over several pipelines, in the file's order, each to its end."""

    def __init__(
        self,
        orders: Sequence[Order],
        limits: Limits,
        world: World,
        progress: Progress,
        *,
        heeds_signals: bool = True,
    ) -> None:
        """Make a run; nothing is opened yet.

        Signals belong to the program: a run that was called by another one leaves them alone.
        """
        self.signalled: int | None = None
        self.not_kept: StateError | None = None
        self._orders = orders
        self._limits = limits
        self._world = world
        self._progress = progress
        self._heeds_signals = heeds_signals
        self._current: PipelineRun | None = None
        self._stop_because: str | None = None
        self._clients: dict[str, Client] = {}
        self._reports: list[PipelineReport] = []

    async def run(self) -> RunReport:
        """Run every pipeline and return the report; never raises an EtlError of theirs."""
        started_at = datetime.fromtimestamp(self._world.clock.time(), UTC)
        began_at = self._world.clock.monotonic()
        self._progress.events("run_started", run_id=self._world.run_id)
        async with AsyncExitStack() as stack:
            for order in self._orders:
                await self._open_client(order, stack)
            async with self._watched():
                for order in self._orders:
                    await self._run_one(order)
            for order in self._orders[len(self._reports) :]:
                self._reports.append(self._pipeline_report(order, _not_begun(), None))
            report = self._report(started_at, self._world.clock.monotonic() - began_at)
        try:
            await to_thread.run_sync(keep_last_run, self._orders[0].state_dir, report)
        except StateError as error:
            self.not_kept = error
        self._progress.events("run_finished", run_id=report.run_id, status=report.status.value)
        return report

    def exit_codes(self) -> list[int]:
        """Return the exit code that each pipeline calls for, and the report that was not kept."""
        codes = [report.exit_code for report in self._reports]
        return codes if self.not_kept is None else [*codes, self.not_kept.exit_code]

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        """Listen to signals and the clock for as long as the block runs."""
        async with create_task_group() as watchers:
            with CancelScope() as running:
                if self._heeds_signals:
                    watchers.start_soon(self._listen, running)
                watchers.start_soon(self._say_progress)
                if self._limits.max_runtime_seconds is not None:
                    watchers.start_soon(self._end_in, self._limits.max_runtime_seconds)
                yield
            watchers.cancel_scope.cancel()

    async def _listen(self, running: CancelScope) -> None:
        """Stop gently at the first signal, at once at the second: nothing is lost by either."""
        with open_signal_receiver(*_SIGNAL_EXITS) as signals:
            async for received in signals:
                if self.signalled is not None:
                    running.cancel()
                    return
                self.signalled = _SIGNAL_EXITS[received]
                self._stop(received.name)

    async def _end_in(self, seconds: float) -> None:
        await self._world.clock.sleep(seconds)
        self._stop("max_runtime")

    async def _say_progress(self) -> None:
        while True:
            await self._world.clock.sleep(LOOK_EVERY_SECONDS)
            self._progress.look(self._world.clock.monotonic())

    def _stop(self, because: str) -> None:
        self._stop_because = self._stop_because or because
        if self._current is not None:
            self._current.stop(because)

    async def _run_one(self, order: Order) -> None:
        """Run one pipeline and add its report, whatever becomes of it."""
        if self._stop_because is not None:
            self._reports.append(self._pipeline_report(order, _not_begun(), None))
            return
        client = self._clients[order.connection.name]
        run = self._current = PipelineRun(
            order,
            client,
            self._world,
            self._progress,
            lambda outcome: self._pipeline_report(order, outcome, None).status,
        )
        error = None
        try:
            await self._run_when_free(run)
        except* EtlError as group:
            error = first_error(group)
        finally:  # also when a second signal cancels it
            self._reports.append(self._pipeline_report(order, run.outcome, error))
        stopped = run.outcome.stopped
        if stopped is not None and stopped.because in PAUSES:
            self._stop(stopped.because)

    async def _run_when_free(self, run: PipelineRun) -> None:
        """Run a pipeline; wait for its lock as long as the command line allows."""
        give_up_at = self._world.clock.monotonic() + self._limits.wait_for_lock_seconds
        while True:
            try:
                await run.run()
            except AlreadyRunning:
                if self._stop_because or self._world.clock.monotonic() >= give_up_at:
                    raise
                await self._world.clock.sleep(1.0)
            else:
                return

    async def _open_client(self, order: Order, stack: AsyncExitStack) -> None:
        """Open the client of a connection, once for all its pipelines."""
        name = order.connection.name
        if name not in self._clients:
            await to_thread.run_sync(make_state_dir, order.state_dir)
            self._clients[name] = await stack.enter_async_context(
                open_client(
                    order.connection,
                    state_dir=order.state_dir,
                    clock=self._world.clock,
                    random=self._world.random,
                    max_requests=self._limits.max_requests,
                    on_event=self._progress.events,
                )
            )

    def _pipeline_report(
        self, order: Order, outcome: Outcome, error: EtlError | None
    ) -> PipelineReport:
        tally, stopped = outcome.tally, outcome.stopped
        error = error or (stopped.error if stopped else None)
        accepted = set(order.pipeline.accept_failures)
        failed = [
            FailedTest(look.test_id, why, look.test_id in accepted)
            for look in tally.looks.values()
            if (why := _why_failed(look)) is not None
        ]
        failed += [
            FailedTest(test_id, _sessions_failed(reasons), test_id in accepted)
            for test_id, reasons in _by_test(outcome.failures).items()
        ]
        because = stopped.because if stopped else (self._stop_because if error is None else None)
        if error is None:
            error = _objection(order, tally, strict=self._limits.strict)
        status, exit_code = self._verdict(error, failed, because)
        verified = [look for look in tally.looks.values() if look.verdict and look.verdict.verified]
        return PipelineReport(
            name=order.name,
            tests=outcome.tests,
            rows={name: tally.rows[name] for name in (*order.pipeline.tables, *tally.rows)},
            files=tally.files,
            bytes=tally.bytes,
            failed=failed,
            verified=len(verified),
            lake=str(order.lake_path),
            status=status,
            exit_code=exit_code,
            edited=dict(tally.edited),
            replaced=dict(tally.replaced),
            removed=dict(tally.removed),
            unknown_fields=dict(tally.unknown_fields),
            absent=dict(tally.absent),
            media=_media(tally.media) if files_asked(order) else None,
            notes=outcome.notes,
            error=None if error is None else str(error),
            stopped_because=because,
        )

    def _verdict(
        self, error: EtlError | None, failed: Sequence[FailedTest], because: str | None
    ) -> tuple[Status, int]:
        """Return a pipeline's status and the exit code that it calls for."""
        if error is not None:
            partial = error.exit_code == 4
            return (Status.PARTIAL if partial else Status.FAILED), error.exit_code
        if any(not test.accepted for test in failed):
            return Status.PARTIAL, 4
        if because in PAUSES:
            return Status.PAUSED, 6 if self._limits.fail_if_paused else 0
        if because is not None:
            return Status.PAUSED, 0
        return Status.COMPLETE, 0

    def _report(self, started_at: datetime, seconds: float) -> RunReport:
        usages = [client.usage for client in self._clients.values()]
        by_status: dict[str, int] = {}
        for usage in usages:
            for status, count in usage.by_status.items():
                by_status[status] = by_status.get(status, 0) + count
        statuses = [report.status for report in self._reports]
        worst = next((status for status in _WORST_FIRST if status in statuses), Status.COMPLETE)
        reasons = [report.stopped_because for report in self._reports if report.stopped_because]
        busiest = max(usages, key=lambda usage: usage.total, default=None)
        return RunReport(
            run_id=self._world.run_id,
            status=worst,
            started_at=started_at.isoformat(timespec="milliseconds"),
            duration_seconds=round(seconds, 3),
            pipelines=self._reports,
            requests=Requests(
                total=sum(usage.total for usage in usages),
                by_status=by_status,
                retried=sum(usage.retried for usage in usages),
                throttled=sum(usage.throttled for usage in usages),
            ),
            token_grants=sum(usage.token_grants for usage in usages),
            rate_limit=None
            if busiest is None
            else Rate(busiest.limit, busiest.window_seconds, round(busiest.utilisation, 4)),
            stopped_because=reasons[0] if reasons else msgspec.UNSET,
        )


_MOST_NAMED: Final = 10
_WORST_FIRST: Final = (Status.FAILED, Status.PARTIAL, Status.PAUSED, Status.COMPLETE)


def _objection(order: Order, tally: Tally, *, strict: bool) -> EtlError | None:
    """Return what is against a run of which all has landed, if its user asked for that."""
    found = []
    if strict and (count := tally.rows[rejects.NAME]):
        rows = f"{count} new rows" if count > 1 else "1 new row"
        found.append(f"{rows} could not be read (--strict); see the table rejects.")
    if order.pipeline.on_unknown_field == "fail" and tally.unknown_fields:
        names = sorted(tally.unknown_fields)
        told = ", ".join(map(repr, names[:_MOST_NAMED]))
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        found.append(f"No table knows {told}{more} (on_unknown_field); see the column _extra.")
    if not found:
        return None
    return SchemaDrift(
        " ".join(found),
        advice="All has landed. Look for a newer version of etl, which may know what has changed.",
    )


def _not_begun() -> Outcome:
    return Outcome(notes=["Not begun: the run was stopped before."])


def _media(tally: MediaTally) -> MediaReport:
    given_up = [
        GivenUp(test_id, reason, files)
        for test_id, reasons in tally.given_up.items()
        for reason, files in reasons.items()
    ]
    return MediaReport(tally.files, tally.bytes, tally.pending, given_up)


def _by_test(failures: Sequence[Mapping[str, Counter[str]]]) -> dict[str, Counter[str]]:
    """Return the failures of each test, of whatever kind."""
    found: dict[str, Counter[str]] = {}
    for some in failures:
        for test_id, reasons in some.items():
            found.setdefault(test_id, Counter()).update(reasons)
    return found


def _sessions_failed(reasons: Counter[str]) -> str:
    (first, count), *_ = reasons.most_common(1)
    others = f", and {reasons.total() - count} for other reasons" if len(reasons) > 1 else ""
    were = "was" if count == 1 else "were"
    return (
        f"{count} of its sessions {were} not answered ({first}){others}. The next run asks again."
    )


def _why_failed(look: Ended) -> str | None:
    if look.failed is not None:
        return look.failed
    if look.verdict is not None and not look.verdict.verified:
        return look.verdict.sentence()
    return None


def keep_last_run(state_dir: Path, report: RunReport) -> None:
    """Keep the report as `last_run.json`, whole or not at all."""
    try:
        make_state_dir(state_dir)
        with _alone_with(state_dir / ".last_run.json") as descriptor:
            os.ftruncate(descriptor, 0)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(to_json(report) + b"\n")
            (state_dir / ".last_run.json").rename(state_dir / "last_run.json")
    except OSError as error:
        raise StateError(
            f"The report of the run could not be kept: {disk_reason(error)}.",
            where=str(state_dir),
            advice=disk_advice(error),
        ) from error


def _is_still(path: Path, descriptor: int) -> bool:
    """Say whether an open file still bears this name: who held it before has renamed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _alone_with(path: Path) -> Iterator[int]:
    """Open a file that whoever holds its lock may write and rename; what dies with it stays.

    One name for all: another run waits for a moment, and a death leaves no more than this.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(path, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)
