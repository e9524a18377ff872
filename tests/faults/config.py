"""What can be wrong with the pipelines file: all of it is refused before anything is sent."""

from pathlib import Path

import pytest
from anyio import to_thread

from etl.config.load import load
from etl.errors import ConfigError
from etl.tables.registry import tables
from tests.exporting import TESTS
from tests.faults import Case, Chapter, Ended, Provoke

NINE = ", ".join(["*a"] * 9)
BOMB = f"[&a [1, 2], &b [{NINE}], &c [{NINE.replace('a', 'b')}], &d [{NINE.replace('a', 'c')}]]"


CREDENTIALS = {"USERTESTING_CLIENT_ID": "me", "USERTESTING_CLIENT_SECRET": "hunter3"}


def written(
    pipeline: str = "", *, tests: str = f"[{TESTS[0]}]", default: str = "", lake: str = "./lake"
) -> Provoke:
    """Write a pipelines file with these parts, and load it as every command does."""

    async def provoke(folder: Path) -> Ended:
        return await to_thread.run_sync(loaded, folder)

    def loaded(folder: Path) -> Ended:
        file = folder / "pipelines.yaml"
        file.write_text(
            f"version: 1\nconnections: {{default: {{{default}}}}}\npipelines:\n  nightly:\n"
            f"    tests: {tests}\n    lake: {{url: {lake}}}\n    {pipeline}\n"
        )
        with pytest.raises(ConfigError) as refused:
            load(file, tables=tables(), environ=CREDENTIALS)
        said = str(refused.value)
        assert "hunter" not in said
        return Ended(refused.value.exit_code, said)

    return provoke


CHAPTER = Chapter(
    "The pipelines file",
    [
        Case(
            "a key that does not exist, or stands twice",
            "pipelines.yaml:7:5: pipelines.nightly.…: …",
            2,
            [written("adit: full"), written("tests: []")],
        ),
        Case(
            "an alias bomb",
            "pipelines.nightly.tests: it is nested or repeated (by aliases) beyond any use",
            2,
            [written(tests=BOMB.replace("1, 2", ", ".join(["{}"] * 2_000)))],
        ),
        Case(
            "a tag that would run Python",
            "the tag '…' is not accepted",
            2,
            [written("audit: !!python/object/apply:os.system [ls]")],
        ),
        Case(
            "a test id that is none",
            "pipelines.nightly.tests[0]: is '../../x'; it is not a UUID",
            2,
            [written(tests="[../../x]")],
        ),
        Case(
            "a regular expression that could run for ever",
            "pipelines.nightly.tests.title_matches: …repeats a repetition",
            2,
            [written(tests="{title_matches: '(a+)+$'}")],
        ),
        Case(
            "`${VAR}` that is not set",
            "${NOWHERE} is not set; set it, or write ${NOWHERE:-default}",
            2,
            [written("audit: ${NOWHERE}")],
        ),
        Case(
            "plain http to another machine, however it is named",
            "connections.default.api_url: is plain http to '127.0.0.1.evil.com'; accepted: https",
            2,
            [written(default="api_url: 'http://127.0.0.1.evil.com'")],
        ),
        Case(
            "credentials in a URL, which are not repeated",
            "connections.default.api_url: holds credentials; they belong into "
            "USERTESTING_CLIENT_ID and _SECRET",
            2,
            [written(default="api_url: 'https://user:hunter2@example.com'")],
        ),
        Case(
            "a secret in the file, which is not repeated",
            "connections.default.client_secret: a secret stands in the file; accepted: ${VARIABLE}",
            2,
            [written(default="client_secret: hunter2")],
        ),
        Case(
            "a limit of no requests, or of a number that is none",
            "connections.default.rate_limit.requests: is …; accepted: …",
            2,
            [
                written(default=f"rate_limit: {{requests: {number}}}")
                for number in ("0", ".nan", "1e308")
            ],
        ),
        Case(
            "a lake within the state directory",
            "pipelines.nightly.lake.url: … lies in the state directory",
            2,
            [written(lake=".etl/lake")],
        ),
    ],
)
