"""The configuration is refused with the place and the way out, or it is whole."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.config.interpolation import Unset, interpolated
from etl.config.load import SandboxCredentials, load
from etl.config.models import Config
from etl.config.schema import json_schema
from etl.config.templates import env_template, pipelines_template
from etl.errors import ConfigError
from etl.tables.registry import tables
from etl.tables.values import Column

ROOT = Path(__file__).parent.parent
TEST = "82629d39-c9b5-4acc-8edc-0f2e34c0b07c"
SECRET = "hunter2-and-more"
CREDENTIALS = {"USERTESTING_CLIENT_ID": "an-id", "USERTESTING_CLIENT_SECRET": SECRET}
SANDBOX = SandboxCredentials(
    api_url="http://127.0.0.1:1", token_url="http://127.0.0.1:1/t", client_id="s", client_secret="s"
)
Load = Callable[..., Config]


def pipeline(
    *more: str, tests: str = f"[{TEST}]", lake: str = "{url: ./lake}", connections: str = ""
) -> str:
    """Return a pipelines file with one pipeline, and more lines of it."""
    top = f"connections: {connections}\n" if connections else ""
    lines = "".join(f"    {line}\n" for line in more)
    return f"version: 1\n{top}pipelines:\n  nightly:\n    tests: {tests}\n    lake: {lake}\n{lines}"


def default(settings: str) -> str:
    """Return a pipelines file with these settings of the default connection."""
    return pipeline(connections=f"{{default: {{{settings}}}}}")


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Return what writes a pipelines file and loads it."""

    def load_text(
        text: str | bytes, environ: Mapping[str, str] = CREDENTIALS, **options: Any
    ) -> Config:
        path = tmp_path / "pipelines.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path, tables=tables(), environ=environ, **options)

    return load_text


def refusal(loaded: Load, text: str | bytes, *environ: Mapping[str, str], **options: Any) -> str:
    """Return the message of a file that is refused."""
    with pytest.raises(ConfigError) as caught:
        loaded(text, *environ, **options)
    assert caught.value.exit_code == 2
    return str(caught.value)


# What is refused: the place is where § stands in the text.

