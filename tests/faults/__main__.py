"""Prints the table of faults; `--write` puts it into the README."""

import sys

from tests.faults import README, rendered, with_table

if __name__ == "__main__":  # also imported, in the search for chapters
    if sys.argv[1:] == ["--write"]:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(rendered())
