"""What an export asks for, to the request: so that nobody waits six seconds for nothing."""

from collections import Counter
from pathlib import Path

from anyio import to_thread

from etl.report.values import Status
from etl.sandbox.products import Product
from etl.sandbox.server import SandboxOptions, open_sandbox
from tests.exporting import Project

DETAILS = ("session_details", "demographics", "task_groups", "tasks")
PAGE_ROWS = 500
"""As many rows as a page has: a further one begins at the last row known, and adds one less."""

PRODUCTS = (
    Product.SURVEY,
    Product.NON_THINK_OUT_LOUD,
    Product.THINK_OUT_LOUD,
    Product.LIVE_CONVERSATION,
)
SPOKEN = PRODUCTS[2:]


def pages_of(sessions: int) -> int:
    """Return how many pages a listing takes, each but the first overlapping the one before."""
    return 1 + -(-max(0, sessions - PAGE_ROWS) // (PAGE_ROWS - 1))


async def prove_requests(folder: Path, sessions: int) -> Counter[str]:
    """Export a test of each product, details first and transcripts later; return what was asked.

    Fails if anything was asked that was not needed, or asked twice.
    """
    options = SandboxOptions(rate_requests=None, tests=len(PRODUCTS), classic_tests=0)
    async with open_sandbox(options) as sandbox:
        project = Project(folder, sandbox, sandbox.test_ids)
        for test, product in zip(sandbox.test_ids, PRODUCTS, strict=True):
            sandbox.set_product(test, product)
            sandbox.set_sessions(test, sessions)
        listing = {"page": len(PRODUCTS) * pages_of(sessions)}

        first = await _asked_by_a_run(project, DETAILS)
        assert first == {**listing, "details": len(PRODUCTS) * sessions}

        later = await _asked_by_a_run(project, (*DETAILS, "transcripts"))
        catalogue = {name: later.pop(name, 0) for name in ("workspaces", "tests")}
        # Each workspace's one page, and the empty one that tells its end.
        assert sum(catalogue.values()) <= 1 + 2 * options.workspaces
        assert later == {**listing, "transcript": len(SPOKEN) * sessions}

        keys = Counter((one.endpoint, one.session_id) for one in sandbox.requests if one.session_id)
        assert set(keys.values()) == {1}
        return first + later + Counter(catalogue)


async def _asked_by_a_run(project: Project, tables: tuple[str, ...]) -> Counter[str]:
    """Export these tables; return how often each endpoint was asked."""
    already = len(project.sandbox.requests)
    await to_thread.run_sync(project.write, f"    tables: [{', '.join(tables)}]\n")
    report = await project.export()
    assert report.status is Status.COMPLETE
    for table in tables:
        assert report.pipelines[0].rows.get(table) or already
    return Counter(request.endpoint for request in project.sandbox.requests[already:])
