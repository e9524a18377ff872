"""Everything that an API or a network can do wrong, as data."""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

import msgspec

from etl.sandbox.patches import patched


class FaultKind(StrEnum):
    """What goes wrong. `Fault.value` says more where a kind needs it."""

    STATUS = "status"
    HANG = "hang"
    SLOW_BODY = "slow_body"
    CUT_HEADERS = "cut_headers"
    CUT_BODY = "cut_body"
    RESET = "reset"
    TRUNCATED_JSON = "truncated_json"
    CORRUPT_GZIP = "corrupt_gzip"
    BOMB = "bomb"
    BODY = "body"
    OTHER_TEST = "other_test"
    OLD_PAGE = "old_page"
    TOTAL = "total"
    ECHO = "echo"
    REPEAT_ROW = "repeat_row"
    DROP_ROW = "drop_row"
    HEADERS = "headers"
    REDIRECT = "redirect"
    TOP_FIELD = "top_field"
    ROW_FIELDS = "row_fields"
    RAW_ROW = "raw_row"
    FIELDS = "fields"
    CUE = "cue"
    TOKEN = "token"
    LEAK_SECRET = "leak_secret"
    EXPIRED = "expired"
    SHORT = "short"
    WRONG_RANGE = "wrong_range"
    REPLACED = "replaced"
    HUGE = "huge"
    STALL = "stall"


ENDPOINTS: Final = (
    "token",
    "page",
    "details",
    "transcript",
    "video",
    "clips",
    "clip",
    "qx",
    "reels",
    "reel",
    "workspaces",
    "tests",
    "study",
    "completed",
    "v1_session",
    "v1_clip",
    "v1_reel",
    "media",
)
"""What can be asked, as faults and the log call it; `page` is the listing of sessions."""


@dataclass(slots=True)
class Fault:
    """A fault on one endpoint, of one test or of one object (a session, clip or reel) if told.

    It strikes the `nth` matching request from now (the first, if None) and the
    `times - 1` matching ones after it; 0 times is for ever. `value` says more, by kind:
    `status` the code (sent with `headers`), `body` its text, `bomb` gzip (if None), br or
    zstd, `total` what is echoed (`"absent"` leaves it out), `echo` a mapping over limit and
    offset, `headers` a mapping, `redirect` a URL, `slash` or `loop`, `row_fields` a mapping
    over the page's second row (`"absent"` drops the field), `raw_row` its JSON, `top_field`
    the name of an unknown field beside the rows, `token` a mapping over the token's answer,
    `fields` changes of any JSON answer by their paths (`patches`), `cue` a block put after a
    transcript's head. Of media alone: `expired` refuses the link, `short` sends half the
    bytes as if they were all, `wrong_range` answers a range that was not asked for,
    `replaced` puts another file in the place of this one, `huge` promises `value` bytes
    (100 GB if None) and sends zeros until the client hangs up, `stall` sends half the bytes
    and then nothing; its `headers` leave out those that are `"absent"`, of which
    `Content-Length` makes a body that does not say how long it is.
    """

    kind: FaultKind
    on: str = "page"
    test_id: str | None = None
    object_id: str | None = None
    nth: int | None = None
    times: int = 1
    value: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seen: int = 0
    struck: int = 0

    def strikes(self, on: str, test_id: str | None, objects: Container[str | None]) -> bool:
        """Count a request, and say whether the fault strikes it."""
        if on != self.on or (self.test_id is not None and test_id != self.test_id):
            return False
        if self.object_id is not None and self.object_id not in objects:
            return False
        self.seen += 1
        if self.seen < (self.nth or 1) or (self.times and self.struck >= self.times):
            return False
        self.struck += 1
        return True


def fault_from(told: dict[str, Any]) -> Fault:
    """Return the fault that a control call describes; raises ValueError for an unknown one."""
    known = {"kind", "on", "test_id", "object_id", "nth", "times", "value", "headers"}
    if told.keys() - known:
        raise ValueError(f"unknown keys: {sorted(told.keys() - known)}")
    if told.get("on", "page") not in ENDPOINTS:
        raise ValueError(f"`on` is one of {', '.join(ENDPOINTS)}")
    return Fault(**{**told, "kind": FaultKind(told["kind"])})


@dataclass(frozen=True, slots=True)
class Page:
    """A page before it is put on the wire: what faults may falsify."""

    test_id: str
    rows: Sequence[bytes]
    echo: dict[str, Any]
    top: bytes = b""

    def body(self) -> bytes:
        """Return the page as JSON."""
        echo = {name: value for name, value in self.echo.items() if value != "absent"}
        return b'{%b"testId":"%b","sessions":[%b],"meta":{"pagination":%b}}' % (
            self.top,
            self.test_id.encode(),
            b",".join(self.rows),
            msgspec.json.encode(echo),
        )


def falsified(  # noqa: PLR0911 - a kind of fault, a return
    page: Page, fault: Fault, first_page: Callable[[], Page]
) -> Page:
    """Return the page as the fault makes it; faults of other kinds leave it as it is."""
    rows, value = page.rows, fault.value
    match fault.kind:
        case FaultKind.OLD_PAGE:
            return first_page()
        case FaultKind.OTHER_TEST:
            return replace(page, test_id="00000000-0000-4000-8000-00000000dead")
        case FaultKind.TOTAL:
            return replace(page, echo={**page.echo, "totalCount": value})
        case FaultKind.ECHO:
            return replace(page, echo={**page.echo, **value})
        case FaultKind.REPEAT_ROW:
            return replace(page, rows=(*rows[:2], *rows[1:]))
        case FaultKind.DROP_ROW:
            return replace(page, rows=(*rows[:1], *rows[2:]))
        case FaultKind.RAW_ROW if len(rows) > 1:
            return replace(page, rows=(*rows[:1], str(value).encode(), *rows[2:]))
        case FaultKind.ROW_FIELDS if len(rows) > 1:
            return replace(page, rows=(*rows[:1], _changed(rows[1], value), *rows[2:]))
        case FaultKind.TOP_FIELD:
            return replace(page, top=f'"{value}":{{"a":1}},'.encode())
        case _:
            return page


def falsified_body(body: bytes, fault: Fault, endpoint: str) -> bytes:
    """Return an answer's body as the fault makes it, whatever was asked."""
    if fault.kind is FaultKind.FIELDS:
        return msgspec.json.encode(patched(msgspec.json.decode(body), fault.value))
    if fault.kind is FaultKind.TOP_FIELD and endpoint != "page":
        changes = {f"/{fault.value}": {"a": 1}}
        return msgspec.json.encode(patched(msgspec.json.decode(body), changes))
    if fault.kind is FaultKind.CUE:
        end = b"\r\n" if b"\r\n" in body else b"\n"
        head, gap, rest = body.partition(end * 2)
        return b"".join((head, gap or end * 2, str(fault.value).encode(), end * 2, rest))
    return body


def _changed(row: bytes, fields: dict[str, Any]) -> bytes:
    told = {**msgspec.json.decode(row), **fields}
    return msgspec.json.encode({name: value for name, value in told.items() if value != "absent"})


def striking(
    faults: Iterable[Fault],
    on: str,
    test_id: str | None = None,
    objects: Container[str | None] = (),
) -> list[Fault]:
    """Return the faults that strike this request, counting it for each."""
    return [fault for fault in faults if fault.strikes(on, test_id, objects)]
