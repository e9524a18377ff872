"""How large the files are that have come, for who wants to know how large others will be."""

from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from etl.lake.local import LocalLake
from etl.lake.names import read_data_name
from etl.lake.scan import rows_in, table_of
from etl.plan.files_ahead import Seen

_MOST_DATA_FILES: Final = 100
"""How many of a table's data files are read, the newest ones: enough for an average."""


def sizes_seen(lake: LocalLake, pipeline: str) -> Callable[[str], Seen]:
    """Return what tells how large a table's files are that the pipeline has had; blocks."""
    return partial(_sizes, lake, pipeline)


def _sizes(lake: LocalLake, pipeline: str, table: str) -> Seen:
    sizes: list[int] = []
    for path in _newest_files(lake, pipeline, table):
        try:
            sizes += [size for _, (size,) in rows_in(lake, path, ["bytes"]) if size is not None]
        except ValueError:
            continue  # replaced meanwhile, or damaged, which a run tells and mends
    return Seen(len(sizes), sum(sizes))


def _newest_files(lake: LocalLake, pipeline: str, table: str) -> list[str]:
    """Return a table's newest data files of a pipeline, by their batch."""
    named = (
        (read_data_name(PurePosixPath(path).name), path)
        for path in lake.data_files()
        if table_of(path) == table
    )
    by_batch = [
        (name.batch, path)
        for name, path in named
        if name is not None and name.finished and name.pipeline == pipeline
    ]
    return [path for _, path in sorted(by_batch, reverse=True)[:_MOST_DATA_FILES]]
