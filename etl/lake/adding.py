"""Fills tables that were added to a pipeline: from kept answers first, so that little is asked.

What their answers do not give is due. A session is met again in the table `sessions`; only
where that does not hold it is the test's listing read again.
"""

from collections.abc import Collection, Iterator, Mapping

from etl.client.values import Scope
from etl.lake.carrying import readable
from etl.lake.landing_plan import LandingPlan
from etl.lake.local import LocalLake
from etl.lake.provenance import SESSION_TIMES, microseconds
from etl.lake.rebuilding import Rebuilding, Rebuilt
from etl.lake.scan import columns_in, may_hold, table_of
from etl.ledger.due import note_session, unmet
from etl.ledger.records import SESSIONS, Session, session_key
from etl.ledger.store import Ledger
from etl.plan.orders import is_listing, is_made_of_bodies, keeps
from etl.tables.registry import tables


def add_tables(
    lake: LocalLake,
    ledger: Ledger,
    plan: LandingPlan,
    added: Collection[str],
    notes: Mapping[str, str],
) -> Rebuilt:
    """Make the rows of added tables from kept answers, and what is left of them due; blocks.

    All of it is one commit, with these notes for a fresh machine. Raises as a rebuild does.
    """
    remade = [name for name in added if is_made_of_bodies(tables()[name])]
    with Rebuilding(lake, ledger, plan, remade) as rebuilding:
        rebuilding.make_anew()
        adding = _Adding(lake, ledger, plan, added, rebuilding)
        return rebuilding.commit(notes, adding.meet_sessions())


class _Adding:
    """What becomes due where tables are added."""

    def __init__(
        self,
        lake: LocalLake,
        ledger: Ledger,
        plan: LandingPlan,
        added: Collection[str],
        rebuilding: Rebuilding,
    ) -> None:
        self._lake = lake
        self._ledger = ledger
        self._plan = plan
        self._added = plan.feeds.only(added)
        endpoints = [tables()[name].endpoint for name in added]
        self._listings = [one.name for one in endpoints if is_listing(one)]
        self._of_tests = {one.name for one in endpoints if one.scope is Scope.TEST and keeps(one)}
        self._rebuilding = rebuilding
        self._records = rebuilding.records

    def meet_sessions(self) -> list[str]:
        """Note what is due; return the tests whose listing is to be read again."""
        wanted: dict[str, set[int]] = {}
        unread = []
        for test_id in filter(None, self._ledger.tests_known()):
            self._ask_test(test_id)
            missing, is_listed = unmet(self._records.of(test_id), self._added.of(test_id))
            if any(self._plan.feeds.has(test_id, name) for name in self._listings):
                unread.append(test_id)
            elif missing and is_listed:
                wanted[test_id] = missing
            elif missing:
                unread.append(test_id)
        self._meet(wanted)
        unread += [test_id for test_id, missing in wanted.items() if missing]
        for test_id in unread:
            self._records.of(test_id).forget_listing()
            self._records.changed(test_id)
        return unread

    def _ask_test(self, test_id: str) -> None:
        """Have a test asked again that was asked, but for an answer that was not kept."""
        asked_at_us = self._records.of(test_id).asked_at_us
        for endpoint in self._of_tests & asked_at_us.keys():
            if not self._rebuilding.has_read(endpoint, test_id):
                del asked_at_us[endpoint]
                self._records.changed(test_id)

    def _meet(self, wanted: Mapping[str, set[int]]) -> None:
        """Note the sessions that are wanted, as the table `sessions` has them."""
        for test_id, session_id, session in self._listed(wanted):
            missing = wanted.get(test_id, set())
            if session_key(session_id) in missing:
                missing.remove(session_key(session_id))
                fed = self._plan.feeds.of(test_id)
                note_session(self._records.of(test_id), fed, session_id, session)
                self._records.changed(test_id)

    def _listed(self, tests: Collection[str]) -> Iterator[tuple[str, str, Session]]:
        columns = ["test_id", "session_id", *SESSION_TIMES, "_fetched_at"]
        for path in self._ledger.files() if tests else ():
            if table_of(path) == SESSIONS and may_hold(path, tests):
                with readable(path):
                    for test_ids, sessions, *times in columns_in(self._lake, path, columns):
                        known = map(Session, *map(microseconds, times))
                        yield from zip(
                            test_ids.to_pylist(), sessions.to_pylist(), known, strict=True
                        )
