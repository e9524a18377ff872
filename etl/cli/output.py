"""How commands speak: results to stdout, everything else to stderr, foreign text escaped."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def printable(text: str) -> str:
    """Return foreign text with what a terminal would obey made visible instead."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else repr(character)[1:-1]
        for character in text
    )


def say(text: str) -> None:
    """Say something to the person, beside the results."""
    print(printable(text), file=sys.stderr)


def print_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Print one JSON object to stdout, and nothing else there."""
    print(json.dumps(value, default=str, ensure_ascii=True))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout: whole lines where it is not a terminal."""
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