NINE = ",".join(["{}"] * 9)
BOMB = (
    f"[&a [{NINE}], "
    + ", ".join(f"&{name} [{NINE.format(*[f'*{last}'] * 9)}]" for last, name in pairwise("abcdefg"))
    + "]"
)
N = "pipelines.nightly"
D = "connections.default"
BAD: dict[str, tuple[str, str, str]] = {
    # YAML itself
    "an open bracket": ("version: [§", "", "not YAML: expected the node content"),
    "a tab": ("version: 1\npipelines:\n§\tnightly: x", "", "tabs cannot indent YAML"),
    "a NUL": ("version: §\0", "", "the character '\\x00' is not accepted"),
    "an undefined alias": ("version: §*one", "", "undefined alias 'one'"),
    "two documents": ("--- {version: 1}\n§--- {}", "", "another document"),
    "an alias bomb": (
        pipeline(tests=BOMB).replace("tests", "§tests"),
        "pipelines.nightly.tests",
        "nested or repeated (by aliases) beyond any use",
    ),
    "an alias of itself": ("a: §&a [*a]", "a[0][0]", "nested or repeated"),
    "a python object": ("version: §!!python/object:os.system {}", "version", "tag"),
    "a python call": ("version: §!!python/object/apply:os.system [ls]", "version", "tag"),
    "a python name": (pipeline("audit: §!!python/name:os.system ''"), f"{N}.audit", "tag"),
    "a set": (pipeline("pagination: §!!set {style}"), f"{N}.pagination", "tag"),
    "a private tag": ("version: §!mine 1", "version", "the tag '!mine' is not accepted"),
    # the top
    "a duplicate key": ("version: 1\n§version: 1", "version", "stands twice, first in line 1"),
    "a duplicate name": (
        pipeline() + f"  §nightly: {{tests: [{TEST}], lake: {{url: x}}}}",
        N,
        "stands twice, first in line 3",
    ),
    "a name but for case": (
        pipeline() + f"  §Nightly: {{tests: [{TEST}], lake: {{url: x}}}}",
        "pipelines.Nightly",
        "differs from 'nightly' in case alone",
    ),
    "a bad name": (
        pipeline().replace("nightly", "§a/b"),
        "pipelines.a/b",
        "is 'a/b'; accepted: letters, digits, _ and -",
    ),
    "a long name": (pipeline().replace("nightly", "§" + "n" * 65), "n", "at most 64"),
    "a list": ("§[1, 2]", "", "is not a mapping; accepted keys: version, connections, pipelines"),
    "a key that is nearly known": (
        f"§pipelnes: {{}}\n{pipeline()}",
        "pipelnes",
        "unknown key (did you mean 'pipelines'?)",
    ),
    "no version": ("§pipelines:" + pipeline().partition("pipelines:")[2], "version", "is empty"),
    "version 2": (pipeline().replace("version: 1", "§version: 2"), "version", "is 2; accepted: 1"),
    "version true": (pipeline().replace("version: 1", "§version: true"), "version", "is true"),
    "no pipelines": ("version: 1\n§pipelines: {}", "pipelines", "is empty; accepted: at least one"),
    "pipelines as a list": ("version: 1\n§pipelines: [a]", "pipelines", "is a list; accepted: a m"),
    "a pipeline as text": ("version: 1\npipelines: {§a: b}", "pipelines.a", "is 'b'; accepted: a"),
    # tests and tables
    "a malformed UUID": (pipeline(tests="[§../../x]"), f"{N}.tests[0]", "is not a UUID"),
    "a UUID without hyphens": (
        pipeline(tests=f"[{TEST}, §{TEST.replace('-', '')}]"),
        f"{N}.tests[1]",
        "is not a UUID written with hyphens",
    ),
    "a test as number": (pipeline(tests="[§17]"), f"{N}.tests[0]", "is 17; accepted: text"),
    "one test not in a list": (
        pipeline(tests=TEST).replace("tests", "§tests"),
        f"{N}.tests",
        f"is '{TEST}'; accepted: a list",
    ),
    "no tests": (
        pipeline(tests="[]").replace("tests", "§tests"),
        f"{N}.tests",
        "is an empty list; accepted: at least one item",
    ),
    "a test twice": (
        pipeline(tests=f"[{TEST}, {TEST.upper()}]").replace("tests", "§tests"),
        f"{N}.tests",
        "names a test twice",
    ),
    "discovery with a wrong workspace": (
        pipeline(tests="{§workspaces: 3}"),
        f"{N}.tests.workspaces",
        "is 3; accepted: 'all' or a list",
    ),
    "a regex that does not compile": (
        pipeline(tests="{§title_matches: '('}"),
        f"{N}.tests.title_matches",
        "is not a regular expression: missing )",
    ),
    "a regex that never ends": (
        pipeline(tests="{§title_matches: '(a+)+$'}"),
        f"{N}.tests.title_matches",
        "repeats a repetition",
    ),
    "a date that is none": (
        pipeline(tests="{§ordered_since: 2024-13-01}"),
        f"{N}.tests.ordered_since",
        "accepted: a date such as",
    ),
    "an unknown table": (
        pipeline("tables: [sessions, §sesions]"),
        f"{N}.tables[1]",
        "unknown table 'sesions' (did you mean 'sessions'?)",
    ),
    "a table twice": (
        pipeline("§tables: [sessions, sessions]"),
        f"{N}.tables",
        "names a table twice",
    ),
    "no tables": (pipeline("§tables: []"), f"{N}.tables", "accepted: at least one item"),
    # the rest of a pipeline
    "an unknown key": (
        pipeline("§adit: full"),
        f"{N}.adit",
        "unknown key (did you mean 'audit'?); accepted: connection, tests, tables, columns, audit",
    ),
    "a name within": (pipeline("§name: x"), f"{N}.name", "the name is the key itself"),
    "an unknown choice": (
        pipeline("§audit: roling"),
        f"{N}.audit",
        "is 'roling' (did you mean 'rolling'?); accepted: 'off', 'rolling' or 'full'",
    ),
    "edited: maybe": (pipeline("§edited: maybe"), f"{N}.edited", "accepted: 'report' or 'replace'"),
    "keep_bodies: maybe": (
        pipeline("§keep_bodies: maybe"),
        f"{N}.keep_bodies",
        "is 'maybe'; accepted: 'auto' or true or false",
    ),
    "a failure that is no id": (
        pipeline("accept_failures: [§x]"),
        f"{N}.accept_failures[0]",
        "is 'x'; it is not a UUID",
    ),
    "501 rows": (
        pipeline("pagination: {§rows_per_page: 501}"),
        f"{N}.pagination.rows_per_page",
        "is 501; accepted: less than or equal to 500",
    ),
    "a first page of 2": (
        pipeline("pagination: {§first_page: 2}"),
        f"{N}.pagination.first_page",
        "is 2; accepted: 0, 1 or 'auto'",
    ),
    "a first page of true": (
        pipeline("pagination: {§first_page: true}"),
        f"{N}.pagination.first_page",
        "is true; it is not a number",
    ),
    "a tag that its value denies": (
        pipeline("§audit: !!bool maybe"),
        f"{N}.audit",
        "is 'maybe'; accepted",
    ),
    "an unset variable": (
        pipeline("§audit: ${AUDIT_DEPTH}"),
        f"{N}.audit",
        "${AUDIT_DEPTH} is not set; set it, or write ${AUDIT_DEPTH:-default}",
    ),
    "an open variable": (pipeline("§audit: '${'"), f"{N}.audit", "`${` begins no variable"),
    "a variable with a space": (pipeline("§audit: ${A B}"), f"{N}.audit", "`${` begins no varia"),
    "an unknown connection": (
        pipeline("§connection: agnecy", connections="{agency: {}}"),
        f"{N}.connection",
        "unknown connection 'agnecy' (did you mean 'agency'?); accepted: default, agency",
    ),
    # personal data
    "columns as a list": (
        pipeline("§columns: [audience_id]"),
        f"{N}.columns",
        "is a list; accepted: a mapping",
    ),
    "columns of a table that is not exported": (
        pipeline("columns: {§sesions: {exclude: [status]}}"),
        f"{N}.columns.sesions",
        "is none of the pipeline's tables (did you mean 'sessions'?); accepted: sessions",
    ),
    "a misspelt way to hide": (
        pipeline("columns: {sessions: {§exlude: [status]}}"),
        f"{N}.columns.sessions.exlude",
        "unknown key (did you mean 'exclude'?); accepted: exclude, hash",
    ),
    "an unknown column": (
        pipeline("columns: {sessions: {exclude: [status, §audience]}}"),
        f"{N}.columns.sessions.exclude[1]",
        "unknown column 'audience' (did you mean 'audience_id'?); accepted: audience_id, status",
    ),
    "a key column excluded": (
        pipeline("columns: {sessions: {exclude: [§session_id]}}"),
        f"{N}.columns.sessions.exclude[0]",
        "'session_id' is of the key, which tells rows apart: hash it instead; accepted: audience",
    ),
    "the test hashed": (
        pipeline("columns: {sessions: {hash: [§test_id]}}"),
        f"{N}.columns.sessions.hash[0]",
        "'test_id' can be neither excluded nor hashed: it names what is asked",
    ),
    "a column of the run excluded": (
        pipeline("columns: {sessions: {exclude: [§_run_id]}}"),
        f"{N}.columns.sessions.exclude[0]",
        "'_run_id' can be neither excluded nor hashed: it is of the run",
    ),
    "a column that the folders show": (
        pipeline(
            "columns: {sessions: {exclude: [finish_time, §start_time]}}",
            lake="{url: x, partition_by: [start_month]}",
        ),
        f"{N}.columns.sessions.exclude[1]",
        "the lake's folders show it: lake.partition_by has start_month",
    ),
    "a time hashed": (
        pipeline("columns: {sessions: {hash: [§start_time]}}"),
        f"{N}.columns.sessions.hash[0]",
        "'start_time' is no text (timestamp[us, tz=UTC]), and only text can be hashed; accepted: s",
    ),
    "a column hidden twice": (
        pipeline("columns: {sessions: {exclude: [status, §status]}}"),
        f"{N}.columns.sessions.exclude[1]",
        "names 'status' twice",
    ),
    "a column hidden in both ways": (
        pipeline("columns: {sessions: {exclude: [status], hash: [§status]}}"),
        f"{N}.columns.sessions.hash[0]",
        "'status' is excluded already",
    ),
    "bodies that hold what is hidden": (
        pipeline("columns: {sessions: {exclude: [status]}}", "§keep_bodies: true"),
        f"{N}.keep_bodies",
        "is true; accepted: auto or false, since bodies hold what `columns` keeps out",
    ),
    "a hash key in the file": (
        pipeline("§hash_key: hunter2"),
        f"{N}.hash_key",
        "unknown key; accepted",
    ),
    # the lake
    "no lake": (
        f"version: 1\npipelines:\n  §nightly:\n    tests: [{TEST}]\n",
        f"{N}.lake",
        "is missing",
    ),
    "a lake as text": (
        pipeline(lake="./lake").replace("lake:", "§lake:"),
        f"{N}.lake",
        "is './lake'; accepted: a mapping",
    ),
    "a lake without a place": (pipeline(lake="{§url: ''}"), f"{N}.lake.url", "not empty"),
    "a lake with a NUL": (pipeline(lake='{§url: "a\\0b"}'), f"{N}.lake.url", "no path can"),
    "a lake on another machine": (
        pipeline(lake="{§url: 'file://lake/x'}"),
        f"{N}.lake.url",
        "names a machine; accepted: file:///folder",
    ),
    "a lake on another machine, with credentials": (
        pipeline(lake="{§url: 'file://me:hunter2@lake/x'}"),
        f"{N}.lake.url",
        "is 'file://***@lake/x'; it names a machine",
    ),
    "a lake at no URL": (pipeline(lake="{§url: 'file://['}"), f"{N}.lake.url", "is not a URL"),
    "a remote lake": (
        pipeline(lake="{§url: 's3://key:hunter2@bucket/x'}"),
        f"{N}.lake.url",
        "is on s3://; this version accepts a path or file://",
    ),
    "delta": (
        pipeline(lake="{url: x, §format: delta}"),
        f"{N}.lake.format",
        "is 'delta'; this version accepts 'parquet'",
    ),
    "a partition twice": (
        pipeline(lake="{url: x, §partition_by: [test_id, test_id]}"),
        f"{N}.lake.partition_by",
        "names a column twice",
    ),
    "an unknown partition": (
        pipeline(lake="{url: x, partition_by: [§month]}"),
        f"{N}.lake.partition_by[0]",
        "is 'month' (did you mean 'start_month'?); accepted: 'test_id', 'start_date'",
    ),
    "a lake in the state directory": (
        pipeline(lake="{§url: .etl/lake}"),
        f"{N}.lake.url",
        "lies in the state directory",
    ),
    "the state directory in a lake": (
        pipeline(lake="{§url: ./x/..}"),
        f"{N}.lake.url",
        "holds the state directory",
    ),
    # connections
    "a connection as number": (pipeline(connections="{§default: 3}"), D, "is 3; accepted: a map"),
    "connections as text": (
        pipeline(connections="x").replace("connections", "§connections"),
        "connections",
        "is 'x'; accepted: a mapping by name",
    ),
    "a rate as number": (default("§rate_limit: 10"), f"{D}.rate_limit", "is 10; accepted: a mapp"),
    "http to the world": (
        default("§api_url: http://api.example.com"),
        f"{D}.api_url",
        "is plain http to 'api.example.com'; accepted: https",
    ),
    "http to what begins as loopback": (
        default("§api_url: http://127.0.0.1.evil.com"),
        f"{D}.api_url",
        "is plain http to '127.0.0.1.evil.com'",
    ),
    "a URL with credentials": (
        default("§token_url: 'https://user:hunter2@example.com'"),
        f"{D}.token_url",
        "holds credentials",
    ),
    "a URL that is none": (default("§api_url: example.com"), f"{D}.api_url", "is not a URL"),
    "a URL with a query": (default("§api_url: 'https://a/?b=c'"), f"{D}.api_url", "has a query"),
    "a URL of no IPv6": (default("§api_url: 'https://['"), f"{D}.api_url", "is not a URL"),
    "a literal secret": (
        default("§client_secret: hunter2"),
        f"{D}.client_secret",
        "a secret stands in the file; accepted: ${VARIABLE}",
    ),
    "a secret as number": (
        default("§client_secret: 4221"),
        f"{D}.client_secret",
        "a secret stands in the file",
    ),
    "a secret as a variable's default": (
        default("§client_secret: '${X:-hunter2}'"),
        f"{D}.client_secret",
        "a secret stands in the file; accepted: ${VARIABLE} alone",
    ),
    "a secret in part": (
        default("§client_secret: 'hunter2${X:-}'"),
        f"{D}.client_secret",
        "a secret stands in the file",
    ),
    "a secret of a connection that nobody uses": (
        pipeline(connections="{other: {§client_secret: hunter2}}"),
        "connections.other.client_secret",
        "a secret stands in the file",
    ),
    "a connection's name but for case": (
        pipeline(connections="{agency: {}, §Agency: {}}"),
        "connections.Agency",
        "differs from 'agency' in case alone",
    ),
    "a connection's bad name": (
        pipeline(connections="{§a b: {}}"),
        "connections.a b",
        "is 'a b'; accepted: letters, digits, _ and -",
    ),
    "http to an address that maps loopback": (
        default("§api_url: 'http://[::ffff:127.0.0.1]'"),
        f"{D}.api_url",
        "is plain http",
    ),
    "a misspelt secret": (
        default("§client_secrt: hunter2"),
        f"{D}.client_secrt",
        "unknown key (did you mean 'client_secret'?)",
    ),
    "too much at once": (default("§concurrency: 65"), f"{D}.concurrency", "is 65; accepted"),
    "no time": (default("§timeout_seconds: 0"), f"{D}.timeout_seconds", "is 0; accepted: greater"),
    "a time of true": (default("§timeout_seconds: true"), f"{D}.timeout_seconds", "is true; it is"),
    "a time without end": (default("§timeout_seconds: .inf"), f"{D}.timeout_seconds", "a finite"),
} | {
    f"{rate} requests": (
        default(f"rate_limit: {{§requests: {rate}}}"),
        f"{D}.rate_limit.requests",
        said,
    )
    for rate, said in {
        "0": "is 0; accepted: greater than or equal to 1",
        "-1": "is -1; accepted: greater than or equal to 1",
        ".nan": "is nan; accepted: a finite number",
        "1e308": "accepted: a whole number",
        "1.5": "is 1.5; accepted: a whole number",
        "true": "is true; it is not a number",
        "ten": "is 'ten'; accepted: a whole number",
        "1" + "0" * 5_000: "accepted: a whole number",
    }.items()
}


