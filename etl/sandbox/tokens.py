"""The token endpoint: client credentials, expiry, and Okta's errors."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

TOKEN_PATH = "/oauth2/v1/token"


@dataclass(slots=True)
class Tokens:
    """The tokens granted so far; each lives by the monotonic clock."""

    client_id: str
    client_secret: str
    scope: str
    ttl_seconds: float
    grants: int = 0
    revoked: bool = False
    living: dict[str, float] = field(default_factory=dict)

    def grant(
        self, form: Mapping[str, str], now: float, wall: float
    ) -> tuple[int, dict[str, object]]:
        """Answer a request for a token: status and JSON."""
        if form.get("grant_type") != "client_credentials":
            return 400, _error("unsupported_grant_type", "The grant type is not supported.")
        known = (self.client_id, self.client_secret)
        if self.revoked or (form.get("client_id"), form.get("client_secret")) != known:
            return 401, _error("invalid_client", "The client credentials are invalid.")
        if form.get("scope") != self.scope:
            return 400, _error("invalid_scope", "One or more scopes are not configured.")
        self.grants += 1
        token = self._token(wall)
        self.living = {name: until for name, until in self.living.items() if until > now}
        self.living[token] = now + self.ttl_seconds
        seconds = int(self.ttl_seconds) if self.ttl_seconds >= 1 else self.ttl_seconds
        return 200, {
            "token_type": "Bearer",
            "expires_in": seconds,
            "access_token": token,
            "scope": self.scope,
        }

    def accepts(self, authorization: str, now: float) -> bool:
        """Say whether an Authorization header holds a token that lives."""
        kind, _, token = authorization.partition(" ")
        return kind == "Bearer" and self.living.get(token, 0.0) > now

    def serial(self, authorization: str) -> str:
        """Return which token a header holds, without showing it."""
        return authorization.rpartition(".")[2]

    def _token(self, wall: float) -> str:
        claims = {"iat": int(wall), "exp": int(wall + self.ttl_seconds), "cid": self.client_id}
        parts = [
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": "none", "typ": "JWT"}, claims)
        ]
        return ".".join((*parts, f"sandbox{self.grants}"))


def _error(code: str, description: str) -> dict[str, object]:
    return {"error": code, "error_description": description}
