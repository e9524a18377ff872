"""The table `tests`: the tests and studies of the workspaces.

Source: `GET /v1/workspaces/{workspaceUuid}` (integrations-v1, WorkspaceStudy), page by page.
"""

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from etl.client.values import Answer, Endpoint, Priority, Scope
from etl.tables.cursor_pages import CursorPage, cursor_page, uuid_and_cursor
from etl.tables.kinds import ID, MOMENT, TEXT
from etl.tables.reading import Field, Reader
from etl.tables.values import Column, Rows, Table

_WORKSPACE: Final = Column("workspace_id", pa.string(), "The workspace.", repeats=True)

_READER: Final = Reader(
    Field("uuid", "test_id", ID, "The test or study."),
    Field("title", "title", TEXT, "Its title."),
    Field("type", "type", TEXT, "How it is run: STUDYV2, or a classic type.", repeats=True),
    Field(
        "productType", "product_type", TEXT, "What research it is, such as SURVEY.", repeats=True
    ),
    Field("orderedAt", "ordered_at", MOMENT, "When it was ordered."),
    Field("orderedBy.name", "ordered_by_name", TEXT, "Who ordered it.", repeats=True),
    Field("orderedBy.email", "ordered_by_email", TEXT, "Their e-mail address.", repeats=True),
    derived=[_WORKSPACE],
    besides=["cursor"],
)

_KEY: Final = ("test_id",)


def decode(body: bytes) -> CursorPage:
    """Read a page of tests; raises UnreadableBodyError if it is none."""
    return cursor_page(body, None, "a list of tests")


@dataclass(frozen=True, slots=True)
class ListedTest:
    """A test as its workspace lists it; None where that does not say."""

    test_id: str
    title: str
    type: str | None
    product_type: str | None
    ordered_at_us: int | None

    @property
    def is_v2(self) -> bool:
        """Whether it is served by the API of today, which serves no classic test."""
        return self.type == "STUDYV2"

    @property
    def is_classic(self) -> bool:
        """Whether it is served by the older API alone."""
        return self.type is not None and not self.is_v2


def listed_tests(page: CursorPage) -> list[ListedTest]:
    """Return the tests of a page, those that can be read."""
    values = _READER.read(page.entries, odd=page.odd).values
    names = ("test_id", "title", "type", "product_type", "ordered_at")
    return [ListedTest(*row) for row in zip(*(values[name] for name in names), strict=True)]


def _rows_of(answer: Answer, page: CursorPage) -> Rows:
    reading = _READER.read(page.entries, odd=page.odd)
    workspace_id, _ = uuid_and_cursor(answer.object_id or "")
    reading.derived[_WORKSPACE.name] = [workspace_id or None] * len(reading.places)
    return _READER.rows(reading, answer, _KEY)


WORKSPACE_TESTS: Final = Endpoint(
    name="workspace_tests",
    path="/usertesting/api/v1/workspaces/{object_id}",
    scope=Scope.OBJECT,
    priority=Priority.LISTING,
    decode=decode,
)
"""The tests of a workspace, 50 a page."""

_TEST_ID, *_OTHERS = _READER.columns[:-1]

TABLE: Final = Table(
    name="tests",
    row="a test or study",
    key=_KEY,
    endpoint=WORKSPACE_TESTS,
    columns=(_TEST_ID, _WORKSPACE, *_OTHERS),
    rows_of=_rows_of,
)
