"""Decides by which listing a test is looked at, and what to say of one that is in the wrong tables.

A test is classic, and served by the older API, or of type STUDYV2, and served by today's. The
workspaces tell; where they do not list a test, today's API is asked first.
"""

from collections.abc import Collection
from typing import Any, Final

from etl.client.values import Endpoint
from etl.ledger.due import CLASSIC, STUDYV2, Feeds
from etl.plan.orders import Order, lists, lists_classic
from etl.tables.completed_sessions import COMPLETED_SESSIONS
from etl.tables.registry import tables
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.tests import ListedTest

ABSENT_FOR_US: Final = 7 * 24 * 3600 * 1_000_000
"""How long a 404 is believed of a test that is asked for as a classic one."""


def product_of(test: ListedTest) -> str:
    """Return what is noted of a listed test: its product type, or that it is classic."""
    if test.is_classic:
        return CLASSIC
    return test.product_type or (STUDYV2 if test.is_v2 else "")


def listing_of(order: Order, feeds: Feeds, test_id: str) -> Endpoint[Any] | None:
    """Return the listing by which a test is looked at, or None if by none."""
    if lists(order) and feeds.has(test_id, SESSION_RESULTS.name):
        return SESSION_RESULTS
    if lists_classic(order) and feeds.has(test_id, COMPLETED_SESSIONS.name):
        return COMPLETED_SESSIONS
    return None


def of_tests(names: Collection[str], *, classic: bool) -> list[str]:
    """Return which of these tables hold what classic tests have, or what the others have."""
    endpoints = {name: tables()[name].endpoint for name in names}
    return [
        name
        for name, endpoint in endpoints.items()
        if not endpoint.is_of_account and endpoint.is_classic is classic
    ]


def misplaced(order: Order, feeds: Feeds, test_id: str) -> str | None:
    """Return what to say of a test that is known to have nothing in the pipeline's tables."""
    product, names = feeds.product_of.get(test_id), order.pipeline.tables
    is_classic = product == CLASSIC
    others = of_tests(names, classic=not is_classic)
    if not product or not others or of_tests(names, classic=is_classic):
        return None
    kind = "a classic test" if is_classic else "of type STUDYV2"
    return (
        f"It is {kind}, of which {_listed(others)} hold nothing: it belongs to the tables "
        f"{_listed(of_tests(tables(), classic=is_classic))}. Name some of them under `tables`, or "
        "leave the test out of `tests`."
    )


def hint(order: Order, feeds: Feeds, test_id: str, *, asked_as_classic: bool) -> str:
    """Return what may be wrong with a test that an API does not know; nothing if nobody knows."""
    if feeds.product_of.get(test_id) or of_tests(
        order.pipeline.tables, classic=not asked_as_classic
    ):
        return ""
    kind = "of type STUDYV2" if asked_as_classic else "a classic test"
    belongs_to = of_tests(tables(), classic=not asked_as_classic)
    return f" If it is {kind}, it belongs to the tables {_listed(belongs_to)}."


def _listed(names: Collection[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
