"""What a token is, and how long it lives: pure, by the moments that it is given."""

import base64
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import SecretStr

LIFE_IF_UNKNOWN_SECONDS: Final = 300.0
_LONGEST_LIFE_SECONDS: Final = 86_400.0


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


def life_of(token: str, told: object) -> float:
    """Return a life in seconds: as told, else as the JWT says, else five minutes; clamped."""
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
        claims = object_in(base64.urlsafe_b64decode(payload + "=="))
    except (IndexError, ValueError):
        return None
    expires, issued = _number(claims.get("exp")), _number(claims.get("iat"))
    if expires is None or issued is None or expires <= issued:
        return None
    return expires - issued


def object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds; an empty one for anything else."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
