"""The rules that no type can say: hosts, credentials in clear, folders within folders."""

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from etl.config.models import Connection, Discovery, Pipeline

# An escaped character, a class, a count, or a character by itself.
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|.", re.DOTALL)
_EXACTLY: Final = re.compile(r"\{\d+\}")
_LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")


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
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address in _LOOPBACK
    return address == ipaddress.IPv6Address("::1")


def connection_mistakes(connection: Connection) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) for a connection."""
    for field in ("api_url", "token_url"):
        wrong = url_mistake(getattr(connection, field))
        if wrong is not None:
            yield field, wrong


def pipeline_mistakes(pipeline: Pipeline, state_dir: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (key path, what is wrong) for a pipeline."""
    by = pipeline.lake.partition_by
    if len(set(by)) != len(by):
        yield ("lake", "partition_by"), "names a column twice"
    if isinstance(pipeline.tests, tuple) and len(set(pipeline.tests)) != len(pipeline.tests):
        yield ("tests",), "names a test twice"
    if len(set(pipeline.tables)) != len(pipeline.tables):
        yield ("tables",), "names a table twice"
    if isinstance(pipeline.tests, Discovery) and pipeline.tests.title_matches is not None:
        wrong = _expression_mistake(pipeline.tests.title_matches)
        if wrong is not None:
            yield ("tests", "title_matches"), wrong
    yield from _overlap(pipeline.lake.path, state_dir)


def _overlap(lake: Path | None, state_dir: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong where lake and state lie within each other."""
    if lake is not None:
        lake, state = lake.resolve(), state_dir.resolve()
        if lake == state or state in lake.parents:
            yield ("lake", "url"), f"lies in the state directory {state_dir}; keep them apart"
        elif lake in state.parents:
            yield ("lake", "url"), f"holds the state directory {state_dir}; keep them apart"


def not_in_this_version(pipeline: Pipeline) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what the contract knows and this version cannot do yet."""
    if pipeline.lake.format != "parquet":
        yield ("lake", "format"), f"is {pipeline.lake.format!r}; this version accepts 'parquet'"
    if pipeline.lake.path is None:
        scheme = pipeline.lake.url.partition("://")[0]
        yield ("lake", "url"), f"is on {scheme}://; this version accepts a path or file://"


def _expression_mistake(expression: str) -> str | None:
    """Return what is wrong with a regular expression, or why it might never end."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    if _repeats_a_repetition(expression):
        return "repeats a repetition, as in (a+)+, which may take for ever; write it flat"
    return None


def _repeats_a_repetition(expression: str) -> bool:
    """Say whether a repeated group holds a repetition, however deep."""
    holds = [False]  # for each open group: a repetition within
    closed = False  # what the group that has just ended held
    for token in _TOKEN.findall(expression):
        repeats = token in ("*", "+") or (len(token) > 2 and token[0] == "{")
        if repeats and closed:
            return True
        if repeats and not _EXACTLY.fullmatch(token):
            holds[-1] = True
        closed = False
        match token:
            case "(":
                holds.append(False)
            case ")" if len(holds) > 1:
                closed = holds.pop()
                holds[-1] = holds[-1] or closed
    return False
