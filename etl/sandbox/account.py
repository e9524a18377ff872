"""The tests of the account: which there are, of which product, and where they are listed."""

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from etl.sandbox import discovery
from etl.sandbox.data import test_ids
from etl.sandbox.ids import uuid_from
from etl.sandbox.options import SandboxOptions
from etl.sandbox.patches import patched
from etl.sandbox.products import Product, has, product_of

_product_of = lru_cache(maxsize=1024)(product_of)


class _Ordered(NamedTuple):
    """A test that was ordered, and the workspaces that list it."""

    serial: int
    workspaces: tuple[str, ...]


class Account:
    """The workspaces and tests that these credentials see."""

    def __init__(self, options: SandboxOptions) -> None:
        """List what the seed says."""
        self.options = options
        self._products: dict[str, Product] = {}
        self._test_edits: dict[str, dict[str, object]] = {}

    @property
    def test_ids(self) -> tuple[str, ...]:
        """The tests of type STUDYV2 that it lists; it serves any other UUID too."""
        return test_ids(self.options.seed, self.options.tests)

    @cached_property
    def classic_ids(self) -> tuple[str, ...]:
        """The classic tests that it lists."""
        seed = self.options.seed
        return tuple(
            uuid_from(f"{seed}:classic:{number}") for number in range(self.options.classic_tests)
        )

    @cached_property
    def _ordered(self) -> dict[str, _Ordered]:
        """Every test that a workspace lists, in the order in which they were ordered."""
        spaces = [space["uuid"] for space in self.workspaces()]
        return {
            test_id: _Ordered(serial, (spaces[serial % len(spaces)],))
            for serial, test_id in enumerate((*self.classic_ids, *self.test_ids), 1)
            if spaces
        }

    def product(self, test_id: str) -> Product:
        """Return the product of a test, listed or not."""
        test_id = test_id.lower()
        found = self._products.get(test_id)
        if found is not None:
            return found
        if test_id in self.classic_ids:
            return Product.CLASSIC
        return _product_of(self.options.seed, test_id)

    def set_product(self, test_id: str, product: str) -> None:
        """Make a test one of another product; raises ValueError for an unknown one."""
        self._products[test_id.lower()] = Product(product)

    def has(self, test_id: str, endpoint: str) -> bool:
        """Say whether a test's product has an endpoint."""
        return has(self.product(test_id), endpoint)

    def workspaces(self) -> list[dict[str, Any]]:
        """Return the account's workspaces, as `/v1/workspaces` answers."""
        return discovery.workspaces_of(self.options.seed, self.options.workspaces)

    def tests(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tests that each workspace lists, newest first, by its UUID."""
        return {
            space["uuid"]: [self.entry(test_id) for test_id in self.listed_in(space["uuid"])]
            for space in self.workspaces()
        }

    def listed_in(self, workspace_id: str) -> dict[str, int]:
        """Return the ids of the tests that a workspace lists, newest first, with serials."""
        found = [
            (ordered.serial, test_id)
            for test_id, ordered in self._ordered.items()
            if workspace_id in ordered.workspaces
        ]
        return {test_id: serial for serial, test_id in sorted(found, reverse=True)}

    def entry(self, test_id: str) -> dict[str, Any]:
        """Return a test as its workspaces list it."""
        serial = self._ordered[test_id].serial
        entry = discovery.entry_of(self.options.seed, test_id, serial, self.product(test_id))
        edits = self._test_edits.get(test_id)
        return patched(entry, edits) if edits else entry

    def order_test(self, workspace: int = 0, product: str | None = None) -> str:
        """Order a new test in the n-th workspace; return its id."""
        serial = len(self._ordered) + 1
        test_id = uuid_from(f"{self.options.seed}:ordered:{serial}")
        if product is not None:
            self.set_product(test_id, product)
        self._ordered[test_id] = _Ordered(serial, (self.workspaces()[workspace]["uuid"],))
        return test_id

    def share(self, test_id: str, workspace: int) -> None:
        """List a test in the n-th workspace too."""
        ordered = self._ordered[test_id.lower()]
        spaces = (*ordered.workspaces, self.workspaces()[workspace]["uuid"])
        self._ordered[test_id.lower()] = ordered._replace(workspaces=spaces)

    def edit_test(self, test_id: str, fields: Mapping[str, object]) -> None:
        """Change how a test is listed, by paths (`patches`)."""
        self._test_edits.setdefault(test_id.lower(), {}).update(fields)
