"""Puts the configuration together, and reports every mistake at once.

Precedence: command line, environment, `.env`, pipelines file, default; `connections` says
what that means for credentials. Variables are filled in only in the pipelines that run and
the connections they use; the others are checked as far as that goes without variables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from etl.config.checks import not_in_this_version, pipeline_mistakes, url_mistake
from etl.config.columns import KnownTable, column_mistakes
from etl.config.connections import missing_credentials, read_connections
from etl.config.loading import Loading, SandboxCredentials
from etl.config.mistakes import did_you_mean, shown
from etl.config.models import Config, Connection, Pipeline
from etl.config.settings import Settings, hash_key_mistakes, read_dotenv, read_settings
from etl.config.validation import validated
from etl.config.yaml_source import KeyPath, Plain, Source, read_source
from etl.errors import ConfigError

__all__ = ["SandboxCredentials", "load", "load_connection"]

_TOP_KEYS: Final = ("version", "connections", "pipelines")
_SANDBOX_HASH_KEY: Final = SecretStr("for invented people only")


def load(  # noqa: PLR0913 - all that the world outside has to say
    path: Path,
    *,
    pipelines: Sequence[str] = (),
    tables: Mapping[str, KnownTable],
    environ: Mapping[str, str],
    state_dir: Path | None = None,
    sandbox: SandboxCredentials | None = None,
    require_credentials: bool = True,
) -> Config:
    """Return the configuration for running these pipelines (all, if none is named).

    `tables` are the tables that exist; `state_dir` is over ETL_STATE_DIR. With `sandbox`,
    credentials, URLs and variables of connections are ignored, and lake and state lie in
    `sandbox/` beside the file.
    Raises ConfigError with every mistake: file, line, column, key, found, accepted.
    """
    folder = path.parent.absolute()
    dotenv, warnings = read_dotenv(folder)
    layers: list[Mapping[str, str]] = [environ, dotenv]
    if sandbox is not None:
        warnings = []  # its secrets are not used
        layers = [_without_credentials(layer) for layer in layers]
        state_dir = Path("sandbox") / "state"
    variables = {**dotenv, **environ}
    loading, complaints, more = _begun(read_source(path), folder, layers, variables, state_dir)
    loading.tables, loading.sandbox = tables, sandbox
    settings = loading.settings
    found = _pipelines(loading, pipelines)
    connections = read_connections(loading, _section(loading, "connections"))
    if require_credentials:
        complaints += missing_credentials(connections, variables, complaints)
    hash_key = settings.hash_key if sandbox is None else _SANDBOX_HASH_KEY
    if require_credentials and any(pipeline.hashes for pipeline in found.values()):
        complaints += hash_key_mistakes(hash_key, complaints)
    _refuse(loading, complaints)
    return Config(
        path=path,
        state_dir=loading.state_dir,
        log_format=settings.log_format,
        log_level=settings.log_level,
        pipelines=found,
        connections=connections,
        hash_key=hash_key,
        warnings=(*warnings, *more),
    )


def load_connection(
    path: Path | None,
    name: str,
    *,
    told: Mapping[str, str],
    environ: Mapping[str, str],
    state_dir: Path | None = None,
) -> tuple[Connection, Path]:
    """Return one connection, and the state directory in which its pace is kept.

    `told` are settings by their variables: they are over all others. Without a `path` it is as
    if an empty pipelines file lay in the working directory. Raises ConfigError with every mistake.
    """
    folder = Path.cwd() if path is None else path.parent.absolute()
    source = Source(folder / "pipelines.yaml", {}) if path is None else read_source(path)
    dotenv, _ = read_dotenv(folder)
    variables = {**dotenv, **environ}
    layers = [told, environ, dotenv]
    loading, complaints, _ = _begun(source, folder, layers, variables, state_dir)
    section = _section(loading, "connections")
    if name != "default" and name not in section:
        known = ", ".join(dict.fromkeys(("default", *section)))
        raise ConfigError(f"There is no connection {name!r}.", advice=f"There are: {known}.")
    loading.used.add(name)
    connections = read_connections(loading, section)
    complaints += missing_credentials(connections, variables, complaints)
    _refuse(loading, complaints)
    own = {
        key: getattr(loading.settings, key)
        for key in ("client_id", "client_secret")
        if f"USERTESTING_{key.upper()}" in told
    }
    return connections[name].model_copy(update=own), loading.state_dir


def _begun(
    source: Source,
    folder: Path,
    layers: Sequence[Mapping[str, str]],
    variables: Mapping[str, str],
    state_dir: Path | None,
) -> tuple[Loading, list[str], list[str]]:
    """Begin to put a file together; return with it what is wrong with settings, and warnings."""
    settings, complaints, warnings = read_settings(layers, folder)
    complaints += _bad_urls(settings)
    state = folder / (state_dir or settings.state_dir or Path(".etl"))
    return Loading(source, variables, settings, folder, state), complaints, warnings


def _refuse(loading: Loading, complaints: Sequence[str]) -> None:
    """Raise ConfigError with every mistake, if there is any."""
    if loading.mistakes or complaints:
        lines = [str(mistake) for mistake in sorted(loading.mistakes)]
        raise ConfigError("\n".join((*lines, *complaints)))


def _without_credentials(layer: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in layer.items() if name.startswith("ETL_")}


def _bad_urls(settings: Settings) -> list[str]:
    """Say what is wrong with the URLs of the settings, by variable."""
    told = {"USERTESTING_API_URL": settings.api_url, "USERTESTING_TOKEN_URL": settings.token_url}
    wrong = {name: url_mistake(url) for name, url in told.items() if url is not None}
    return [f"{name} {what}" for name, what in wrong.items() if what is not None]


def _section(loading: Loading, key: str) -> dict[str, Plain]:
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


def _check_top(loading: Loading) -> None:
    top = loading.source.value
    if not isinstance(top, dict):
        return
    for key in top.keys() - set(_TOP_KEYS):
        known = ", ".join(_TOP_KEYS)
        loading.mistake((key,), f"unknown key{did_you_mean(key, _TOP_KEYS)}; accepted: {known}")
    version = top.get("version")
    if version != 1 or isinstance(version, bool):
        loading.mistake(("version",), f"is {shown(version)}; accepted: 1")


def _pipelines(loading: Loading, names: Sequence[str]) -> dict[str, Pipeline]:
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
        runs = not names or name in names
        pipeline = _pipeline(loading, name, value, runs=runs)
        if pipeline is not None and runs:
            found[name] = pipeline
    return found


def _pipeline(loading: Loading, name: str, value: Plain, *, runs: bool) -> Pipeline | None:
    """Return a pipeline, or None after noting its mistakes.

    One that does not run may hold what this version cannot do yet.
    """
    path: KeyPath = ("pipelines", name)
    if not isinstance(value, dict):
        loading.mistake(path, f"is {shown(value)}; accepted: a mapping")
        return None
    if loading.sandbox is not None and "lake" in value:
        layout = value["lake"] if isinstance(value["lake"], dict) else {}
        value = {**value, "lake": {**layout, "url": "sandbox/lake", "format": "parquet"}}
    filled = {key: loading.filled(item, (*path, key), runs=runs) for key, item in value.items()}
    _note_connection(loading, filled.get("connection", "default"), path, runs=runs)
    _check_tables(loading, filled.get("tables"), path)
    pipeline = validated(loading.mistake, Pipeline, filled, path)
    if pipeline is None:
        return None
    lake = pipeline.lake
    if lake.path is not None:
        resolved = lake.model_copy(update={"url": str(loading.folder / lake.path)})
        pipeline = pipeline.model_copy(update={"lake": resolved})
    if runs:
        for place, what in not_in_this_version(pipeline):
            loading.mistake((*path, *place), what)
    for place, what in pipeline_mistakes(pipeline, loading.state_dir):
        loading.mistake((*path, *place), what)
    for key, what in column_mistakes(pipeline, loading.tables):
        loading.mistake((*path, *key), what)
    return pipeline


def _note_connection(loading: Loading, connection: Plain, path: KeyPath, *, runs: bool) -> None:
    if not isinstance(connection, str) or (*path, "connection") in loading.unfilled:
        return
    loading.named.setdefault(connection, []).append(path)
    if runs:
        loading.used.add(connection)


def _check_tables(loading: Loading, tables: Plain, path: KeyPath) -> None:
    for place, table in enumerate(tables if isinstance(tables, list) else []):
        if isinstance(table, str) and table not in loading.tables:
            known = ", ".join(sorted(loading.tables))
            hint = did_you_mean(table, loading.tables)
            what = f"unknown table {shown(table)}{hint}; accepted: {known}"
            loading.mistake((*path, "tables", place), what)
