"""The configuration as the other rooms see it: frozen, whole and checked."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import unquote, urlsplit
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    SecretStr,
    StringConstraints,
    Tag,
)

PartitionColumn: TypeAlias = Literal[
    "test_id", "start_date", "start_month", "finish_date", "finish_month"
]


def _uuid(text: str) -> str:
    """Return a UUID as it is written everywhere: lower case, with hyphens."""
    try:
        found = str(UUID(text))
    except ValueError:
        raise ValueError("is not a UUID") from None
    if found != text.lower():
        raise ValueError("is not a UUID written with hyphens")
    return found


def _no_boolean(value: object) -> object:
    """Refuse what Python takes for 0 or 1; text is welcome, as ${VARIABLE} brings it."""
    if isinstance(value, bool):
        raise ValueError("is not a number")  # noqa: TRY004 - pydantic's way to refuse
    return value


Whole: TypeAlias = Annotated[int, BeforeValidator(_no_boolean)]
Number: TypeAlias = Annotated[FiniteFloat, BeforeValidator(_no_boolean)]
TestId: TypeAlias = Annotated[str, AfterValidator(_uuid)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]


class Model(BaseModel):
    """What all parts of the configuration share: no unknown key, no change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class RateLimit(Model):
    """What the vendor grants one set of credentials."""

    requests: Whole = Field(
        default=10, ge=1, le=100_000, description="Requests allowed in any window."
    )
    seconds: Number = Field(
        default=60.0, ge=0.001, le=86_400, description="Length of the window, in seconds."
    )


class Connection(Model):
    """A set of credentials, with its own token and its own pace."""

    name: Name = Field(default="default", description="Its key under `connections`.")
    client_id: SecretStr | None = Field(
        default=None, description="Client id; USERTESTING_CLIENT_ID if left out."
    )
    client_secret: SecretStr | None = Field(
        default=None,
        description="Client secret, as ${VARIABLE}; USERTESTING_CLIENT_SECRET if left out.",
    )
    api_url: str = Field(default="https://api.use2.usertesting.com", description="Base of the API.")
    token_url: str = Field(
        default="https://auth.usertesting.com/oauth2/aus1p3vtd8vtm4Bxv0h8/v1/token",
        description="Token endpoint.",
    )
    scope: str = Field(default="studies:read", min_length=1, description="OAuth scope to ask for.")
    rate_limit: RateLimit = Field(
        default=RateLimit(), description="The pace; the server's own headers may lower it."
    )
    concurrency: Whole = Field(default=8, ge=1, le=64, description="Requests in flight at once.")
    timeout_seconds: Number = Field(
        default=60.0, gt=0, le=3_600, description="Time allowed for one request, all phases."
    )


class Pagination(Model):
    """How pages of a listing are asked."""

    style: Literal["auto", "page", "offset"] = Field(
        default="auto",
        description="`page` (rowsPerPage, pageNumber), `offset` (limit, offset) or `auto`.",
    )
    rows_per_page: Whole = Field(
        default=500, ge=1, le=500, description="Rows to ask for in a page."
    )
    first_page: Annotated[Literal[0, 1, "auto"], BeforeValidator(_no_boolean)] = Field(
        default="auto", description="The number of the first page in `page` style."
    )


def _lake_url(url: str) -> str:
    """Refuse what names no folder, or a folder of another machine."""
    if "\0" in url:
        raise ValueError("holds a character that no path can")
    if url.startswith("file://"):
        try:
            host = urlsplit(url).netloc
        except ValueError:
            raise ValueError("is not a URL; accepted: file:///folder") from None
        if host not in ("", "localhost"):
            raise ValueError("names a machine; accepted: file:///folder, with three slashes")
    return url


class Lake(Model):
    """Where the rows land, and how they are laid out."""

    url: Annotated[str, AfterValidator(_lake_url)] = Field(
        min_length=1, description="A path or file:// URL of the lake's folder."
    )
    format: Literal["parquet", "delta", "iceberg"] = Field(
        default="parquet", description="The table format."
    )
    partition_by: tuple[PartitionColumn, ...] = Field(
        default=("test_id",), description="Partition columns, outermost first; [] for none."
    )

    @property
    def path(self) -> Path | None:
        """The lake's folder, or None if it is not on this machine."""
        if self.url.startswith("file://"):
            return Path(unquote(urlsplit(self.url).path))
        return None if "://" in self.url else Path(self.url)


class Discovery(Model):
    """A filter over workspaces that finds the tests at each run."""

    workspaces: Literal["all"] | tuple[TestId, ...] = Field(
        default="all", description="Workspaces to look into."
    )
    product_types: tuple[str, ...] | None = Field(
        default=None, description="Product types to keep."
    )
    title_matches: str | None = Field(
        default=None, max_length=500, description="A regular expression that the title matches."
    )
    ordered_since: date | None = Field(default=None, description="The earliest order date.")


