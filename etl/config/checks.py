"""The rules that no type can say: hosts, credentials in clear, folders within folders."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from etl.config.models import Connection, Discovery, Pipeline

_NESTED_QUANTIFIER: Final = re.compile(r"\([^()]*[+*}][^()]*\)\s*[+*{]")


def url_mistake(url: str) -> str | None:
    """Return what is wrong with the URL of a server, never showing what may be a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL; accepted: https://host"
    if parts.username is not None or parts.password is not None:
        return "holds credentials; they belong into USERTESTING_CLIENT_ID and _SECRET"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "is not a URL; accepted: https://host"
    if parts.query or parts.fragment:
        return "has a query or fragment; accepted: https://host/path"
    if parts.scheme == "http" and not is_loopback(host):
        return (
            f"is plain http to {host!r}; accepted: https, or http to this machine alone "
            "(credentials never travel in clear)"
        )
    return None


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine: by address or by the one name that means it."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def connection_mistakes(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) for a connection."""
    for field in ("api_url", "token_url"):
        wrong = url_mistake(getattr(connection, field))
        if wrong is not None:
            yield field, wrong


def pipeline_mistakes(pipeline: Pipeline, state_dir: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (key path, what is wrong) for a pipeline."""
    yield from _not_in_this_version(pipeline)
    by = pipeline.lake.partition_by
    if len(set(by)) != len(by):
        yield ("lake", "partition_by"), "names a column twice"
    if isinstance(pipeline.tests, tuple) and len(set(pipeline.tests)) != len(pipeline.tests):
        yield ("tests",), "names a test twice"
    lake = pipeline.lake.path
    if lake is not None:
        lake, state = lake.resolve(), state_dir.resolve()
        if lake == state or state in lake.parents:
            yield ("lake", "url"), f"lies in the state directory {state_dir}; keep them apart"
        elif lake in state.parents:
            yield ("lake", "url"), f"holds the state directory {state_dir}; keep them apart"
    if isinstance(pipeline.tests, Discovery) and pipeline.tests.title_matches is not None:
        wrong = _expression_mistake(pipeline.tests.title_matches)
        if wrong is not None:
            yield ("tests", "title_matches"), wrong


def _not_in_this_version(pipeline: Pipeline) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the contract knows and this version cannot do yet."""
    if isinstance(pipeline.tests, Discovery):
        yield ("tests",), "is a discovery filter; this version accepts a list of test ids"
    if pipeline.lake.format != "parquet":
        yield ("lake", "format"), f"is {pipeline.lake.format!r}; this version accepts 'parquet'"
    if pipeline.lake.path is None:
        scheme = pipeline.lake.url.partition("://")[0]
        yield ("lake", "url"), f"is on {scheme}://; this version accepts a path or file://"
    if pipeline.edited != "report":
        yield ("edited",), "is 'replace'; this version accepts 'report'"


def _expression_mistake(expression: str) -> str | None:
    """Return what is wrong with a regular expression, or why it might never end."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    if _NESTED_QUANTIFIER.search(expression):
        return "repeats a repetition, as in (a+)+, which may take for ever; write it flat"
    return None
