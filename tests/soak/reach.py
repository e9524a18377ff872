"""Two thousand sessions of all products: what their details and transcripts cost."""

import tempfile
from pathlib import Path

from tests.reach import prove_requests
from tests.soak.turns import Part, Turn

SESSIONS_OF_EACH_PRODUCT = 501  # a page, and one row more


async def run(turn: Turn) -> None:
    """Export once."""
    for _ in turn.cases(["once"]):
        with tempfile.TemporaryDirectory() as place:
            turn.count(**await prove_requests(Path(place), SESSIONS_OF_EACH_PRODUCT))


PART = Part("reach", "each session's answers cost a request, and nothing is asked in vain", run)
