"""Asks the token endpoint, and reads what it answers with care.

Source: RFC 6749, 4.4 and 5; the vendor's authorization page; Okta's error codes.
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec
from pydantic import SecretStr

from etl.auth.bodies import Body, CorruptBodyError
from etl.auth.proxies import proxy_for
from etl.config.models import Connection
from etl.errors import CredentialsRefused, Unreachable
from etl.pacing.clock import Clock
from etl.pacing.rules import read_headers

LARGEST_ANSWER_BYTES: Final = 256 * 1024
LIFE_IF_UNKNOWN_SECONDS: Final = 300.0
_LONGEST_LIFE_SECONDS: Final = 86_400.0
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_REFUSALS: Final = frozenset(
    {
        "invalid_client",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_grant",
        "access_denied",
    }
)


class GrantFailed(Exception):
    """A try for a token that may succeed later. The message holds no secret."""

    def __init__(self, reason: str, hint_seconds: float | None = None) -> None:
        """Say why, and when the server asks to be asked again."""
        super().__init__(reason)
        self.reason = reason
        self.hint_seconds = hint_seconds


@dataclass(slots=True)
class Token:
    """An access token and its life, by both clocks; `last_good_at` grows as it earns 200s."""

    value: SecretStr
    life_seconds: float
    granted_at: float
    granted_at_wall: float
    last_good_at: float = field(default=float("-inf"))

    def seconds_left(self, now: float, now_wall: float) -> float:
        """Return what is left of its life by the clock that says less.

        A suspended machine stops the monotonic clock; the wall clock may jump back.
        """
        elapsed = max(now - self.granted_at, now_wall - self.granted_at_wall)
        return self.life_seconds - elapsed


async def ask_for_token(
    session: aiohttp.ClientSession, connection: Connection, clock: Clock
) -> Token:
    """Make one request for a token.

    Raises CredentialsRefused and Unreachable where asking again is no use, GrantFailed
    where it may be.
    """
    asked_at, asked_at_wall = clock.monotonic(), clock.time()
    status, headers, body = await _post(session, connection)
    hint = read_headers(headers, clock.time()).retry_after_seconds
    answer = _object_in(body)
    if status in (400, 401, 403) and str(answer.get("error")) in _REFUSALS:
        raise _refused(connection, str(answer["error"]))
    if status != 200:
        raise GrantFailed(f"the token endpoint answered {status}", hint)
    kind, value = answer.get("token_type"), answer.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise GrantFailed("the token endpoint answered no bearer token")
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value) or len(value) > 65_536:
        raise GrantFailed("the token endpoint answered a token that cannot be sent")
    life = _life(answer.get("expires_in"), value)
    return Token(SecretStr(value), life, asked_at, asked_at_wall)


async def _post(session: aiohttp.ClientSession, connection: Connection) -> tuple[int, Any, bytes]:
    """Send the request; never follows a redirect: a 307 would carry the secret away."""
    secret, client_id = connection.client_secret, connection.client_id
    form = {
        "client_id": client_id.get_secret_value() if client_id else "",
        "client_secret": secret.get_secret_value() if secret else "",
        "grant_type": "client_credentials",
        "scope": connection.scope,
    }
    try:
        async with session.post(
            connection.token_url,
            data=form,
            allow_redirects=False,
            proxy=proxy_for(connection.token_url),
        ) as response:
            body = Body(response.headers.get("Content-Encoding", ""), LARGEST_ANSWER_BYTES)
            async for chunk in response.content.iter_any():
                body.feed(chunk)
            return response.status, response.headers, body.whole()
    except CorruptBodyError as error:
        raise GrantFailed(f"the token endpoint's answer cannot be read: {error}") from None
    except aiohttp.ClientConnectorCertificateError:
        raise untrusted(connection, "token endpoint") from None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise GrantFailed(
            f"the token endpoint could not be asked ({type(error).__name__})"
        ) from None


def untrusted(connection: Connection, whose: str) -> Unreachable:
    """Return the error for a TLS certificate that is not trusted: no retry would mend it."""
    return Unreachable(
        f"The TLS certificate of the {whose} is not trusted.",
        where=f"connection {connection.name!r}",
        advice="If your network has its own certificate authority, put it in a PEM bundle and "
        "name the file in SSL_CERT_FILE.",
    )


def _object_in(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _refused(connection: Connection, error: str) -> CredentialsRefused:
    named = connection.name == "default"
    id_name = "USERTESTING_CLIENT_ID" if named else f"connections.{connection.name}.client_id"
    secret_name = (
        "USERTESTING_CLIENT_SECRET" if named else f"connections.{connection.name}.client_secret"
    )
    look_at = {
        "invalid_scope": f"the scope of connection {connection.name!r}: {connection.scope!r}",
        "unauthorized_client": f"{id_name}: the vendor must allow it to use the API",
    }.get(error, f"{id_name} and {secret_name}")
    return CredentialsRefused(
        f"The token endpoint refused the credentials ({error}).",
        where=f"connection {connection.name!r}",
        advice=f"Look at {look_at}; then run `etl check`.",
    )


def _life(told: object, token: str) -> float:
    """Return the token's life: as told, else as the JWT says, else five minutes; clamped."""
    seconds = _number(told)
    if seconds is None:
        seconds = _life_in_jwt(token)
    if seconds is None:
        return LIFE_IF_UNKNOWN_SECONDS
    return min(_LONGEST_LIFE_SECONDS, max(1.0, seconds))


def _number(told: object) -> float | None:
    if isinstance(told, bool):
        return None
    if isinstance(told, int | float):
        return float(told) if told == told and told > 0 else None  # noqa: PLR0124 - NaN
    return None


def _life_in_jwt(token: str) -> float | None:
    """Return `exp - iat` of a JWT (RFC 7519), or None."""
    try:
        payload = token.split(".")[1]
        claims = _object_in(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return None
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    if expires is None or issued is None or expires <= issued:
        return None
    return expires - issued
