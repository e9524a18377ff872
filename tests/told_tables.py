"""The README's list of tables, as the code has them: a new table is one file and its test."""

from etl.tables import rejects
from etl.tables.registry import tables

_HEAD = "| table | one row is | columns |\n| --- | --- | --- |\n"


def with_tables(readme: str) -> str:
    """Return the README's text with its list of tables as it should be.

    New ones stand at its end, before the rejects.
    """
    before, head, rest = readme.partition(_HEAD)
    assert head, "the README has lost the head of its list of tables"
    rows = dict(_rows())
    listed = rest.splitlines(keepends=True)
    told: list[str] = []
    while listed and listed[0].startswith("| `"):
        told.append(listed.pop(0).split("`")[1])
    kept = [name for name in told if name in rows and name != rejects.NAME]
    names = dict.fromkeys((*kept, *tables(), rejects.NAME))
    return before + head + "".join(rows[name] for name in names) + "".join(listed)


def _rows() -> list[tuple[str, str]]:
    known = {name: (table.row, table.columns) for name, table in tables().items()}
    known[rejects.NAME] = ("a row or body that could not be read", rejects.COLUMNS)
    return [
        (name, f"| `{name}` | {row} | `{', '.join(column.name for column in columns)}` |\n")
        for name, (row, columns) in known.items()
    ]
