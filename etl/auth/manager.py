"""Decides when the token is renewed, and what a refusal means.

Single flight: however many fetchers ask, one renewal is under way. In the *advisory*
window (the last fifth of its life, at most 5 minutes) it is renewed in the background
and nobody waits; in the *mandatory* one (the last 30 s, at most 5 %) whoever needs it does.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final

import aiohttp
from anyio import Event, create_task_group
from anyio.abc import TaskGroup

from etl.auth.grants import GrantFailed, ask_for_token
from etl.auth.token import Token
from etl.config.models import Connection
from etl.config.secrets import known_secrets
from etl.errors import CredentialsRefused, EtlError, Unreachable
from etl.pacing.clock import Clock
from etl.pacing.events import Events, no_events
from etl.pacing.rules import retry_delay

ADVISORY_SHARE: Final = 0.2
ADVISORY_MOST_SECONDS: Final = 300.0
MANDATORY_SHARE: Final = 0.05
MANDATORY_MOST_SECONDS: Final = 30.0
MOST_TOKENS: Final = 5
PATIENCE_SECONDS: Final = 60.0
GRANT_BUDGET_SECONDS: Final = 900.0


@dataclass(slots=True)
class Refusals:
    """What one request has met so far: the tokens that it was refused with, and when."""

    met: list[tuple[Token, float]] = field(default_factory=list)

    def add(self, token: Token, now: float) -> None:
        """Note that this token was refused just now."""
        self.met.append((token, now))

    @property
    def forbidden(self) -> bool:
        """Whether a token of these has earned a 200 for a request sent after its refusal."""
        return any(token.last_good_at > refused_at for token, refused_at in self.met)

    @property
    def first_at(self) -> float:
        """When the first refusal came."""
        return self.met[0][1]

    @property
    def tokens(self) -> int:
        """How many tokens were refused."""
        return len({id(token) for token, _ in self.met})


class TokenManager:
    """The current token of one connection; it lives in memory only."""

    def __init__(
        self,
        connection: Connection,
        session: aiohttp.ClientSession,
        clock: Clock,
        random: Random,
        tasks: TaskGroup,
        on_event: Events = no_events,
    ) -> None:
        """Begin without a token; see `open_tokens`."""
        self.grants = 0
        self._connection = connection
        self._session = session
        self._clock = clock
        self._random = random
        self._tasks = tasks
        self._on_event = on_event
        self._token: Token | None = None
        self._renewed: Event | None = None
        self._failure: EtlError | None = None
        self._renew_early = 0.0

    @property
    def age_seconds(self) -> float | None:
        """How old the current token is, or None if there is none."""
        if self._token is None:
            return None
        return max(0.0, self._clock.monotonic() - self._token.granted_at)

    def ready(self) -> Token | None:
        """Return a token outside its mandatory window, or None if one must be waited for.

        In the advisory window a renewal is begun, and the old token still returned.
        """
        token = self._token
        if token is None:
            return None
        now = self._clock.monotonic()
        left = token.seconds_left(now, self._clock.time())
        advisory = min(ADVISORY_MOST_SECONDS, ADVISORY_SHARE * token.life_seconds)
        if left < advisory * self._renew_early:
            self._begin_renewal()
        mandatory = min(MANDATORY_MOST_SECONDS, MANDATORY_SHARE * token.life_seconds)
        return token if left > mandatory else None

    async def token(self) -> Token:
        """Return a token outside its mandatory window, renewing it first if need be.

        Callers during a renewal share it. Raises CredentialsRefused (RFC 6749, 5.2), or
        Unreachable if no token was to be had within the budget.
        """
        while True:
            token = self.ready()
            if token is not None:
                return token
            if self._failure is not None:
                raise self._failure
            await self._begin_renewal().wait()

    def drop(self, token: Token) -> None:
        """Forget a token that a 401 answered, if it is still the current one."""
        if self._token is token:
            self._token = None

    def good(self, token: Token, sent_at: float) -> None:
        """Note that a request sent with this token at that moment earned a 200."""
        token.last_good_at = max(token.last_good_at, sent_at)

    def judge(self, refusals: Refusals, status: int) -> None:
        """Decide what a refusal means, if that can be told already; else it is replayed.

        Raises CredentialsRefused when nothing has earned a 200 for a minute. A 401 drops
        its token, at most five times; a 403 alone is no reason to.
        """
        token, now = refusals.met[-1]
        waited = now - refusals.first_at
        if waited >= PATIENCE_SECONDS and token.last_good_at < refusals.first_at:
            raise CredentialsRefused(
                f"The API refuses these credentials (status {status}), and has granted nothing "
                "for a minute.",
                where=f"connection {self._connection.name!r}",
                advice="Check that the client is still active and may read these workspaces; "
                "then run `etl check`.",
            )
        if status == 401 and refusals.tokens < MOST_TOKENS:
            self.drop(token)

    def _begin_renewal(self) -> Event:
        """Begin a renewal unless one is under way; return what its end sets."""
        if self._renewed is None:
            self._renewed = Event()
            self._tasks.start_soon(self._renew, self._renewed)
        return self._renewed

    async def _renew(self, renewed: Event) -> None:
        """Get a token, with retries for as long as the budget lasts, and wake who waits."""
        try:
            token = await self._granted()
        except (CredentialsRefused, Unreachable) as error:
            self._failure = error
            if isinstance(error, CredentialsRefused):
                self._token = None
        else:
            known_secrets.add_token(token.value.get_secret_value())
            self.grants += 1
            self._token, self._failure = token, None
            # Jittered, so that many processes do not renew at once.
            self._renew_early = self._random.uniform(0.8, 1.0)
            self._on_event("token_renewed", life_seconds=token.life_seconds, grants=self.grants)
        finally:
            self._renewed = None
            renewed.set()

    async def _granted(self) -> Token:
        """Ask until a token is granted, with backoff, for as long as the budget lasts."""
        began_at = self._clock.monotonic()
        attempt = 0
        while True:
            try:
                return await ask_for_token(self._session, self._connection, self._clock)
            except GrantFailed as failed:
                if self._clock.monotonic() - began_at >= GRANT_BUDGET_SECONDS:
                    raise _no_token(self._connection, failed) from None
                delay = retry_delay(attempt, failed.hint_seconds, self._random)
                await self._clock.sleep(delay)
            attempt += 1


def _no_token(connection: Connection, failed: GrantFailed) -> Unreachable:
    return Unreachable(
        f"No token was to be had for {GRANT_BUDGET_SECONDS / 60:.0f} minutes: {failed.reason}.",
        where=f"connection {connection.name!r}",
        advice="What was fetched has landed; check the network and USERTESTING_TOKEN_URL, "
        "and run again.",
    )


@asynccontextmanager
async def open_tokens(
    connection: Connection,
    session: aiohttp.ClientSession,
    clock: Clock,
    random: Random,
    on_event: Events = no_events,
) -> AsyncIterator[TokenManager]:
    """Open the tokens of a connection; its background renewal ends with the block."""
    async with create_task_group() as tasks:
        yield TokenManager(connection, session, clock, random, tasks, on_event)
        tasks.cancel_scope.cancel()
