"""A client of the sandbox that knows nothing of `etl`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox

TEST = "82629d39-c9b5-4acc-8edc-0f2e34c0b07c"
OTHER = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
FREE = SandboxOptions(rate_requests=None, sessions=60)


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return msgspec.json.decode(self.body)


@dataclass
class Caller:
    """A client that knows nothing of `etl`."""

    sandbox: Sandbox
    session: aiohttp.ClientSession
    token: str = ""

    async def grant(self, **form: str) -> tuple[int, Any]:
        """Ask for a token, with these fields instead of the right ones."""
        told = {
            "grant_type": "client_credentials",
            "client_id": self.sandbox.client_id,
            "client_secret": self.sandbox.client_secret,
            "scope": "studies:read",
        }
        async with self.session.post(self.sandbox.token_url, data={**told, **form}) as answer:
            return answer.status, await answer.json()

    async def get(
        self, test_id: str = TEST, path: str = "/api/v2/sessionResults", **query: Any
    ) -> Answer:
        """Ask for a page; the answer is read."""
        return await self.ask(path, testId=test_id, **query)

    async def ask(self, path: str, **query: Any) -> Answer:
        """Ask for any path of the API; the answer is read."""
        return await self.fetch(self.sandbox.url + path, self._authorized(), **query)

    async def told(self, path: str, **query: Any) -> Any:
        """Return the JSON of a path that must be answered."""
        answer = await self.ask(path, **query)
        assert answer.status == 200, (path, answer)
        return answer.json()

    async def fetch(
        self, url: str, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Answer:
        """Ask for any URL, without a token unless it is among the headers."""
        params = {name: str(value) for name, value in query.items()}
        async with self.session.get(
            URL(url, encoded=True).extend_query(params), headers=headers, allow_redirects=False
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def _authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def page(self, test_id: str = TEST, **query: Any) -> dict[str, Any]:
        """Return a page that must be answered."""
        answer = await self.get(test_id, **query)
        assert answer.status == 200
        found: dict[str, Any] = answer.json()
        return found

    async def ids(self, **query: Any) -> list[str]:
        """Return the session ids of a page."""
        return [row["sessionId"] for row in (await self.page(**query))["sessions"]]

    async def tell(self, name: str, body: object = None) -> int:
        """Make a control call; return its status."""
        url = f"{self.sandbox.url}/_sandbox/{name}"
        async with self.session.post(url, json={} if body is None else body) as answer:
            return answer.status


Opened = Callable[..., AbstractAsyncContextManager[Caller]]


@asynccontextmanager
async def called(
    options: SandboxOptions = FREE, host: str = "127.0.0.1", *, granted: bool = True
) -> AsyncIterator[Caller]:
    """Open a sandbox and a client of it, with a token."""
    async with (
        open_sandbox(options, host) as sandbox,
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(10),
        ) as session,
    ):
        caller = Caller(sandbox, session)
        if granted:
            status, answer = await caller.grant()
            assert status == 200
            caller.token = answer["access_token"]
        yield caller
