"""Puts the configuration together, and reports every mistake at once.

Precedence: command line, environment, `.env`, pipelines file, default. A connection's
own credentials win for that connection; USERTESTING_* fill in what it leaves out. Only
the pipelines that run, and the connections they use, are filled in and must be whole.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from etl.config.checks import connection_mistakes, pipeline_mistakes
from etl.config.interpolation import Unset, interpolated, names_in
from etl.config.mistakes import Mistake, did_you_mean
from etl.config.models import Config, Connection, Pipeline
from etl.config.settings import Settings, read_settings, variables_of
from etl.config.validation import shown, validated
from etl.config.yaml_source import KeyPath, Plain, Source, read_source
from etl.errors import ConfigError

_TOP_KEYS: Final = ("version", "connections", "pipelines")


@dataclass(frozen=True, slots=True)
class SandboxCredentials:
    """Where the sandbox of this run is, and what it accepts."""

    api_url: str
    token_url: str
    client_id: str
    client_secret: str


@dataclass(slots=True)
class _Loading:
    """What is known while a file is put together."""

    source: Source
    variables: Mapping[str, str]
    settings: Settings
    folder: Path
    state_dir: Path
    tables: Collection[str]
    sandbox: SandboxCredentials | None
    mistakes: list[Mistake] = field(default_factory=list)
    used: dict[str, list[KeyPath]] = field(default_factory=dict)  # connections, by whom
    unfilled: set[KeyPath] = field(default_factory=set)

    def mistake(self, path: KeyPath, what: str) -> None:
        """Note a mistake at a key path; where a variable is missing, that one is enough."""
        if path in self.unfilled:
            return
        line, column = self.source.place(path)
        self.mistakes.append(Mistake(self.source.path, line, column, path, what))


def load(
    path: Path,
    *,
    pipelines: Sequence[str] = (),
    tables: Collection[str],
    environ: Mapping[str, str],
    sandbox: SandboxCredentials | None = None,
    require_credentials: bool = True,
) -> Config:
    """Return the configuration for running these pipelines (all, if none is named).

    `tables` are the tables that exist. With `sandbox`, credentials, URLs and variables of
    connections are ignored, and lake and state lie in `sandbox/` beside the file.
    Raises ConfigError with every mistake: file, line, column, key, found, accepted.
    """
    source = read_source(path)
    folder = path.parent.absolute()
    variables = variables_of(environ, folder)
    settings, complaints, warnings = read_settings(
        {
            name: value
            for name, value in variables.items()
            if not sandbox or name.startswith("ETL_")
        },
        folder,
    )
    state = folder / (settings.state_dir or Path(".etl"))
    if sandbox is not None:
        state = folder / "sandbox" / "state"
    loading = _Loading(source, variables, settings, folder, state, tables, sandbox)
    found = _pipelines(loading, pipelines)
    connections = _connections(loading)
    if require_credentials and not complaints:
        complaints += _missing_credentials(connections, variables)
    if loading.mistakes or complaints:
        lines = [str(mistake) for mistake in sorted(loading.mistakes)] + complaints
        raise ConfigError("\n".join(lines))
    return Config(
        path=path,
        state_dir=state,
        log_format=settings.log_format,
        log_level=settings.log_level,
        pipelines=found,
        connections=connections,
        warnings=tuple(warnings),
    )


def _section(loading: _Loading, key: str) -> dict[str, Plain]:
    """Return a top-level mapping; notes what is wrong with the top of the file."""
    top = loading.source.value
    if not isinstance(top, dict):
        if key == "pipelines":
            loading.mistake((), "is not a mapping; accepted keys: " + ", ".join(_TOP_KEYS))
        return {}
    section = top.get(key)
    if section is None and key == "connections":
        return {}
    if not isinstance(section, dict):
        loading.mistake((key,), f"is {shown(section)}; accepted: a mapping by name")
        return {}
    return section


def _check_top(loading: _Loading) -> None:
    top = loading.source.value
    if not isinstance(top, dict):
        return
    for key in top.keys() - set(_TOP_KEYS):
        known = ", ".join(_TOP_KEYS)
        loading.mistake((key,), f"unknown key{did_you_mean(key, _TOP_KEYS)}; accepted: {known}")
    version = top.get("version")
    if version != 1 or isinstance(version, bool):
        loading.mistake(("version",), f"is {shown(version)}; accepted: 1")


def _pipelines(loading: _Loading, names: Sequence[str]) -> dict[str, Pipeline]:
    """Return the pipelines that run, in the file's order."""
    _check_top(loading)
    section = _section(loading, "pipelines")
    if not section and not loading.mistakes:
        loading.mistake(("pipelines",), "is empty; accepted: at least one pipeline")
    lower: dict[str, str] = {}
    for name in section:
        if name.lower() in lower:
            first = lower[name.lower()]
            loading.mistake(("pipelines", name), f"differs from {first!r} in case alone")
        lower.setdefault(name.lower(), name)
    for name in names:
        if name not in section:
            known = ", ".join(section) or "none"
            where = f"unknown pipeline {name!r}{did_you_mean(name, section)}; the file has: {known}"
            loading.mistake(("pipelines",), where)
    found = {}
    for name, value in section.items():
        pipeline = _pipeline(loading, name, value, runs=not names or name in names)
        if pipeline is not None and (not names or name in names):
            found[name] = pipeline
    return found


