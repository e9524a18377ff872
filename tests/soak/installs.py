"""Installs etl as a stranger does, with the newest of everything, and exports with it."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from anyio import to_thread

from tests.soak.turns import Part, Turn, Untried

ROOT = Path(__file__).parents[2]


async def run(turn: Turn) -> None:
    """Try `pip install .` in a clean environment, once."""
    for _ in turn.cases(["pip"]):
        with tempfile.TemporaryDirectory() as place:
            await to_thread.run_sync(install_and_export, Path(place))


def install_and_export(place: Path) -> None:
    """Install, ask each command for its version, and run the first minute of the README."""
    subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
    commands = place / "venv" / "bin"
    pip = [str(commands / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    if _answer([*pip, "--dry-run", "--no-deps", "hatchling"], place)[0]:
        raise Untried("no package index can be reached")
    _succeed([*pip, ROOT], place)
    versions = {
        _succeed([*command, "--version"], place)
        for command in (
            [commands / "etl"],
            [commands / "usertesting-etl"],
            [commands / "python", "-m", "etl"],
        )
    }
    assert len(versions) == 1, versions
    _succeed([commands / "etl", "init"], place)
    _succeed([commands / "etl", "run", "--sandbox"], place)
    assert list(place.glob("sandbox/lake/sessions/**/part-*.parquet"))


def _answer(command: list[str | Path], folder: Path) -> tuple[int, str]:
    ours = ("PYTHON", "VIRTUAL_ENV", "ETL_", "USERTESTING_")  # nothing of the checkout may help
    done = subprocess.run(
        command,
        cwd=folder,
        env={name: text for name, text in os.environ.items() if not name.startswith(ours)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


def _succeed(command: list[str | Path], folder: Path) -> str:
    code, said = _answer(command, folder)
    assert code == 0, said
    return said


PART = Part("installs", "`pip install .` anywhere brings a program that exports", run)
