"""Classic tests, as the first version of the API answers for them."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from etl.sandbox.discovery import cursor_of
from etl.sandbox.ids import number_from, uuid_from
from etl.sandbox.texts import NAMES, ODDITIES, SENTENCES, TITLES, answer_text

_FIRST: Final = datetime(2023, 3, 1, 8, 0, tzinfo=UTC)
_TYPES: Final = ("blank", "multiple_choice", "rating_scale", "launch_url", "written_response")
_CHOICES: Final = ("Poland", "Singapore", "مصر", "中国, 上海", "None of these")
_DEMOGRAPHICS: Final[dict[str, tuple[object, ...]]] = {
    "age": (18, 34, 57, 71),
    "children": (["No children"], ["1–3 years", "4, 5 or 6 years"], []),
    "country": ("United States", "日本", "مصر", "Côte d'Ivoire"),
    "income": ("$60,000 - $79,999", "< $20,000"),
    "socialNetworks": (["LinkedIn", "Facebook"], ["微信"], []),
    "gender": ("Female", "Male", "Non-binary"),
    "webExpertise": ("Beginner", "Intermediate", "Advanced"),
    "companySize": ("1,001-5,000 employees", "Just me"),
    "employmentStatus": ("Employed full-time (30 or more hours per week)", "Student"),
    "industry": ("Financial Services", "Bäckerei"),
    "jobFunction": ("Finance", "नर्स"),
    "seniority": ("Senior", "Entry level"),
}
_SCREENERS: Final = (
    ("What country do you live in?", ("United States", "India", "مصر")),
    ("Which of these do you own?\n(Select all)", ("Car", 'Bike, "folding"', "🛴")),
    ("¿Compra en línea?", ("Sí", "No")),
)


def study_of(seed: int, test_id: str, sessions: int) -> dict[str, Any]:
    """Return what `GET /v1/studies/{uuid}` answers."""
    random = Random(f"{seed}:study:{test_id}")
    detractors = random.randrange(40)
    passives = random.randrange(100 - detractors)
    promoters = 100 - detractors - passives
    scores = {
        "detractorPercentage": detractors,
        "passivePercentage": passives,
        "promoterPercentage": promoters,
        "score": promoters - detractors,
    }
    return {
        "netPromoterScores": [scores] if random.random() < 0.6 else [],
        "orderedBy": {"email": "research@example.com", "name": random.choice(NAMES)},
        "sessionCount": sessions,
        "tasks": _tasks(seed, test_id),
        "testPlan": {"shortTest": random.random() < 0.3},
        "title": random.choice(TITLES),
    }


def _tasks(seed: int, test_id: str) -> list[dict[str, Any]]:
    random = Random(f"{seed}:study-tasks:{test_id}")
    types = ("multiple_choice", *random.choices(_TYPES, k=2 + random.randrange(8)))
    return [_task(random, type_, position) for position, type_ in enumerate(types, 1)]


def _task(random: Random, type_: str, position: int) -> dict[str, Any]:
    text = random.choice(ODDITIES if random.random() < 0.1 else random.choice(SENTENCES))
    task: dict[str, Any] = {
        "blurPII": random.random() < 0.1,
        "grouping": random.choice(("INITIAL", "MAIN", "WRAP_UP")),
        "position": position,
        "resultType": "",
        "taskGroup": {"id": f"VGFza0dyb3Vwczo6{position}", "type": "MAIN"},
        "taskType": type_,
        "text": text,
    }
    if type_ == "multiple_choice":
        task |= {"choices": list(_CHOICES), "multipleAnswers": random.random() < 0.5}
    elif type_ == "rating_scale":
        task |= {"lowerEndpoint": "Very difficult", "upperEndpoint": "Very easy"}
        task |= {"scaleMinimum": 1, "scaleMaximum": random.choice((5, 7, 10))}
    elif type_ == "launch_url":
        task["launchUrl"] = "https://shop.example/?a=1&b=%20"
    return task


def classic_session_id(seed: int, test_id: str, serial: int) -> str:
    """Return the id of a test's session; a greater `serial` was completed later."""
    return uuid_from(f"{seed}:classic:{test_id}:{serial}")


