"""What a sandbox holds while it runs, and how tests and control calls change it."""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from etl.sandbox.data import Listing, Row, sessions_of, test_ids
from etl.sandbox.faults import Fault
from etl.sandbox.limits import RateLimiter
from etl.sandbox.pages import Spelling
from etl.sandbox.tokens import Tokens

_LISTINGS_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """How a sandbox behaves. The same seed serves the same rows at every start.

    `sessions` of each test vary by seed if None. `rate_requests` None never refuses.
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


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """An API request as it arrived, and the status that it was answered with."""

    at: float
    path: str
    test_id: str | None
    query: dict[str, str]
    status: int
    token: str


Action = Callable[["Sandbox", str], None]


@dataclass(slots=True)
class _Before:
    test_id: str | None
    nth: int
    action: Action
    seen: int = 0


class Sandbox:
    """A running sandbox: where it is, what it holds, what it was asked."""

    def __init__(self, options: SandboxOptions, url: str = "") -> None:
        """Hold nothing yet; the server tells its URL when it listens."""
        self.options = options
        self.url = url
        self.tokens = Tokens(
            options.client_id, options.client_secret, options.scope, options.token_ttl_seconds
        )
        self.limiter = RateLimiter(options.rate_requests, options.rate_seconds)
        self.faults: list[Fault] = []
        self.statuses: Counter[int] = Counter()
        self.requests: list[LoggedRequest] = []
        self.forbidden: dict[str, int] = {}
        self.token_path = "/oauth2/v1/token"
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._changed: dict[str, Listing] = {}
        self._before: list[_Before] = []

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

    @property
    def test_ids(self) -> tuple[str, ...]:
        """The tests that it lists; it serves any other UUID too."""
        return test_ids(self.options.seed, self.options.tests)

    def listing(self, test_id: str) -> Listing:
        """Return a test's listing, made when it is first asked for."""
        test_id = test_id.lower()
        if test_id in self._changed:
            return self._changed[test_id]
        if test_id not in self._listings:
            rows = sessions_of(self.options.seed, test_id, self.options.sessions)
            self._listings[test_id] = Listing(rows)
            if len(self._listings) > _LISTINGS_KEPT:
                self._listings.popitem(last=False)
        return self._listings[test_id]

    def _to_change(self, test_id: str) -> Listing:
        return self._changed.setdefault(test_id.lower(), self.listing(test_id))

    def session_ids(self, test_id: str) -> list[str]:
        """Return the ids that a test lists now, newest first."""
        return [str(row["sessionId"]) for row in self.listing(test_id).rows]

    def rows(self, test_id: str) -> list[Row]:
        """Return the sessions that a test lists now, as they are served."""
        return list(self.listing(test_id).rows)

    def set_sessions(self, test_id: str, count: int) -> None:
        """Give a test so many sessions."""
        self._changed[test_id.lower()] = Listing(sessions_of(self.options.seed, test_id, count))

    def complete(self, test_id: str, n: int = 1) -> None:
        """Complete sessions: they appear at the head."""
        listing = self._to_change(test_id)
        for _ in range(n):
            listing.insert(0, listing.new_row(test_id))

    def finish_late(self, test_id: str, position: int) -> None:
        """Complete a session that started long ago: it appears behind known ones."""
        listing = self._to_change(test_id)
        listing.insert(position, listing.new_row(test_id, late=True))

    def remove(self, test_id: str, *positions: int) -> None:
        """Remove sessions, as the vendor does with refunded ones."""
        listing = self._to_change(test_id)
        for position in sorted(positions, reverse=True):
            listing.remove(position)

    def edit(self, test_id: str, position: int, **fields: object) -> None:
        """Change fields of a session, by their names in the API."""
        self._to_change(test_id).edit(position, fields)

    def swap(self, test_id: str, one: int, other: int) -> None:
        """Exchange two sessions."""
        self._to_change(test_id).swap(one, other)

    def before_page(self, nth: int, action: Action, test_id: str | None = None) -> None:
        """Do something before the n-th page from now (of one test) is answered."""
        self._before.append(_Before(test_id, nth, action))

    def about_to_answer(self, test_id: str) -> None:
        """Do what `before_page` has asked for, for this request."""
        for before in list(self._before):
            if before.test_id in (None, test_id):
                before.seen += 1
                if before.seen == before.nth:
                    self._before.remove(before)
                    before.action(self, test_id)

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
