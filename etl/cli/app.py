"""The commands and their options; each imports its work only when it is called."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="etl",
    help="Export UserTesting's research data to Parquet: complete, and never doubled.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_CONFIG_HELP = "The pipelines file; pipelines.yaml if not given."
ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help=_CONFIG_HELP)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
FailIfPaused = Annotated[
    bool, typer.Option("--fail-if-paused", help="Exit 6 instead of 0 when paused.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Exit 4 if there is a new row that could not be read.")
]
Pipelines = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PIPELINE]...", help="Pipelines by name; all if none is named."),
]
Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline.")]
AnyPipeline = Annotated[
    str | None, typer.Argument(metavar="[PIPELINE]", help="A pipeline; all if none is named.")
]
OnlyTests = Annotated[
    list[str] | None,
    typer.Option("--test", metavar="ID", help="Ask only this test; may be repeated."),
]
MaxRuntime = Annotated[
    str | None,
    typer.Option(metavar="50m", help="Pause after this time; the next run goes on."),
]
MaxRequests = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Pause after so many requests.")
]
EventsFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Add JSON lines while it runs; - is stderr."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no summary.")]
WaitForLock = Annotated[
    str | None, typer.Option(metavar="10m", help="Wait for another run to end.")
]


def _config(context: typer.Context, config: Path | None) -> Path:
    """Return the pipelines file: named after the command, before it, or the default."""
    return Path(config or context.obj or "pipelines.yaml")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"etl {version('usertesting-etl')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", envvar="ETL_CONFIG", help=_CONFIG_HELP),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    del version
    context.obj = config


@app.command()
def init(context: typer.Context, config: ConfigOption = None) -> None:
    """Write a commented pipelines.yaml and .env to start from; never overwrites."""
    from etl.cli.files import write_templates

    write_templates(_config(context, config))


@app.command()
def run(
    context: typer.Context,
    pipelines: Pipelines = None,
    *,
    config: ConfigOption = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Run against a simulated API, into sandbox/lake.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Read every page again, not only what may be new.")
    ] = False,
    test: OnlyTests = None,
    table: Annotated[
        list[str] | None,
        typer.Option("--table", metavar="NAME", help="Ask only this table; may be repeated."),
    ] = None,
    max_runtime: MaxRuntime = None,
    max_requests: MaxRequests = None,
    fail_if_paused: FailIfPaused = False,
    strict: Strict = False,
    json: Json = False,
    events: EventsFile = None,
    quiet: Quiet = False,
    wait_for_lock: WaitForLock = None,
) -> None:
    """Export what is new, incrementally."""
    from etl.cli.run import RunFlags, run_command

    flags = RunFlags(
        pipelines=tuple(pipelines or ()),
        sandbox=sandbox,
        full=full,
        tests=tuple(test or ()),
        tables=tuple(table or ()),
        max_runtime=max_runtime,
        max_requests=max_requests,
        fail_if_paused=fail_if_paused,
        strict=strict,
        json=json,
        events=events,
        quiet=quiet,
        wait_for_lock=wait_for_lock,
    )
    sys.exit(run_command(_config(context, config), flags))


@app.command()
def backfill(
    context: typer.Context,
    pipeline: Pipeline,
    *,
    config: ConfigOption = None,
    test: OnlyTests = None,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only sessions that started then or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Only sessions that started until that day.")
    ] = None,
    max_runtime: MaxRuntime = None,
    max_requests: MaxRequests = None,
    fail_if_paused: FailIfPaused = False,
    strict: Strict = False,
    json: Json = False,
    events: EventsFile = None,
    quiet: Quiet = False,
    wait_for_lock: WaitForLock = None,
) -> None:
    """Fetch again and replace what is in the lake; the same command goes on where it stopped."""
    from etl.cli.dates import span_of
    from etl.cli.run import RunFlags, run_command

    flags = RunFlags(
        pipelines=(pipeline,),
        tests=tuple(test or ()),
        max_runtime=max_runtime,
        max_requests=max_requests,
        fail_if_paused=fail_if_paused,
        strict=strict,
        json=json,
        events=events,
        quiet=quiet,
        wait_for_lock=wait_for_lock,
        span=span_of(since, until),
    )
    sys.exit(run_command(_config(context, config), flags))


@app.command()
def plan(
    context: typer.Context,
    pipelines: Pipelines = None,
    *,
    config: ConfigOption = None,
    json: Json = False,
) -> None:
    """Say what a run would ask: requests, duration, token renewals. Asks and writes nothing."""
    from etl.cli.planning import plan_command

    plan_command(_config(context, config), tuple(pipelines or ()), as_json=json)


@app.command()
def check(context: typer.Context, config: ConfigOption = None) -> None:
    """Prove that it will work: config, token, one request, a probe file in each lake."""
    from etl.cli.asking import check_command

    sys.exit(check_command(_config(context, config)))


@app.command()
def peek(
    context: typer.Context,
    test: Annotated[str, typer.Argument(metavar="TEST", help="A test's id.")],
    *,
    config: ConfigOption = None,
    table: Annotated[str, typer.Option(metavar="NAME", help="The table to show.")] = "sessions",
    json: Json = False,
) -> None:
    """Make one request and show its rows (two for a table asked by session); lands nothing."""
    from etl.cli.asking import peek_command

    peek_command(_config(context, config), test, table, as_json=json)


@app.command()
def discover(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a pipelines file for all tests; a new file."),
    ] = None,
    json: Json = False,
) -> None:
    """Show the workspaces and tests that these credentials see."""
    from etl.cli.discovering import discover_command

    discover_command(_config(context, config), write, as_json=json)


@app.command()
def status(
    context: typer.Context,
    pipeline: AnyPipeline = None,
    *,
    config: ConfigOption = None,
    json: Json = False,
) -> None:
    """Show the last runs, and of each test what has landed and when it was last proved."""
    from etl.cli.looking import status_command

    status_command(_config(context, config), pipeline, as_json=json)


@app.command()
def verify(
    context: typer.Context,
    pipeline: AnyPipeline = None,
    *,
    config: ConfigOption = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte and row, not only sizes and footers.")
    ] = False,
    json: Json = False,
) -> None:
    """Read the lake again against its own record; asks nothing and needs no state."""
    from etl.cli.mending import verify_command

    sys.exit(verify_command(_config(context, config), pipeline, deep=deep, as_json=json))


@app.command()
def rebuild(
    context: typer.Context,
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="Tables by name; all if none is named."),
    ] = None,
    *,
    config: ConfigOption = None,
    pipeline: Annotated[
        list[str] | None,
        typer.Option("--pipeline", metavar="NAME", help="Only this pipeline; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Make tables anew from the answers that the lake keeps; asks nothing."""
    from etl.cli.rebuilding import rebuild_command

    path = _config(context, config)
    rebuild_command(path, tuple(tables or ()), tuple(pipeline or ()), as_json=json)


