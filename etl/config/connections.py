"""Connections: what the file says, what the environment is over, what the sandbox replaces.

USERTESTING_API_URL and _TOKEN_URL are over the file, so that a run can be pointed elsewhere
without an edit. Credentials are the other way round, for `default` too: those written for a
connection are its own, and USERTESTING_CLIENT_ID and _SECRET fill in what it leaves out.
"""

import re
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from etl.config.checks import connection_mistakes
from etl.config.loading import Loading, SandboxCredentials
from etl.config.mistakes import did_you_mean, shown
from etl.config.models import Connection
from etl.config.validation import validated
from etl.config.yaml_source import KeyPath, Plain

_ONE_VARIABLE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-)?\}")
_URLS: Final = ("api_url", "token_url")
_CREDENTIALS: Final = ("client_id", "client_secret")


def read_connections(loading: Loading, section: Mapping[str, Plain]) -> dict[str, Connection]:
    """Return the connections that run; those that do not are checked as far as they go."""
    _check_names(loading, section)
    for name in loading.named.keys() - section.keys() - {"default"}:
        _unknown_connection(loading, name, section)
    idle = () if loading.sandbox else section.keys() - loading.used
    for name in idle:
        _connection(loading, name, section[name], runs=False)
    found = {}
    for name in sorted(loading.used & (section.keys() | {"default"})):
        connection = _connection(loading, name, section.get(name), runs=True)
        if connection is not None:
            found[name] = connection
    return found


def missing_credentials(
    connections: Mapping[str, Connection], variables: Mapping[str, str], told: list[str]
) -> list[str]:
    """Say which credentials are missing, save those `told`, and what variables are never read."""
    complaints = []
    for connection in connections.values():
        missing = [
            variable
            for key, variable in ((key, f"USERTESTING_{key.upper()}") for key in _CREDENTIALS)
            if not _value(getattr(connection, key))
            and not any(complaint.startswith(variable) for complaint in told)
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


def _check_names(loading: Loading, section: Mapping[str, Plain]) -> None:
    first: dict[str, str] = {}
    for name in section:
        same = first.setdefault(name.lower(), name)
        if same != name:
            loading.mistake(("connections", name), f"differs from {same!r} in case alone")


def _unknown_connection(loading: Loading, name: str, section: Mapping[str, Plain]) -> None:
    known = tuple(dict.fromkeys(("default", *section)))
    hint = did_you_mean(name, known)
    what = f"unknown connection {shown(name)}{hint}; accepted: {', '.join(known)}"
    for pipeline in loading.named[name]:
        loading.mistake((*pipeline, "connection"), what)


def _connection(loading: Loading, name: str, value: Plain, *, runs: bool) -> Connection | None:
    path: KeyPath = ("connections", name)
    if value is not None and not isinstance(value, dict):
        loading.mistake(path, f"is {shown(value)}; accepted: a mapping")
        return None
    if loading.sandbox is not None:
        return validated(
            loading.mistake, Connection, _of_sandbox(loading.sandbox, value or {}), path
        )
    _check_secret(loading, value or {}, path)
    filled = loading.filled(value or {}, path, runs=runs)
    told = dict(filled) if isinstance(filled, dict) else {}
    if runs:
        told |= {key: url for key in _URLS if (url := getattr(loading.settings, key)) is not None}
    connection = validated(loading.mistake, Connection, told, path)
    if connection is None:
        return None
    for key, what in connection_mistakes(connection):
        if not runs or getattr(loading.settings, key) is None:  # a setting's is told by its name
            loading.mistake((*path, key), what)
    return _with_settings(loading, connection)


def _check_secret(loading: Loading, value: Mapping[str, Plain], path: KeyPath) -> None:
    """Refuse a secret in the file, also one in part or as a variable's default."""
    secret = value.get("client_secret")
    if secret is None or (isinstance(secret, str) and _ONE_VARIABLE.fullmatch(secret)):
        return
    key = (*path, "client_secret")
    if isinstance(secret, str) and re.fullmatch(r"\$\{[^}]*\}?", secret) and ":-" not in secret:
        return  # no variable at all, which is told as such
    loading.mistake(
        key,
        "a secret stands in the file; accepted: ${VARIABLE} alone, with its value in .env, in "
        "the environment, or in the file that USERTESTING_CLIENT_SECRET_FILE names",
    )
    loading.unfilled.add(key)


def _of_sandbox(sandbox: SandboxCredentials, value: Mapping[str, Plain]) -> dict[str, Plain]:
    """Return the sandbox's connection; of the file's only what changes no destination."""
    kept = {
        key: value[key]
        for key in ("concurrency", "timeout_seconds")
        if key in value and "${" not in str(value[key])
    }
    return {
        "api_url": sandbox.api_url,
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "client_secret": sandbox.client_secret,
        "rate_limit": {"requests": 100_000, "seconds": 1.0},
        **kept,
    }


def _with_settings(loading: Loading, connection: Connection) -> Connection:
    """Fill in the credentials that a connection leaves out."""
    missing = {
        key: getattr(loading.settings, key)
        for key in _CREDENTIALS
        if getattr(connection, key) is None and getattr(loading.settings, key) is not None
    }
    return connection.model_copy(update=missing)


def _value(secret: SecretStr | None) -> str:
    return "" if secret is None else secret.get_secret_value()
