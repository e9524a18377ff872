"""What may be left out of a table, and what may be hashed: rules over tables and columns.

The tables come in as values: this room imports none of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from etl.config.mistakes import did_you_mean, shown
from etl.config.models import Pipeline
from etl.config.yaml_source import KeyPath

ASKED = "test_id"
"""Names what is asked, in the file itself and in the lake's paths."""

_SESSION = "session_id"
_ASKED_FOR = "the lake's record names the {} that are still to be asked for"
_OF_FILES = ("path", "sha256")


class KnownColumn(Protocol):
    """A column, as far as these rules look at it; the name of its type is Arrow's."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def type(self) -> Any:  # noqa: ANN401 - whatever says its name by `str`
        """Its type."""


class KnownTable(Protocol):
    """A table, as far as these rules look at it."""

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that tell its rows apart."""

    @property
    def columns(self) -> Sequence[KnownColumn]:
        """Its own columns, without those of the run."""

    @property
    def by_session(self) -> bool:
        """Whether it is asked for session by session."""

    @property
    def lists_files(self) -> bool:
        """Whether it lists objects, each of which has a file."""

    @property
    def files(self) -> object | None:
        """How the files that its rows name are had, None where they name none."""

    @property
    def dates(self) -> tuple[str | None, str] | None:
        """The columns that `start_…` and `finish_…` partitions read."""


def column_mistakes(
    pipeline: Pipeline, tables: Mapping[str, KnownTable]
) -> Iterator[tuple[KeyPath, str]]:
    """Yield (key path, what is wrong) where columns are excluded or hashed."""
    if pipeline.keep_bodies is True and pipeline.hides:
        yield (
            ("keep_bodies",),
            "is true; accepted: auto or false, since bodies hold what `columns` keeps out",
        )
    for name, chosen in pipeline.columns.items():
        path: KeyPath = ("columns", name)
        if name not in pipeline.tables:
            hint = did_you_mean(name, pipeline.tables)
            known = ", ".join(pipeline.tables)
            yield path, f"is none of the pipeline's tables{hint}; accepted: {known}"
        elif name in tables:
            others = (tables[other] for other in pipeline.tables if other in tables)
            asks_sessions = any(table.by_session for table in others)
            told = {_SESSION: _ASKED_FOR.format("sessions")} if asks_sessions else {}
            if tables[name].lists_files and pipeline.files(name).download:
                told |= dict.fromkeys(tables[name].key, _ASKED_FOR.format("files"))
            if tables[name].files is not None:
                told |= dict.fromkeys(_OF_FILES, "a row says by it which file is its own")
            rules = _Rules(tables[name], pipeline.lake.partition_by, told)
            yield from _wrong(rules, (*path, "exclude"), chosen.exclude, rules.excludable())
            yield from _wrong(rules, (*path, "hash"), chosen.hash, rules.hashable())
            for place, column in enumerate(chosen.hash):
                if column in chosen.exclude:
                    yield (*path, "hash", place), f"{column!r} is excluded already"
    yield from _in_clear_elsewhere(pipeline, tables)


class _Rules:
    """What may be done to the columns of one table, under one layout.

    `told` says of some columns why they must be told as they are.
    """

    def __init__(
        self, table: KnownTable, partition_by: Iterable[str], told: Mapping[str, str]
    ) -> None:
        self.told = told
        self.types = {column.name: str(column.type) for column in table.columns}
        self.key = table.key
        start, finish = table.dates or ("", "")
        self.in_path = {
            start if by.startswith("start") else finish: by for by in partition_by if by != ASKED
        }

    def excludable(self) -> list[str]:
        return [name for name in self.types if self.fixed(name) is None and name not in self.key]

    def hashable(self) -> list[str]:
        return [
            name for name, kind in self.types.items() if not self.fixed(name) and kind == "string"
        ]

    def fixed(self, column: str) -> str | None:
        """Return why nothing can be done to a column, or None."""
        if column == ASKED:
            return "it names what is asked, and the folders of the lake"
        if column in self.told:
            return self.told[column]
        if column.startswith("_"):
            return "it is of the run, and null where it might hold more"
        if column in self.in_path:
            return f"the lake's folders show it: lake.partition_by has {self.in_path[column]}"
        return None

    def wrong(self, column: str, accepted: Sequence[str]) -> str:
        """Return what is wrong with a column that is not accepted."""
        name = shown(column)
        if why := self.fixed(column):
            return f"{name} can be neither excluded nor hashed: {why}"
        if column not in self.types:
            return f"unknown column {name}{did_you_mean(column, accepted)}"
        if self.types[column] != "string":
            return f"{name} is no text ({self.types[column]}), and only text can be hashed"
        return f"{name} is of the key, which tells rows apart: hash it instead"


def _wrong(
    rules: _Rules, path: KeyPath, columns: Sequence[str], accepted: Sequence[str]
) -> Iterator[tuple[KeyPath, str]]:
    for place, column in enumerate(columns):
        if column not in accepted:
            known = ", ".join(accepted) or "none"
            yield (*path, place), f"{rules.wrong(column, accepted)}; accepted: {known}"
        elif column in columns[:place]:
            yield (*path, place), f"names {column!r} twice"


def _in_clear_elsewhere(
    pipeline: Pipeline, tables: Mapping[str, KnownTable]
) -> Iterator[tuple[KeyPath, str]]:
    """Yield the ids that are hashed in one table, and given away by another."""
    for name, chosen in pipeline.columns.items():
        for place, column in enumerate(chosen.hash):
            clear = [
                other
                for other in pipeline.tables
                if other in tables and other != name and column.endswith("_id")
                if column in {known.name for known in tables[other].columns}
                if column not in pipeline.hidden(other)
            ]
            if clear:
                where = f"{column!r} stands in clear in {', '.join(clear)}, which gives it away"
                yield ("columns", name, "hash", place), f"{where}; hash or exclude it there too"
