"""`etl status` and `etl schema`: commands that look at what is known."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from etl.cli.output import print_json, print_table, say
from etl.cli.settings import load_config
from etl.config.schema import json_schema
from etl.errors import UsageError
from etl.ledger.reading import BackfillStatus, LedgerStatus, read_status
from etl.plan.orders import Asked, orders
from etl.tables import rejects
from etl.tables.registry import tables
from etl.tables.values import RUN_COLUMNS, Column


def status_command(path: Path, name: str | None, *, as_json: bool) -> None:
    """Show last runs and, of each test, what has landed and when it was proved."""
    names = () if name is None else (name,)
    config = load_config(path, names, require_credentials=False)
    found = {
        order.name: read_status(config.state_dir, order.name)
        for order in orders(config, names, Asked())
    }
    if as_json:
        print_json({"pipelines": [_status_json(name, status) for name, status in found.items()]})
        return
    for pipeline, status in found.items():
        _print_status(pipeline, status)


def _status_json(name: str, status: LedgerStatus) -> dict[str, object]:
    return {
        "name": name,
        "runs": [
            {
                "run_id": run.run_id,
                "started_at": _iso(run.started_at_us),
                "status": run.status or "unfinished",
            }
            for run in status.runs
        ],
        "answers_waiting": status.answers_waiting,
        "rows": sum(test.rows for test in status.tests),
        "rows_by_table": status.rows_by_table,
        "sessions_due": sum(test.sessions_due for test in status.tests),
        "backfill": _backfill_json(status.backfill),
        "rejects": status.rows_by_table.get(rejects.NAME, 0),
        "unknown_fields": [
            {
                "field": seen.field,
                "first_seen": _iso(seen.first_seen_us),
                "last_seen": _iso(seen.last_seen_us),
                "answers": seen.answers,
            }
            for seen in status.unknown_fields
        ],
        "files_due": sum(test.files_due for test in status.tests),
        "tests": [
            {
                "test_id": test.test_id,
                "rows": test.rows,
                "rows_by_table": test.rows_by_table,
                "sessions_due": test.sessions_due,
                "files_due": test.files_due,
                "total": test.total,
                "outcome": test.outcome,
                "looked_at": _iso(test.looked_at_us),
                "verified_at": _iso(test.verified_at_us),
                "oldest_proof": _iso(test.oldest_proof_us),
            }
            for test in status.tests
        ],
    }


def _backfill_json(backfill: BackfillStatus | None) -> dict[str, object] | None:
    if backfill is None:
        return None
    return {
        "began_at": _iso(backfill.began_at_us),
        "tests": backfill.tests,
        "tests_left": backfill.tests_left,
        "requests_left": backfill.requests_left,
    }


def _print_status(name: str, status: LedgerStatus) -> None:
    rows = sum(test.rows for test in status.tests)
    say(f"{name}: {rows:,} rows landed of {len(status.tests)} tests")
    if status.answers_waiting:
        say(f"  {status.answers_waiting} frames of answers wait to be landed by the next run")
    if (backfill := status.backfill) is not None:
        say(
            f"  a backfill is under way since {_iso(backfill.began_at_us)}: "
            f"{backfill.requests_left:,} requests of {backfill.tests_left} of its "
            f"{backfill.tests} tests are left, as far as these are listed"
        )
    for table, count in status.rows_by_table.items():
        unread = " that could not be read" if table == rejects.NAME else ""
        say(f"  {table}: {count:,} rows{unread}")
    for seen in status.unknown_fields:
        say(
            f"  unknown field {seen.field!r}: {seen.answers:,} answers, first "
            f"{_iso(seen.first_seen_us)}, last {_iso(seen.last_seen_us)}"
        )
    for run in status.runs:
        say(f"  run {run.run_id}  {_iso(run.started_at_us)}  {run.status or 'unfinished'}")
    print_table(
        (
            "test",
            "rows",
            "total",
            "sessions due",
            "files due",
            "outcome",
            "looked at",
            "proved whole at",
            "oldest proof",
        ),
        [
            (
                test.test_id,
                test.rows,
                test.total,
                test.sessions_due,
                test.files_due,
                test.outcome,
                _iso(test.looked_at_us),
                _iso(test.verified_at_us),
                _iso(test.oldest_proof_us),
            )
            for test in status.tests
        ],
    )


def _iso(moment_us: int | None) -> str | None:
    if moment_us is None:
        return None
    return datetime.fromtimestamp(moment_us / 1_000_000, UTC).isoformat(timespec="seconds")


def schema_command(name: str | None, *, as_json: bool, of_config: bool) -> None:
    """Show the tables' columns, or the JSON Schema of the pipelines file."""
    if of_config:
        print(json.dumps(json_schema(), indent=2))
        return
    known = {table.name: (table.row, table.key, table.columns) for table in tables().values()}
    known[rejects.NAME] = ("a row or body that could not be read", rejects.KEY, rejects.COLUMNS)
    if name is not None and name not in known:
        raise UsageError(f"There is no table {name!r}.", advice=f"It has: {', '.join(known)}.")
    chosen = {table: known[table] for table in known if name in (None, table)}
    if as_json:
        print_json(
            {
                "tables": [
                    {"name": table, "row": row, "key": key, "columns": _columns_json(columns)}
                    for table, (row, key, columns) in chosen.items()
                ]
            }
        )
        return
    for table, (row, key, columns) in chosen.items():
        say(f"{table}: a row is {row}; key: {', '.join(key)}")
        print_table(
            ("column", "type", "meaning"),
            [(column.name, column.type, column.meaning) for column in (*columns, *RUN_COLUMNS)],
        )


def _columns_json(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [
        {"name": column.name, "type": str(column.type), "meaning": column.meaning}
        for column in (*columns, *RUN_COLUMNS)
    ]
