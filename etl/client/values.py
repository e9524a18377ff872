"""What is asked and what is answered: frozen values that every later room shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

Content = TypeVar("Content")
"""What an endpoint's `decode` makes of a body."""


class Priority(IntEnum):
    """Who goes first when sends are scarce: a run cut short is fresh before it is deep."""

    LISTING = 0
    DETAILS = 1
    TRANSCRIPTS = 2
    MEDIA = 3


class Scope(StrEnum):
    """What one answer of an endpoint is about."""

    ACCOUNT = "account"
    TEST = "test"
    SESSION = "session"
    OBJECT = "object"


class UnreadableBodyError(Exception):
    """A 200 whose body is not of the endpoint's shape: worth asking again.

    The message says what was found without quoting the body: bodies hold personal data.
    """


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Content]):
    """One path of the API and how to read its answers.

    `path` is a template over `{test_id}`, `{session_id}` and `{object_id}`, which the
    client fills in percent-encoded. `decode` is pure and raises `UnreadableBodyError`.
    `products` are the product types whose tests have it, None for all: others are not asked.
    """

    name: str
    path: str
    scope: Scope
    priority: Priority
    decode: Callable[[bytes], Content]
    products: frozenset[str] | None = None

    @property
    def is_of_account(self) -> bool:
        """Whether it is about what the account holds, and no test of a pipeline."""
        return self.scope in (Scope.ACCOUNT, Scope.OBJECT)

    @property
    def is_classic(self) -> bool:
        """Whether it belongs to the older API, which serves the classic tests."""
        return self.path.startswith("/usertesting/api/v1/")


@dataclass(frozen=True, slots=True)
class Request(Generic[Content]):
    """One request to make: an endpoint, the keys that name its object, and the query.

    What stands behind a `?` in `object_id` names a page of the object: it is part of the key,
    and not of the path. `attempt` counts the earlier tries of the same request, which were
    paid too.
    """

    endpoint: Endpoint[Content]
    test_id: str | None = None
    session_id: str | None = None
    object_id: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came: what the inbox keeps and the lake records.

    `fetched_at_us` is in microseconds since 1970 (UTC); `body` is decompressed.
    """

    endpoint: str
    test_id: str | None
    session_id: str | None
    object_id: str | None
    status: int
    fetched_at_us: int
    body: bytes = field(repr=False)


class TryKind(StrEnum):
    """Why a try failed that may succeed later."""

    CONNECTION = "connection"
    TIMEOUT = "timeout"
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    UNREADABLE = "unreadable"
    NOT_ASKED = "not_asked"
    """An answer that can be read, but is to another question."""


class TryLater(Exception):
    """A try that failed in a way that may pass: control flow, not an error.

    `reason` holds no body and no secret; `hint_seconds` is what the server asks to wait;
    `answer` is the answer that could not be read, where there was one.
    """

    def __init__(
        self,
        reason: str,
        *,
        kind: TryKind,
        hint_seconds: float | None = None,
        answer: Answer | None = None,
    ) -> None:
        """Say why, and what is known."""
        super().__init__(reason)
        self.reason = reason
        self.kind = kind
        self.hint_seconds = hint_seconds
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Fetched(Generic[Content]):
    """An answer and what its endpoint read in it."""

    answer: Answer
    content: Content = field(repr=False)
