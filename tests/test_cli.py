"""The command line keeps the contract: results, exit codes, and no word too many."""

import json
import os
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.cli.durations import seconds_of
from etl.errors import UsageError
from tests.forks import MODULE, run_etl

TEST = "82629d39-c9b5-4acc-8edc-0f2e34c0b07c"
OTHER = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
SCRIPT = Path(sysconfig.get_path("scripts")) / "etl"
OURS = ("USERTESTING_", "ETL_", "CLIENT_")


@dataclass
class Shell:
    """Runs `etl` in a folder, with nothing of ours in the environment but what is told."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str, command: tuple[str, ...] = MODULE, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        environment = self.environment(environ)
        if command == MODULE:
            return run_etl(arguments, environ=environment, folder=self.folder)
        return subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        return {**kept, "TERM": "dumb", **self.environ, **(more or {})}

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Return the one JSON object that a command prints, and nothing else there."""
        done = self(*arguments)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def refused(self, *arguments: str, code: int = 2, **environ: str) -> str:
        """Return what a command says that must fail as a person can understand."""
        done = self(*arguments, command=MODULE, **environ)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr and "This is a bug" not in done.stderr
        assert done.stderr.strip()
        return done.stderr

    def write(self, *more: str, tests: tuple[str, ...] = (TEST, OTHER)) -> Path:
        """Write a pipelines file with one pipeline."""
        path = self.folder / "pipelines.yaml"
        path.write_text(
            f"version: 1\npipelines:\n  nightly:\n    tests: [{', '.join(tests)}]\n"
            "    lake: {url: ./lake}\n" + "".join(f"    {line}\n" for line in more)
        )
        return path

    def files(self) -> set[str]:
        """Return what lies in the folder."""
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def etl(tmp_path: Path) -> Shell:
    """Return a shell in an empty folder."""
    return Shell(tmp_path)


@pytest.fixture
def project(etl: Shell) -> Shell:
    """Return a shell in a folder with a pipelines file."""
    etl.write()
    return etl


# The first minute.


@pytest.mark.parametrize("command", [(str(SCRIPT),), (f"{SCRIPT.parent}/usertesting-etl",), MODULE])
def test_every_name_of_the_command_tells_its_version(command, etl):
    done = etl("--version", command=command)
    assert (done.returncode, done.stderr) == (0, "")
    name, version = done.stdout.split()
    assert name == "etl" and version.count(".") == 2


@pytest.mark.parametrize("argument", ["--help", "--version", "-h"])
def test_help_and_version_import_nothing_heavy(argument, etl):
    done = etl(argument, command=(sys.executable, "-X", "importtime", "-m", "etl"))
    imported = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")
    }
    assert done.returncode == 0 and "typer" in imported
    assert not imported & {"pyarrow", "aiohttp", "pydantic", "ruamel", "duckdb"}


def test_commands_that_ask_nothing_import_no_client(etl):
    code = (
        "import sys, etl.cli.looking, etl.cli.mending, etl.cli.planning, etl.cli.rebuilding\n"
        "print('pyarrow' in sys.modules, 'aiohttp' in sys.modules)"
    )
    assert etl(command=(sys.executable, "-c", code)).stdout == "True False\n"


def test_help_names_every_command_and_each_has_its_own(etl):
    text = etl("--help").stdout
    named = ("init", "run", "plan", "check", "peek", "verify", "reset", "status", "discover")
    for command in (*named, "schema", "sandbox"):
        assert f" {command} " in text
    run = etl("run", "--help", COLUMNS="200").stdout
    for option in ("sandbox", "full", "test", "table", "max-runtime", "max-requests", "json"):
        assert f"--{option} " in run
    for option in ("fail-if-paused", "events", "quiet", "wait-for-lock"):
        assert f"--{option} " in run


def test_without_a_command_there_is_help(etl):
    assert "Usage" in etl().stdout + etl().stderr


def test_init_writes_files_to_start_from_and_never_overwrites(etl):
    done = etl("init")
    assert (done.returncode, done.stdout) == (0, "")
    assert etl.files() == {"pipelines.yaml", ".env"}
    assert stat.S_IMODE((etl.folder / ".env").stat().st_mode) == 0o600
    for path in etl.folder.iterdir():
        path.write_text("mine")
    done = etl("init")
    assert done.returncode == 0 and done.stderr.count("left as it is") == 2
    assert [path.read_text() for path in etl.folder.iterdir()] == ["mine", "mine"]


