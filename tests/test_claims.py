"""No two pipelines feed a table of a lake with the same test; what it costs to know is little."""

from pathlib import Path

import pytest
from anyio import to_thread

from etl.client.values import Answer
from etl.errors import ConfigError
from etl.lake import commits
from etl.lake.claims import refuse_shared
from etl.lake.commits import Commit, answer_row
from etl.lake.local import LocalLake
from etl.ledger.store import open_ledger
from tests.exporting import Project, open_project

WEEKLY = """\
    lake: {{url: ./lake}}
  weekly:
    tests: [{}]
    lake: {{url: ./lake}}
"""


async def codes(project: Project) -> list[int]:
    return (await project.export_with_codes())[1]


async def test_the_refused_pipeline_asks_nothing_and_the_other_goes_on(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await to_thread.run_sync(project.write, WEEKLY.format(project.tests[0]))
        ended = await project.ended()
        assert ended.exit_code == 2, "one pipeline is wrong, though the other is complete"
        assert len(project.sandbox.requests) == 1
        await project.exact()


async def test_a_claim_ends_when_its_pipeline_is_reset(tmp_path: Path):
    async with open_project(tmp_path, 40) as project:
        await project.ended()
        reset = ("reset", "nightly", "--test", project.tests[0])
        await to_thread.run_sync(lambda: project.process(*reset, check=True))
        text = await to_thread.run_sync(project.file.read_text)
        await to_thread.run_sync(project.file.write_text, text.replace("nightly", "weekly"))
        assert await codes(project) == [0]


async def test_a_commit_of_another_pipeline_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    feeds = commits.read_feeds

    def counted(path: Path, pipeline: str) -> commits.Feeds:
        read.append(f"{pipeline} {path.name}")
        return feeds(path, pipeline)

    monkeypatch.setattr(commits, "read_feeds", counted)
    async with open_project(tmp_path, 40, 40) as project:
        one, other = project.tests
        project.tests = (one,)
        await to_thread.run_sync(project.write, WEEKLY.format(other))
        for night in range(3):
            project.sandbox.complete(one)
            project.sandbox.complete(other)
            assert await codes(project) == [0, 0], night
    assert len(read) == len(set(read)) == 3 + 2


def test_what_another_pipeline_feeds_is_remembered_between_its_commits(tmp_path: Path):
    lake = LocalLake(tmp_path / "lake")
    lake.found()
    answer = Answer("session_results", "a", None, "page", 200, 1, b"{}")
    fed = Commit(
        "weekly", 1, "run", answers=[answer_row(answer, {"sessions": 9}, keeps_body=False)]
    )
    assert lake.commit("weekly", 1, commits.encode(fed))
    with open_ledger(tmp_path, "nightly") as ledger:
        for _night in range(2):
            with pytest.raises(ConfigError, match="'weekly' feeds the table sessions"):
                refuse_shared(lake, ledger, "nightly", ["a"], ["sessions"])
            refuse_shared(lake, ledger, "nightly", ["b"], ["sessions"])