def test_the_table_of_mistakes_is_long_enough_to_be_trusted():
    assert len(BAD) >= 45


@pytest.mark.parametrize(("text", "key", "said"), BAD.values(), ids=[name[:40] for name in BAD])
def test_a_mistake_is_refused_with_its_place_its_key_and_the_way_out(text, key, said, loaded):
    marked = text.partition("§")[0]
    line, column = marked.count("\n") + 1, len(marked) - marked.rfind("\n")
    message = refusal(loaded, text.replace("§", ""))
    assert f"pipelines.yaml:{line}:{column}: " in message
    assert key in message and said in message
    assert "hunter2" not in message
    assert len(message) < 1_000


def test_a_mistake_is_told_once_and_does_not_bring_others(loaded):
    for name in ("a malformed UUID", "an unset variable", "an unknown connection", "a bad name"):
        assert refusal(loaded, BAD[name][0].replace("§", "")).count("pipelines.yaml") == 1, name


def test_all_mistakes_are_told_at_once_in_the_files_order(loaded):
    text = pipeline(
        "audit: often",
        "adit: full",
        "connection: agency",
        tests="[x, 3]",
        lake="{url: s3://b, format: delta}",
        connections="{agency: {concurrency: 0, rate_limit: {requests: 0}}, other: {x: '${UNSET}'}}",
    ).replace("version: 1", "version: 3")
    lines = refusal(loaded, text).splitlines()
    places = [tuple(int(part) for part in line.split(":")[1:3]) for line in lines]
    assert places == sorted(places)
    assert len(lines) == 8 and [line for line, _ in places] == [1, 2, 2, 2, 5, 5, 7, 8]


