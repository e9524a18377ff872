"""Every endpoint of the API: its path, and what it answers when nothing goes wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

import msgspec

from etl.sandbox.data import render
from etl.sandbox.discovery import BadCursor, slice_of
from etl.sandbox.faults import Fault, falsified, falsified_body
from etl.sandbox.media import MediaFile
from etl.sandbox.pages import BadParameters, page_of, window_of
from etl.sandbox.state import Sandbox

_V1: Final = "/usertesting/api/v1"
_SESSION: Final = "/api/v2/sessionResults/{session}"
_TEST: Final = "/api/v2/testResults/{test}"


class Refused(Exception):
    """What the API does not answer, with the status that it says instead."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was understood; ids in lower case, the test found by the session."""

    endpoint: str
    query: Mapping[str, str]
    test_id: str | None = None
    session_id: str | None = None
    object_id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered with 200."""

    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint: in its path, `{test}`, `{session}` and `{object}` are UUIDs."""

    endpoint: str
    path: str
    answer: Callable[[Sandbox, Asked, Sequence[Fault]], Answer]

    def asked(self, sandbox: Sandbox, keys: Mapping[str, str], query: Mapping[str, str]) -> Asked:
        """Return what is asked for."""
        test_id = query.get("testId", "") if self.endpoint == "page" else keys.get("test")
        session_id, object_id = keys.get("session"), keys.get("object", keys.get("token"))
        if session_id is not None:
            place = sandbox.place(session_id)
            test_id = None if place is None else place.test_id
        test_id, session_id, object_id = (
            name and name.lower() for name in (test_id, session_id, object_id)
        )
        return Asked(self.endpoint, query, test_id, session_id, object_id)

    def check(self, sandbox: Sandbox, asked: Asked) -> None:
        """Refuse what is malformed, what nobody knows, and what a product does not have."""
        try:
            for name in (asked.test_id, asked.session_id, asked.object_id):
                if name is not None and "{token}" not in self.path:
                    UUID(name)
            if self.endpoint == "page":
                window_of(asked.query, sandbox.options.spelling)
        except (ValueError, BadParameters) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error
        if asked.session_id is not None and asked.test_id is None:
            raise _not_found()
        if asked.test_id is not None and not sandbox.has(asked.test_id, self.endpoint):
            raise _not_found()
        owner = asked.object_id or asked.session_id or asked.test_id
        if owner is not None and not sandbox.is_ready(owner, self.endpoint):
            raise _not_found()

    def refusal(self, status: HTTPStatus, message: str) -> bytes:
        """Return the body of a refusal, as the version of the API that is asked writes it."""
        if self.path.startswith(_V1):
            return msgspec.json.encode({"errorCode": status.name, "errorMessage": message})
        if status is HTTPStatus.BAD_REQUEST:
            return msgspec.json.encode({"message": [message], "error": "Bad Request"})
        return msgspec.json.encode({"message": message})


def _not_found() -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "Not Found")


def _id(name: str | None) -> str:
    if name is None:
        raise _not_found()
    return name


def _page(sandbox: Sandbox, asked: Asked, faults: Sequence[Fault]) -> Answer:
    test_id = _id(asked.test_id)
    limit, offset = window_of(asked.query, sandbox.options.spelling)
    listing = sandbox.listing(test_id)
    page = page_of(test_id, listing, limit, offset)
    for fault in faults:
        page = falsified(page, fault, lambda: page_of(test_id, listing, limit, 0))
    return Answer(page.body())


def _found(
    body: Callable[[Sandbox, Asked], bytes], content_type: str
) -> Callable[[Sandbox, Asked, Sequence[Fault]], Answer]:
    """Answer with a body; what is no longer there is not found."""

    def answer(sandbox: Sandbox, asked: Asked, _faults: Sequence[Fault]) -> Answer:
        try:
            return Answer(body(sandbox, asked), content_type)
        except KeyError:
            raise _not_found() from None

    return answer


def _json(
    value: Callable[[Sandbox, Asked], object],
) -> Callable[[Sandbox, Asked, Sequence[Fault]], Answer]:
    return _found(lambda sandbox, asked: render(value(sandbox, asked)), "application/json")


def _video(sandbox: Sandbox, asked: Asked) -> dict[str, object]:
    session_id = _id(asked.session_id)
    url, expires = sandbox.link(sandbox.video(session_id))
    return {"videoUrl": url, "sessionId": session_id, "expiresAt": expires}


def _clip(sandbox: Sandbox, asked: Asked) -> dict[str, object]:
    clip_id = _id(asked.object_id)
    _among(sandbox.clips(_id(asked.session_id))["clips"], clip_id)
    if not sandbox.is_generated(clip_id):
        return {"clipUuid": clip_id, "status": "GENERATING"}
    return {"clipUuid": clip_id, **_generated(sandbox, "clipUrl", sandbox.clip_file(clip_id))}


