"""Finds the tables by looking into this folder: one file, one `TABLE`."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType, ModuleType

import etl.tables
from etl.client.values import Endpoint
from etl.tables.values import AnyTable


@cache
def _modules() -> tuple[ModuleType, ...]:
    return tuple(
        import_module(f"{etl.tables.__name__}.{module.name}")
        for module in pkgutil.iter_modules(etl.tables.__path__)
    )


@cache
def tables() -> Mapping[str, AnyTable]:
    """Return every table by its name, in alphabetical order."""
    found = {module.TABLE.name: module.TABLE for module in _modules() if hasattr(module, "TABLE")}
    return MappingProxyType(dict(sorted(found.items())))


@cache
def endpoints() -> Mapping[str, Endpoint[object]]:
    """Return every endpoint that the tables' files define, by its name.

    Some feed no table by themselves: they tell where a file can be had.
    """
    found = [
        value
        for module in _modules()
        for value in vars(module).values()
        if isinstance(value, Endpoint)
    ]
    return MappingProxyType({endpoint.name: endpoint for endpoint in found})
