"""Any bytes in: a value or the documented error out, never another exception."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from etl.auth.bodies import Body, CorruptBodyError
from etl.auth.grants import GrantFailed, ask_for_token
from etl.client.values import Answer, UnreadableBodyError
from etl.config.models import Connection
from etl.errors import CredentialsRefused, LakeError
from etl.lake import commits
from etl.lake.commits import Commit, answer_row
from etl.lake.names import commit_name, partition_value, read_data_name
from etl.ledger.damage import DamagedError
from etl.ledger.frames import pack_frame, unpack_frame
from etl.ledger.records import Record, pack, unpack
from etl.ledger.values import Ended
from etl.pacing.clock import SystemClock
from etl.paging.values import Listing, Outcome, Verdict
from etl.tables.registry import endpoints
from etl.tables.sessions import SESSION_RESULTS
from etl.tables.times import readable_time, timestamps

TEST = "00000001-0000-4000-8000-000000000001"
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
NAMES = st.sampled_from(
    ["sessions", "sessionId", "startTime", "meta", "pagination", "limit", "offset", "totalCount"]
)
JSON = st.recursive(
    LEAVES, lambda some: st.lists(some, max_size=4) | st.dictionaries(NAMES, some, max_size=5)
)
BODIES = st.binary(max_size=200) | JSON.map(msgspec.json.encode)
HURT = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6)


def hurt(whole: bytes, wounds: list[tuple[int, int]], length: int | None = None) -> bytes:
    """Return bytes with some of them changed, and perhaps cut short."""
    damaged = bytearray(whole)
    for place, change in wounds:
        damaged[place % len(damaged)] ^= change
    return bytes(damaged[:length])


@pytest.mark.parametrize("name", endpoints().keys())
@given(body=BODIES)
def test_any_body_of_an_endpoint_is_read_or_called_unreadable(name: str, body: bytes):
    with suppress(UnreadableBodyError):
        endpoints()[name].decode(body)


@given(sessions=st.lists(JSON, max_size=5), pagination=JSON)
def test_a_page_of_any_rows_and_any_echo_is_read(sessions: Any, pagination: Any):
    body = msgspec.json.encode({"sessions": sessions, "meta": {"pagination": pagination}})
    page = SESSION_RESULTS.decode(body)
    assert len(page.ids) == len(sessions)
    assert len(page.rows.keys) + len(page.rows.rejects) == len(sessions)


@given(st.lists(st.none() | st.text(max_size=30) | st.datetimes().map(str), max_size=5))
def test_any_text_is_a_time_or_refused(texts: list[str | None]):
    readable = all(map(readable_time, texts))
    try:
        assert len(timestamps(texts)) == len(texts)
    except ValueError:
        assert not readable


@given(encoding=st.sampled_from(["", "gzip", "br", " GZIP "]), chunks=st.lists(st.binary()))
def test_any_chunks_are_a_body_or_called_corrupt(encoding: str, chunks: list[bytes]):
    with suppress(CorruptBodyError):
        body = Body(encoding, largest_bytes=1_000)
        for chunk in chunks:
            body.feed(chunk)
        assert len(body.whole()) <= 1_000


TOKEN_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "access_token": LEAVES | st.just("a.e30.c"),
        "token_type": LEAVES | st.just("Bearer"),
        "expires_in": LEAVES,
        "error": LEAVES | st.sampled_from(["invalid_client", "invalid_scope"]),
    },
)


@given(status=st.sampled_from([200, 400, 401, 429, 500]), body=BODIES | TOKEN_FIELDS)
def test_any_answer_of_the_token_endpoint_is_a_token_or_a_try_that_failed(status, body):
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    class Response(SimpleNamespace):
        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    answer = Response(status=status, headers={}, content=SimpleNamespace(iter_any=chunks))
    session: Any = SimpleNamespace(post=lambda *_, **__: answer)
    connection = Connection(client_id=SecretStr("me"), client_secret=SecretStr("hush"))
    with suppress(GrantFailed, CredentialsRefused):
        token = asyncio.run(ask_for_token(session, connection, SystemClock()))
        assert 1.0 <= token.life_seconds <= 86_400.0


RECORD = Record(
    Listing((1, 2, 3), (7, 7, 9), True, 3, 9, Outcome.DISAGREES), {"sessions": {1: 2, 3: 4}}
)


@given(wounds=HURT, length=st.none() | st.integers(0, 150))
def test_a_record_that_was_hurt_is_read_or_called_none(wounds: Any, length: int | None):
    with suppress(ValueError):
        unpack(hurt(pack(RECORD).packed, wounds, length))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_called_none(packed: bytes):
    with suppress(ValueError):
        unpack(packed)


ANSWER = Answer("session_results", TEST, None, "limit=500&offset=0", 200, 5, b'{"sessions":[]}')


@given(wounds=HURT, which=st.integers(0, 1), length=st.integers(-5, 1_000))
def test_a_frame_that_was_hurt_is_read_or_called_damaged(wounds: Any, which: int, length: int):
    heads, whole, bodies = pack_frame([ANSWER])
    parts = [heads, bodies]
    parts[which] = hurt(parts[which], wounds)
    with suppress(DamagedError):
        unpack_frame(parts[0], length if wounds[0][0] % 2 else whole, parts[1])


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commits") / commit_name(1)


@given(wounds=HURT, length=st.none() | st.integers(0, 4_000))
def test_a_commit_that_was_hurt_is_read_or_called_damaged(
    commit: Path, wounds: Any, length: int | None
):
    verdict = Verdict(Outcome.VERIFIED, 3, 3)
    whole = commits.encode(
        Commit(
            "nightly",
            1,
            "run",
            answers=[answer_row(ANSWER, {"sessions": 0}, keeps_body=True)],
            records={TEST: pack(RECORD)},
            looks=[Ended(TEST, verdict, 5, None, 3, b"")],
        )
    )
    commit.write_bytes(hurt(bytes(whole), wounds, length))
    with suppress(LakeError):
        commits.read(commit, "nightly")


@given(st.text(max_size=80))
def test_any_name_is_one_of_ours_or_not(name: str):
    read_data_name(name)
    partition_value(name)
