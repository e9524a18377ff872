"""What the token endpoint can do, and what can be wrong with credentials."""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme
from aiohttp import web
from anyio import to_thread

from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.server import Sandbox, SandboxOptions
from tests.exporting import open_project
from tests.faults import Case, Chapter, Ended, Provoke
from tests.faults.api import COMPLETE, HTML, NULL, complete, patient
from tests.scripted import served


def passing(kind: FaultKind, value: Any = None, **more: Any) -> Provoke:
    """Let the token endpoint fail once."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40) as project:
            fault = Fault(kind, on="token", value=value, **more)
            project.sandbox.add_fault(fault)
            ended = await complete(project)
            assert fault.struck == 1
            return ended

    return provoke


def lasting(kind: FaultKind, value: Any = None, **more: Any) -> Provoke:
    """Let the token endpoint fail for ever; nothing is asked of the API, and no secret told."""

    async def provoke(folder: Path) -> Ended:
        async with open_project(folder, 40) as project:
            project.sandbox.add_fault(Fault(kind, on="token", times=0, value=value, **more))
            ended = await patient(project).ended()
            assert project.sandbox.requests == []
            assert project.sandbox.client_secret not in ended.said
            return ended

    return provoke


def refused(change: Callable[[Sandbox], None], scope: str = "studies:read") -> Provoke:
    """Change what the endpoint accepts before the second page."""

    async def provoke(folder: Path) -> Ended:
        options = SandboxOptions(rate_requests=None, scope=scope)
        async with open_project(folder, 3_000, options=options) as project:
            project.sandbox.before_page(2, lambda sandbox, _test: change(sandbox))
            ended = await patient(project).ended()
            landed = await to_thread.run_sync(project.lake_rows)
            assert len(landed) >= (500 if project.sandbox.grants else 0)
            return ended

    return provoke


async def unknown_authority(folder: Path) -> Ended:
    """Serve everything by TLS, with a certificate of an authority that nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = trustme.CA().issue_cert("127.0.0.1")
    await to_thread.run_sync(certificate.configure_cert, context)

    async def answer(_request: web.Request) -> web.StreamResponse:
        raise AssertionError("nothing is told to a stranger")

    async with open_project(folder, 40) as project, served(answer, context) as url:
        project.sandbox.url = url
        return await patient(project).ended()


def token(**fields: Any) -> dict[str, Any]:
    """Return what a grant says otherwise."""
    return fields


CHAPTER = Chapter(
    "Credentials and the token",
    [
        Case(
            "the token endpoint fails once, is throttled, slow, or answers nonsense",
            COMPLETE,
            0,
            [
                passing(FaultKind.STATUS, 500),
                passing(FaultKind.STATUS, 429, headers={"Retry-After": "1000000000"}),
                passing(FaultKind.HANG),
                passing(FaultKind.RESET),
                passing(FaultKind.BODY, HTML),
                passing(FaultKind.BODY, NULL),
                passing(FaultKind.BODY, " " * 10_000_000),
                passing(FaultKind.REDIRECT, "http://169.254.169.254/"),
            ],
        ),
        Case(
            "a token of another kind, one with a line end, one too long",
            COMPLETE,
            0,
            [
                passing(FaultKind.TOKEN, token(token_type="mac")),
                passing(FaultKind.TOKEN, token(access_token="a\r\nHost: evil")),
                passing(FaultKind.TOKEN, token(access_token="t" * 70_000)),
            ],
        ),
        Case(
            "a life that is none: -1, 10¹², `true`, text, nothing",
            COMPLETE,
            0,
            [
                passing(FaultKind.TOKEN, token(expires_in=life))
                for life in (-1, 10**12, True, "3600", "absent")
            ],
        ),
        Case(
            "the token endpoint is out of reach, or redirects, for more than a quarter of an hour",
            "error No token was to be had for 15 minutes: … check the network and "
            "USERTESTING_TOKEN_URL, and run again. … partial (unreachable)",
            4,
            [
                lasting(FaultKind.STATUS, 503),
                lasting(FaultKind.HANG),
                lasting(FaultKind.REDIRECT, "http://169.254.169.254/"),
            ],
        ),
        Case(
            "the credentials are wrong; the server's own words, which may hold the secret, are not "
            "repeated",
            "error The token endpoint refused the credentials (invalid_client). … Look at "
            "USERTESTING_CLIENT_ID and USERTESTING_CLIENT_SECRET; then run `etl check`. … failed",
            3,
            [lasting(FaultKind.LEAK_SECRET)],
        ),
        Case(
            "the credentials are revoked in the middle of a run: what was fetched lands",
            "error The token endpoint refused the credentials (invalid_client).",
            3,
            [refused(lambda sandbox: sandbox.revoke_credentials())],
        ),
        Case(
            "the scope is not granted",
            "error The token endpoint refused the credentials (invalid_scope). … Look at the scope "
            "of connection 'default'",
            3,
            [refused(lambda _sandbox: None, scope="another")],
        ),
        Case(
            "a TLS certificate of an authority that this machine does not know",
            "error The TLS certificate of the token endpoint is not trusted. … put it in a PEM "
            "bundle and name the file in SSL_CERT_FILE.",
            4,
            [unknown_authority],
        ),
    ],
)
