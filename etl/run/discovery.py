"""Reads the workspaces and their tests for a person: the run's own errands, nothing landed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from etl.client.http import Client
from etl.client.values import Fetched
from etl.plan.catalogue import CatalogueNeed, CatalogueRead
from etl.run.catalogue import Catalogue, Found
from etl.run.fetching import Fetching
from etl.run.world import World
from etl.tables.cursor_pages import uuid_and_cursor
from etl.tables.tests import ListedTest, listed_tests
from etl.tables.workspaces import WORKSPACES, ListedWorkspace, listed_workspaces


@dataclass(slots=True)
class Discovered:
    """What these credentials see: workspaces, and the tests of each by its id."""

    workspaces: Sequence[ListedWorkspace] = ()
    tests: dict[str, list[ListedTest]] = field(default_factory=dict)


async def discover(client: Client, world: World, fetchers: int) -> Discovered:
    """Return what a connection's credentials see, with a run's patience and pace.

    Raises what ended it early: what is not all is not shown.
    """
    discovered = Discovered()

    async def take(fetched: Fetched[Any]) -> None:
        if fetched.answer.endpoint == WORKSPACES.name:
            discovered.workspaces = listed_workspaces(fetched.content)
        else:
            workspace_id, _ = uuid_and_cursor(fetched.answer.object_id or "")
            discovered.tests.setdefault(workspace_id, []).extend(listed_tests(fetched.content))

    async def end(found: Found) -> None:
        if found.failure is not None:
            raise found.failure

    catalogue = Catalogue(
        take, CatalogueNeed(None, None), in_inbox={}, kept=CatalogueRead(0), on_found=end
    )
    fetching = Fetching((catalogue,), client, world, world.patience)
    await fetching.fetch(fetchers)
    if fetching.stopped is not None and fetching.stopped.error is not None:
        raise fetching.stopped.error
    return discovered