def test_init_writes_what_is_missing_beside_the_file_that_is_named(etl):
    (etl.folder / "conf").mkdir()
    (etl.folder / "conf/.env").write_text("mine")
    assert etl("init", "--config", "conf/p.yaml").returncode == 0
    assert "version: 1" in (etl.folder / "conf/p.yaml").read_text()
    assert (etl.folder / "conf/.env").read_text() == "mine"
    assert "cannot be written" in etl.refused("init", "--config", "nowhere/p.yaml")


def test_what_init_writes_runs_in_the_sandbox_at_once(etl):
    etl("init")
    report = etl.json("run", "--sandbox", "--json")
    assert report["status"] == "complete" and report["pipelines"][0]["name"] == "nightly"
    assert "has no credentials: set USERTESTING_CLIENT_ID" in etl.refused("run")


def test_schema_shows_columns_types_and_meaning(etl):
    done = etl("schema", "sessions")
    assert done.returncode == 0
    for column in ("test_id", "session_id", "finish_time", "_run_id", "_fetched_at", "_extra"):
        assert column in done.stdout
    told = etl.json("schema", "--json")["tables"]
    assert {"sessions", "rejects"} <= {table["name"] for table in told}
    for table in told:
        assert table["key"] and all(all(column.values()) for column in table["columns"])
    assert len(etl.json("schema", "sessions", "--json")["tables"]) == 1
    assert "There is no table 'x'" in etl.refused("schema", "x")


def test_schema_of_the_config_is_a_json_schema(etl):
    schema = etl.json("schema", "--config")
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert set(schema["properties"]) == {"version", "connections", "pipelines"}


# Running.


def test_a_run_prints_exactly_one_json_object_with_the_contracts_keys(project):
    report = project.json("run", "--sandbox", "--json")
    assert report.keys() >= {"run_id", "status", "started_at", "duration_seconds", "pipelines"}
    assert report.keys() >= {"requests", "token_grants", "rate_limit", "schema_version"}
    assert (report["status"], report["schema_version"], report["token_grants"]) == (
        "complete",
        1,
        1,
    )
    assert "stopped_because" not in report
    assert report["requests"].keys() == {"total", "by_status", "retried", "throttled"}
    assert report["rate_limit"].keys() == {"limit", "window_seconds", "utilisation"}
    (nightly,) = report["pipelines"]
    assert nightly.keys() >= {"name", "tests", "rows", "files", "bytes", "failed"}
    assert (nightly["tests"], nightly["failed"]) == (2, []) and nightly["rows"]["sessions"] > 0
    kept = json.loads((project.folder / "sandbox/state/last_run.json").read_text())
    assert kept == report
    assert project.files() == {"pipelines.yaml", "sandbox"}


def test_status_and_plan_tell_nothing_before_and_everything_after_a_run(project):
    assert project.json("status", "--json")["pipelines"][0]["runs"] == []
    before = project.json("plan", "--json")["pipelines"][0]
    assert (before["tests"], before["unknown_tests"]) == (2, 2)
    assert project.files() == {"pipelines.yaml"}, "looking writes nothing"
    report = project.json("run", "--sandbox", "--json")
    # The sandbox keeps its state apart: that is where one looks for it.
    project.environ["ETL_STATE_DIR"] = "sandbox/state"
    after = project.json("status", "--json")["pipelines"][0]
    told = [(run["run_id"], run["status"]) for run in after["runs"]]
    assert told == [(report["run_id"], "complete")]
    assert after["rows"] == report["pipelines"][0]["rows"]["sessions"]
    assert {test["test_id"] for test in after["tests"]} == {TEST, OTHER}
    assert all(test["verified_at"] for test in after["tests"])
    assert project.json("plan", "--json")["pipelines"][0]["unknown_tests"] == 0
    assert "rows landed of 2 tests" in project("status", "nightly").stderr
    assert "token grants" in project("plan").stdout


def test_a_second_run_lands_nothing_and_quiet_says_nothing(project):
    first = project("run", "--sandbox")
    assert first.returncode == 0 and "nightly" in first.stdout
    second = project("run", "--sandbox", "--quiet")
    assert (second.returncode, second.stdout) == (0, "")
    report = project.json("run", "--sandbox", "--json")
    assert sum(report["pipelines"][0]["rows"].values()) == 0


