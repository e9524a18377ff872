"""Decides which files are still to be had, and how often a session's list is asked.

A file that the API does not have yet is looked at again as a session is: after 6 hours, 1, 3
and 7 days since its object was first listed; after that it is given up.
"""

from collections.abc import Mapping
from typing import Final

from etl.ledger.due import HOUR_US, Fed, answered, next_look_us
from etl.ledger.records import Held, Record, Session

SETTLED_AFTER_US: Final = 168 * HOUR_US
"""How long after a session's end something may still be added to what it lists."""


def objects_due(record: Record, table: str, endpoint: str, now_us: int) -> list[tuple[str, Held]]:
    """Return the objects of a table whose files are to be asked for by now, newest first."""
    waits = record.not_before_us.get(endpoint, {})
    due = [
        (object_id, held)
        for object_id, held in record.held.get(table, {}).items()
        if waits.get(object_id, 0) <= now_us
    ]
    return sorted(due, key=lambda item: -item[1].session.ended_at_us)


def not_there_yet(
    record: Record, table: str, endpoint: str, object_id: str, looked_at_us: int
) -> bool:
    """Note that an object has no file yet; return whether it is asked again later."""
    held = record.held.get(table, {}).get(object_id)
    if held is None:
        return False
    again_at_us = next_look_us(Session(None, None, held.seen_at_us), looked_at_us)
    if again_at_us is not None:
        record.not_before_us.setdefault(endpoint, {})[object_id] = again_at_us
    return again_at_us is not None


def release(record: Record, table: str, endpoint: str, object_id: str) -> Held | None:
    """Take the row that has waited for a file, now that this is there or given up."""
    record.not_before_us.get(endpoint, {}).pop(object_id, None)
    return record.held.get(table, {}).pop(object_id, None)


def list_answered(
    record: Record,
    fed: Fed,
    endpoint: str,
    session_id: str,
    made: Mapping[str, int],
    looked_at_us: int,
) -> None:
    """Note that a session's list is in; its rows are known one by one, and not by the session.

    More may be added in the session's first week: then it is asked once more.
    """
    session = record.due.get(session_id)
    settled_at_us = 0 if session is None else session.ended_at_us + SETTLED_AFTER_US
    if looked_at_us < settled_at_us:
        record.not_before_us.setdefault(endpoint, {})[session_id] = settled_at_us
    else:
        answered(record, fed, endpoint, session_id, dict.fromkeys(made, 0))
