"""Random listings against paging, by the ten thousand."""

from tests.listings import try_listing
from tests.soak.turns import Part, Turn


async def run(turn: Turn) -> None:
    """Try seeds, each a listing over some nights; pure, so it needs no thread."""
    for seed in turn.seeds():
        tried = try_listing(int(seed))
        turn.count(**{what.replace(" ", "_"): times for what, times in tried.items()})


PART = Part("listings", "no row is missed beyond the delay of the rolling proof", run)