def test_events_are_json_lines_with_the_contracts_names(project):
    done = project("run", "--sandbox", "--quiet", "--events", "events.jsonl")
    assert done.returncode == 0
    events = [
        json.loads(line) for line in (project.folder / "events.jsonl").read_text().splitlines()
    ]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("run_started", "run_finished")
    contract = {"run_started", "page_landed", "waiting", "token_renewed", "test_done"}
    assert set(names) <= {*contract, "run_finished", "throttled"}
    assert {"token_renewed", "page_landed", "test_done"} <= set(names)
    assert names.count("test_done") == 2
    assert all(event["time"].endswith("+00:00") for event in events)
    project("run", "--sandbox", "--quiet", "--events", "events.jsonl")
    assert (project.folder / "events.jsonl").read_text().count("run_started") == 2, "it adds"


def test_events_may_go_to_stderr_beside_the_json(project):
    done = project("run", "--sandbox", "--json", "--events", "-")
    assert json.loads(done.stdout)["status"] == "complete"
    assert '{"event": "run_started"' in done.stderr


def test_a_budget_pauses_and_says_so(project):
    project.write(tests=(TEST, OTHER))
    report = project.json("run", "--sandbox", "--json", "--max-requests", "1")
    assert (report["status"], report["stopped_because"]) == ("paused", "max_requests")
    done = project("run", "--sandbox", "--max-requests", "1", "--fail-if-paused", "--full")
    assert done.returncode == 6


def test_one_test_can_be_asked_alone(project):
    project("run", "--sandbox", "--test", TEST.upper(), "--table", "sessions")
    status = project("status", "--json", ETL_STATE_DIR="sandbox/state").stdout
    tests = json.loads(status)["pipelines"][0]["tests"]
    assert [test["test_id"] for test in tests if test["looked_at"]] == [TEST]


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "No such command"),
        (("run", "--nothing"), "No such option"),
        (("run", "--sandbox", "nigtly"), "unknown pipeline 'nigtly' (did you mean 'nightly'?)"),
        (("run", "--sandbox", "--test", "x"), "x"),
        (("run", "--sandbox", "--test", TEST.replace("8", "7")), "test"),
        (("run", "--sandbox", "--table", "nothing"), "nothing"),
        (("run", "--sandbox", "--max-runtime", "soon"), "--max-runtime 'soon' is not a duration"),
        (("run", "--sandbox", "--wait-for-lock", "-1"), "--wait-for-lock '-1' is not a duration"),
        (("run", "--sandbox", "--max-requests", "0"), "--max-requests"),
        (("run", "--sandbox", "--events", "no/where"), "events file cannot be opened"),
        (("run", "--sandbox", "--json", "nothing"), "unknown pipeline"),
        (("run",), "has no credentials: set USERTESTING_CLIENT_ID and USERTESTING_CLIENT_SECRET"),
        (("check",), "has no credentials"),
        (("peek", TEST), "has no credentials"),
        (("peek", "x"), "'x' is not a test id"),
        (("peek", TEST, "--table", "nothing"), "There is no table 'nothing'"),
        (("peek",), "Missing argument"),
        (("status", "nothing"), "unknown pipeline 'nothing'"),
        (("plan", "nothing"), "unknown pipeline 'nothing'"),
        (("schema", "nothing"), "There is no table 'nothing'"),
        (("sandbox", "--rate-limit", "many"), "--rate-limit 'many' is not N/SECONDS"),
        (("sandbox", "--rate-limit", "1/0"), "is not N/SECONDS"),
        (("sandbox", "--port", "65536"), "--port"),
        (("--config", "none.yaml", "run"), "There is no pipelines file"),
        (("run", "--config", "."), "It is a folder, not a file"),
    ],
    ids=" ".join,
)
def test_a_mistake_is_said_in_words_and_exits_2(arguments, said, project):
    text = " ".join(project.refused(*arguments).replace("│", "").split())
    assert said in text
    assert not {".etl", "lake"} & project.files()


def test_a_mistake_in_the_file_is_shown_with_its_place(project):
    project.write("audit: often", "pagination: {stile: page}")
    text = project.refused("run", "--sandbox", "--json")
    assert "pipelines.yaml:6:5: pipelines.nightly.audit: is 'often'" in text
    assert "pipelines.yaml:7:18: pipelines.nightly.pagination.stile: unknown key (did you" in text


def test_a_setting_that_cannot_be_is_a_mistake_too(project):
    assert "ETL_LOG_LEVEL" in project.refused("status", ETL_LOG_LEVEL="chatty")


def test_foreign_text_in_a_message_cannot_move_the_cursor(project):
    assert "\x1b" not in project.refused("status", "\x1b[2Jx")


def test_a_reader_that_leaves_early_is_no_mistake(project):
    command = [*MODULE, "schema", "--json"]
    with subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), stdout=-1, stderr=-1
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


