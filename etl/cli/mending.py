"""`etl verify` and `etl reset`: commands for a lake in doubt. Neither makes a request."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from etl.cli.output import print_json, say
from etl.cli.settings import load_config
from etl.errors import EtlError, LakeError, UsageError
from etl.lake.landing_plan import landing_plan
from etl.lake.local import LocalLake
from etl.lake.recovery import recover, reset
from etl.lake.verify import MendedBy, Verification, verify
from etl.ledger.store import open_ledger
from etl.plan.orders import Asked, Order, orders
from etl.report.terminal import on_one_line
from etl.report.values import exit_code_of

_STATUS: Final = {0: "sound", 4: "differs", 5: "unreadable"}


def verify_command(path: Path, name: str | None, *, deep: bool, as_json: bool) -> int:
    """Verify the lakes, tell what differs, and return the exit code."""
    names = () if name is None else (name,)
    config = load_config(path, names, require_credentials=False)
    found = [_verified(order, deep=deep) for order in orders(config, names, Asked())]
    code = exit_code_of([verification.exit_code for verification in found])
    if as_json:
        told = [_as_json(verification) for verification in found]
        print_json({"schema_version": 1, "status": _STATUS[code], "deep": deep, "pipelines": told})
        return code
    for verification in found:
        _print(verification)
    return code


def _verified(order: Order, *, deep: bool) -> Verification:
    lake = LocalLake(order.lake_path)
    try:
        verification = verify(lake, order.name, deep=deep)
    except LakeError as error:
        verification = Verification(order.name, str(order.lake_path))
        verification.found("lake", error.where or str(lake.root), str(error), MendedBy.BACKUP)
        return verification
    if verification.doubted:
        _note(lake, order.name, verification)
    return verification


def _note(lake: LocalLake, name: str, verification: Verification) -> None:
    """Let the next run know of files that it would take for sound."""
    try:
        lake.doubt(name, verification.doubted)
    except EtlError as error:
        say(f"etl: The next run cannot be told, so it will mend less: {error}")


def _as_json(verification: Verification) -> dict[str, object]:
    return {
        "name": verification.name,
        "lake": verification.lake,
        "status": _STATUS[verification.exit_code],
        "commits": verification.commits,
        "files": verification.files,
        "bytes": verification.bytes,
        "rows": verification.rows,
        "findings": [asdict(finding) for finding in verification.findings],
    }


def _print(verification: Verification) -> None:
    rows = ", ".join(f"{count:,} in {table}" for table, count in verification.rows.items())
    count = len(verification.findings)
    differs = f"{count} difference{'' if count == 1 else 's'}" if count else "all as recorded"
    print(
        f"{verification.name}: {differs}. "
        f"{verification.commits} commits, {verification.files} files, rows: {rows or 'none'}"
    )
    for finding in verification.findings:
        says = on_one_line(f"{finding.path}: {finding.says}")
        print(f"  {finding.kind:<10} {says} Mended by: {finding.mended_by}.")


def reset_command(path: Path, name: str, tests: Sequence[str]) -> None:
    """Forget what is known of tests' progress, under the locks of a run."""
    config = load_config(path, (name,), require_credentials=False)
    (order,) = orders(config, (name,), Asked())
    lake = LocalLake(order.lake_path)
    wanted = list(dict.fromkeys(test.lower() for test in tests))
    with open_ledger(order.state_dir, name) as ledger, lake.locked(name):
        recovery = recover(lake, ledger, landing_plan(order, "reset"))
        for sentence in recovery.sentences():
            say(sentence)
        known = {*order.tests, *ledger.tests_known()}
        unknown = [test for test in wanted if test not in known]
        if unknown:
            raise UsageError(
                f"Pipeline {name!r} has no test {unknown[0]!r}, and none has landed from it.",
                advice="`etl status` lists the tests that are known. Nothing was reset.",
            )
        reset(lake, ledger, name, wanted, recovery)
    for test in wanted:
        print(
            f"{name}: test {test} is forgotten; the next run reads it all again. Its rows stay in "
            "the lake; until then nothing keeps another pipeline from landing them there, too."
        )
