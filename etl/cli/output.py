"""How commands speak: results to stdout, everything else to stderr, foreign text escaped."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from etl.config.secrets import masked
from etl.report.terminal import on_one_line, printable


def say(text: str) -> None:
    """Say something to the person, beside the results."""
    print(printable(text), file=sys.stderr)


def print_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Print one JSON object to stdout, and nothing else there."""
    print(masked(json.dumps(value, default=str, ensure_ascii=True)))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout: whole lines where it is not a terminal."""
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(on_one_line("" if cell is None else str(cell))) for cell in row))
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)
