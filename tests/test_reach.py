"""No request is made in vain: each waits six seconds for its turn."""

from pathlib import Path

from tests.reach import prove_requests


async def test_details_cost_a_request_each_and_transcripts_only_where_there_are_some(
    tmp_path: Path,
):
    asked = await prove_requests(tmp_path, sessions=30)
    assert (asked["details"], asked["transcript"]) == (120, 60)
