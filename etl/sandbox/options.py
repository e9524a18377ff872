"""How a sandbox behaves, said once at its start."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from etl.sandbox.pages import Spelling


def _monotonic() -> float:
    return time.monotonic()  # looked up at each call: a simulation puts its own in place


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox behaves. The same seed serves the same answers at every start.

    `sessions` of each test vary by seed if None. `rate_requests` None never refuses.
    `monotonic` is the time by which tokens live and requests are counted.
    A clip or reel answers GENERATING so often as `generating` says before there is a file.
    """

    seed: int = 0
    tests: int = 12
    sessions: int | None = None
    token_ttl_seconds: float = 3600.0
    rate_requests: int | None = 10
    rate_seconds: float = 60.0
    latency_ms: float = 0.0
    client_id: str = "sandbox"
    client_secret: str = "sandbox-secret"
    scope: str = "studies:read"
    spelling: Spelling = field(default_factory=Spelling)
    log_requests: bool = True
    classic_tests: int = 4
    workspaces: int = 3
    video_bytes: int = 200_000
    video_link_seconds: int = 3600
    clip_link_seconds: int = 900
    generating: int = 1
    monotonic: Callable[[], float] = _monotonic
