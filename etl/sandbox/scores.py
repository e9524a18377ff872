"""The QXscores of an interaction test."""

from random import Random
from typing import Any

from etl.sandbox.plans import Group, Plan


def scores_of(seed: int, plan: Plan, completes: int, edition: int) -> dict[str, Any]:
    """Return what `GET /api/v2/testResults/{testId}/qxScores` answers.

    The scores are those of so many completed sessions: they move with that number, and
    with the `edition`.
    """
    return {
        "testId": plan.test_id,
        "qxScores": [_score(seed, group, completes, edition) for group in plan.scored],
        "meta": {"totalQxTasks": len(plan.scored), "completes": completes},
    }


def _score(seed: int, group: Group, completes: int, edition: int) -> dict[str, Any]:
    fixed = Random(f"{seed}:score:{group.uuid}")
    navigates = fixed.random() < 0.8
    moving = Random(f"{seed}:score:{group.uuid}:{completes}:{edition}")
    behavioral = (
        [round(moving.uniform(20, 100), 2) for _ in range(1 + fixed.randrange(4))]
        if navigates and completes
        else None
    )
    parts = {
        name: round(moving.uniform(0, 100), 2) if completes else 0
        for name in ("usability", "trust", "appearance", "loyalty")
    }
    attitudinal = round(sum(parts.values()) / len(parts), 2)
    behaved = None if behavioral is None else round(sum(behavioral) / len(behavioral), 2)
    return {
        "taskGroupId": group.uuid,
        "label": group.label,
        "qxScore": None if behaved is None else round((behaved + attitudinal) / 2, 2),
        "components": {"behavioral": behaved, "attitudinal": attitudinal},
        "values": {"behavioral": behavioral, **parts},
    }
