"""Random listings are known to the row in time, and none is called proved that is not."""

import pytest

from tests.listings import try_listing


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_random_listings_lose_no_row_beyond_the_delay_of_the_rolling_proof(first: int):
    # `make soak ARGS=listings` tries others, by the ten thousand.
    for seed in range(first, first + 200):
        try:
            try_listing(seed)
        except AssertionError as error:
            pytest.fail(f"{error} (seed {seed})")
