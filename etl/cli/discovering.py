"""`etl discover`: the workspaces and tests that the credentials of the pipelines see."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

import anyio

from etl.cli.asking import open_asking
from etl.cli.files import create
from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.config.models import Connection
from etl.config.templates import pipelines_file
from etl.errors import UsageError
from etl.pacing.clock import SystemClock
from etl.report.terminal import on_one_line
from etl.run.discovery import Discovered, discover
from etl.run.errors import single_error
from etl.run.world import World
from etl.tables.tests import ListedTest


def discover_command(path: Path, write: Path | None, *, as_json: bool) -> None:
    """Show workspaces and tests; `write` names a new file for a pipeline of all tests."""
    if write is not None and write.exists():
        raise _exists(write)
    config = load_config(path)
    used = {pipeline.connection for pipeline in config.pipelines.values()}
    found = {}
    for name in sorted(used):
        with single_error():
            found[name] = anyio.run(_discover, config.connections[name], config.state_dir)
    if as_json:
        print_json(_json(found))
    else:
        _print(found)
    if write is not None:
        _write(write, list(_pipelines(found)))


def _write(path: Path, pipelines: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> None:
    if not pipelines:
        say("There is no test that a pipeline could export: nothing was written.")
    elif not create(path, pipelines_file(pipelines), 0o644):
        raise _exists(path)
    else:
        say(f"Wrote {path}: look through it, then run `etl --config {path} plan`.")


def _exists(path: Path) -> UsageError:
    return UsageError(
        "There is such a file already, and nothing is overwritten.",
        where=str(path),
        advice="Name a new file, and take from it what you need.",
    )


async def _discover(connection: Connection, state_dir: Path) -> Discovered:
    world = World("discover", SystemClock(), SystemRandom())
    async with open_asking(connection, state_dir) as client:
        return await discover(client, world, connection.concurrency)


def _json(found: Mapping[str, Discovered]) -> dict[str, object]:
    tests = [test for one in found.values() for tests in one.tests.values() for test in tests]
    return {
        "workspaces": [
            {
                "connection": connection,
                "workspace_id": workspace.workspace_id,
                "name": workspace.name,
                "tests": len(one.tests.get(workspace.workspace_id, ())),
            }
            for connection, one in found.items()
            for workspace in one.workspaces
        ],
        "tests": [
            {"connection": connection, "workspace_id": workspace_id, **_test_json(test)}
            for connection, one in found.items()
            for workspace_id, tests in one.tests.items()
            for test in tests
        ],
        "by_type": Counter(test.type or "" for test in tests),
        "by_product_type": Counter(test.product_type or "" for test in tests),
    }


def _test_json(test: ListedTest) -> dict[str, object]:
    return {
        "test_id": test.test_id,
        "title": test.title,
        "type": test.type,
        "product_type": test.product_type,
        "ordered_at": _ordered_at(test),
    }


def _ordered_at(test: ListedTest) -> str | None:
    if test.ordered_at_us is None:
        return None
    return datetime.fromtimestamp(test.ordered_at_us / 1_000_000, UTC).isoformat("T", "seconds")


def _print(found: Mapping[str, Discovered]) -> None:
    """Print the tests to stdout, and what they amount to beside them."""
    products: Counter[str] = Counter()
    rows = []
    for connection, one in found.items():
        for workspace in one.workspaces:
            tests = one.tests.get(workspace.workspace_id, [])
            rows += [(workspace.name, *_test_json(test).values()) for test in tests]
            products.update(f"{test.type or '?'} {test.product_type or '?'}" for test in tests)
            say(f"{connection}: workspace {workspace.name}: {len(tests)} tests")
    print_table(("workspace", "test", "title", "type", "product", "ordered at"), rows)
    for product, count in products.most_common():
        say(f"{count} test{' is' if count == 1 else 's are'} {product}")


def _pipelines(found: Mapping[str, Discovered]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield connection, and id and title of its tests that this API's tables hold."""
    for connection, one in found.items():
        tests = [test for tests in one.tests.values() for test in tests if test.is_v2]
        if tests:
            yield (
                connection,
                [(test.test_id.lower(), on_one_line(test.title or "")) for test in tests],
            )