def _pipeline(loading: _Loading, name: str, value: Plain, *, runs: bool) -> Pipeline | None:
    path: KeyPath = ("pipelines", name)
    if not isinstance(value, dict):
        loading.mistake(path, f"is {shown(value)}; accepted: a mapping")
        return None
    if not runs:
        return None  # its variables may be unset on this machine; another run reads it
    if loading.sandbox is not None and "lake" in value:
        layout = value["lake"] if isinstance(value["lake"], dict) else {}
        value = {**value, "lake": {**layout, "url": "sandbox/lake", "format": "parquet"}}
    filled = {key: _filled(loading, item, (*path, key)) for key, item in value.items()}
    connection = filled.get("connection", "default")
    if isinstance(connection, str):
        loading.used.setdefault(connection, []).append(path)
    _check_tables(loading, filled, path)
    pipeline = validated(loading.mistake, Pipeline, filled, path)
    if pipeline is None:
        return None
    lake = pipeline.lake
    if lake.path is not None:
        resolved = lake.model_copy(update={"url": str(loading.folder / lake.path)})
        pipeline = pipeline.model_copy(update={"lake": resolved})
    for place, what in pipeline_mistakes(pipeline, loading.state_dir):
        loading.mistake((*path, *place), what)
    return pipeline


def _check_tables(loading: _Loading, pipeline: Plain, path: KeyPath) -> None:
    tables = pipeline.get("tables") if isinstance(pipeline, dict) else None
    for place, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, str) and table not in loading.tables:
            known = ", ".join(sorted(loading.tables))
            hint = did_you_mean(table, loading.tables)
            what = f"unknown table {table!r}{hint}; accepted: {known}"
            loading.mistake((*path, "tables", place), what)


def _connections(loading: _Loading) -> dict[str, Connection]:
    """Return the connections that the pipelines use; `default` need not be written."""
    section = _section(loading, "connections")
    found = {}
    for name in sorted(loading.used):
        path: KeyPath = ("connections", name)
        value = section.get(name)
        if name not in section and name != "default":
            _unknown_connection(loading, name, section)
            continue
        if value is not None and not isinstance(value, dict):
            loading.mistake(path, f"is {shown(value)}; accepted: a mapping")
            continue
        connection = _connection(loading, value or {}, path)
        if connection is not None:
            found[name] = connection
    return found


def _unknown_connection(loading: _Loading, name: str, section: Mapping[str, Plain]) -> None:
    known = tuple(dict.fromkeys(("default", *section)))
    what = f"unknown connection {name!r}{did_you_mean(name, known)}; accepted: {', '.join(known)}"
    for pipeline in loading.used[name]:
        loading.mistake((*pipeline, "connection"), what)


def _connection(loading: _Loading, value: dict[str, Plain], path: KeyPath) -> Connection | None:
    sandbox, settings = loading.sandbox, loading.settings
    if sandbox is not None:
        kept: dict[str, Plain] = {
            key: value[key]
            for key in ("concurrency", "timeout_seconds")
            if key in value and "${" not in str(value[key])
        }
        return validated(
            loading.mistake,
            Connection,
            {
                "api_url": sandbox.api_url,
                "token_url": sandbox.token_url,
                "client_id": sandbox.client_id,
                "client_secret": sandbox.client_secret,
                "rate_limit": {"requests": 100_000, "seconds": 1.0},
                **kept,
            },
            path,
        )
    secret = value.get("client_secret")
    if isinstance(secret, str) and not names_in(secret):
        loading.mistake(
            (*path, "client_secret"),
            "a secret stands in the file; accepted: ${VARIABLE}, with its value in .env, in the "
            "environment, or in the file that USERTESTING_CLIENT_SECRET_FILE names",
        )
    filled = _filled(loading, value, path)
    told = dict(filled) if isinstance(filled, dict) else {}
    for key in ("api_url", "token_url"):
        # The environment is over the file: a run can be pointed elsewhere without an edit.
        if getattr(settings, key) is not None:
            told[key] = getattr(settings, key)
    connection = validated(loading.mistake, Connection, told, path)
    if connection is None:
        return None
    for key, what in connection_mistakes(connection):
        variable = {"api_url": "USERTESTING_API_URL", "token_url": "USERTESTING_TOKEN_URL"}[key]
        by_setting = getattr(settings, key) is not None
        loading.mistake((*path, key), f"{variable} {what}" if by_setting else what)
    missing = {
        key: getattr(settings, key)
        for key in ("client_id", "client_secret")
        if getattr(connection, key) is None and getattr(settings, key) is not None
    }
    return connection.model_copy(update=missing)


def _missing_credentials(
    connections: Mapping[str, Connection], variables: Mapping[str, str]
) -> list[str]:
    """Say which credentials are missing, and which variables are never read."""
    complaints = []
    for connection in connections.values():
        missing = [
            f"USERTESTING_{key.upper()}"
            for key in ("client_id", "client_secret")
            if not _value(getattr(connection, key))
        ]
        if not missing:
            continue
        never = [name for name in ("CLIENT_ID", "CLIENT_SECRET") if variables.get(name)]
        hint = f" ({' and '.join(never)} are set, but never read)" if never else ""
        complaints.append(
            f"connection {connection.name!r} has no credentials: set {' and '.join(missing)} in "
            f"the environment or in .env{hint}"
        )
    return complaints


def _value(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()


def _filled(loading: _Loading, value: Plain, path: KeyPath) -> Plain:
    """Fill in the variables of every text below a key path."""
    if isinstance(value, dict):
        return {key: _filled(loading, item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(loading, item, (*path, place)) for place, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        return interpolated(value, loading.variables)
    except Unset as unset:
        name = str(unset)
        what = (
            f"${{{name}}} is not set; set it, or write ${{{name}:-default}}"
            if name
            else "`${` begins no variable; accepted: ${NAME} or ${NAME:-default}"
        )
        loading.mistake(path, what)
        loading.unfilled.add(path)
        return value
