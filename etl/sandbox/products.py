"""Which product a test is, and which endpoints it has."""

from enum import StrEnum
from random import Random
from typing import Final


class Product(StrEnum):
    """What kind of research a test is; all but the classic ones are of type STUDYV2."""

    SURVEY = "SURVEY"
    NON_THINK_OUT_LOUD = "NON_THINK_OUT_LOUD"
    THINK_OUT_LOUD = "THINK_OUT_LOUD"
    LIVE_CONVERSATION = "LIVE_CONVERSATION"
    CLASSIC = "CLASSIC"


STUDYV2: Final = tuple(product for product in Product if product is not Product.CLASSIC)
_RECORDED: Final = frozenset(STUDYV2) - {Product.SURVEY}

_SERVED: Final = {
    "page": frozenset(STUDYV2),
    "details": frozenset(STUDYV2),
    "transcript": frozenset({Product.THINK_OUT_LOUD, Product.LIVE_CONVERSATION}),
    "video": _RECORDED,
    "clips": _RECORDED,
    "clip": _RECORDED,
    "reels": _RECORDED,
    "reel": _RECORDED,
    "qx": frozenset({Product.NON_THINK_OUT_LOUD}),
    "study": frozenset({Product.CLASSIC}),
    "completed": frozenset({Product.CLASSIC}),
}


def has(product: Product, endpoint: str) -> bool:
    """Say whether a product has an endpoint; what is asked of no one test, every one has."""
    return product in _SERVED.get(endpoint, Product)


def product_of(seed: int, test_id: str) -> Product:
    """Return the product of a test that is not listed as a classic one."""
    return Random(f"{seed}:product:{test_id}").choice(STUDYV2)
