"""Decides about media: whom to connect to, what an answer's head promises, how fast to read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

from etl.client.media_values import Begun, Described
from etl.config.checks import is_loopback

LARGEST_CHUNK_BYTES: Final = 1 << 20
"""What is read before it is written: a thread each, so few and large."""

_SMALLEST_CHUNK_BYTES: Final = 16 * 1024
_BURST_SECONDS: Final = 1.0
_STEADY_SECONDS: Final = 60.0
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAME: Final = re.compile(r"(^|\.)[a-z][^.:]*\.?$", re.IGNORECASE)
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,255}"')
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9.+-]{0,50}/[a-z0-9][a-z0-9.+-]{0,50}")
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_DATE: Final = re.compile(r"[A-Za-z0-9,: +-]{1,64}")


class UnfitError(Exception):
    """An answer that does not fit what was asked, or itself: to be asked from the start."""


# Where it may go.


def read_link(text: str) -> URL | None:
    """Return a link as it is written, for it is signed so; None if it is none."""
    if not _VISIBLE.fullmatch(text):  # a line break would end the request's first line
        return None
    try:
        return URL(text, encoded=True)
    except ValueError:
        return None


def link_mistake(link: URL, *, loopback: bool) -> str | None:
    """Return why a link is not followed; `loopback` allows this machine, and http to it."""
    if link.user is not None or link.password is not None:
        return "it holds credentials"
    host = link.host or ""
    if not host:
        return "it is no web address"
    if link.scheme != "https" and not (link.scheme == "http" and loopback and is_loopback(host)):
        return "it is not https"
    if is_loopback(host):
        return None if loopback else "its address is not public"
    # A name is judged by the address that is connected to; 127.1 is neither name nor address.
    if _NAME.search(host) or may_connect(host, loopback=loopback):
        return None
    return "its address is not public"


def may_connect(address: str, *, loopback: bool) -> bool:
    """Say whether a link may lead to an address: to the public internet, and nowhere else.

    An IPv6 address that stands for an IPv4 one is judged as that: ::ffff:127.0.0.1 is this
    machine, and 64:ff9b::a00:1 is 10.0.0.1 in another's network (RFC 6052).
    """
    try:
        found = _meant(ip_address(address))
    except ValueError:
        return False
    if found.is_loopback:
        return loopback
    if isinstance(found, IPv6Address) and found.is_site_local:
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _meant(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


# What an answer promises.


@dataclass(frozen=True, slots=True)
class Promise:
    """What the head of an answer says of its body: where it starts, and how long it is."""

    start: int
    length: int | None
    file: Described


def headers_for(begun: Begun | None, *, afresh: bool) -> dict[str, str]:
    """Return the headers that ask for what is not here yet.

    Also the whole is asked as a range, since `Content-Range` tells the file's size apart from
    what this answer holds of it; `afresh` asks a host that stumbles over ranges.
    """
    if afresh:
        return {}
    if begun is None or begun.file.validator is None:
        return {"Range": "bytes=0-"}
    return {"Range": f"bytes={begun.bytes}-", "If-Range": begun.file.validator}


def promised(status: int, headers: Mapping[str, str], begun: Begun | None) -> Promise:
    """Return what an answer (200 or 206) promises; raises UnfitError.

    `begun` is what was asked to be continued. Sources: RFC 9110, 14.4, 15.3.7 and 13.1.5.
    """
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity", "aws-chunked"):  # the last is a relic of the upload
        raise UnfitError("it is encoded in a way that was not asked for")
    length = _length(headers.get("Content-Length"))
    if status == 200:
        if length is None and "chunked" not in headers.get("Transfer-Encoding", "").lower():
            raise UnfitError("it does not say where it ends")
        return Promise(0, length, _described(headers, length))
    found = content_range(headers.get("Content-Range"))
    if found is None:
        raise UnfitError("it does not say which part of the file it is")
    first, last, total = found
    if length not in (None, last - first + 1):
        raise UnfitError("it is not as long as the part that it says it is")
    file = _described(headers, total)
    start = begun.bytes if begun is not None and begun.file.validator is not None else 0
    if first != start:
        raise UnfitError("it is another part of the file than was asked for")
    if begun is not None and start and not _is_same(file, begun.file):
        raise UnfitError("it is part of another file than was begun")
    return Promise(first, last - first + 1, file)


def content_range(text: str | None) -> tuple[int, int, int] | None:
    """Return (first, last, total) of a `Content-Range`, None where it is none that helps."""
    match = _CONTENT_RANGE.fullmatch((text or "").strip())
    if match is None or match[3] == "*":
        return None
    first, last, total = (int(number) for number in match.groups())
    return (first, last, total) if first <= last < total else None


def _is_same(file: Described, begun: Described) -> bool:
    if file.total_bytes != begun.total_bytes and begun.total_bytes is not None:
        return False
    return file.validator in (None, begun.validator)


def _described(headers: Mapping[str, str], total_bytes: int | None) -> Described:
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Described(
        validator=validator_in(headers),
        total_bytes=total_bytes,
        content_type=kind if _MEDIA_TYPE.fullmatch(kind) else None,
    )


def validator_in(headers: Mapping[str, str]) -> str | None:
    """Return what `If-Range` may name later: what changes whenever a byte does.

    A date is as good as a strong ETag if the file was a minute old when it was served; RFC
    9110 (8.8.2.2) asks for a second, of clocks that go right.
    """
    etag = headers.get("ETag", "").strip()
    if etag:
        return etag if _STRONG_ETAG.fullmatch(etag) else None
    modified = headers.get("Last-Modified", "").strip()
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(modified)
    except (ValueError, TypeError, IndexError):
        return None
    steady = age.total_seconds() >= _STEADY_SECONDS and _DATE.fullmatch(modified)
    return modified if steady else None


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and _LENGTH.fullmatch(text) else None


# How fast.


@dataclass(frozen=True, slots=True)
class Bucket:
    """What may pass at once, in bytes, as of a moment. Below zero it is a debt."""

    level: float
    at: float


def spend(bucket: Bucket, count: int, now: float, rate: float) -> tuple[Bucket, float]:
    """Return the bucket after `count` bytes more, and how long whoever took them waits.

    It fills by `rate` bytes a second, up to a second's worth. Who comes while there is a debt
    waits until his own is paid too: so the rate holds however many there are.
    """
    level = min(rate * _BURST_SECONDS, bucket.level + (now - bucket.at) * rate) - count
    return Bucket(level, now), max(0.0, -level / rate)


def chunk_bytes(rate: float | None) -> int:
    """Return how much to read at a time, such that a low rate is felt evenly."""
    if rate is None:
        return LARGEST_CHUNK_BYTES
    return max(_SMALLEST_CHUNK_BYTES, min(LARGEST_CHUNK_BYTES, int(rate / 4)))