@app.command()
def reset(
    context: typer.Context,
    pipeline: Pipeline,
    *,
    test: Annotated[
        list[str], typer.Option("--test", metavar="ID", help="A test; may be repeated.")
    ],
    config: ConfigOption = None,
) -> None:
    """Forget a test's progress, not its rows: the next run reads all of it again."""
    from etl.cli.mending import reset_command

    reset_command(_config(context, config), pipeline, tuple(test))


@app.command()
def schema(
    table: Annotated[
        str | None, typer.Argument(metavar="[TABLE]", help="A table; all if none is named.")
    ] = None,
    *,
    json: Json = False,
    config: Annotated[
        bool, typer.Option("--config", help="Print the JSON Schema of pipelines.yaml.")
    ] = False,
) -> None:
    """Show columns, types and meaning of each table."""
    from etl.cli.looking import schema_command

    schema_command(table, as_json=json, of_config=config)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    tests: Annotated[int, typer.Option(min=0, help="How many tests it lists.")] = 12,
    sessions: Annotated[
        int | None, typer.Option(min=0, help="Sessions of each test; varied if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed serves the same rows.")] = 0,
    token_ttl: Annotated[float, typer.Option(min=0.1, help="Life of a token, in seconds.")] = 3600,
    rate_limit: Annotated[
        str, typer.Option(metavar="N/SECONDS", help="Requests allowed in any window.")
    ] = "10/60",
    latency_ms: Annotated[float, typer.Option(min=0, help="Added to every answer.")] = 0,
) -> None:
    """Serve a simulated API on this machine, for those who have no credentials yet."""
    from etl.cli.serving import sandbox_command

    sandbox_command(
        port=port,
        tests=tests,
        sessions=sessions,
        seed=seed,
        token_ttl=token_ttl,
        rate_limit=rate_limit,
        latency_ms=latency_ms,
    )
