"""All that follows from listings, source by source, in the order of the pipeline's tables."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from etl.client.values import Answer
from etl.lake.landing_plan import LandingPlan, layout_of
from etl.ledger.values import Due
from etl.plan.orders import Order, endpoints_asked, files_asked
from etl.run.files import Files, Kind
from etl.run.follow_ups import Dues, FollowUps
from etl.run.inbox import Key
from etl.run.queue import Queue
from etl.run.stores import Stores
from etl.run.transfers import Transfers


class Followers:
    """The tests, sessions and files that are due; each of its sources goes first in its order."""

    def __init__(self, sources: Iterable[FollowUps | Files] = ()) -> None:
        """Begin with nothing asked; see `followers`."""
        self.sources: Sequence[FollowUps | Files] = tuple(sources)

    @property
    def failures(self) -> list[Mapping[str, Counter[str]]]:
        """What was not had, by test and reason, source by source."""
        return [one.failures for one in self.sources]

    @property
    def left(self) -> int:
        """How many requests are left, as far as it is known."""
        return sum(one.left for one in self.sources)

    @property
    def files_not_had(self) -> Iterator[tuple[str, str]]:
        """The files, by table and name, that were met and not landed."""
        for one in self.sources:
            if isinstance(one, Files):
                yield from one.not_had

    def expect(self, test_ids: Collection[str]) -> None:
        """Take in tests that this run is going to look at."""
        for one in self.sources:
            one.expect(test_ids)

    def known(self, due_by_test: Mapping[str, Due]) -> None:
        """Take in what is due of tests whose listing is known."""
        for one in self.sources:
            one.known(due_by_test)

    def listed(self, test_id: str, due: Due) -> None:
        """Take in that a test's look has ended, and what is due of it."""
        for one in self.sources:
            one.listed(test_id, due)

    def not_listed(self, test_id: str) -> None:
        """Take in that a test could not be looked at: nothing more is asked of it."""
        for one in self.sources:
            one.not_listed(test_id)

    def landing(self, answer: Answer) -> None:
        """Take in that its record knows an answer now, which may have named files."""
        for one in self.sources:
            if isinstance(one, Files):
                one.landing(answer)


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides what is asked: what is due, and what an earlier process has paid for."""

    dues: Dues
    in_inbox: Collection[Key]


def followers(
    order: Order,
    plan: LandingPlan,
    stores: Stores,
    queue: Queue,
    transfers: Transfers,
    asked: Asked,
) -> Followers:
    """Return what an order asks beside listings."""
    return Followers(_sources(order, plan, stores, queue, transfers, asked))


def _sources(
    order: Order,
    plan: LandingPlan,
    stores: Stores,
    queue: Queue,
    transfers: Transfers,
    asked: Asked,
) -> Iterator[FollowUps | Files]:
    of_files, paid, dues = files_asked(order), asked.in_inbox, asked.dues
    for endpoint in endpoints_asked(order):
        tables = [table for table in of_files if table.endpoint is endpoint]
        if all(table.lists_files for table in tables):
            yield FollowUps((endpoint,), plan.feeds, stores, queue, in_inbox=paid, dues=dues)
        for table in tables:
            layout = layout_of(table, plan.partition_by)
            kind = Kind(table, layout, order.pipeline.files(table.name).download, dues)
            yield Files(kind, plan.feeds, stores, queue, transfers, in_inbox=paid)
