"""Who feeds which table with which test: were it two pipelines of a lake, rows would stand twice.

A pipeline claims a test for a table by landing an answer for it, and until it is reset. Only
commits that were not looked at by an earlier start are read.
"""

from collections.abc import Collection

import msgspec

from etl.errors import ConfigError
from etl.lake import commits
from etl.lake.local import LocalLake
from etl.ledger.store import Ledger


class _Claims(msgspec.Struct):
    """What another pipeline feeds: the tables of each test, as of a batch of a lake."""

    lake: str
    batch: int = 0
    tables: dict[str, set[str]] = {}


def refuse_shared(
    lake: LocalLake,
    ledger: Ledger,
    pipeline: str,
    tests: Collection[str],
    tables: Collection[str],
) -> None:
    """Raise ConfigError if another pipeline feeds one of these tables with one of these tests.

    Blocks. Raises LakeError if the record of another pipeline cannot be read.
    """
    for other in lake.pipelines():
        if other.lower() == pipeline.lower():
            continue
        claims = _claims_of(other, lake, ledger)
        for test_id in tests:
            shared = sorted(claims.tables.get(test_id, set()).intersection(tables))
            if shared:
                raise ConfigError(
                    f"Pipeline {other!r} feeds the table {shared[0]} of this lake with the same "
                    "test: its rows would stand there twice.",
                    where=f"pipeline {pipeline!r}, test {test_id}",
                    advice="Leave the test to one of them, or give this pipeline a lake of its "
                    "own. Nothing was asked or changed.",
                )


def _claims_of(other: str, lake: LocalLake, ledger: Ledger) -> _Claims:
    """Return what another pipeline claims, reading what it has committed since the last look."""
    note, lake_id = f"claims of {other}", lake.identity() or ""
    numbers = lake.commits(other)
    kept = ledger.note(note)
    known = None if kept is None else msgspec.json.decode(kept, type=_Claims)
    if known is None or known.lake != lake_id or known.batch not in numbers:
        known = _Claims(lake_id)
    new = [number for number in numbers if number > known.batch]
    for number in new:
        feeds = commits.read_feeds(lake.commit_path(other, number), other)
        for test_id in feeds.forgotten:
            known.tables.pop(test_id, None)
        for test_id, tables in feeds.tables.items():
            known.tables.setdefault(test_id, set()).update(tables)
        known.batch = number
    if new:
        ledger.keep_note(note, msgspec.json.encode(known).decode())
    return known