def completed_of(seed: int, test_id: str, serial: int) -> dict[str, Any]:
    """Return a session as `GET /v1/studies/{uuid}/completed-sessions` lists it."""
    session_id = classic_session_id(seed, test_id, serial)
    random = Random(f"{seed}:completed:{session_id}")
    session: dict[str, Any] = {
        "answers": _answers(random, seed, test_id, session_id),
        "completedDateTime": _completed(random, serial),
        "cursor": cursor_of(serial),
        "formFactorUsed": random.choice(("Computer", "Smartphone", "Tablet")),
        "participant": {
            "demographics": {
                name: random.choice(values)
                for name, values in _DEMOGRAPHICS.items()
                if random.random() < 0.85
            },
            "name": random.choice((*NAMES, "participant@example.com")),
        },
        "screenerResponses": [
            {"question": question, "response": random.sample(choices, 1 + random.randrange(2))}
            for question, choices in _SCREENERS[: random.randrange(4)]
        ],
        "sessionId": number_from(session_id) % 10_000_000,
        "sessionUuid": session_id,
        "state": "completed",
        "taskOrderingCondition": random.choice(("default", "A", "B")),
    }
    if random.random() < 0.1:
        del session["screenerResponses"], session["formFactorUsed"]
    return session


def _completed(random: Random, serial: int) -> str:
    moment = _FIRST + timedelta(minutes=37 * serial, seconds=random.randrange(1_800))
    return moment.isoformat().replace("+00:00", "Z")


def _answers(random: Random, seed: int, test_id: str, session_id: str) -> list[dict[str, Any]]:
    answers, at = [], 0
    for task in _tasks(seed, test_id):
        duration = 5 + random.randrange(180)
        type_ = task["taskType"]
        answer: dict[str, Any] = {
            "duration": duration,
            "responses": _responses(random, type_),
            "time": at,
            "transcript": answer_text(random.random),
            "type": type_,
            "url": f"https://app.example/v/{session_id}?start={at}",
        }
        draw = random.random()
        if draw < 0.1:
            # Published as a text or an object.
            answer["transcript"] = {"language": "ar", "text": random.choice(SENTENCES[4])}
        elif draw < 0.2:
            del answer["transcript"], answer["url"]
        answers.append(answer)
        at += duration
    return answers


def _responses(random: Random, type_: str) -> list[str]:
    match type_:
        case "multiple_choice":
            return random.sample(_CHOICES, random.randrange(3))
        case "rating_scale":
            return [str(1 + random.randrange(5))]
        case "written_response":
            return [answer_text(random.random)]
        case _:
            return []


def session_of(seed: int, session_id: str, serial: int) -> dict[str, Any]:
    """Return what `GET /v1/session/{uuid}` answers."""
    random = Random(f"{seed}:session:{session_id}")
    return {
        "duration": round(random.uniform(60, 3_600), 1),
        "notes": answer_text(random.random, 2),
        "securePoster": f"https://cdn.example/posters/{session_id}.jpg",
        "sequenceNumber": serial,
        "sessionId": str(number_from(session_id) % 10_000_000),
        "stateUpdatedAt": _completed(random, serial),
        "title": f"Participant {serial} – {random.choice(NAMES)}",
        "uid": session_id,
    }


def clip_of(clip: dict[str, Any], title: str) -> dict[str, Any]:
    """Return what `GET /v1/clip/{uuid}` answers for a clip of a session."""
    clip_id = clip["uuid"]
    return {
        "typeName": "Clip",
        "createdAt": "2025-07-01T08:00:00Z",
        "duration": (clip["timeEndMs"] - clip["timeStartMs"]) // 1_000,
        "embeddableUrl": f"https://app.example/player/clip/{clip_id}?embed=true",
        "isImportant": clip["hasCamera"],
        "note": clip.get("description", ""),
        "noteTags": ["pricing", "導線"] if clip["hasAudio"] else [],
        "securePoster": f"https://cdn.example/posters/{clip_id}.jpg",
        "sentimentTag": "negative" if clip["hasCamera"] else "positive",
        "study": {"title": title},
    }


def reel_token(reel_id: str) -> str:
    """Return the token that the platform shows for a reel."""
    return f"{number_from(f'token:{reel_id}'):032x}"[:20]


def reel_of(reel: dict[str, Any]) -> dict[str, Any]:
    """Return what `GET /v1/highlightreel/{token}` answers for a test's reel."""
    token, count = reel_token(reel["uuid"]), reel["numClips"]
    seconds = reel["durationMs"] / 1_000
    updated = datetime.fromtimestamp(reel["lastUpdatedAtMs"] // 1_000, UTC)
    return {
        "clips": {
            "nodes": [
                {"duration": round(seconds / count, 1), "url": f"https://app.example/{token}/{at}"}
                for at in range(count)
            ],
            "totalCount": count,
        },
        "createdAt": "2025-07-01T08:00:00Z",
        "duration": seconds,
        "editUrlPath": f"/highlightreels/{token}/edit",
        "id": f"reel_{token[:6]}",
        "shareUrl": f"https://app.example/highlightreels/{token}/share",
        "title": reel["name"],
        "token": token,
        "updatedAt": updated.isoformat().replace("+00:00", "Z"),
    }