def test_a_key_that_stands_twice_hides_no_other_mistake(loaded):
    lines = refusal(loaded, pipeline("audit: full", "audit: off", "adit: x")).splitlines()
    assert len(lines) == 2
    assert f":7:5: {N}.audit: the key stands twice, first in line 6" in lines[0]
    assert f":8:5: {N}.adit: unknown key" in lines[1]


def test_a_bad_setting_and_a_bad_file_are_told_together(loaded):
    message = refusal(loaded, pipeline("audit: often"), {**CREDENTIALS, "ETL_LOG_LEVEL": "chatty"})
    assert "audit" in message and "ETL_LOG_LEVEL: is 'chatty'; accepted: 'debug'" in message


def test_a_bad_setting_hides_no_missing_credentials(loaded):
    message = refusal(loaded, pipeline(), {"ETL_LOG_LEVEL": "chatty", "ETL_LOG_FORMAT": "xml"})
    assert "ETL_LOG_LEVEL: is" in message and "ETL_LOG_FORMAT: is 'xml'" in message
    assert "set USERTESTING_CLIENT_ID and USERTESTING_CLIENT_SECRET in" in message


def test_a_secret_that_cannot_be_had_is_told_once(loaded):
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_FILE": "none"}
    assert len(refusal(loaded, pipeline(), environ).splitlines()) == 1


# The file as such.


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(ConfigError, match="There is no pipelines file") as caught:
        load(tmp_path / "none.yaml", tables={}, environ={})
    assert "etl init" in str(caught.value) and "none.yaml" in str(caught.value)


def test_a_folder_is_no_pipelines_file(tmp_path):
    with pytest.raises(ConfigError, match="It is a folder, not a file"):
        load(tmp_path, tables={}, environ={})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
@pytest.mark.parametrize("name", ["pipelines.yaml", ".env"])
def test_an_unreadable_file_is_named(name, loaded, tmp_path):
    loaded(pipeline())
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(tmp_path / "pipelines.yaml", tables=tables(), environ=CREDENTIALS)


def test_bytes_that_are_no_text_are_refused(loaded):
    assert "not UTF-8 text (byte 3)" in refusal(loaded, b"abc\xff")


def test_a_dotenv_file_that_is_no_text_is_refused(loaded, tmp_path):
    (tmp_path / ".env").write_bytes(b"A=\xff")
    assert ".env" in refusal(loaded, pipeline())


def test_a_file_beyond_any_use_is_refused(loaded):
    assert "larger than a pipelines file" in refusal(loaded, b"#" * 1_000_001)


def test_an_empty_file_lacks_everything(loaded):
    message = refusal(loaded, "")
    assert "version: is empty; accepted: 1" in message
    assert "pipelines: is empty; accepted: a mapping by name" in message


def test_an_editors_byte_order_mark_is_no_mistake(loaded):
    assert loaded(b"\xef\xbb\xbf" + pipeline().encode()).pipelines


# Where values come from.


