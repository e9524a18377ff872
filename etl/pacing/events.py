"""What happens while a run goes on, told to whoever listens."""

from typing import Protocol

Field = str | int | float | bool | None


class Events(Protocol):
    """Takes an event and its fields: names and numbers, never bodies or people."""

    def __call__(self, event: str, **fields: Field) -> None:
        """Take one event."""


def no_events(event: str, **fields: Field) -> None:
    """Take an event and do nothing with it."""
    del event, fields
