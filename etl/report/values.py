"""The report of a run: what `--json` prints and `last_run.json` keeps."""

from enum import StrEnum
from typing import Final

import msgspec

from etl.config.secrets import masked


class Status(StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    PAUSED = "paused"
    FAILED = "failed"


class FailedTest(msgspec.Struct, frozen=True):
    """A test that could not be exported, or not be proved complete, and why."""

    test_id: str
    error: str
    accepted: bool = False


class GivenUp(msgspec.Struct, frozen=True):
    """Files of a test that were not fetched, and never will be: their rows have no path."""

    test_id: str
    reason: str
    files: int


class MediaReport(msgspec.Struct, frozen=True):
    """What a run did for files: those that landed, and those that the API is still making."""

    files: int
    bytes: int
    pending: int
    given_up: list[GivenUp]


class PipelineReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a run did for one pipeline. `rows` are new rows by table.

    `edited` counts rows that are answered differently now and stay, `replaced` those that gave way.
    """

    name: str
    tests: int
    rows: dict[str, int]
    files: int
    bytes: int
    failed: list[FailedTest]
    verified: int
    lake: str
    status: Status
    exit_code: int
    edited: dict[str, int] = {}
    replaced: dict[str, int] = {}
    removed: dict[str, int] = {}
    unknown_fields: dict[str, int] = {}
    absent: dict[str, int] = {}
    media: MediaReport | None = None
    notes: list[str] = []
    error: str | None = None
    stopped_because: str | None = None


class Requests(msgspec.Struct, frozen=True):
    """The sends of a run: all of them, replays and retries included."""

    total: int = 0
    by_status: dict[str, int] = {}
    retried: int = 0
    throttled: int = 0


class Rate(msgspec.Struct, frozen=True):
    """The limit in force, and how much of it was used."""

    limit: int
    window_seconds: float
    utilisation: float


class RunReport(msgspec.Struct, frozen=True):
    """The whole run; names and shape are the public contract."""

    run_id: str
    status: Status
    started_at: str
    duration_seconds: float
    pipelines: list[PipelineReport]
    requests: Requests
    token_grants: int
    rate_limit: Rate | None
    schema_version: int = 1
    stopped_because: str | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def exit_code(self) -> int:
        """What `etl run` exits with after such a run."""
        return exit_code_of([pipeline.exit_code for pipeline in self.pipelines])


def to_json(report: RunReport) -> bytes:
    """Return the report as one JSON object."""
    return masked(msgspec.json.encode(report).decode()).encode()


_SEVERITY: Final = (1, 5, 2, 3, 75, 4, 6, 0)


def exit_code_of(codes: list[int]) -> int:
    """Return the exit of a run: the first that occurred of 1, 5, 2, 3, 75, 4, 6, 0."""
    return next((code for code in _SEVERITY if code in codes), max(codes, default=0))