def test_the_environment_is_over_dotenv_over_the_file_over_the_default(loaded, tmp_path):
    name, text = "USERTESTING_API_URL", default("api_url: https://file.example")
    assert loaded(pipeline()).connections["default"].api_url.endswith("usertesting.com")
    assert loaded(text).connections["default"].api_url == "https://file.example"
    (tmp_path / ".env").write_text(f"{name}=https://dotenv.example\n")
    assert loaded(text).connections["default"].api_url == "https://dotenv.example"
    environ = {**CREDENTIALS, name: "https://environ.example"}
    assert loaded(text, environ).connections["default"].api_url == "https://environ.example"


def test_any_way_to_set_a_secret_in_the_environment_is_over_every_way_in_dotenv(loaded, tmp_path):
    (tmp_path / ".env").write_text("USERTESTING_CLIENT_SECRET=by-dotenv\n")
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_COMMAND": "echo by-command"}
    assert secret_of(loaded(pipeline(), environ)) == "by-command"


def test_an_empty_variable_does_not_hide_what_dotenv_sets(loaded, tmp_path):
    (tmp_path / ".env").write_text("USERTESTING_CLIENT_SECRET=by-dotenv\nETL_LOG_LEVEL=error\n")
    environ = {**CREDENTIALS, "USERTESTING_CLIENT_SECRET": "", "ETL_LOG_LEVEL": ""}
    config = loaded(pipeline(), environ)
    assert (secret_of(config), config.log_level) == ("by-dotenv", "error")


def test_the_state_directory_of_the_command_line_is_over_all(loaded, tmp_path):
    environ = {**CREDENTIALS, "ETL_STATE_DIR": "by-environ"}
    assert loaded(pipeline(), environ).state_dir == tmp_path / "by-environ"
    config = loaded(pipeline(), environ, state_dir=Path("by-flag"))
    assert config.state_dir == tmp_path / "by-flag"
    assert "holds the state" in refusal(loaded, pipeline(), environ, state_dir=Path("lake/state"))
    sandbox = loaded(pipeline(), environ, state_dir=Path("by-flag"), sandbox=SANDBOX)
    assert sandbox.state_dir == tmp_path / "sandbox/state"


def test_an_empty_setting_counts_as_not_set(loaded):
    environ = {**CREDENTIALS, "USERTESTING_API_URL": "", "ETL_STATE_DIR": "", "ETL_LOG_LEVEL": ""}
    config = loaded(pipeline(), environ)
    assert config.connections["default"].api_url.startswith("https://api.")
    assert (config.state_dir.name, config.log_level) == (".etl", "info")


def test_settings_are_read_without_regard_to_case_or_spaces(loaded):
    environ = {**CREDENTIALS, "ETL_LOG_LEVEL": " DEBUG ", "ETL_LOG_FORMAT": "Json"}
    config = loaded(pipeline(), environ)
    assert (config.log_level, config.log_format) == ("debug", "json")


def test_a_setting_with_a_bad_url_is_named_and_never_echoed(loaded):
    environ = {**CREDENTIALS, "USERTESTING_API_URL": f"https://me:{SECRET}@example.com"}
    message = refusal(loaded, pipeline(), environ)
    assert "USERTESTING_API_URL holds credentials" in message and SECRET not in message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "LOCALHOST"])
def test_plain_http_is_accepted_for_this_machine(host, loaded):
    environ = {**CREDENTIALS, "USERTESTING_API_URL": f"http://{host}:8080"}
    assert loaded(pipeline(), environ).connections["default"].api_url == f"http://{host}:8080"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "localhost.evil.com", "[::]", "127.1.evil.com", "169.254.169.254"]
)
def test_plain_http_is_refused_for_every_other(host, loaded):
    environ = {**CREDENTIALS, "USERTESTING_TOKEN_URL": f"http://{host}:8080"}
    assert "USERTESTING_TOKEN_URL is plain http" in refusal(loaded, pipeline(), environ)


def test_relative_paths_lie_beside_the_file_wherever_one_is(loaded, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / ".env").write_text("USERTESTING_CLIENT_SECRET_FILE=secret\nETL_STATE_DIR=state\n")
    loaded(pipeline())
    monkeypatch.chdir(elsewhere)
    path = Path("../pipelines.yaml")
    config = load(path, tables=tables(), environ={"USERTESTING_CLIENT_ID": "a"})
    lake = config.pipelines["nightly"].lake.path
    assert lake is not None and lake.resolve() == tmp_path.resolve() / "lake"
    assert config.state_dir.resolve() == tmp_path.resolve() / "state"


@pytest.mark.parametrize("url", ["{folder}/a%20b", "file://{folder}/a%2520b"])
def test_an_absolute_lake_stays_where_it_is(url, loaded, tmp_path):
    config = loaded(pipeline(lake=f"{{url: '{url.format(folder=tmp_path)}'}}"))
    assert config.pipelines["nightly"].lake.path == tmp_path / "a%20b"


# Secrets.


def secret_of(config: Config) -> str | None:
    """Return the secret of the default connection."""
    secret = config.connections["default"].client_secret
    return None if secret is None else secret.get_secret_value()


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_file_is_read_without_its_line_end(ending, loaded, tmp_path):
    (tmp_path / "secret").write_bytes(f"{SECRET}{ending}".encode())
    (tmp_path / "secret").chmod(0o600)
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_FILE": "secret"}
    config = loaded(pipeline(), environ)
    assert secret_of(config) == SECRET and not config.warnings


@pytest.mark.parametrize(
    ("content", "mode", "warned"),
    [("A_SECRET=x", 0o644, True), ("A_SECRET=x", 0o600, False), ("A_SECRET=\nB=x", 0o644, False)],
)
def test_secrets_in_a_dotenv_file_that_others_can_read_bring_a_warning(
    content, mode, warned, loaded, tmp_path
):
    (tmp_path / ".env").write_text(content)
    (tmp_path / ".env").chmod(mode)
    assert any("chmod 600" in warning for warning in loaded(pipeline()).warnings) is warned
    assert not loaded(pipeline(), sandbox=SANDBOX).warnings


