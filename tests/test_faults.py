"""Whatever goes wrong, the user reads what the README says, and the exit code is so too."""

from pathlib import Path

import pytest

from tests.faults import README, Case, Provoke, chapters, with_table
from tests.virtual_time import PatientLoop

CASES = [
    pytest.param(case, provoke, id=f"{case.happens[:60]}-{number}")
    for chapter in chapters()
    for case in chapter.cases
    for number, provoke in enumerate(case.ways, start=1)
]


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Let hours of an outage pass at once."""
    return "asyncio", {"loop_factory": PatientLoop}


@pytest.mark.parametrize(("case", "provoke"), CASES)
async def test_the_user_reads_what_happened(tmp_path: Path, case: Case, provoke: Provoke):
    ended = await provoke(tmp_path)
    assert ended.exit_code == case.exit_code, ended.said
    assert case.is_told_by(ended.said), ended.said


def test_the_readme_says_what_the_tests_provoke():
    readme = README.read_text(encoding="utf-8")
    assert readme == with_table(readme), "run `python -m tests.faults --write`"
