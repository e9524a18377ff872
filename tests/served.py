"""What a sandbox serves, as the rows that a right export lands: told without the exporter's code.

Each table is a list of rows, each a mapping from column to the value as JSON has it. What is
compared is every cell: `wrong_cells` says what is lost, doubled, changed or in a wrong place.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from etl.sandbox.server import Sandbox

Row = dict[str, Any]
Rows = Mapping[str, Sequence[Row]]

KEYS = {
    "sessions": ("session_id",),
    "session_details": ("session_id",),
    "demographics": ("session_id", "position"),
    "task_groups": ("session_id", "task_group_id"),
    "tasks": ("session_id", "position"),
    "transcripts": ("session_id", "cue_index"),
    "videos": ("session_id",),
    "clips": ("clip_id",),
    "highlight_reels": ("reel_id",),
    "qx_scores": ("test_id", "task_group_id"),
    "workspaces": ("workspace_id",),
    "tests": ("test_id",),
    "studies": ("test_id",),
    "study_tasks": ("test_id", "task_index"),
    "completed_sessions": ("session_id",),
    "completed_session_answers": ("session_id", "position"),
    "screener_responses": ("session_id", "position"),
}
"""What tells the rows of a table apart while nothing is asked twice (the public contract)."""

FILED = ("videos", "clips", "highlight_reels")
"""The tables whose rows name a file."""

_PUBLISHED = {"blank", "ratingScale", "multipleChoice", "image", "nps", "url", "rankOrder"}
_PUBLISHED |= {"written", "figma", "matrix"}
_JSON = {
    "_extra",
    "answer",
    "response",
    "responses",
    "behavioral_tasks",
    "net_promoter_scores",
    "choices",
}
_JSON |= {"children", "social_networks"}


def served(sandbox: Sandbox) -> dict[str, list[Row]]:
    """Return the rows of every table, for all the tests that a sandbox lists."""
    rows: dict[str, list[Row]] = {table: [] for table in KEYS}
    for test_id in sandbox.test_ids:
        for session in sandbox.rows(test_id):
            rows["sessions"].append(_session(test_id, session))
            for table, found in _of_session(sandbox, test_id, str(session["sessionId"])):
                rows[table] += found
        rows["highlight_reels"] += _reels(sandbox, test_id)
        rows["qx_scores"] += _scores(sandbox, test_id)
    for test_id in sandbox.classic_ids:
        for table, found in _classic(sandbox, test_id):
            rows[table] += found
    for workspace in sandbox.workspaces():
        rows["workspaces"].append(_named(workspace, workspace_id="uuid", id="id", name="name"))
    rows["tests"] = list(_tests(sandbox))
    return rows


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _named(value: Any, /, **paths: str) -> Row:
    return {column: _at(value, path) for column, path in paths.items()}


def _new(value: Mapping[str, Any]) -> Row:
    """Return what no table knows of an object: the fields whose name begins with `new`."""
    found = {name: told for name, told in value.items() if name.startswith("new")}
    return {"_extra": found or None}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _session(test_id: str, session: Any) -> Row:
    row = _named(session, session_id="sessionId", audience_id="audienceId", status="status")
    times = {"start_time": _moment(session["startTime"]), "finish_time": None}
    times["finish_time"] = _moment(session["finishTime"])
    return {"test_id": test_id, **row, **times}


def _of_session(sandbox: Sandbox, test_id: str, session_id: str) -> Iterator[tuple[str, list[Row]]]:
    ids = {"test_id": test_id, "session_id": session_id}
    details = sandbox.details(session_id)
    participant = _at(details, "sessionParticipant.participantId")
    yield (
        "session_details",
        [
            ids
            | _named(details, audience_id="audienceId", test_plan_id="testPlanId")
            | {"participant_id": participant}
            | _new(details)
        ],
    )
    yield (
        "demographics",
        [
            ids
            | {"participant_id": participant, "position": position}
            | _named(one, question_id="id", code="code", label="label", value="value", type="type")
            | _new(one)
            for position, one in enumerate(
                _at(details, "sessionParticipant.demographicsInfo") or ()
            )
        ],
    )
    yield "task_groups", [ids | _group(group) for group in details.get("taskGroups") or ()]
    tasks = enumerate(details.get("tasks") or ())
    yield "tasks", [ids | _task(place, task) for place, task in tasks]
    if sandbox.has(test_id, "transcript"):
        cues = enumerate(sandbox.transcript(session_id).cues)
        yield "transcripts", [ids | _cue(place, cue) for place, cue in cues]
    if sandbox.has(test_id, "video"):
        yield "videos", [ids | _file(sandbox.video(session_id)) | {"content_type": "video/mp4"}]
    if sandbox.has(test_id, "clips"):
        clips = sandbox.clips(session_id)["clips"]
        yield (
            "clips",
            [ids | _clip(clip) | _file(sandbox.clip_file(clip["uuid"])) for clip in clips],
        )


def _group(group: Any) -> Row:
    row = _named(group, task_group_id="uuid", type="type", response="response")
    return row | _named(group, score="response.score", sequence="response.sequence") | _new(group)


def _task(position: int, task: Any) -> Row:
    row = _named(
        task,
        task_id="uuid",
        type="type",
        text="text",
        skipped="response.skipped",
        start_time_ms="response.startTimeMs",
        end_time_ms="response.endTimeMs",
        answer="response.answer",
    )
    said = _SAID.get(task.get("type"), lambda _: {})(row["answer"])
    odd = {name: told for name, told in (row["answer"] or {}).items() if name not in _PUBLISHED}
    extra = _new(task)["_extra"] or {}
    extra |= {"response": {"answer": odd}} if odd else {}
    return {"position": position, **row, **said, "_extra": extra or None}


_SAID: Mapping[str, Callable[[Any], Row]] = {
    "WRITTEN": lambda answer: {"answer_text": _at(answer, "written.text") or None},
    "NPS": lambda answer: {"answer_number": _at(answer, "nps.score")},
    "RATING_SCALE": lambda answer: {"answer_number": _at(answer, "ratingScale.value")},
}
"""What an answer says, of the kinds where that is beyond doubt."""


def _cue(place: int, cue: Any) -> Row:
    return {
        "cue_index": place,
        "cue_id": cue.id,
        "start_ms": cue.start_ms,
        "end_ms": cue.end_ms,
        "speaker": cue.speaker,
        "text": cue.text,
    }


def _file(file: Any) -> Row:
    return {"bytes": file.size_bytes, "sha256": file.sha256}


def _clip(clip: Any) -> Row:
    return _named(
        clip,
        clip_id="uuid",
        name="name",
        description="description",
        time_start_ms="timeStartMs",
        time_end_ms="timeEndMs",
        video_id="videoUuid",
        has_audio="hasAudio",
        has_camera="hasCamera",
        main_stream="layout.mainStream",
        pip_position="layout.pipPosition",
        pip_state="layout.pipState",
    )


def _reels(sandbox: Sandbox, test_id: str) -> list[Row]:
    if not sandbox.has(test_id, "reels"):
        return []
    return [
        {"test_id": test_id}
        | _named(
            reel,
            reel_id="uuid",
            name="name",
            duration_ms="durationMs",
            num_clips="numClips",
            are_all_clips_in_reel="areAllClipsInReel",
        )
        | {"last_updated_at": datetime.fromtimestamp(reel["lastUpdatedAtMs"] / 1_000, UTC)}
        | _file(sandbox.reel_file(reel["uuid"]))
        for reel in sandbox.reels(test_id)["reels"]
    ]


def _scores(sandbox: Sandbox, test_id: str) -> list[Row]:
    if not sandbox.has(test_id, "qx"):
        return []
    told = sandbox.qx_scores(test_id)
    meta = _named(told, total_qx_tasks="meta.totalQxTasks", completes="meta.completes")
    return [
        {"test_id": test_id, **meta}
        | _named(
            score,
            task_group_id="taskGroupId",
            label="label",
            qx_score="qxScore",
            behavioral="components.behavioral",
            attitudinal="components.attitudinal",
            usability="values.usability",
            trust="values.trust",
            appearance="values.appearance",
            loyalty="values.loyalty",
            behavioral_tasks="values.behavioral",
        )
        for score in told["qxScores"]
    ]


def _tests(sandbox: Sandbox) -> Iterator[Row]:
    met: set[str] = set()
    for workspace_id, tests in sandbox.tests().items():
        for test in tests:
            if test["uuid"] in met:
                continue
            met.add(test["uuid"])
            row = _named(
                test,
                test_id="uuid",
                title="title",
                type="type",
                product_type="productType",
                ordered_by_name="orderedBy.name",
                ordered_by_email="orderedBy.email",
            )
            yield {"workspace_id": workspace_id, "ordered_at": _moment(test["orderedAt"]), **row}


def _classic(sandbox: Sandbox, test_id: str) -> Iterator[tuple[str, list[Row]]]:
    study = sandbox.study(test_id)
    about = _named(
        study,
        title="title",
        session_count="sessionCount",
        short_test="testPlan.shortTest",
        ordered_by_name="orderedBy.name",
        ordered_by_email="orderedBy.email",
        net_promoter_scores="netPromoterScores",
    )
    yield "studies", [{"test_id": test_id, **about}]
    tasks = enumerate(study.get("tasks") or ())
    yield "study_tasks", [{"test_id": test_id, **_study_task(*placed)} for placed in tasks]
    for session in sandbox.completed(test_id):
        ids = {"test_id": test_id, "session_id": session["sessionUuid"]}
        yield "completed_sessions", [ids | _completed(session)]
        answers = enumerate(session.get("answers") or ())
        yield (
            "completed_session_answers",
            [
                ids
                | {"position": place}
                | _named(
                    answer,
                    type="type",
                    time_seconds="time",
                    duration_seconds="duration",
                    responses="responses",
                    url="url",
                )
                for place, answer in answers
            ],
        )
        screeners = enumerate(session.get("screenerResponses") or ())
        yield (
            "screener_responses",
            [
                ids | {"position": place} | _named(one, question="question", response="response")
                for place, one in screeners
            ],
        )


def _study_task(place: int, task: Any) -> Row:
    return {"task_index": place} | _named(
        task,
        position="position",
        task_type="taskType",
        text="text",
        grouping="grouping",
        task_group_id="taskGroup.id",
        task_group_type="taskGroup.type",
        choices="choices",
        multiple_answers="multipleAnswers",
        scale_minimum="scaleMinimum",
        scale_maximum="scaleMaximum",
        lower_endpoint="lowerEndpoint",
        upper_endpoint="upperEndpoint",
        launch_url="launchUrl",
        result_type="resultType",
        blur_pii="blurPII",
    )


def _completed(session: Any) -> Row:
    of = "participant.demographics"
    row = _named(
        session,
        session_number="sessionId",
        state="state",
        task_ordering_condition="taskOrderingCondition",
        form_factor_used="formFactorUsed",
        participant_name="participant.name",
        age=f"{of}.age",
        gender=f"{of}.gender",
        country=f"{of}.country",
        income=f"{of}.income",
        children=f"{of}.children",
        social_networks=f"{of}.socialNetworks",
        web_expertise=f"{of}.webExpertise",
        employment_status=f"{of}.employmentStatus",
        industry=f"{of}.industry",
        job_function=f"{of}.jobFunction",
        seniority=f"{of}.seniority",
        company_size=f"{of}.companySize",
    )
    return {"completed_at": _moment(session.get("completedDateTime")), **row}


# What is in the lake.


def landed(lake: Path, table: str) -> list[Row]:
    """Return every row of a table; blocks."""
    rows: list[Row] = []
    for path in sorted((lake / table).rglob("part-*.parquet")):
        parts = (part.partition("=") for part in path.relative_to(lake).parts if "=" in part)
        keys = {name: unquote(value) for name, _, value in parts}
        rows += [{**keys, **row} for row in pq.read_table(path, partitioning=None).to_pylist()]
    return rows


def wrong_cells(lake: Path, expected: Rows) -> list[str]:
    """Compare tables of a lake with what was served, cell by cell; blocks."""
    found: list[str] = []
    for table, rows in expected.items():
        found += [f"{table}: {wrong}" for wrong in _wrong(lake, table, rows)]
    return found


def ownerless(lake: Path) -> list[str]:
    """Look for media files that no row names; blocks."""
    named = {row["path"] for table in FILED for row in landed(lake, table)}
    there = {str(path.relative_to(lake)) for path in lake.glob("*/**/_files/*")}
    return [f"no row names {path}" for path in sorted(there - named)]


def _wrong(lake: Path, table: str, rows: Sequence[Row]) -> Iterator[str]:
    key = KEYS[table]
    wanted = {_place(row, key): row for row in rows}
    there: dict[tuple[Any, ...], Row] = {}
    rows_there = landed(lake, table)
    if table == "qx_scores":  # a curve: what is served now is its newest point
        rows_there = list({_place(row, key): row for row in sorted(rows_there, key=_age)}.values())
    for row in rows_there:
        place = _place(row, key)
        if place in there:
            yield f"twice: {place}"
        there[place] = row
    yield from (f"lost: {place}" for place in wanted.keys() - there.keys())
    yield from (f"never served: {place}" for place in there.keys() - wanted.keys())
    for place in wanted.keys() & there.keys():
        yield from (
            f"{place}: {wrong}" for wrong in _differences(lake, there[place], wanted[place])
        )


def _place(row: Row, key: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in key)


def _age(row: Row) -> datetime:
    fetched_at: datetime = row["_fetched_at"]
    return fetched_at


def _differences(lake: Path, row: Row, wanted: Row) -> Iterator[str]:
    for column, value in {"_extra": None, **wanted}.items():
        cell = row[column]
        if column in _JSON and cell is not None:
            cell = json.loads(cell)
        if cell != value:
            yield f"{column} is {cell!r}, served was {value!r}"
    if not row["_run_id"] or row["_fetched_at"] is None:
        yield "its run or time is missing"
    if "sha256" in wanted:
        path = lake / str(row["path"])
        if not path.is_file():
            yield f"its file {row['path']} is not there"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != wanted["sha256"]:
            yield f"its file {row['path']} has other bytes"