def test_a_secret_file_that_others_can_read_brings_a_warning(loaded, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o644)
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_FILE": "secret"}
    (warning,) = loaded(pipeline(), environ).warnings
    assert "can be read by others: run `chmod 600" in warning and SECRET not in warning


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"", "is empty"), (b"\xff", "is not text")]
)
def test_a_secret_file_without_a_secret_is_refused(content, said, loaded, tmp_path):
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_FILE": "secret"}
    message = refusal(loaded, pipeline(), environ)
    assert message.startswith("USERTESTING_CLIENT_SECRET_FILE: ") and said in message


def test_a_secret_command_is_run_without_a_shell(loaded):
    command = f"{shlex.quote(sys.executable)} -c \"print('$HOME; {SECRET}')\""
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_COMMAND": command}
    assert secret_of(loaded(pipeline(), environ)) == f"$HOME; {SECRET}"


@pytest.mark.parametrize("command", ["/nowhere/at/all", "false", "true", "'"])
def test_a_secret_command_that_brings_none_is_named_by_its_variable(command, loaded):
    environ = {"USERTESTING_CLIENT_ID": "a", "USERTESTING_CLIENT_SECRET_COMMAND": command}
    message = refusal(loaded, pipeline(), environ)
    assert message.startswith("USERTESTING_CLIENT_SECRET_COMMAND: the command")


def test_the_value_is_over_the_file_over_the_command(loaded, tmp_path):
    (tmp_path / "secret").write_text("by-file")
    environ = {
        **CREDENTIALS,
        "USERTESTING_CLIENT_SECRET_FILE": "secret",
        "USERTESTING_CLIENT_SECRET_COMMAND": "echo by-command",
    }
    assert secret_of(loaded(pipeline(), environ)) == SECRET
    del environ["USERTESTING_CLIENT_SECRET"]
    assert secret_of(loaded(pipeline(), environ)) == "by-file"


def test_missing_credentials_are_named_with_the_variables_that_are_never_read(loaded):
    message = refusal(loaded, pipeline(), {"CLIENT_ID": "theirs", "CLIENT_SECRET": SECRET})
    assert "set USERTESTING_CLIENT_ID and USERTESTING_CLIENT_SECRET in" in message
    assert "(CLIENT_ID and CLIENT_SECRET are set, but never read)" in message
    assert SECRET not in message and "theirs" not in message
    message = refusal(loaded, pipeline(), {"USERTESTING_CLIENT_ID": "a"})
    assert "set USERTESTING_CLIENT_SECRET in" in message and "never read" not in message
    assert loaded(pipeline(), {}, require_credentials=False).pipelines


def test_a_connections_own_credentials_win_and_settings_fill_in_the_rest(loaded):
    text = pipeline("connection: agency", connections="{agency: {client_secret: '${AGENCY}'}}")
    agency = loaded(text, {**CREDENTIALS, "AGENCY": "own"}).connections["agency"]
    assert agency.client_id is not None and agency.client_secret is not None
    assert agency.client_id.get_secret_value() == "an-id"
    assert agency.client_secret.get_secret_value() == "own"


def test_no_secret_is_in_what_a_config_shows(loaded):
    config = loaded(pipeline())
    assert secret_of(config) == SECRET
    for shown in (repr(config), str(config), config.model_dump_json(), f"{config.connections}"):
        assert SECRET not in shown


HASHING = pipeline("columns: {sessions: {hash: [session_id]}}")


def test_a_pipeline_that_hashes_needs_a_key_and_no_other_does(loaded):
    message = refusal(loaded, HASHING)
    assert "ETL_HASH_KEY is not set, and a pipeline hashes columns" in message
    assert "openssl rand -hex 32" in message
    assert loaded(HASHING, require_credentials=False).hash_key is None
    assert loaded(HASHING, sandbox=SANDBOX).hash_key is not None
    assert loaded(pipeline("columns: {sessions: {exclude: [audience_id]}}")).pipelines


@pytest.mark.parametrize(("key", "enough"), [("k" * 15, False), ("k" * 16, True), ("é" * 8, True)])
def test_a_hash_key_that_could_be_guessed_is_refused_and_never_shown(key, enough, loaded):
    environ = {**CREDENTIALS, "ETL_HASH_KEY": key}
    if enough:
        assert key not in repr(loaded(HASHING, environ))
    else:
        message = refusal(loaded, HASHING, environ)
        assert "ETL_HASH_KEY is too short; accepted: 16 bytes or more" in message
        assert key not in message


@pytest.mark.parametrize("way", ["_FILE", "_COMMAND"])
def test_a_hash_key_may_come_from_a_file_or_a_command(way, loaded, tmp_path):
    (tmp_path / "key").write_text(f"{SECRET}\n")
    (tmp_path / "key").chmod(0o600)
    told = {"_FILE": "key", "_COMMAND": f"cat {tmp_path / 'key'}"}[way]
    key = loaded(HASHING, {**CREDENTIALS, f"ETL_HASH_KEY{way}": told}).hash_key
    assert key is not None and key.get_secret_value() == SECRET
    message = refusal(loaded, HASHING, {**CREDENTIALS, f"ETL_HASH_KEY{way}": "nowhere"})
    assert message.count("ETL_HASH_KEY") == 1 and f"ETL_HASH_KEY{way}: " in message


@dataclass
class Known:
    """A table, as far as the configuration knows one."""

    columns: list[Column]
    key: tuple[str, ...] = ("session_id",)
    dates: None = None
    by_session: bool = False
    lists_files: bool = False
    files: None = None


@pytest.mark.parametrize(
    ("columns", "clear"),
    [
        ("{a: {hash: [session_id]}}", "'session_id' stands in clear in b"),
        ("{b: {hash: [participant_id]}, a: {exclude: [name]}}", None),
        ("{a: {hash: [session_id]}, b: {hash: [session_id]}}", None),
        ("{a: {hash: [name]}}", None),
    ],
)
def test_an_id_that_is_hashed_in_one_table_and_clear_in_another_is_refused(
    columns, clear, tmp_path
):
    def known(*names: str) -> Known:
        return Known([Column(name, pa.string(), "") for name in names])

    found = {"a": known("session_id", "name"), "b": known("session_id", "participant_id", "name")}
    path = tmp_path / "pipelines.yaml"
    path.write_text(pipeline("tables: [a, b]", f"columns: {columns}"))
    environ = {**CREDENTIALS, "ETL_HASH_KEY": SECRET}
    if clear is None:
        assert load(path, tables=found, environ=environ).pipelines
    else:
        with pytest.raises(ConfigError, match=clear):
            load(path, tables=found, environ=environ)


