"""A mistake in the configuration: where it stands, what was found, what is accepted."""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake; sorted by place. `key_path` is empty for the file as a whole."""

    path: Path
    line: int
    column: int
    key_path: tuple[str | int, ...]
    what: str

    def __lt__(self, other: "Mistake") -> bool:
        """Sort by place alone: key paths mix numbers and names."""
        return (self.line, self.column, self.what) < (other.line, other.column, other.what)

    def __str__(self) -> str:
        """Return the message: `file:line:column: key.path: what`."""
        path = "".join(
            f"[{key}]" if isinstance(key, int) else f".{key}" for key in self.key_path
        ).lstrip(".")
        return f"{self.path}:{self.line}:{self.column}: {path + ': ' if path else ''}{self.what}"


def did_you_mean(found: str, accepted: Collection[str]) -> str:
    """Return ` (did you mean …?)` where something accepted is close, else nothing."""
    close = get_close_matches(found, accepted, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def shown(value: object) -> str:
    """Return a value as a message shows it: short, on one line, without a URL's credentials."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = ascii(_without_credentials(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else text[:57] + "…"


def _without_credentials(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}://***@{host}" if separator and at else text
