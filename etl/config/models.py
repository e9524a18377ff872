"""placeholder"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr


class _M(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RateLimit(_M):
    requests: int = 10
    seconds: float = 60.0


class Connection(_M):
    name: str = "default"
    client_id: SecretStr | None = None
    client_secret: SecretStr | None = None
    api_url: str = ""
    token_url: str = ""
    scope: str = "studies:read"
    rate_limit: RateLimit = RateLimit()
    concurrency: int = 8
    timeout_seconds: float = 60.0


class Pagination(_M):
    style: Literal["auto", "page", "offset"] = "auto"
    rows_per_page: int = 500
    first_page: Literal[0, 1, "auto"] = "auto"


class Lake(_M):
    url: str = "./lake"
    format: str = "parquet"
    partition_by: tuple[str, ...] = ("test_id",)

    @property
    def path(self) -> Path | None:
        return Path(self.url)


class Discovery(_M):
    pass


class Pipeline(_M):
    name: str
    connection: str = "default"
    tests: tuple[str, ...] | Discovery = ()
    tables: tuple[str, ...] = ("sessions",)
    audit: str = "rolling"
    edited: str = "report"
    accept_failures: tuple[str, ...] = ()
    keep_bodies: object = "auto"
    pagination: Pagination = Pagination()
    lake: Lake = Lake()


class Config(_M):
    path: Path
    state_dir: Path
    pipelines: Mapping[str, Pipeline] = {}
    connections: Mapping[str, Connection] = {}
