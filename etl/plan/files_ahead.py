"""Estimates the files that a run is to fetch, by the averages of what the pipeline has had."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from etl.client.values import Scope
from etl.ledger.records import Record
from etl.tables.values import AnyTable


@dataclass(frozen=True, slots=True)
class Seen:
    """Files of a table that have come: how many, and how large they are together."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class FilesAhead:
    """The files of a table that a run is to fetch. An estimate: only asking tells.

    `due` are known, by name; the rest of `files` is what the lists to come will name, if they
    are like the `by_lists` that have come. `bytes` is how large all are if they are like the
    `by_files` that have come, None where none has.
    """

    table: str
    files: int
    due: int
    by_lists: int
    bytes: int | None
    by_files: int


@dataclass(slots=True)
class FilesCount:
    """Counts, test by test, the files of a table that are due, and what its lists have named."""

    table: AnyTable
    due: int = 0
    named: int = 0
    lists_read: int = 0
    lists_ahead: int = 0

    def add(self, record: Record, requests: Mapping[str, int], now_us: int) -> None:
        """Count a test: its record, and the requests about it that are foreseen, by kind."""
        name, endpoint = self.table.name, self.table.endpoint
        assert self.table.files is not None  # noqa: S101 - only such tables are counted
        self.due += requests.get(self.table.files.receipt.name, 0)
        if not self.table.lists_files:
            return
        self.named += len(record.covered.get(name, ())) + len(record.held.get(name, ()))
        if endpoint.scope is Scope.SESSION:
            again = record.not_before_us.get(endpoint.name, {})
            read = len(record.answered.get(name, ())) + len(again)
            read_again = sum(at_us <= now_us for at_us in again.values())
        else:
            read = read_again = int(endpoint.name in record.asked_at_us)
        self.lists_read += read
        self.lists_ahead += max(0, requests.get(endpoint.name, 0) - read_again)

    def ahead(self, sizes_seen: Callable[[str], Seen]) -> FilesAhead | None:
        """Return what is to come, or None where nothing is, or nobody can tell."""
        by_lists = self.lists_read if self.lists_ahead else 0
        files = self.due
        if by_lists:
            files += round(self.lists_ahead * self.named / by_lists)
        if not files:
            return None
        seen = sizes_seen(self.table.name)
        return FilesAhead(
            table=self.table.name,
            files=files,
            due=self.due,
            by_lists=by_lists,
            bytes=round(files * seen.bytes / seen.files) if seen.files else None,
            by_files=seen.files,
        )
