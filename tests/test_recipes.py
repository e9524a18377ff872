"""The README's recipes: each pipeline runs as written, each query shows what was served."""

import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import duckdb
import pytest
from anyio import to_thread

from etl.report.values import Status
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from tests.exporting import Project
from tests.served import served
from tests.test_readme import section

Found = Sequence[tuple[Any, ...]]

PRODUCTS = ("SURVEY", "THINK_OUT_LOUD", "LIVE_CONVERSATION", "NON_THINK_OUT_LOUD")


def recipes() -> dict[str, tuple[str, str]]:
    """Return the pipeline and the query of each recipe, by its title."""
    found = {}
    for part in section("Recipes").split("\n### ")[1:]:
        title = part.partition("\n")[0]
        (pipeline,) = re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)
        (query,) = re.findall(r"```sql\n(.*?)```", part, re.DOTALL)
        found[title] = (pipeline, query)
    return found


def _pipeline(sandbox: Sandbox) -> Found:
    newest: dict[str, list[Any]] = defaultdict(list)
    for row in served(sandbox)["sessions"]:
        newest[row["test_id"]].append(row["finish_time"])
    return [(test, len(times), max(times)) for test, times in sorted(newest.items())]


def _types(sandbox: Sandbox) -> Found:
    return sorted(Counter(row["product_type"] for row in served(sandbox)["tests"]).items())


def _demographics(sandbox: Sandbox) -> Found:
    rows, ratings = served(sandbox), defaultdict(list)
    for task in rows["tasks"]:
        if task["type"] == "RATING_SCALE" and task["answer_number"] is not None:
            ratings[task["session_id"]].append(task["answer_number"])
    of_country: dict[str, list[float]] = defaultdict(list)
    for answer in rows["demographics"]:
        if answer["code"] == "COUNTRY" and answer["value"] is not None:
            of_country[answer["value"]] += ratings[answer["session_id"]]
    return [
        (country, pytest.approx(fmean(given)), len(given))
        for country, given in sorted(of_country.items())
        if given
    ]


def _videos(sandbox: Sandbox) -> Found:
    sizes: dict[str, list[int]] = defaultdict(list)
    for row in served(sandbox)["videos"]:
        if sandbox.product(row["test_id"]) != "NON_THINK_OUT_LOUD":
            sizes[row["test_id"]].append(row["bytes"])
    return [(test, len(found), sum(found)) for test, found in sorted(sizes.items())]


def _said(sandbox: Sandbox) -> Found:
    words: dict[str, list[str]] = defaultdict(list)
    for cue in served(sandbox)["transcripts"]:
        words[cue["session_id"]].append(cue["text"])
    return [(session, " ".join(texts)) for session, texts in sorted(words.items())]


RIGHT: dict[str, Callable[[Sandbox], Found]] = {
    "An automated pipeline": _pipeline,
    "Classify tests by type": _types,
    "A model of demographics and answers": _demographics,
    "Videos at scale": _videos,
    "What was said": _said,
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Serve a test of each product, and a classic one."""
    options = SandboxOptions(
        tests=4,
        sessions=9,
        classic_tests=1,
        rate_requests=None,
        video_bytes=10_000,
        generating=0,
    )
    async with open_sandbox(options) as sandbox:
        for test_id, product in zip(sandbox.test_ids, PRODUCTS, strict=True):
            sandbox.set_product(test_id, product)
        yield sandbox


class Recipe:
    """A recipe as its reader has it: a folder with the file as written."""

    def __init__(self, title: str, folder: Path, sandbox: Sandbox) -> None:
        """Take the recipe of this title."""
        self.pipeline, self.query = recipes()[title]
        self.project = Project(folder, sandbox, ())

    def write(self) -> None:
        """Write the pipelines file: as it stands, but for the pace."""
        pace = "connections:\n  default: {rate_limit: {requests: 100000, seconds: 1}}\n"
        self.project.file.write_text(f"version: 1\n{pace}{self.pipeline}")

    async def run(self) -> None:
        """Run the pipeline."""
        report = await self.project.export()
        assert report.status is Status.COMPLETE, report

    async def look(self) -> Found:
        """Ask the query, in the folder of the file."""

        def ask() -> Found:
            with duckdb.connect(config={"file_search_path": str(self.project.folder)}) as database:
                database.execute("SET TimeZone = 'UTC'")
                return database.execute(self.query).fetchall()

        return await to_thread.run_sync(ask)


@pytest.fixture
async def recipe(request: pytest.FixtureRequest, tmp_path: Path, sandbox: Sandbox) -> Recipe:
    """Return the recipe that the test is about, with its file written."""
    found = Recipe(request.param, tmp_path, sandbox)
    await to_thread.run_sync(found.write)
    return found


def test_every_tutorial_of_the_vendor_has_its_recipe():
    assert recipes().keys() == {*RIGHT, "UX metrics over time", "Highlight reels"}


@pytest.mark.parametrize("recipe", RIGHT, indirect=True)
async def test_a_recipe_shows_what_was_served(recipe: Recipe, request: pytest.FixtureRequest):
    await recipe.run()
    title = request.node.callspec.params["recipe"]
    found, right = await recipe.look(), RIGHT[title](recipe.project.sandbox)
    assert right and list(found) == list(right)


@pytest.mark.parametrize("recipe", ["UX metrics over time"], indirect=True)
async def test_scores_become_a_curve(recipe: Recipe):
    sandbox, expected = recipe.project.sandbox, []
    for _ in range(2):
        await recipe.run()
        expected += [
            (row["task_group_id"], row["label"], row["qx_score"])
            for row in served(sandbox)["qx_scores"]
        ]
        sandbox.complete(sandbox.test_ids[3], 1)
    found = await recipe.look()
    assert expected and sorted(row[:2] + row[3:4] for row in found) == sorted(expected)
    assert all(
        earlier[:1] != later[:1] or earlier[2] < later[2] for earlier, later in pairwise(found)
    )


@pytest.mark.parametrize("recipe", ["Highlight reels"], indirect=True)
async def test_a_reel_is_a_row_with_its_file(recipe: Recipe):
    await recipe.run()
    found = await recipe.look()
    reels = {row["reel_id"]: row for row in served(recipe.project.sandbox)["highlight_reels"]}
    assert reels and {row[0] for row in found} == reels.keys()
    for reel_id, name, duration_ms, path, size, digest in found:
        wanted = reels[reel_id]
        assert (name, duration_ms, size, digest) == (
            wanted["name"],
            wanted["duration_ms"],
            wanted["bytes"],
            wanted["sha256"],
        )
        file = recipe.project.lake / path
        assert (await to_thread.run_sync(file.stat)).st_size == size
