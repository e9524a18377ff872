"""The listing `GET /api/v2/sessionResults`, in both spellings of its pagination."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from etl.sandbox.data import Listing
from etl.sandbox.faults import Page

_MOST_OFFSET: Final = 10_000
_MOST_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class Spelling:
    """How this server reads pagination: which parameters it knows, its cap and defaults."""

    understands: frozenset[str] = frozenset({"page", "offset"})
    first_page: int = 1
    default_rows: int = 25
    page_cap: int = 500
    strict: bool = False


class BadParameters(Exception):
    """Parameters that the API answers 400; the message is the vendor's way to say so."""


def window_of(query: Mapping[str, str], spelling: Spelling) -> tuple[int, int]:
    """Return (limit, offset) as this server understands the query; raises BadParameters.

    A parameter that it does not know is ignored, unless it is a strict one.
    """
    rows, offset = spelling.default_rows, 0
    if "page" in spelling.understands and "rowsPerPage" in query:
        rows = _number(query["rowsPerPage"], 1, _MOST_ROWS)
        page = _number(query.get("pageNumber", str(spelling.first_page)), spelling.first_page)
        offset = min(rows, spelling.page_cap) * (page - spelling.first_page)
    elif "offset" in spelling.understands and ("limit" in query or "offset" in query):
        rows = _number(query.get("limit", str(rows)), 1, _MOST_ROWS)
        offset = _number(query.get("offset", "0"), 0)
    elif spelling.strict and query.keys() - {"testId"}:
        raise BadParameters("Unknown parameters.")
    if offset > _MOST_OFFSET:
        raise BadParameters("The offset must be between 0-10000.")
    return min(rows, spelling.page_cap), offset


def _number(text: str, least: int, most: int | None = None) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise BadParameters("Pagination parameters must be numbers.")
    number = int(text)
    if number < least or (most is not None and number > most):
        raise BadParameters(f"The limit must be between {least}-{most}.")
    return number


def page_of(test_id: str, listing: Listing, limit: int, offset: int) -> Page:
    """Return the page that holds these rows."""
    return Page(
        test_id=test_id,
        rows=listing.rendered[offset : offset + limit],
        echo={"limit": limit, "offset": offset, "totalCount": len(listing.rows)},
    )
