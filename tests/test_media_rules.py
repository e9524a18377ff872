"""What is decided about media, for any input."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.client.media_rules import (
    LARGEST_CHUNK_BYTES,
    Bucket,
    chunk_bytes,
    content_range,
    may_connect,
    spend,
    validator_in,
)

RATES = st.floats(1.0, 1e10)
NUMBERS = st.integers(0, 10**18 - 1)
STEPS = st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, LARGEST_CHUNK_BYTES)), min_size=1)


@given(RATES, STEPS)
def test_no_span_of_time_takes_more_than_the_rate_and_a_second_and_a_chunk(rate, steps):
    """One caller, who takes a chunk, waits as told, and comes again when he likes."""
    bucket, now = Bucket(0.0, 0.0), 0.0
    taken: list[tuple[float, int]] = []
    for idle, count in steps:
        now += idle
        taken.append((now, count))
        bucket, wait = spend(bucket, count, now, rate)
        now += wait
    for first, (begun, _) in enumerate(taken):
        passed = 0
        for at, count in taken[first:]:
            assert passed <= (rate * (at - begun) + rate) * (1 + 1e-6) + 1
            passed += count


@given(RATES, st.lists(st.integers(1, LARGEST_CHUNK_BYTES), min_size=1, max_size=50))
def test_who_never_rests_gets_the_whole_rate_however_many_share_it(rate, counts):
    bucket, waits = Bucket(0.0, 0.0), []
    for count in counts:  # all at once: each waits until his own is paid
        bucket, wait = spend(bucket, count, 0.0, rate)
        waits.append(wait)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(sum(counts) / rate)


@given(RATES)
def test_a_chunk_is_of_a_sensible_size(rate):
    assert 16_384 <= chunk_bytes(rate) <= LARGEST_CHUNK_BYTES == chunk_bytes(None)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_content_range_is_read_as_it_was_written_if_it_can_be(first, last, total):
    text = f"bytes {first}-{last}/{total}"
    lawful = first <= last < total
    assert content_range(text) == ((first, last, total) if lawful else None)


@given(st.text() | st.from_regex(r"bytes[ =]?-?\d*-\d*/?[\d*]*"))
def test_any_other_content_range_is_none(text):
    found = content_range(text)
    assert found is None or 0 <= found[0] <= found[1] < found[2]


@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_the_same_however_it_is_dressed(number):
    address = IPv4Address(number)
    plain = may_connect(str(address), loopback=False)
    for network in ("::ffff:0:0/96", "64:ff9b::/96"):
        dressed = IPv6Address(int(IPv6Network(network).network_address) | number)
        assert may_connect(str(dressed), loopback=False) is plain
    assert may_connect(str(IPv6Address(0x2002 << 112 | number << 80)), loopback=False) is plain


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
        *("192.168.0.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::7f00:1", "fc00::1", "fe80::1", "fe80::1%1"),
        *("fec0::1", "ff02::1", "2001:db8::1"),
    ],
)
def test_an_address_that_is_not_public_is_not_connected_to(address):
    assert not may_connect(address, loopback=False)


def test_a_public_address_is_connected_to_and_loopback_where_it_is_allowed():
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert may_connect(address, loopback=False)
    assert may_connect("127.0.0.1", loopback=True) and may_connect("::1", loopback=True)
    assert not may_connect("10.0.0.1", loopback=True)


SERVED = "Wed, 26 Nov 2025 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": SERVED}, None),
        ({"ETag": "a"}, None),
        ({"ETag": '"' + "a" * 300 + '"'}, None),
        ({"Date": SERVED, "Last-Modified": "Wed, 26 Nov 2025 09:59:00 GMT"}, "same"),
        ({"Date": SERVED, "Last-Modified": "Wed, 26 Nov 2025 09:59:01 GMT"}, None),
        ({"Date": SERVED, "Last-Modified": "Wed, 26 Nov 2025 10:30:00 GMT"}, None),
        ({"Date": SERVED, "Last-Modified": "Wed, 26 Nov 2025 09:00:00"}, None),
        ({"Last-Modified": SERVED}, None),
        ({"Date": SERVED, "Last-Modified": "Wed, 26 Nov 2025 09:00:00 GMT (\xfc)"}, None),
        ({}, None),
    ],
)
def test_only_what_changes_with_every_byte_says_that_a_file_is_the_same(headers, expected):
    told = headers.get("Last-Modified") if expected == "same" else expected
    assert validator_in(headers) == told
