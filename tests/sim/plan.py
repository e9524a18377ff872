"""What a seed draws: a world, the lives of an exporter in it, and what befalls each."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from etl.config.models import Pagination, PartitionColumn, RateLimit
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.pages import Spelling
from etl.sandbox.server import SandboxOptions

WEATHERS: Final = ("calm", "changing", "faulty", "stormy")
DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class Life:
    """One process: when it dies or is stopped, and what it meets. Times are virtual.

    `kill_at` and `fail_at` count seams, `signal_at_page` pages; `changes` is how probable a
    change of the listings is before each page.
    """

    rest_seconds: float = 0.0
    kill_at: int | None = None
    kill_after_seconds: float | None = None
    fail_at: int | None = None
    signal_at_page: int | None = None
    max_requests: int | None = None
    max_runtime_seconds: float | None = None
    clock_jump: tuple[float, float] | None = None
    outage: tuple[float, float] | None = None
    changes: float = 0.0
    faults: Sequence[Fault] = ()
    full: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a seed decides before anything runs."""

    seed: int
    weather: str
    sizes: Sequence[int]
    options: SandboxOptions
    pagination: Pagination
    rate: RateLimit
    audit: str
    partition_by: tuple[PartitionColumn, ...]
    concurrency: int
    latency_seconds: tuple[float, float]
    lives: Sequence[Life]
    rolls_to_the_end: bool
    edited: str

    @property
    def is_paced(self) -> bool:
        """Whether the limit is what a run waits for."""
        return self.rate.requests < 1_000

    @property
    def rows_lied(self) -> bool:
        """Whether the server ever leaves out a row that it lists."""
        kinds = {fault.kind for life in self.lives for fault in life.faults}
        return not kinds.isdisjoint(ROW_LIES)


def plan_of(seed: int, weather: str | None = None) -> Plan:
    """Return what a seed draws; `weather` is drawn unless given."""
    random = Random(f"plan:{seed}")
    weather = weather or random.choices(WEATHERS, (2, 3, 3, 4))[0]
    paced = random.random() < 0.6
    rate = random.choice((RateLimit(), RateLimit(requests=5, seconds=10.0))) if paced else FREE
    rows = random.choice((5, 12, 30, 30, 500))
    tests = random.randint(1, 4)
    return Plan(
        seed=seed,
        weather=weather,
        sizes=[random.choice((0, 1, rows, rows + 1, random.randint(2, 110))) for _ in range(tests)],
        options=_server(random, rate, rows),
        pagination=Pagination(
            style=random.choice(("auto", "auto", "auto", "offset", "page")), rows_per_page=rows
        ),
        rate=rate,
        audit=random.choice(("rolling", "rolling", "full")),
        partition_by=random.choice(_LAYOUTS),
        concurrency=random.choice((1, 2, 4, 8)),
        latency_seconds=random.choice(((0.001, 0.002), (0.05, 0.25), (0.05, 0.25))),
        lives=[_life(random, weather, paced=paced) for _ in range(random.randint(1, 4))],
        rolls_to_the_end=random.random() < 0.25,
        edited=random.choice(("report", "replace")),
    )


_LAYOUTS: Final[Sequence[tuple[PartitionColumn, ...]]] = (
    (),
    ("test_id",),
    ("start_month",),
    ("test_id", "start_date"),
)
FREE: Final = RateLimit(requests=100_000, seconds=1.0)


