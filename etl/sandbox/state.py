"""A running sandbox: what it holds, what goes wrong in it, what it was asked."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from etl.sandbox.contents import Contents
from etl.sandbox.faults import ENDPOINTS, Fault
from etl.sandbox.limits import RateLimiter
from etl.sandbox.media import Links, MediaFile
from etl.sandbox.options import SandboxOptions
from etl.sandbox.tokens import TOKEN_PATH, Tokens


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """A request as it arrived, and the status that it was answered with."""

    at: float
    path: str
    test_id: str | None
    query: dict[str, str]
    status: int
    token: str
    endpoint: str = "page"
    session_id: str | None = None
    object_id: str | None = None
    range: str | None = None


Action = Callable[["Sandbox", str], None]


@dataclass(slots=True)
class _Before:
    endpoint: str
    test_id: str | None
    nth: int
    action: Action
    seen: int = 0


class Sandbox(Contents):
    """A running sandbox: where it is, what it holds, what it was asked.

    `requests` and `statuses` are those of the API, which count against the limit;
    `transfers` those of media, which do not, with `media_bytes` sent in all.
    `tokens_at_media` counts the tokens that were carried there, where they must never go.
    """

    def __init__(self, options: SandboxOptions, url: str = "") -> None:
        """Hold nothing yet; the server tells its URL when it listens."""
        super().__init__(options)
        self.url = url
        self.tokens = Tokens(
            options.client_id, options.client_secret, options.scope, options.token_ttl_seconds
        )
        self.limiter = RateLimiter(options.rate_requests, options.rate_seconds)
        self.links = Links(f"sandbox {options.seed}".encode())
        self.faults: list[Fault] = []
        self.statuses: Counter[int] = Counter()
        self.requests: list[LoggedRequest] = []
        self.transfers: list[LoggedRequest] = []
        self.tokens_at_media = 0
        self.media_bytes = 0
        self.forbidden: dict[str, int] = {}
        self.token_path = TOKEN_PATH
        self._before: list[_Before] = []
        self._not_ready: dict[tuple[str, str], float] = {}
        self._asked: Counter[str] = Counter()

    @property
    def token_url(self) -> str:
        """Where tokens are granted."""
        return self.url + self.token_path

    @property
    def client_id(self) -> str:
        """The client id that it accepts."""
        return self.options.client_id

    @property
    def client_secret(self) -> str:
        """The client secret that it accepts."""
        return self.options.client_secret

    @property
    def grants(self) -> int:
        """How many tokens were granted."""
        return self.tokens.grants

    def before(self, endpoint: str, nth: int, action: Action, test_id: str | None = None) -> None:
        """Do something before the n-th request from now (of one test) is answered."""
        self._before.append(_Before(endpoint, test_id, nth, action))

    def before_page(self, nth: int, action: Action, test_id: str | None = None) -> None:
        """Do something before the n-th page from now (of one test) is answered."""
        self.before("page", nth, action, test_id)

    def about_to_answer(self, test_id: str | None, endpoint: str) -> None:
        """Do what `before` has asked for, for this request."""
        for before in list(self._before):
            if before.endpoint == endpoint and before.test_id in (None, test_id):
                before.seen += 1
                if before.seen == before.nth:
                    self._before.remove(before)
                    before.action(self, test_id or "")

    def not_ready(self, object_id: str, endpoint: str, until: float | None = None) -> None:
        """Answer 404 for a session's or test's transcript, video, scores, and so on.

        It ends at `until` (seconds since the epoch), or when `ready` is called.
        """
        if endpoint not in ENDPOINTS:
            raise ValueError(f"there is no endpoint {endpoint!r}")
        self._not_ready[object_id.lower(), endpoint] = float("inf") if until is None else until

    def ready(self, object_id: str, endpoint: str) -> None:
        """Answer what was not ready."""
        self._not_ready.pop((object_id.lower(), endpoint), None)

    def is_ready(self, object_id: str, endpoint: str) -> bool:
        """Say whether an endpoint of a session or test is ready."""
        until = self._not_ready.get((object_id, endpoint))
        return until is None or until <= time.time()

    def is_generated(self, object_id: str) -> bool:
        """Count a question for a clip or reel; say whether there is a file by now."""
        self._asked[object_id] += 1
        return self._asked[object_id] > self.options.generating

    def link(self, file: MediaFile) -> tuple[str, str]:
        """Return a signed link to a file, and when it dies."""
        options = self.options
        videos = file.folder == "videos"
        seconds = options.video_link_seconds if videos else options.clip_link_seconds
        return self.links.sign(self.url, file.name, time.time(), seconds)

    def revoke_tokens(self) -> None:
        """Make every token granted so far worthless."""
        self.tokens.living.clear()

    def revoke_credentials(self) -> None:
        """Refuse the client from now on, and its tokens too."""
        self.tokens.revoked = True
        self.revoke_tokens()

    def forbid(self, test_id: str, status: int = 403) -> None:
        """Refuse a test: 403 forbidden, 401, or 404 unknown."""
        self.forbidden[test_id.lower()] = status

    def neighbour(self, requests: int) -> None:
        """Let somebody else with these credentials take a part of every window."""
        self.limiter.neighbour = requests

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong."""
        self.faults.append(fault)

    def count(self, status: int) -> int:
        """Return how many API requests were answered with a status."""
        return self.statuses[status]

    def note(self, request: LoggedRequest) -> None:
        """Note a request that was answered."""
        self.statuses[request.status] += 1
        if self.options.log_requests:
            self.requests.append(request)

    def note_transfer(self, request: LoggedRequest) -> None:
        """Note a transfer that was begun."""
        if self.options.log_requests:
            self.transfers.append(request)
