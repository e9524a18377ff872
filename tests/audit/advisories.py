"""Asks the advisory sources for known vulnerabilities, and never takes silence for safety."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.audit.locks import Locked

SOURCES = ((), ("--vulnerability-service", "osv"))
"""pip-audit's arguments for each source, in the order in which they are asked."""


@dataclass(frozen=True)
class Findings:
    """What the sources said: holes, and the packages of which nothing is known, with reasons."""

    holes: tuple[str, ...]
    unchecked: dict[str, str]


def read_answer(answer: str, complaint: str, packages: Sequence[Locked]) -> Findings:
    """Read pip-audit's JSON.

    It calls a package that its source does not know "skipped", ends with "No known
    vulnerabilities found" and exits 0: so a package counts as checked only if it is named
    with its list of vulnerabilities.
    """
    try:
        named: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = complaint.strip().splitlines()
        named, reason = [], lines[-1] if lines else "pip-audit gave no answer"
    else:
        reason = "pip-audit did not name it"
    checked = {
        (entry["name"], entry["version"]): entry["vulns"] for entry in named if "vulns" in entry
    }
    skipped = {entry["name"]: entry["skip_reason"] for entry in named if "skip_reason" in entry}
    return Findings(
        holes=tuple(
            f"{name} {version}: {hole['id']}, mended in "
            f"{' or '.join(hole['fix_versions']) or 'no version'}"
            for (name, version), holes in sorted(checked.items())
            for hole in holes
        ),
        unchecked={
            package.name: skipped.get(package.name, reason)
            for package in packages
            if (package.name, package.version) not in checked
        },
    )


def known_vulnerabilities(pip_audit: Path, packages: Sequence[Locked]) -> Findings:
    """Ask one source after another, the next one only for what the last did not know."""
    holes: tuple[str, ...] = ()
    unchecked = {package.name: "nobody was asked" for package in packages}
    for source in SOURCES:
        left = [package for package in packages if package.name in unchecked]
        if left:
            found = _ask(pip_audit, source, left)
            holes, unchecked = holes + found.holes, found.unchecked
    return Findings(holes, unchecked)


def _ask(pip_audit: Path, source: tuple[str, ...], packages: Sequence[Locked]) -> Findings:
    # Without the markers: what only Windows installs is looked at everywhere.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.writelines(f"{package.name}=={package.version}\n" for package in packages)
        pins.flush()
        command = [
            str(pip_audit),
            *source,
            "--requirement",
            pins.name,
            "--no-deps",
            "--disable-pip",
        ]
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off", "--timeout", "20"],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    return read_answer(done.stdout, done.stderr, packages)
