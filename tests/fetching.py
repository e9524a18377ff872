"""A sandbox, a client of media, and a lake that its files are on their way to."""

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from etl.client.media import MediaClient, open_media
from etl.client.media_values import MediaLimits, Received
from etl.config.models import Connection
from etl.lake.local import LocalLake
from etl.lake.media_parts import MediaPart, MediaParts
from etl.pacing.clock import Clock, SystemClock
from etl.sandbox.faults import Fault, FaultKind
from etl.sandbox.media import MediaFile
from etl.sandbox.server import Sandbox, SandboxOptions, open_sandbox
from tests.calling import TEST

FREE = SandboxOptions(rate_requests=None, video_bytes=3_000_000)
PIPELINE = "nightly"


@dataclass
class Fetching:
    """A client with a link to a video, and the place where it is to come."""

    sandbox: Sandbox
    client: MediaClient
    parts: MediaParts
    lake: LocalLake

    @property
    def part(self) -> MediaPart:
        """The video's place, as after a restart."""
        return self.parts.part("videos", TEST)

    @property
    def file(self) -> MediaFile:
        """The video as the sandbox has it now."""
        return self.sandbox.video(TEST)

    @property
    def url(self) -> str:
        """A new link to it."""
        return self.sandbox.link(self.file)[0]

    def fail(self, kind: FaultKind, value: Any = None, **more: Any) -> None:
        """Let something go wrong with the next transfer."""
        self.sandbox.add_fault(Fault(kind, on="media", value=value, **more))

    async def fetch(self, url: str | None = None) -> Received:
        """Try once, and prove what is said to be here."""
        received = await self.client.transfer(url or self.url, self.part)
        assert await to_thread.run_sync(self.part.whole) == received
        return received

    async def fails(self, error: type[BaseException], url: str | None = None) -> Any:
        """Try once, in vain; nothing of the link but its host is told."""
        with pytest.raises(error) as failed:
            await self.fetch(url)
        told = "".join(traceback.format_exception(failed.value)) + repr(failed.value)
        for secret in ("X-Amz", "Signature", "_media", TEST, "hunter2"):
            assert secret not in told
        assert await to_thread.run_sync(self.part.whole) is None
        return failed.value

    async def is_right(self, received: Received) -> bool:
        """Say whether the file is what the sandbox has."""
        file = self.file
        return (received.sha256, received.bytes) == (file.sha256, file.size_bytes)

    def ranges(self) -> list[str | None]:
        """Return what was asked for."""
        return [transfer.range for transfer in self.sandbox.transfers]


@asynccontextmanager
async def fetching(
    folder: Path,
    limits: MediaLimits | None = None,
    *,
    options: SandboxOptions = FREE,
    clock: Clock | None = None,
    api_url: str | None = None,
) -> AsyncIterator[Fetching]:
    """Open a sandbox and a client of its media; `api_url` may say that the API is elsewhere."""
    lake = LocalLake(folder / "lake")
    await to_thread.run_sync(lake.found)
    async with open_sandbox(options) as sandbox:
        connection = Connection(api_url=api_url or sandbox.url)
        async with open_media(
            connection, limits or MediaLimits(), clock or SystemClock()
        ) as client:
            yield Fetching(sandbox, client, MediaParts(lake, PIPELINE, 0), lake)
