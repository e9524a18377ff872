"""Asks the token endpoint, and reads what it answers with care.

Source: RFC 6749, 4.4 and 5; the vendor's authorization page; Okta's error codes.
"""

import re
from typing import Any, Final

import aiohttp
from pydantic import SecretStr

from etl.auth.bodies import Body, CorruptBodyError
from etl.auth.proxies import proxy_for
from etl.auth.token import Token, life_of, object_in
from etl.config.models import Connection
from etl.errors import CredentialsRefused, Unreachable
from etl.pacing.clock import Clock
from etl.pacing.rules import read_headers

LARGEST_ANSWER_BYTES: Final = 256 * 1024
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
    answer = object_in(body)
    if status in (400, 401, 403) and str(answer.get("error")) in _REFUSALS:
        raise _refused(connection, str(answer["error"]))
    if status != 200:
        raise GrantFailed(f"the token endpoint answered {status}", hint)
    kind, value = answer.get("token_type"), answer.get("access_token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise GrantFailed("the token endpoint answered no bearer token")
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value) or len(value) > 65_536:
        raise GrantFailed("the token endpoint answered a token that cannot be sent")
    life = life_of(value, answer.get("expires_in"))
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
