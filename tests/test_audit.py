"""The audit tells holes, licences and ingredients, and never takes silence for safety."""

import json
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.audit.__main__ import main
from tests.audit.advisories import read_answer
from tests.audit.bill import bill_of_materials
from tests.audit.licences import licence_of, permitted
from tests.audit.locks import Locked, read_lock

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ALLOWED = PROJECT["tool"]["etl"]["licences"]["allowed"]
RUN = read_lock(ROOT / ".requirements" / "run.txt")

SAFE, HOLED = Locked("safe", "1.0"), Locked("holed", "2.0")


def answer(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def clean(package: Locked) -> dict[str, Any]:
    return {"name": package.name, "version": package.version, "vulns": []}


# Known vulnerabilities.


def test_a_hole_is_told_with_the_version_that_mends_it():
    hole = {"id": "GHSA-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": ""}
    told = answer(clean(SAFE), {**clean(HOLED), "vulns": [hole]})
    found = read_answer(told, "", [SAFE, HOLED])
    assert found.holes == ("holed 2.0: GHSA-1, mended in 2.1 or 3.0",)
    assert found.unchecked == {}


def test_a_package_that_its_source_does_not_know_is_not_called_safe():
    told = answer(clean(SAFE), {"name": "holed", "skip_reason": "not found"})
    assert read_answer(told, "", [SAFE, HOLED]).unchecked == {"holed": "not found"}


def test_a_package_that_the_answer_leaves_out_or_knows_in_another_version_is_not_called_safe():
    found = read_answer(answer(clean(Locked("safe", "0.9"))), "", [SAFE, HOLED])
    assert found.unchecked.keys() == {"safe", "holed"}


@pytest.mark.parametrize("silence", ["", "<html>", "[]", "{}", "null"])
def test_no_answer_is_no_safety_and_the_reason_is_said(silence):
    found = read_answer(silence, "Traceback\nConnectionError: no route\n", [SAFE])
    assert found.unchecked == {"safe": "ConnectionError: no route"}


def pip_audit(folder: Path, *, standard: str, osv: str = "") -> Path:
    """Write a program that answers as pip-audit does: for its first source and for OSV."""
    (folder / "standard.json").write_text(standard)
    (folder / "osv.json").write_text(osv)
    program = folder / "pip-audit"
    choice = 'case "$*" in *osv*) cat osv.json;; *) cat standard.json;; esac'
    program.write_text(f'#!/bin/sh\ncd "{folder}"\n{choice}\n')
    program.chmod(0o755)
    return program


def everything_clean() -> list[dict[str, Any]]:
    locks = (ROOT / ".requirements").glob("*.txt")
    return [clean(package) for package in {one for lock in locks for one in read_lock(lock)}]


def test_an_audit_that_could_look_at_all_is_quiet_and_writes_the_bill(tmp_path, capsys):
    program = pip_audit(tmp_path, standard=answer(*everything_clean()))
    bill = tmp_path / "bill.json"
    assert main([str(program), "--strict", "--bill", str(bill)]) == 0
    assert "NOT PERMITTED" not in (told := capsys.readouterr().out)
    assert "Known vulnerabilities: 0 in " in told
    assert json.loads(bill.read_text())["bomFormat"] == "CycloneDX"


def test_an_audit_that_could_ask_nobody_says_so_loudly_and_fails_if_strict(tmp_path, capsys):
    program = pip_audit(tmp_path, standard="")
    bill = ["--bill", str(tmp_path / "bill.json")]
    assert main([str(program), *bill]) == 0
    assert "NOT CHECKED: " in capsys.readouterr().out
    assert main([str(program), *bill, "--strict"]) == 1


def test_what_the_first_source_does_not_know_is_asked_of_the_next(tmp_path, capsys):
    *known, last = everything_clean()
    program = pip_audit(tmp_path, standard=answer(*known), osv=answer(last))
    assert main([str(program), "--strict", "--bill", str(tmp_path / "bill.json")]) == 0
    assert "NOT CHECKED: " not in capsys.readouterr().out.replace("NOT CHECKED, since", "")


def test_an_audit_that_finds_a_hole_fails(tmp_path, capsys):
    first, *rest = everything_clean()
    hole = {"id": "GHSA-1", "fix_versions": []}
    program = pip_audit(tmp_path, standard=answer({**first, "vulns": [hole]}, *rest))
    assert main([str(program), "--bill", str(tmp_path / "bill.json")]) == 1
    assert "GHSA-1, mended in no version" in capsys.readouterr().out


# Licences.


@pytest.mark.parametrize(
    ("expression", "may"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT AND ISC", True),
        ("(MIT OR GPL-3.0-only) AND ISC", True),
        ("(MIT OR ISC) AND GPL-3.0-only", False),
        ("MIT) AND (GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("MIT GPL-3.0-only", False),
        ("not told", False),
        ("()", False),
        ("", False),
    ],
)
def test_a_licence_is_permitted_only_if_all_that_it_demands_is(expression, may):
    assert permitted(expression, {"MIT", "ISC", "Apache-2.0"}) is may


@pytest.mark.parametrize("package", RUN, ids=lambda package: package.name)
def test_what_users_install_is_licensed_as_the_policy_allows(package):
    licence = licence_of(package)
    assert licence is None or permitted(licence, ALLOWED)


def test_a_package_with_two_licence_classifiers_may_demand_both():
    forbiddenfruit = Locked("forbiddenfruit", version("forbiddenfruit"))
    assert licence_of(forbiddenfruit) == "GNU General Public License v3 or later (GPLv3+) AND MIT"


def test_the_licence_of_another_version_is_not_taken_for_the_locked_ones():
    assert licence_of(Locked("aiohttp", "0.1")) is None


# The bill of materials.


def test_the_bill_names_every_locked_package_with_hashes_and_licence_and_who_needs_it():
    licences = {package.name: "Apache-2.0 AND MIT" for package in RUN}
    bill = bill_of_materials(PROJECT["project"], RUN, licences, datetime.now(UTC))
    parts = {part["name"]: part for part in bill["components"]}
    assert parts.keys() == {package.name for package in RUN}
    assert all(part["externalReferences"][0]["hashes"] for part in parts.values())
    assert parts["aiohttp"]["licenses"] == [{"expression": "Apache-2.0 AND MIT"}]
    edges = {edge["ref"]: edge["dependsOn"] for edge in bill["dependencies"]}
    itself = bill["metadata"]["component"]["bom-ref"]
    assert parts["duckdb"]["bom-ref"] in edges[itself], "extras too"
    assert parts["multidict"]["bom-ref"] in edges[parts["aiohttp"]["bom-ref"]]
    assert edges[parts["colorama"]["bom-ref"]] == []