def _reel(sandbox: Sandbox, asked: Asked) -> dict[str, object]:
    reel_id = _id(asked.object_id)
    _among(sandbox.reels(_id(asked.test_id))["reels"], reel_id)
    if not sandbox.is_generated(reel_id):
        return {"reelId": reel_id, "status": "GENERATING", "reelUrl": None}
    return {"reelId": reel_id, **_generated(sandbox, "reelUrl", sandbox.reel_file(reel_id))}


def _among(objects: list[dict[str, Any]], uuid: str) -> None:
    if all(found["uuid"] != uuid for found in objects):
        raise _not_found()


def _generated(sandbox: Sandbox, name: str, file: MediaFile) -> dict[str, object]:
    url, _ = sandbox.link(file)
    return {"status": "GENERATED", name: url}


def _tests(sandbox: Sandbox, asked: Asked) -> list[dict[str, Any]]:
    workspace = _id(asked.object_id)
    _among(sandbox.workspaces(), workspace)
    listed = {serial: test_id for test_id, serial in sandbox.listed_in(workspace).items()}
    return [sandbox.entry(listed[serial]) for serial in _slice(list(listed), asked.query)]


def _completed(sandbox: Sandbox, asked: Asked) -> dict[str, object]:
    test_id = _id(asked.test_id)
    listed = sandbox.completed_serials(test_id)
    sessions = [
        sandbox.completed_session(test_id, serial) for serial in _slice(listed, asked.query)
    ]
    return {"completedSessionCount": len(listed), "sessions": sessions}


def _slice(serials: Sequence[int], query: Mapping[str, str]) -> list[int]:
    try:
        return slice_of(serials, query.get("after"), query.get("before"))
    except BadCursor as error:
        raise Refused(HTTPStatus.BAD_REQUEST, str(error)) from error


def falsify(asked: Asked, answer: Answer, faults: Sequence[Fault]) -> Answer:
    """Return the answer as faults make it, those of a page apart, which knows its own."""
    body = answer.body
    for fault in faults:
        body = falsified_body(body, fault, asked.endpoint)
    return Answer(body, answer.content_type)


ROUTES: Final = (
    Route("page", "/api/v2/sessionResults", _page),
    Route("page", "/api/v2/sessionResults/", _page),
    Route(
        "details",
        "/api/v3/sessionResults/{session}",
        _json(lambda sandbox, asked: sandbox.details(_id(asked.session_id))),
    ),
    Route(
        "transcript",
        f"{_SESSION}/transcript",
        _found(lambda sandbox, asked: sandbox.transcript(_id(asked.session_id)).body, "text/vtt"),
    ),
    Route("video", f"{_SESSION}/videoDownloadUrl", _json(_video)),
    Route(
        "clips",
        f"{_SESSION}/clips",
        _json(lambda sandbox, asked: sandbox.clips(_id(asked.session_id))),
    ),
    Route("clip", f"{_SESSION}/clips/{{object}}", _json(_clip)),
    Route(
        "qx",
        f"{_TEST}/qxScores",
        _json(lambda sandbox, asked: sandbox.qx_scores(_id(asked.test_id))),
    ),
    Route(
        "reels",
        f"{_TEST}/highlightreels",
        _json(lambda sandbox, asked: sandbox.reels(_id(asked.test_id))),
    ),
    Route("reel", f"{_TEST}/highlightreels/{{object}}", _json(_reel)),
    Route("workspaces", f"{_V1}/workspaces", _json(lambda sandbox, _: sandbox.workspaces())),
    Route("tests", f"{_V1}/workspaces/{{object}}", _json(_tests)),
    Route(
        "study",
        f"{_V1}/studies/{{test}}",
        _json(lambda sandbox, asked: sandbox.study(_id(asked.test_id))),
    ),
    Route("completed", f"{_V1}/studies/{{test}}/completed-sessions", _json(_completed)),
    Route(
        "v1_session",
        f"{_V1}/session/{{object}}",
        _json(lambda sandbox, asked: sandbox.v1_session(_id(asked.object_id))),
    ),
    Route(
        "v1_clip",
        f"{_V1}/clip/{{object}}",
        _json(lambda sandbox, asked: sandbox.v1_clip(_id(asked.object_id))),
    ),
    Route(
        "v1_reel",
        f"{_V1}/highlightreel/{{token}}",
        _json(lambda sandbox, asked: sandbox.v1_reel(_id(asked.object_id))),
    ),
)
