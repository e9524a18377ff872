"""`etl sandbox`: serves the simulated API until it is stopped."""

import anyio

from etl.cli.output import say
from etl.errors import UsageError
from etl.sandbox.routes import ROUTES
from etl.sandbox.server import Sandbox, SandboxOptions, serve


def sandbox_command(
    *,
    port: int,
    tests: int,
    sessions: int | None,
    seed: int,
    token_ttl: float,
    rate_limit: str,
    latency_ms: float,
) -> None:
    """Serve on loopback, and say how to use it."""
    requests, seconds = _rate(rate_limit)
    options = SandboxOptions(
        seed=seed,
        tests=tests,
        sessions=sessions,
        token_ttl_seconds=token_ttl,
        rate_requests=requests,
        rate_seconds=seconds,
        latency_ms=latency_ms,
        log_requests=False,
    )
    try:
        anyio.run(serve, options, "127.0.0.1", port, _announce)
    except OSError as error:
        raise UsageError(
            f"The sandbox cannot listen on port {port}: {error.strerror}.",
            advice="Choose another with --port, or 0 for a free one.",
        ) from error


def _announce(sandbox: Sandbox) -> None:
    say(f"The sandbox serves {sandbox.url}; stop it with Ctrl-C. To use it:")
    for name, value in (
        ("USERTESTING_API_URL", sandbox.url),
        ("USERTESTING_TOKEN_URL", sandbox.token_url),
        ("USERTESTING_CLIENT_ID", sandbox.client_id),
        ("USERTESTING_CLIENT_SECRET", sandbox.client_secret),
    ):
        print(f"export {name}={value}", flush=True)
    for test_id in (*sandbox.test_ids, *sandbox.classic_ids):
        print(f"# test {test_id} {sandbox.product(test_id)}", flush=True)
    for route in ROUTES:
        print(f"# GET {route.path}", flush=True)


def _rate(text: str) -> tuple[int, float]:
    requests, _, seconds = text.partition("/")
    try:
        rate = (int(requests), float(seconds or 60))
    except ValueError:
        rate = (0, 0.0)
    if rate[0] < 1 or not 0 < rate[1] < float("inf"):
        raise UsageError(f"--rate-limit {text!r} is not N/SECONDS.", advice="Write 10/60.")
    return rate