# Which file, which program.


def test_the_config_may_be_named_before_and_after_the_command_and_in_the_environment(etl):
    etl.write().rename(etl.folder / "other.yaml")
    for arguments in (("--config", "other.yaml", "plan"), ("plan", "--config", "other.yaml")):
        assert etl.json(*arguments, "--json")["pipelines"][0]["name"] == "nightly"
    assert etl("plan", ETL_CONFIG="other.yaml").returncode == 0
    assert etl("plan", "--config", "other.yaml", ETL_CONFIG="none.yaml").returncode == 0
    assert etl("--config", "other.yaml", "plan", ETL_CONFIG="none.yaml").returncode == 0
    assert "none.yaml" in etl.refused("plan", "--config", "none.yaml", ETL_CONFIG="other.yaml")


def test_everything_lies_beside_the_file_and_not_where_one_stands(etl):
    path = etl.write()
    elsewhere = Shell(etl.folder / "elsewhere")
    elsewhere.folder.mkdir()
    assert elsewhere("run", "--sandbox", "--config", str(path)).returncode == 0
    assert elsewhere.files() == set()
    assert (etl.folder / "sandbox/lake/sessions").is_dir()


def test_a_folder_named_etl_does_not_disturb_the_command(project):
    (project.folder / "etl").mkdir()
    (project.folder / "etl/__init__.py").write_text("raise SystemExit('theirs')")
    done = project("run", "--sandbox", "--json", command=(str(SCRIPT),))
    assert done.returncode == 0 and json.loads(done.stdout)["status"] == "complete"


# Durations.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90), ("90s", 90), ("50m", 3_000), ("1h30m", 5_400), ("1.5h", 5_400)),
        *(("2d", 172_800), ("0", 0), (" 5M ", 300)),
    ],
)
def test_a_duration_is_read_as_people_write_it(text, seconds):
    assert seconds_of(text, "--max-runtime") == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 m", "1h30", "5x", "nan", "inf", "9" * 50])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match=r"--max-runtime .* is not a duration"):
        seconds_of(text, "--max-runtime")


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_refused(text):
    try:
        seconds = seconds_of(text, "--max-runtime")
    except UsageError:
        return
    assert seconds is not None and seconds >= 0


# Against a sandbox in a process of its own.


@pytest.fixture
def served(project: Shell) -> Iterator[Shell]:
    """Return a shell whose environment is what `etl sandbox` says."""
    command = [*MODULE, "sandbox", "--port", "0", "--tests", "2", "--sessions", "30"]
    with subprocess.Popen(
        command,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(11)]  # 2 tests and 4 classic ones
        for line in lines[:4]:
            name, _, value = line.removeprefix("export ").strip().partition("=")
            project.environ[name] = value
        assert all(line.startswith("# test ") for line in lines[4:10])
        assert lines[10].startswith("# GET /api/")
        yield project
        process.terminate()


def test_check_and_peek_and_run_work_against_a_server(served):
    done = served("check")
    assert done.returncode == 0, done.stderr
    assert "accepted" in done.stderr and "30 sessions" in done.stderr
    assert "can be written" in done.stderr and done.stdout == ""
    peeked = served.json("peek", TEST, "--json")
    assert (peeked["table"], peeked["test_id"], len(peeked["rows"])) == ("sessions", TEST, 25)
    assert {"session_id", "status", "start_time"} <= peeked["rows"][0].keys()
    assert "25 of 30 rows" in served("peek", TEST.upper()).stderr
    assert not list(served.folder.glob("lake/**/*.parquet")), "nothing was landed"
    report = served.json("run", "--json")
    assert report["pipelines"][0]["rows"] == {"sessions": 60}
    assert report["rate_limit"]["limit"] == 10


def test_refused_credentials_exit_3_and_are_never_shown(served):
    secret = "hunter2-and-more"
    for arguments in (("check",), ("peek", TEST), ("run",)):
        done = served(*arguments, USERTESTING_CLIENT_SECRET=secret)
        assert done.returncode == 3, done.stderr
        assert secret not in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_server_that_is_not_there_is_said_in_words(served):
    done = served("peek", TEST, USERTESTING_API_URL="http://127.0.0.1:1")
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr and "127.0.0.1:1" in done.stderr


def test_a_port_that_is_taken_is_a_mistake(served):
    port = served.environ["USERTESTING_API_URL"].rpartition(":")[2]
    assert f"cannot listen on port {port}" in served.refused("sandbox", "--port", port)
