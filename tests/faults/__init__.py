"""What can go wrong, each provoked for real: the source of the README's table and of its tests.

A chapter is a file here, found by looking. A case says what happens, what the user then
reads and the exit code; `tests/test_faults.py` provokes it and holds the program to that.
After a change: `python -m tests.faults --write`.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its exit code, and all that it said."""

    exit_code: int
    said: str


Provoke = Callable[[Path], Awaitable[Ended]]
"""Makes it happen, in an empty folder, asserts what no user sees, and returns how it ended."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that can go wrong.

    `reads` are words that the program says, with `…` for what varies. Each of `ways` is
    another way in which the same happens to the user.
    """

    happens: str
    reads: str
    exit_code: int
    ways: Sequence[Provoke]

    def is_told_by(self, said: str) -> bool:
        """Say whether the user reads what the case says."""
        parts = (re.escape(part.strip()) for part in self.reads.split("…"))
        return re.search(".*?".join(parts), " ".join(said.split())) is not None


@dataclass(frozen=True, slots=True)
class Chapter:
    """Cases that befall the same part of the program."""

    title: str
    cases: Sequence[Case]


def chapters() -> Iterator[Chapter]:
    """Yield the chapters, by the names of their files."""
    for module in iter_modules(__path__, f"{__name__}."):
        chapter = getattr(import_module(module.name), "CHAPTER", None)
        if isinstance(chapter, Chapter):
            yield chapter


README = Path(__file__).parent.parent.parent / "README.md"
_BEGIN = "<!-- written by `python -m tests.faults --write` from what the tests provoke -->\n"
_END = "<!-- end of what is written -->\n"


def rendered() -> str:
    """Return the cases as the README shows them."""
    return "\n".join(_table(chapter) for chapter in chapters())


def _table(chapter: Chapter) -> str:
    rows = [
        f"| {_cell(case.happens)} | {_cell(case.reads)} | {case.exit_code} |\n"
        for case in chapter.cases
    ]
    return "".join(
        [f"| {_cell(chapter.title)} | what you read | exit |\n| --- | --- | --- |\n", *rows]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def with_table(readme: str) -> str:
    """Return the README's text with its table as it should be."""
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    assert after, "the README has lost the marks around the table"
    return f"{before}{_BEGIN}{rendered()}{_END}{after}"