def _kind_of_tests(value: object) -> str:
    return "filter" if isinstance(value, Mapping | Discovery) else "list"


class Columns(Model):
    """What becomes of a table's personal data before it lands."""

    exclude: tuple[str, ...] = Field(
        default=(), description="Columns whose values never land: they stay, and are null."
    )
    hash: tuple[str, ...] = Field(
        default=(),
        description="Text columns that land as HMAC-SHA-256 under ETL_HASH_KEY: the same value "
        "is the same in every table, file and run, and without the key nobody can guess it.",
    )


class Files(Model):
    """What becomes of the files of a table: videos, clips or highlight reels."""

    download: bool = Field(
        default=True, description="Fetch them; without, the rows land with a null path."
    )


class Media(Model):
    """How files are fetched: their hosts are not the API, and have no rate limit."""

    concurrency: Whole = Field(default=4, ge=1, le=64, description="Files under way at once.")
    bytes_per_second: Number | None = Field(
        default=None, ge=1024, description="The bandwidth that all of them share; null for all."
    )
    max_bytes: Whole | None = Field(
        default=None, ge=1, description="The largest file to fetch: a larger one's path is null."
    )
    keep_free_bytes: Whole = Field(
        default=1_000_000_000, ge=0, description="Room that is left on the lake's disk."
    )


class Pipeline(Model):
    """What is exported, and where to."""

    name: Name = Field(description="Its key under `pipelines`.")
    connection: str = Field(default="default", description="The connection that it uses.")
    tests: Annotated[
        Annotated[tuple[TestId, ...], Field(min_length=1), Tag("list")]
        | Annotated[Discovery, Tag("filter")],
        Discriminator(_kind_of_tests),
    ] = Field(description="Test ids, or a discovery filter.")
    tables: tuple[str, ...] = Field(
        default=("sessions",), min_length=1, description="Tables to export."
    )
    columns: Mapping[str, Columns] = Field(
        default={}, description="Columns to exclude and to hash, by table."
    )
    audit: Literal["off", "rolling", "full"] = Field(
        default="rolling", description="How deep known pages are proved again."
    )
    edited: Literal["report", "replace"] = Field(
        default="report", description="What becomes of a row that the API now answers differently."
    )
    on_unknown_field: Literal["warn", "fail"] = Field(
        default="warn",
        description="A field that no table knows is kept in `_extra`; `fail`: and the run ends "
        "with exit 4, after all has landed.",
    )
    accept_failures: tuple[TestId, ...] = Field(
        default=(), description="Tests known to fail: reported, but no exit 4."
    )
    keep_bodies: Literal["auto"] | bool = Field(
        default="auto", description="Keep session and test answers in the lake."
    )
    videos: Files = Field(default=Files(), description="The files of the table videos.")
    clips: Files = Field(default=Files(), description="The files of the table clips.")
    highlight_reels: Files = Field(
        default=Files(), description="The files of the table highlight_reels."
    )
    media: Media = Field(default=Media(), description="How files are fetched.")
    pagination: Pagination = Field(default=Pagination(), description="How pages are asked.")
    lake: Lake = Field(description="Where the rows land.")

    @property
    def keeps_bodies(self) -> bool:
        """Whether the lake keeps answers as they came: never beside columns that are hidden."""
        return self.keep_bodies is not False and not self.hides

    @property
    def hides(self) -> bool:
        """Whether anything is excluded or hashed."""
        return any(self.hidden(table) for table in self.columns)

    def hidden(self, table: str) -> frozenset[str]:
        """Return the columns of a table that are excluded or hashed."""
        chosen = self.columns.get(table, Columns())
        return frozenset((*chosen.exclude, *chosen.hash))

    def files(self, table: str) -> Files:
        """Return what becomes of a table's files; of none where it has none."""
        chosen = {
            "videos": self.videos,
            "clips": self.clips,
            "highlight_reels": self.highlight_reels,
        }
        return chosen.get(table, Files(download=False))

    @property
    def hashes(self) -> bool:
        """Whether a column is hashed, so that a key is needed."""
        return any(chosen.hash for chosen in self.columns.values())


class Config(Model):
    """The whole configuration of a command."""

    path: Path
    state_dir: Path
    log_format: Literal["auto", "console", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    pipelines: Mapping[str, Pipeline]
    connections: Mapping[str, Connection]
    hash_key: SecretStr | None = None
    warnings: tuple[str, ...] = ()

    def secrets(self) -> list[str]:
        """Return what no line may ever hold; tokens join it as they are granted."""
        secrets = [connection.client_secret for connection in self.connections.values()]
        told = (*secrets, self.hash_key)
        return [secret.get_secret_value() for secret in told if secret is not None]
