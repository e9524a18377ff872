"""Decides what is read of the workspaces, and which of their tests a filter means."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

import msgspec

from etl.config.models import Discovery
from etl.ledger.due import ROUND_LIFE_US
from etl.plan.kinds import of_tests
from etl.plan.orders import Order, endpoints_asked
from etl.tables.registry import tables
from etl.tables.tests import ListedTest


class Catalogued(msgspec.Struct, frozen=True):
    """What the last reading of the workspaces took, and which tests a filter found in them."""

    pages: int
    tests: Sequence[str]


class CatalogueRead(msgspec.Struct):
    """What a run that was cut short had read of the catalogue, for the next one to go on with.

    `pages` holds the tests of each page and the cursor behind it, by the page's object id.
    """

    at_us: int
    workspaces: list[str] | None = None
    pages: dict[str, tuple[list[ListedTest], str | None]] = {}


def recalled(noted: str | None, now_us: int) -> CatalogueRead:
    """Return what an earlier run has left, unless it is older than a round may be."""
    left = msgspec.json.decode(noted, type=CatalogueRead) if noted else CatalogueRead(now_us)
    return left if 0 <= now_us - left.at_us <= ROUND_LIFE_US else CatalogueRead(now_us)


@dataclass(frozen=True, slots=True)
class CatalogueNeed:
    """What is to be read of the catalogue, before all else.

    `workspaces` are those to look into, all if None; once `enough` have been found nothing
    more is asked.
    """

    workspaces: tuple[str, ...] | None
    enough: frozenset[str] | None


def catalogue_need(order: Order, products_known: Collection[str]) -> CatalogueNeed | None:
    """Return what is to be read where tests, or the products of some, are not known; or None."""
    wanted = order.filter
    shown = [name for name in order.tables if tables()[name].endpoint.is_of_account]
    unknown = frozenset(order.tests) - frozenset(products_known)
    limited = any(endpoint.products for endpoint in endpoints_asked(order)) or _asks_both(order)
    if wanted is None and not shown and not (limited and unknown):
        return None
    of_all = wanted is None or wanted.workspaces == "all" or "workspaces" in shown
    return CatalogueNeed(
        workspaces=None if of_all or wanted is None else tuple(wanted.workspaces),
        enough=None if wanted is not None or shown else unknown,
    )


def _asks_both(order: Order) -> bool:
    """Say whether some tables are of classic tests and some of the others: what has which?"""
    return all(of_tests(order.tables, classic=classic) for classic in (True, False))


def selected(
    wanted: Discovery, tests: Iterable[ListedTest], tables_fed: Collection[str]
) -> list[str]:
    """Return the ids of the tests that a discovery filter means, newest first.

    Classic tests are among them only where there are tables that hold them, and the others
    not where there are none but these.
    """
    classic = bool(of_tests(tables_fed, classic=True))
    others = not classic or bool(of_tests(tables_fed, classic=False))
    title = re.compile(wanted.title_matches or "")
    products = {product.upper() for product in wanted.product_types or ()}
    since_us = _midnight_us(wanted.ordered_since) if wanted.ordered_since is not None else None
    found = [
        test
        for test in tests
        if ((test.is_v2 and others) or (test.is_classic and classic))
        and (not products or (test.product_type or "").upper() in products)
        and (since_us is None or (test.ordered_at_us or 0) >= since_us)
        and title.search((test.title or "")[:_LONGEST_TITLE])
    ]
    found.sort(key=lambda test: -(test.ordered_at_us or 0))
    return [test.test_id.lower() for test in found]


_LONGEST_TITLE: Final = 500


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
