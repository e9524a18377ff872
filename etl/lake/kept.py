"""Answers that a commit keeps: known without their bodies, which whoever needs them reads.

Nothing here knows of lakes and ledgers: a worker's start imports it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from etl.client.values import Answer
from etl.errors import LakeError


@dataclass(frozen=True, slots=True)
class KeptAnswers:
    """Some answers of one row group of a commit, without their bodies until these are read.

    `places` are theirs among the rows of the group.
    """

    path: Path
    group: int
    places: Sequence[int]
    answers: Sequence[Answer] = field(repr=False)

    def read(self) -> list[Answer]:
        """Return the answers with their bodies; blocks. Raises LakeError."""
        if not self.places:
            return []
        with open_commit(self.path) as file:
            bodies = file.read_row_group(self.group, columns=["body"])["body"].to_pylist()
        told = zip(self.places, self.answers, strict=True)
        return [replace(answer, body=bodies[place] or b"") for place, answer in told]

    def about(self, *, sessions: bool) -> "KeptAnswers":
        """Return those that are about sessions, or those about tests."""
        told = zip(self.places, self.answers, strict=True)
        chosen = [(place, one) for place, one in told if (one.session_id is not None) is sessions]
        return replace(
            self, places=[place for place, _ in chosen], answers=[one for _, one in chosen]
        )


@contextmanager
def open_commit(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a commit to be read; turn what a damaged one raises into a LakeError."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise LakeError(
            "A commit of the lake cannot be read.", where=str(path), advice=NO_COMMIT_ADVICE
        ) from error


NO_COMMIT_ADVICE: Final = (
    "Restore the `_etl` folder from a backup. Without one, move this commit, the pipeline's later "
    "ones and the data files of all these batches out of the lake, and run again: their rows are "
    "asked again. Nothing was changed."
)
