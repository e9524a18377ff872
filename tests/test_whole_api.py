"""Every table against what was served, cell by cell: in peace, at its worst, and under kills."""

from pathlib import Path

import pytest
from anyio import to_thread
from blockbuster import BlockBuster

from etl.report.values import Status
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.crash.whole import TABLES, kill_a_whole_export, open_worst
from tests.crash.zygote import lacking, open_zygote
from tests.exporting import Project
from tests.served import KEYS, served, wrong_cells


def test_no_table_is_left_out():
    assert set(TABLES) == KEYS.keys()


async def test_every_cell_of_every_table_is_what_was_served(tmp_path: Path):
    options = SandboxOptions(
        tests=5,
        sessions=10,
        classic_tests=2,
        rate_requests=None,
        video_bytes=20_000,
        generating=0,
    )
    async with open_sandbox(options) as sandbox:
        products = ("SURVEY", "THINK_OUT_LOUD", "LIVE_CONVERSATION", "NON_THINK_OUT_LOUD")
        for test_id, product in zip(sandbox.test_ids, (*products, *products), strict=False):
            sandbox.set_product(test_id, product)
        project = Project(tmp_path, sandbox, (*sandbox.test_ids, *sandbox.classic_ids))
        wanted = f"    tables: [{', '.join(TABLES)}]\n"
        await to_thread.run_sync(project.write, wanted)
        report = await project.export()
        expected = {name: rows for name, rows in served(sandbox).items() if name in TABLES}
        assert all(expected.values())
        assert await to_thread.run_sync(wrong_cells, project.lake, expected) == []
        assert report.status is Status.COMPLETE, report


@pytest.mark.timeout(120)
async def test_kills_and_the_worst_of_servers_change_no_cell(
    tmp_path: Path, blockbuster: BlockBuster
):
    blockbuster.deactivate()  # the killed runs are other processes; this one may wait for them
    if lack := lacking():
        pytest.skip(f"KILLS NOT TRIED: {lack}")
    for name in ("project", "zygote"):
        (tmp_path / name).mkdir()
    async with (
        open_worst(tmp_path / "project", seed=5, sessions=8) as project,
        open_zygote(tmp_path / "zygote") as zygote,
    ):
        await kill_a_whole_export(project, zygote, kills=3, within_seconds=2.0, seed=5)
