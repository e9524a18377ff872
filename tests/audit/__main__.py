"""Audits the locks: `python -m tests.audit PIP_AUDIT [--strict] [--bill FILE]`."""

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tests.audit.advisories import Findings, known_vulnerabilities
from tests.audit.bill import bill_of_materials
from tests.audit.licences import licence_of, permitted
from tests.audit.locks import read_lock

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / ".requirements"
# Not the lowest versions: they are tested because users may have them, not recommended.
AUDITED = ("run", "dev", "build", "lock", "audit", "mutate")


def main(given: list[str] | None = None) -> int:
    """Look at everything, tell it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="make audit", description=__doc__)
    parser.add_argument("pip_audit", type=Path)
    parser.add_argument("--strict", action="store_true", help="what is unchecked is a failure")
    parser.add_argument("--bill", type=Path, default=ROOT / "dist" / "sbom.cdx.json")
    asked = parser.parse_args(given)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = read_lock(LOCKS / "run.txt")
    licences = {package.name: licence_of(package) for package in packages}

    everything = sorted(
        {package for lock in AUDITED for package in read_lock(LOCKS / f"{lock}.txt")}
    )
    findings = known_vulnerabilities(asked.pip_audit, everything)
    tell_vulnerabilities(findings, len(everything))
    refused = tell_licences(licences, project["tool"]["etl"]["licences"]["allowed"])
    asked.bill.parent.mkdir(exist_ok=True)
    written = bill_of_materials(project["project"], packages, licences, datetime.now(UTC))
    asked.bill.write_text(json.dumps(written, indent=2))
    print(f"Bill of materials: {len(packages)} packages in {asked.bill}")
    return int(bool(findings.holes or refused or (asked.strict and findings.unchecked)))


def tell_vulnerabilities(findings: Findings, packages: int) -> None:
    """Say what is known of the packages, and loudly of which nothing is."""
    unchecked = findings.unchecked
    print(f"Known vulnerabilities: {len(findings.holes)} in {packages - len(unchecked)} packages")
    for hole in findings.holes:
        print(f"  {hole}")
    if unchecked:
        print(f"  NOT CHECKED: {len(unchecked)} of {packages} packages, which may have any.")
        for reason in sorted(set(unchecked.values()))[:3]:
            print(f"    {reason}")


def tell_licences(licences: Mapping[str, str | None], allowed: list[str]) -> dict[str, str]:
    """Say how packages are licensed; return those that are not permitted."""
    known = {name: licence for name, licence in licences.items() if licence is not None}
    refused = {name: one for name, one in known.items() if not permitted(one, allowed)}
    print(f"Licences: {len(known) - len(refused)} of {len(licences)} packages are permitted")
    for name, licence in refused.items():
        print(f"  NOT PERMITTED: {name}: {licence}")
    if len(known) < len(licences):
        missing = ", ".join(sorted(licences.keys() - known.keys()))
        print(f"  NOT CHECKED, since this system does not install it: {missing}")
    return refused


if __name__ == "__main__":
    sys.exit(main())
