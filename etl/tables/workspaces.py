"""The table `workspaces`: the workspaces that these credentials see.

Source: `GET /v1/workspaces` (integrations-v1, Workspace).
"""

from dataclasses import dataclass
from typing import Final

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.json_text import Document, array_of
from etl.tables.kinds import ID, TEXT
from etl.tables.reading import Field, Reader
from etl.tables.values import Rows, Table

_READER: Final = Reader(
    Field("uuid", "workspace_id", ID, "The workspace."),
    Field("id", "id", TEXT, "Its number in older parts of the platform."),
    Field("name", "name", TEXT, "Its name."),
)

_KEY: Final = ("workspace_id",)


def decode(body: bytes) -> Document:
    """Read the workspaces; raises UnreadableBodyError if it is no list of them."""
    return array_of(body, "a list of workspaces")


def workspace_ids(content: Document) -> list[str]:
    """Return the ids of the workspaces that an answer lists."""
    served = content.value if isinstance(content.value, list) else []
    ids = (entry.get("uuid") for entry in served if isinstance(entry, dict))
    return [found for found in ids if isinstance(found, str) and found]


@dataclass(frozen=True, slots=True)
class ListedWorkspace:
    """A workspace as the account lists it."""

    workspace_id: str
    name: str | None


def listed_workspaces(content: Document) -> list[ListedWorkspace]:
    """Return the workspaces of an answer, those that can be read."""
    served = content.value if isinstance(content.value, list) else []
    values = _READER.read(served, odd=content.odd).values
    names = ("workspace_id", "name")
    return [ListedWorkspace(*row) for row in zip(*(values[name] for name in names), strict=True)]


def _rows_of(answer: Answer, content: Document) -> Rows:
    served = content.value if isinstance(content.value, list) else []
    return _READER.rows(_READER.read(served, odd=content.odd), answer, _KEY)


WORKSPACES: Final = Endpoint(
    name="workspaces",
    path="/usertesting/api/v1/workspaces",
    scope=Scope.ACCOUNT,
    priority=Priority.LISTING,
    decode=decode,
)
"""All workspaces of an account."""

TABLE: Final = Table(
    name="workspaces",
    row="a workspace",
    key=_KEY,
    endpoint=WORKSPACES,
    columns=_READER.columns,
    rows_of=_rows_of,
)