def _server(random: Random, rate: RateLimit, rows: int) -> SandboxOptions:
    return SandboxOptions(
        seed=random.randrange(1 << 16),
        token_ttl_seconds=random.choice((2.0, 20.0, 300.0, 3600.0)),
        rate_requests=rate.requests,
        rate_seconds=rate.seconds,
        spelling=Spelling(
            first_page=random.choice((0, 1)),
            page_cap=random.choice((500, 500, max(5, rows // 2), 25)),
            default_rows=random.choice((5, 25)),
            strict=random.random() < 0.3,
        ),
    )


def _life(random: Random, weather: str, *, paced: bool) -> Life:
    how = random.random()
    pages = random.randint(1, 25)
    rests = (0.0, 1.0, 30.0) if weather == "calm" else (0.0, 30.0, 700.0, DAY_SECONDS / 3, 1e5)
    faulty, changing = weather in ("faulty", "stormy"), weather in ("changing", "stormy")
    faults = [_fault(random, weather) for _ in range(random.randint(1, 6))] if faulty else []
    return Life(
        rest_seconds=random.choice(rests),
        kill_at=int(5 * 40 ** random.random()) if how < 0.55 else None,
        kill_after_seconds=random.uniform(0.1, 90 if paced else 3) if 0.55 < how < 0.7 else None,
        fail_at=random.randint(5, 120) if faulty and random.random() < 0.2 else None,
        signal_at_page=pages if 0.7 < how < 0.77 else None,
        max_requests=pages if 0.77 < how < 0.84 else None,
        max_runtime_seconds=random.uniform(1, 120) if 0.84 < how < 0.9 else None,
        clock_jump=(random.uniform(0, 60), random.choice((-3600.0, 3600.0, 3 * 3600.0)))
        if faulty and random.random() < 0.15
        else None,
        outage=(random.uniform(0, 30), random.choice((5.0, 200.0, 1_200.0)))
        if faulty and random.random() < 0.1
        else None,
        changes=random.choice((0.05, 0.2, 0.6)) if changing else 0.0,
        faults=faults,
    )


_RETRY_AFTER: Final[Sequence[dict[str, str]]] = (
    {},
    {"Retry-After": "3"},
    {"Retry-After": "0"},
    {"Retry-After": "1000000000"},
    {"Retry-After": "Tue, 14 Nov 2000 22:13:50 GMT"},
)
_LIMIT_HEADERS: Final = (
    {"x-ratelimit-limit": "0"},
    {"x-ratelimit-limit": "ten"},
    {"x-ratelimit-remaining": "1000000000"},
    {"x-ratelimit-reset": "1900000000"},
)
ROW_LIES: Final = frozenset({FaultKind.DROP_ROW, FaultKind.RAW_ROW})
_PAGE_FAULTS: Final[Sequence[tuple[FaultKind, Sequence[Any]]]] = (
    (FaultKind.STATUS, (401, 403, 404, 408, 429, 429, 500, 502, 503)),
    (FaultKind.STATUS, (401, 429, 500)),
    (FaultKind.HANG, (None,)),
    (FaultKind.CUT_HEADERS, (None,)),
    (FaultKind.CUT_BODY, (None,)),
    (FaultKind.RESET, (None,)),
    (FaultKind.TRUNCATED_JSON, (None,)),
    (FaultKind.CORRUPT_GZIP, (None,)),
    (FaultKind.BODY, ("", "null", "<html>login</html>", '{"error":"busy"}')),
    (FaultKind.OTHER_TEST, (None,)),
    (FaultKind.OLD_PAGE, (None,)),
    (FaultKind.TOTAL, ("absent", None, -1, "9", 5_000)),
    (FaultKind.ECHO, ({"offset": 0}, {"offset": 7}, {"limit": 1}, {"limit": "absent"})),
    (FaultKind.REPEAT_ROW, (None,)),
    (FaultKind.HEADERS, _LIMIT_HEADERS),
    (FaultKind.REDIRECT, ("slash",)),
    (FaultKind.TOP_FIELD, ("_links",)),
    (FaultKind.ROW_FIELDS, ({"mood": {"happy": True}}, {"x": "\x1b[31m"})),
)
_ROW_FAULTS: Final[Sequence[tuple[FaultKind, Sequence[Any]]]] = (
    (FaultKind.DROP_ROW, (None,)),
    (FaultKind.RAW_ROW, ('{"sessionId":null}', "7", '{"sessionId":"a","startTime":"yesterday"}')),
)
_TOKEN_FAULTS: Final[Sequence[tuple[FaultKind, Sequence[Any]]]] = (
    (FaultKind.STATUS, (429, 500, 503)),
    (FaultKind.RESET, (None,)),
    (FaultKind.HANG, (None,)),
    (FaultKind.BODY, ("<html>",)),
    (FaultKind.TOKEN, ({"expires_in": "absent"}, {"expires_in": -1}, {"token_type": "mac"})),
)


def _fault(random: Random, weather: str) -> Fault:
    """Return a fault; where rows swap at the same time, none leaves out a row.

    Nobody could tell: a row left out and one that has gone, while another came, add up.
    """
    on_token = random.random() < 0.15
    kinds = _TOKEN_FAULTS if on_token else _PAGE_FAULTS
    if weather == "faulty" and not on_token:
        kinds = (*kinds, *_ROW_FAULTS)
    kind, values = random.choice(kinds)
    value = random.choice(values)
    return Fault(
        kind=kind,
        on="token" if on_token else "page",
        nth=random.randint(1, 4 if on_token else 25),
        times=random.choice((1, 1, 1, 2, 3, 12)),
        value=value,
        headers=random.choice(_RETRY_AFTER) if value == 429 else {},
    )
