"""The account: its workspaces, and the tests in each, newest first."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from etl.sandbox.ids import uuid_from
from etl.sandbox.products import Product
from etl.sandbox.texts import NAMES, TITLES

PAGE_ROWS: Final = 50
_FIRST: Final = datetime(2024, 1, 8, 9, 0, tzinfo=UTC)
_WORKSPACES: Final = (
    "Research Team",
    "فريق البحث – القاهرة",
    "Growth 🌱 & “Brand”",
    "空のワークスペース",
)
_CLASSIC: Final = (
    ("web", "insight_core"),
    ("app", "product_insight"),
    ("live", "insight_core"),
    ("prototype", "market_insight"),
)


class BadCursor(Exception):
    """A cursor that this API never gave."""


def workspaces_of(seed: int, count: int) -> list[dict[str, Any]]:
    """Return what `GET /v1/workspaces` answers."""
    return [
        {
            "id": str(12_345 + number),
            "name": _WORKSPACES[number % len(_WORKSPACES)],
            "uuid": uuid_from(f"{seed}:workspace:{number}"),
        }
        for number in range(count)
    ]


def entry_of(seed: int, test_id: str, serial: int, product: Product) -> dict[str, Any]:
    """Return a test as its workspace lists it; a greater `serial` was ordered later."""
    random = Random(f"{seed}:entry:{test_id}")
    ordered = _FIRST + timedelta(days=3 * serial, seconds=random.randrange(86_400))
    name = random.choice(NAMES)
    type_, product_type = "STUDYV2", product.value
    if product is Product.CLASSIC:
        type_, product_type = random.choice(_CLASSIC)
    entry: dict[str, Any] = {
        "cursor": cursor_of(serial),
        "orderedAt": ordered.isoformat().replace("+00:00", "Z"),
        "orderedBy": {"email": f"user{serial % 7}@example.com", "name": name},
        "productType": product_type,
        "title": random.choice(TITLES),
        "type": type_,
        "uuid": test_id,
    }
    draw = random.random()
    if draw < 0.1:
        del entry["orderedBy"]
    elif draw < 0.2:
        entry["orderedBy"] = {"email": None, "name": name}
    return entry


def cursor_of(serial: int) -> str:
    """Return a place in a list as the vendor writes it: Base64 without its padding."""
    return base64.b64encode(str(serial).encode()).decode().rstrip("=")


def slice_of(serials: Sequence[int], after: str | None, before: str | None) -> list[int]:
    """Return the serials of a page, of a list that runs from the greatest down.

    Serials outlive what is inserted and removed, so a cursor never points elsewhere; one that
    stands out of turn is where it is listed. Raises BadCursor.
    """
    if after is not None:
        place = _serial(after)
        if place in serials:
            behind = serials.index(place) + 1
            return list(serials[behind : behind + PAGE_ROWS])
        return [serial for serial in serials if serial < place][:PAGE_ROWS]
    if before is not None:
        place = _serial(before)
        if place in serials:
            end = serials.index(place)
            return list(serials[max(0, end - PAGE_ROWS) : end])
        return [serial for serial in serials if serial > place][-PAGE_ROWS:]
    return list(serials[:PAGE_ROWS])


def _serial(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), validate=True)
        return int(text)
    except (binascii.Error, ValueError) as error:
        raise BadCursor("Not a valid cursor") from error