# Variables.


def test_variables_are_filled_in_from_environment_and_dotenv(loaded, tmp_path):
    (tmp_path / ".env").write_text("FOLDER=from-dotenv\nDEPTH=off\n")
    text = pipeline("audit: ${DEPTH}", lake="{url: './${FOLDER}/${SUB:-x}${EMPTY:-y}'}")
    nightly = loaded(text, {**CREDENTIALS, "DEPTH": "full", "EMPTY": ""}).pipelines["nightly"]
    assert nightly.audit == "full"
    assert nightly.lake.path == tmp_path / "from-dotenv/xy"


def test_numbers_may_come_from_variables(loaded):
    text = default(
        "concurrency: '${N}', timeout_seconds: '${T}', rate_limit: {requests: '${R:-5}'}"
    )
    connection = loaded(text, {**CREDENTIALS, "N": "3", "T": "1.5"}).connections["default"]
    assert (connection.concurrency, connection.timeout_seconds) == (3, 1.5)
    assert connection.rate_limit.requests == 5


@pytest.mark.parametrize("value", ["a\nb: c", "a}b", "${OTHER}", "${VALUE}", "$$", "*x", "!!int"])
def test_what_a_variable_holds_is_text_and_not_looked_at_again(value, loaded):
    text = default("scope: 'x${VALUE}y'")
    config = loaded(text, {**CREDENTIALS, "VALUE": value, "OTHER": "z"})
    assert config.connections["default"].scope == f"x{value}y"


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_text_is_filled_in_once_or_refused(text, value):
    try:
        filled = interpolated(text, {"A": value})
    except Unset:
        assert "${" in text
    else:
        assert filled == text or "${" in text


def test_variables_are_needed_only_by_what_runs(loaded):
    other = f"  other: {{connection: agency, tests: [{TEST}], lake: {{url: '${{UNSET}}'}}}}\n"
    text = pipeline(connections="{agency: {client_secret: '${ALSO_UNSET}'}}") + other
    config = loaded(text, pipelines=["nightly"])
    assert list(config.pipelines) == ["nightly"] and list(config.connections) == ["default"]
    message = refusal(loaded, text)
    assert "${UNSET} is not set" in message and "${ALSO_UNSET} is not set" in message


def test_a_typo_is_refused_also_where_nothing_runs(loaded):
    other = f"  other:\n    tests: [{TEST}]\n    adit: full\n    lake: {{url: '${{UNSET}}'}}\n"
    text = pipeline(connections="{spare: {scop: x, api_url: '${UNSET}'}}") + other
    lines = refusal(loaded, text, pipelines=["nightly"]).splitlines()
    assert len(lines) == 2
    assert ":2:23: connections.spare.scop: unknown key (did you mean 'scope'?)" in lines[0]
    assert ":9:5: pipelines.other.adit: unknown key (did you mean 'audit'?)" in lines[1]


def test_what_this_version_cannot_do_is_no_mistake_where_it_does_not_run(loaded):
    later = f"  later: {{tests: [{TEST}], lake: {{url: 's3://b', format: delta}}}}\n"
    assert list(loaded(pipeline() + later, pipelines=["nightly"]).pipelines) == ["nightly"]
    assert "format: is 'delta'" in refusal(loaded, pipeline() + later)


@pytest.mark.parametrize("line", ["audit: ${V}", "tables: ['${V}']", "connection: ${V}"])
def test_what_a_variable_holds_is_never_shown(line, loaded):
    message = refusal(loaded, pipeline(line), {**CREDENTIALS, "V": SECRET})
    assert "'${V}' (filled in)" in message and SECRET not in message


@pytest.mark.parametrize(
    ("expression", "endless"),
    [
        *(
            (text, True)
            for text in ("((a+))+", "(?:(a*)b?)+", "(a|b+c)*", "(a{1,}){9}", "(a+){2,}")
        ),
        *((text, False) for text in (r"(a\+b)+", "([+*]x)+", r"(\d{4}-)+", "(ab)+c*", "[]+(]a+")),
    ],
)
def test_a_repetition_of_a_repetition_is_found_however_deep(expression, endless, loaded):
    text = pipeline(tests=f"{{title_matches: '{expression}'}}")
    if endless:
        assert "repeats a repetition" in refusal(loaded, text)
    else:
        assert loaded(text).pipelines


def test_the_name_of_a_connection_may_come_from_a_variable(loaded):
    text = pipeline("connection: ${WHOSE:-agency}", connections="{agency: {scope: own}}")
    config = loaded(text)
    assert config.connections[config.pipelines["nightly"].connection].scope == "own"


def test_an_unknown_pipeline_is_answered_with_those_that_there_are(loaded):
    message = refusal(loaded, pipeline(), pipelines=["nigtly", "x"])
    assert "unknown pipeline 'nigtly' (did you mean 'nightly'?); the file has: nightly" in message
    assert "unknown pipeline 'x'" in message


# The sandbox.


def test_in_the_sandbox_nothing_of_the_real_world_is_needed_or_used(loaded, tmp_path):
    settings = (
        "api_url: 'http://evil.com', client_secret: '${NO}', scope: '${NO}', concurrency: '${NO}'"
    )
    text = pipeline(
        "connection: agency",
        lake="{url: 's3://${NO_BUCKET}/x', format: delta, partition_by: []}",
        connections=f"{{agency: {{{settings}}}}}",
    )
    environ = {"USERTESTING_API_URL": "http://evil.com", "USERTESTING_CLIENT_SECRET_COMMAND": "'"}
    config = loaded(text, {**environ, "ETL_STATE_DIR": "real"}, sandbox=SANDBOX)
    agency, lake = config.connections["agency"], config.pipelines["nightly"].lake
    assert (agency.api_url, agency.token_url) == (SANDBOX.api_url, SANDBOX.token_url)
    assert agency.client_id is not None and agency.client_id.get_secret_value() == "s"
    assert (lake.path, lake.partition_by) == (tmp_path / "sandbox/lake", ())
    assert config.state_dir == tmp_path / "sandbox/state"


