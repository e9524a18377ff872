"""Finds the tables by looking into this folder: one file, one `TABLE`."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType

import etl.tables
from etl.client.values import Endpoint
from etl.tables.values import AnyTable


@cache
def tables() -> Mapping[str, AnyTable]:
    """Return every table by its name, in alphabetical order."""
    modules = (
        import_module(f"{etl.tables.__name__}.{module.name}")
        for module in pkgutil.iter_modules(etl.tables.__path__)
    )
    found = {module.TABLE.name: module.TABLE for module in modules if hasattr(module, "TABLE")}
    return MappingProxyType(dict(sorted(found.items())))


@cache
def endpoints() -> Mapping[str, Endpoint[object]]:
    """Return every endpoint that feeds a table, by its name."""
    return MappingProxyType({table.endpoint.name: table.endpoint for table in tables().values()})
