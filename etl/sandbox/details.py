"""A session's details: who took part, what they answered, how the groups came out."""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from etl.sandbox.ids import uuid_of
from etl.sandbox.plans import PUBLISHED, UNPUBLISHED, Plan, Question, Task
from etl.sandbox.texts import ODDITIES, Chance, answer_text

_NO_ANSWER: Final[dict[str, object]] = dict.fromkeys(PUBLISHED.values())


def details_of(plan: Plan, session_id: str, audience_id: object) -> dict[str, Any]:
    """Return what `GET /api/v3/sessionResults/{sessionId}` answers.

    A pure function of the test's plan and the session's id, cheap enough to be made anew
    for every request.
    """
    random = Random(_bits(session_id) ^ _bits(plan.test_plan_id))
    chance = random.random
    participant = uuid_of(random.getrandbits(128))
    return {
        "sessionId": session_id,
        "audienceId": audience_id,
        "testPlanId": None if chance() < 0.03 else plan.test_plan_id,
        "sessionParticipant": None if chance() < 0.03 else _participant(plan, participant, chance),
        "taskGroups": [
            {"uuid": group.uuid, "type": group.type, "response": _group(group.type, chance)}
            for group in plan.groups
        ],
        "tasks": _tasks(plan, chance),
    }


def _bits(uuid: str) -> int:
    return int(uuid.replace("-", ""), 16)


def _participant(plan: Plan, participant: str, chance: Chance) -> dict[str, Any]:
    return {
        "participantId": None if chance() < 0.03 else participant,
        "demographicsInfo": [
            {
                "id": question.id,
                "code": question.code,
                "label": question.label,
                "value": _value(question, chance),
                "type": question.type,
            }
            for question in plan.questions
        ],
    }


def _value(question: Question, chance: Chance) -> str | None:
    draw = chance()
    if draw < 0.04:
        return None
    choices = question.choices
    if question.type != "DEMOGRAPHIC_QUESTION_TYPE_MULTIPLE":
        return choices[int(draw * len(choices))]
    return ", ".join([choice for choice in choices if chance() < 0.4])


def _group(type_: str, chance: Chance) -> dict[str, Any] | None:
    draw = chance()
    if draw < 0.1 or type_ == "UNRECOGNIZED":
        return None
    if type_ == "BALANCED_COMPARISON":
        return {"sequence": "AB" if draw < 0.5 else "BA"}
    return {"score": int(draw * 101) if draw < 0.7 else round(draw * 100, 2)}


def _tasks(plan: Plan, chance: Chance) -> list[dict[str, Any]]:
    tasks = []
    at = int(chance() * 20_000)
    for task in plan.tasks:
        draw = chance()
        end = at + 1_000 + int(draw * 180_000)
        response = None
        if draw >= 0.04:
            skipped = draw < 0.1
            response = {
                "startTimeMs": at,
                "endTimeMs": end,
                "skipped": skipped,
                "answer": None if skipped else _answer(plan, task, chance),
            }
            at = end
        tasks.append(
            {"uuid": task.uuid, "text": task.text, "type": task.type, "response": response}
        )
    return tasks


def _answer(plan: Plan, task: Task, chance: Chance) -> dict[str, Any] | None:
    key = PUBLISHED.get(task.type)
    if key is None:
        if task.type == "UNRECOGNIZED" and chance() < 0.5:
            return None
        told = {UNPUBLISHED[task.type]: _unpublished(task, chance)}
    else:
        told = {key: _PAYLOADS[task.type](task, chance)}
    return {**_NO_ANSWER, **told} if plan.wide else told


def _pick(task: Task, chance: Chance) -> int:
    return int(chance() * len(task.options))


def _blank(_task: Task, _chance: Chance) -> dict[str, Any]:
    return {}


def _rating(_task: Task, chance: Chance) -> dict[str, Any]:
    return {"value": 1 + int(chance() * 5), "min": 1, "max": 5, "minLabel": "Strongly disagree"}


def _choice(task: Task, chance: Chance) -> dict[str, Any]:
    if task.several:
        chosen = [place for place in range(len(task.options)) if chance() < 0.5]
    else:
        chosen = [_pick(task, chance)]
    return {
        "multiSelect": task.several,
        "randomizedOptions": chance() < 0.5,
        "maxLimit": len(task.options) if task.several else None,
        "options": [{"id": task.option_ids[at], "text": task.options[at]} for at in chosen],
    }


def _image(_task: Task, chance: Chance) -> dict[str, Any]:
    return {"points": [{"x": round(chance() * 1920, 1), "y": round(chance() * 1080, 1)}]}


def _nps(_task: Task, chance: Chance) -> dict[str, Any]:
    return {"score": int(chance() * 11)}


def _url(task: Task, chance: Chance) -> dict[str, Any]:
    url = f"https://shop.example/ü/{task.uuid[:8]}?q=a%20b&r={int(chance() * 999)}#top"
    return {"url": url, "success": chance() < 0.7, "visited": 1 + int(chance() * 12)}


def _order(task: Task, chance: Chance) -> dict[str, Any]:
    places = sorted((chance(), place) for place in range(len(task.options)))
    return {
        "ranking": [
            {"id": task.option_ids[place], "text": task.options[place], "rank": rank}
            for rank, (_, place) in enumerate(places, 1)
        ]
    }


def _written(_task: Task, chance: Chance) -> dict[str, Any]:
    return {"text": answer_text(chance)}


def _figma(task: Task, chance: Chance) -> dict[str, Any]:
    return {
        "prototypeUrl": f"https://www.figma.com/proto/{task.uuid[:8]}/Flow?node-id=1%3A2",
        "figmaPrototypeTitle": "Flow – v2 ✏️",
        "figmaPrototypeDisplaySetting": "FIT_TO_SCREEN",
        "success": chance() < 0.6,
        "screens": ["Start", "カート"][: 1 + int(chance() * 2)],
    }


def _matrix(task: Task, chance: Chance) -> dict[str, Any]:
    columns = len(task.options)
    return {
        "rows": [
            {"row": row, "value": 1 + int(chance() * columns), "column": task.options[0]}
            for row in ("Speed", "可信度", "الشكل")
        ]
    }


def _unpublished(task: Task, chance: Chance) -> dict[str, Any]:
    oddity = ODDITIES[int(chance() * len(ODDITIES))]
    return {"value": oddity, "path": list(task.options[:2]), "depth": {"of": {"it": chance()}}}


_PAYLOADS: Final[dict[str, Callable[[Task, Chance], dict[str, Any]]]] = {
    "BLANK": _blank,
    "RATING_SCALE": _rating,
    "MULTIPLE_CHOICE": _choice,
    "IMAGE": _image,
    "NPS": _nps,
    "URL": _url,
    "RANK_ORDER": _order,
    "WRITTEN": _written,
    "FIGMA": _figma,
    "MATRIX": _matrix,
}
