"""The tables' schemas as they were last recorded: what readers of old files count on.

After a column was added: `python -m tests.tables.recorded --write`.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from etl.tables import rejects
from etl.tables.registry import tables

PLACE = Path(__file__).with_name("recorded.json")


@dataclass(frozen=True)
class Recorded:
    """A table's version, and the type of each of its columns, in order."""

    version: int
    columns: dict[str, str]


def _as_recorded(schema: pa.Schema) -> Recorded:
    version = int((schema.metadata or {})[b"etl_table_version"])
    return Recorded(version, {field.name: str(field.type) for field in schema})


def current() -> dict[str, Recorded]:
    """Return the tables as they are now."""
    found = {name: _as_recorded(table.schema()) for name, table in sorted(tables().items())}
    return found | {rejects.NAME: _as_recorded(rejects.SCHEMA)}


def recorded() -> dict[str, Recorded]:
    """Return the tables as they were recorded."""
    return {name: Recorded(**told) for name, told in json.loads(PLACE.read_text()).items()}


if __name__ == "__main__":
    told = json.dumps({name: asdict(table) for name, table in current().items()}, indent=1) + "\n"
    if "--write" in sys.argv:
        PLACE.write_text(told)
    else:
        sys.stdout.write(told)
