"""Writes the bill of materials of what users install: CycloneDX 1.6, as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, requires
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.audit.locks import Locked


def bill_of_materials(
    project: Mapping[str, Any],
    packages: Sequence[Locked],
    licences: Mapping[str, str | None],
    written_at: datetime,
) -> dict[str, Any]:
    """Return the bill: every locked package with its hashes and licence, and who needs whom.

    `project` is pyproject's table of that name. The same lock has the same serial number.
    """
    itself = Locked(canonicalize_name(project["name"]), project["version"])
    extras = project.get("optional-dependencies", {}).values()
    needed = [*project["dependencies"], *(text for extra in extras for text in extra)]
    serial = uuid5(NAMESPACE_URL, "\n".join(f"{one.purl} {one.sha256}" for one in packages))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": written_at.isoformat(timespec="seconds"),
            "component": {"type": "application", **_named(itself)},
        },
        "components": [_component(package, licences.get(package.name)) for package in packages],
        "dependencies": list(_edges(itself, needed, packages)),
    }


def _named(package: Locked) -> dict[str, Any]:
    purl = package.purl
    return {"bom-ref": purl, "name": package.name, "version": package.version, "purl": purl}


def _component(package: Locked, licence: str | None) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": sha256} for sha256 in package.sha256]
    component = {
        "type": "library",
        **_named(package),
        # A hash for each file that may be installed: wheels of all systems, and the source.
        "externalReferences": [{"type": "distribution", "url": package.purl, "hashes": hashes}],
    }
    if licence is not None:
        component["licenses"] = [_spelled(licence)]
    return component


def _spelled(licence: str) -> dict[str, Any]:
    try:
        return {"expression": canonicalize_license_expression(licence)}
    except InvalidLicenseExpression:
        return {"license": {"name": licence}}


def _edges(
    itself: Locked, needed: Sequence[str], packages: Sequence[Locked]
) -> Iterator[dict[str, Any]]:
    refs = {package.name: package.purl for package in packages}

    def edge(package: Locked, requirements: Sequence[str]) -> dict[str, Any]:
        wanted = {
            canonicalize_name(requirement.name)
            for requirement in map(Requirement, requirements)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        }
        return {"ref": package.purl, "dependsOn": sorted(refs[name] for name in wanted & set(refs))}

    yield edge(itself, needed)
    for package in packages:
        yield edge(package, _requirements_of(package.name))


def _requirements_of(name: str) -> Sequence[str]:
    try:
        return requires(name) or ()
    except PackageNotFoundError:  # for another system; what it needs is in the lock all the same
        return ()