def test_in_the_sandbox_logs_are_still_as_one_wants_them(loaded):
    config = loaded(pipeline(), {"ETL_LOG_LEVEL": "error"}, sandbox=SANDBOX)
    assert config.log_level == "error"


def test_in_the_sandbox_mistakes_are_still_told(loaded):
    message = refusal(loaded, default("concurrency: 0"), sandbox=SANDBOX)
    assert "connections.default.concurrency: is 0" in message


# Any text at all.

PIECES = st.sampled_from(
    [
        *" \t\n:-{}[],&*!|>'\"#%@?~",
        *("${", "}", "<<", "a", "1", "---", "...", "\u2028", "\0", "&a ", "*a"),
        *("!!bool x", "!!timestamp 2", "!!int _", "!!float .", "!!null 1", "!!binary x"),
        *("version: 1\n", "pipelines:\n", "  n:\n", "    tests: [x]\n", "    lake: {url: x}\n"),
        *("connections:\n", "  default:\n", "    rate_limit: "),
    ]
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all examples of a search share."""
    return tmp_path_factory.mktemp("scratch")


@given(text=st.text() | st.lists(PIECES, max_size=30).map("".join))
def test_any_text_is_a_config_or_refused(scratch, text):
    path = scratch / "pipelines.yaml"
    path.write_bytes(text.encode("utf-8", "replace"))
    with suppress(ConfigError):
        load(path, tables=tables(), environ=CREDENTIALS)


VALUES = st.recursive(
    st.sampled_from(["null", "true", "1", "-1", "1.5", "''", "x", "'${A}'", "0x1", '"\\ud800"'])
    | st.sampled_from(['"\\0"', ".inf", "2024-02-30", TEST, "file://[", "all", ".", "/", "1e9999"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["a", "url", "name", "requests"]), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {item}" for key, item in items.items()) + "}"
        )
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["connection", "tables", "audit", "pagination", "keep_bodies", "edited", "columns"]
)


@given(tests=VALUES, lake=VALUES, key=KEYS, value=VALUES, connection=VALUES)
def test_any_value_anywhere_is_a_config_or_refused(scratch, tests, lake, key, value, connection):
    path = scratch / "pipelines.yaml"
    connections = f"{{default: {connection}, x: {{rate_limit: {value}, scope: {connection}}}}}"
    path.write_text(pipeline(f"{key}: {value}", tests=tests, lake=lake, connections=connections))
    for sandbox in (None, SANDBOX):
        with suppress(ConfigError):
            load(path, tables=tables(), environ=CREDENTIALS, sandbox=sandbox)


# What is given to start from.


def test_the_committed_example_loads():
    config = load(ROOT / "pipelines.yaml", tables=tables(), environ=CREDENTIALS)
    assert config.pipelines["nightly"].tables == ("sessions",)


def test_the_templates_load_once_they_are_filled_in(tmp_path):
    path = tmp_path / "pipelines.yaml"
    path.write_text(pipelines_template().replace("00000000-0000-0000-0000-000000000000", TEST))
    filled = (
        env_template().replace("_ID=\n", "_ID=me\n").replace("_SECRET=\n", f"_SECRET={SECRET}\n")
    )
    (tmp_path / ".env").write_text(filled)
    config = load(path, tables=tables(), environ={})
    assert config.pipelines["nightly"].tests == (TEST,) and secret_of(config) == SECRET
    (tmp_path / ".env").write_text(env_template())
    with pytest.raises(ConfigError, match="has no credentials"):
        load(path, tables=tables(), environ={})


def test_what_the_templates_have_in_comments_is_right_too(loaded):
    text = pipelines_template().replace("# connections:", "connections:")
    for line in ("  default:", "    rate_limit:"):
        text = text.replace(f"# {line}", line)
    assert loaded(text).connections["default"].rate_limit.requests == 10


def properties(schema: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return the schema below these keys, following references."""
    for key in path:
        schema = schema["properties"].get(key) or schema["additionalProperties"]
        schema = schema.get("additionalProperties", schema)
        if "$ref" in schema:
            schema = json_schema()["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def test_the_json_schema_knows_the_keys_of_the_committed_file_and_no_others():
    schema = json_schema()
    assert schema["additionalProperties"] is False
    keys = {
        ("connections",): {"rate_limit", "concurrency", "timeout_seconds"},
        ("pipelines",): {"connection", "tests", "tables", "audit", "pagination", "lake"},
        ("pipelines", "pagination"): {"style", "rows_per_page", "first_page"},
        ("pipelines", "lake"): {"url", "partition_by"},
    }
    text = (ROOT / "pipelines.yaml").read_text()
    for path, expected in keys.items():
        part = properties(schema, *path)
        assert expected <= part["properties"].keys() and part["additionalProperties"] is False
        assert "name" not in part["properties"]
        assert all(f"{key}:" in text for key in expected)
    assert sorted(properties(schema, "pipelines")["required"]) == ["lake", "tests"]


def test_every_setting_is_described():
    def described(part: dict[str, Any]) -> bool:
        return all("description" in field for field in part.get("properties", {}).values())

    assert all(described(part) for part in json_schema()["$defs"].values())


def test_reading_the_configuration_loads_neither_arrow_nor_http():
    rooms = ["connections", "load", "loading", "models", "schema", "settings", "templates"]
    code = "import sys\n" + "".join(f"import etl.config.{room}\n" for room in rooms)
    code += "assert not {'pyarrow', 'aiohttp'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
