"""What a person wants to know at the end: what is new, what failed, where the files are."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from etl.report.figures import duration, size
from etl.report.terminal import printable
from etl.report.values import MediaReport, PipelineReport, RunReport, Status


def print_summary(report: RunReport, console: Console) -> None:
    """Print the run's summary; foreign text in it is escaped."""
    for pipeline in report.pipelines:
        _print_pipeline(pipeline, console)
    rate = report.rate_limit
    used = f", {rate.utilisation:.0%} of the rate limit" if rate and report.requests.total else ""
    _say(
        console,
        f"{_headline(report)} in {duration(report.duration_seconds)}: "
        f"{_count(report.requests.total, 'request')}{used}, "
        f"{_count(report.token_grants, 'token grant')}.",
        _COLOURS[report.status],
    )


_COLOURS = {
    Status.COMPLETE: "green",
    Status.PARTIAL: "yellow",
    Status.PAUSED: "yellow",
    Status.FAILED: "red",
}


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _headline(report: RunReport) -> str:
    because = report.stopped_because
    return f"{report.status.value}" + (f" ({because})" if isinstance(because, str) else "")


def _print_pipeline(pipeline: PipelineReport, console: Console) -> None:
    rows = ", ".join(
        f"{_count(count, 'new row')} in {table}" for table, count in pipeline.rows.items() if count
    )
    _say(console, f"{pipeline.name}: {rows or 'no new rows'}", "bold")
    _say(console, f"  tests      {pipeline.verified} of {pipeline.tests} proved complete")
    new = f"{_count(pipeline.files, 'new file')}, {size(pipeline.bytes)}"
    _say(console, f"  lake       {pipeline.lake}  ({new})")
    for table, count in pipeline.edited.items():
        _say(console, f"  edited     in {table}: {_count(count, 'row')} answered differently now")
    for table, count in pipeline.replaced.items():
        _say(console, f"  replaced   in {table}: {_count(count, 'row')} answered differently now")
    for test, count in pipeline.removed.items():
        _say(console, f"  removed    from test {test}: {_count(count, 'session')} listed no more")
    for name, count in pipeline.unknown_fields.items():
        _say(console, f"  new field  {name!r}, which no table knows ({_count(count, 'answer')})")
    for endpoint, count in pipeline.absent.items():
        what = endpoint.replace("_", " ")
        _say(console, f"  absent     {what}: the API has none for {_count(count, 'session')}")
    if pipeline.media is not None:
        _print_media(pipeline.media, console)
    for note in pipeline.notes:
        _say(console, f"  note       {note}", "yellow")
    for failed in pipeline.failed:
        known = " (accepted)" if failed.accepted else ""
        _say(console, f"  failed     test {failed.test_id}{known}: {failed.error}", "red")
    if pipeline.error is not None:
        _say(console, f"  error      {pipeline.error}", "red")
    table = next(iter(pipeline.rows), "sessions")
    _say(console, "  look       " + duckdb_line(pipeline.lake, table))


def _print_media(media: MediaReport, console: Console) -> None:
    pending = f"; {media.pending:,} are still being made" if media.pending else ""
    _say(console, f"  media      {_count(media.files, 'new file')}, {size(media.bytes)}{pending}")
    for one in media.given_up:
        files = _count(one.files, "file")
        _say(console, f"  given up   {files} of test {one.test_id}: {one.reason}", "yellow")
    if media.given_up:
        _say(console, "             Their rows have no path; `etl backfill` asks for them again.")


def duckdb_line(lake: str, table: str) -> str:
    """Return a shell line that reads a table's first rows with DuckDB."""
    glob = str(Path(lake) / table / "**" / "part-*.parquet").replace("'", "''")
    return (
        f"duckdb -c \"FROM read_parquet('{glob}', hive_partitioning=true, "
        'union_by_name=true) LIMIT 5"'
    )


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True)
