"""What a run shows while it goes on: live on a terminal, a log line a minute elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from structlog.typing import FilteringBoundLogger

from etl.client.http import Client
from etl.lake.tally import Tally
from etl.ledger.values import Ended
from etl.pacing.events import Events, no_events
from etl.report.figures import duration

LOG_EVERY_SECONDS: Final = 60.0
LOOK_EVERY_SECONDS: Final = 5.0


@dataclass(slots=True)
class Progress:
    """Counts what has happened; those who show it look at it from time to time."""

    events: Events = no_events
    log: FilteringBoundLogger = field(default_factory=structlog.get_logger)
    pipeline: str = ""
    tests: int = 0
    tests_done: int = 0
    tally: Tally = field(default_factory=Tally)
    client: Client | None = None
    follow_ups_left: Callable[[], int] = field(default=lambda: 0)
    transfers: Callable[[], tuple[int, int]] = field(default=lambda: (0, 0))
    """How many files are being transferred, and the bytes that have come in this run."""
    is_shown: bool = False
    logged_at: float = float("-inf")
    waited_at: float = float("-inf")

    def begin_pipeline(self, name: str, tests: int, tally: Tally, client: Client) -> None:
        """Turn to the next pipeline."""
        self.pipeline, self.tests, self.tests_done = name, tests, 0
        self.tally, self.client = tally, client

    def page_landed(self, test_id: str, rows: Mapping[str, int]) -> None:
        """Note an answer whose rows are in the lake now."""
        self.events("page_landed", pipeline=self.pipeline, test_id=test_id, rows=sum(rows.values()))

    def new_field(self, name: str, answers: int) -> None:
        """Warn of a field that no table knows and no run met before: once, when it is first met."""
        self.events("new_field", pipeline=self.pipeline, field=name, answers=answers)
        self.log.warning("new_field", pipeline=self.pipeline, field=name, answers=answers)

    def looked(self, look: Ended) -> None:
        """Note a test whose look has ended and landed."""
        self.tests_done += 1
        self.events(
            "test_done",
            pipeline=self.pipeline,
            test_id=look.test_id,
            verified=bool(look.verdict and look.verdict.verified),
            sessions=look.sessions,
        )

    def look(self, now: float) -> None:
        """Say once a minute where the run is, and how long it waits for the rate limit."""
        fields = self.fields()
        if fields["waiting_seconds"] and now - self.waited_at >= LOG_EVERY_SECONDS:
            self.waited_at = now
            self.events("waiting", **fields)
        if not self.is_shown and now - self.logged_at >= LOG_EVERY_SECONDS:
            self.logged_at = now
            self.log.info("progress", **fields)

    def seconds_left(self) -> float | None:
        """Return how long the rest takes at the paced rate, as far as can be told."""
        tests_left = self.tests - self.tests_done
        if self.client is None or (tests_left and not self.tests_done):
            return None
        usage = self.client.usage
        requests: float = self.follow_ups_left()
        if tests_left:
            requests += usage.total / self.tests_done * tests_left
        return requests * usage.window_seconds / max(1, usage.limit)

    def fields(self) -> dict[str, str | int | float | None]:
        """Return the figures of this moment, for a log line."""
        usage = self.client.usage if self.client is not None else None
        left = self.seconds_left()
        transfers, received = self.transfers()
        return {
            "pipeline": self.pipeline,
            "tests_done": self.tests_done,
            "tests": self.tests,
            "rows": sum(self.tally.rows.values()),
            "requests": usage.total if usage else 0,
            "follow_ups_left": self.follow_ups_left(),
            "transfers": transfers,
            "bytes_received": received,
            "left_in_window": usage.left_in_window if usage else None,
            "waiting_seconds": round(usage.waiting_seconds, 1) if usage else None,
            "seconds_left": None if left is None else round(left),
        }


@contextmanager
def live_display(progress: Progress, console: Console) -> Iterator[None]:
    """Show the progress on a terminal for as long as the block runs."""
    progress.is_shown = True
    with Live(
        get_renderable=lambda: _picture(progress),
        console=console,
        refresh_per_second=2,
        transient=True,
    ):
        yield


def _picture(progress: Progress) -> RenderableType:
    usage = progress.client.usage if progress.client is not None else None
    grid = Table.grid(padding=(0, 2))
    grid.add_row("pipeline", progress.pipeline or "starting")
    grid.add_row("tests", f"{progress.tests_done} of {progress.tests}")
    grid.add_row("rows", f"{sum(progress.tally.rows.values()):,} new")
    if requests := progress.follow_ups_left():
        grid.add_row("sessions", f"{requests:,} requests left, as far as listed")
    transfers, received = progress.transfers()
    if received:
        grid.add_row("files", f"{transfers} on their way, {received / 1e6:,.1f} MB have come")
    if usage is not None:
        waiting = f", next in {usage.waiting_seconds:.0f} s" if usage.waiting_seconds else ""
        grid.add_row(
            "requests",
            f"{usage.total} sent, {usage.left_in_window} of {usage.limit} left in the window"
            f" of {usage.window_seconds:g} s{waiting}",
        )
        if usage.token_age_seconds is not None:
            grid.add_row("token", f"{duration(usage.token_age_seconds)} old")
    left = progress.seconds_left()
    grid.add_row("time left", "…" if left is None else f"about {duration(left)}")
    return grid
