"""What no line may ever show: the secrets of the settings, and every token granted.

One set for the process, as its log and its standard output are: whoever learns a secret
adds it here, and whatever leaves for people's or machines' eyes passes through `masked`.
"""

import json
from collections import deque
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "[redacted]"
_SHORTEST: Final = 6  # a shorter one would blot out half of every line, and protects nothing
_TOKENS_KEPT: Final = 32  # older ones have died


class KnownSecrets:
    """Secrets as they may turn up in a text: plain, in JSON, in a URL or form."""

    def __init__(self) -> None:
        """Know none yet."""
        self._settings: set[str] = set()
        self._tokens: deque[str] = deque(maxlen=_TOKENS_KEPT)

    def add(self, secrets: Iterable[str]) -> None:
        """Learn secrets of the settings: never forgotten."""
        self._settings.update(form for secret in secrets for form in _forms(secret))

    def add_token(self, token: str) -> None:
        """Learn a token; the last ones are remembered."""
        if len(token) >= _SHORTEST:
            self._tokens.append(token)

    def masked(self, text: str) -> str:
        """Return the text with every known secret in it replaced."""
        # The longest first: one may be a part of another.
        for secret in sorted((*self._settings, *self._tokens), key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text


def _forms(secret: str) -> Iterable[str]:
    if len(secret) >= _SHORTEST:
        encodable = secret.encode(errors="surrogateescape")
        yield from (secret, json.dumps(secret)[1:-1], quote(encodable, safe=""))
        yield quote_plus(encodable)


known_secrets: Final = KnownSecrets()
"""Those of this process."""

masked = known_secrets.masked
