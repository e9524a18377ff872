"""Prints the table of faults; `--write` puts it, and the list of tables, into the README."""

import sys

from tests.faults import README, rendered, with_table
from tests.told_tables import with_tables

if __name__ == "__main__":  # also imported, in the search for chapters
    if sys.argv[1:] == ["--write"]:
        told = with_tables(with_table(README.read_text(encoding="utf-8")))
        README.write_text(told, encoding="utf-8")
    else:
        sys.stdout.write(rendered())
