"""The sandbox answers for every product and endpoint what it says that it holds."""

import re
import time
from collections.abc import AsyncIterator
from itertools import chain
from typing import Any

import pytest

from etl.sandbox.classic import reel_token
from etl.sandbox.details import details_of
from etl.sandbox.faults import ENDPOINTS, Fault, FaultKind, fault_from
from etl.sandbox.ids import uuid_from
from etl.sandbox.plans import PUBLISHED, UNPUBLISHED, plan_of
from etl.sandbox.products import STUDYV2, Product, product_of
from etl.sandbox.server import SandboxOptions
from etl.sandbox.transcripts import transcript_of
from tests.calling import OTHER, TEST, Caller, called

V1 = "/usertesting/api/v1"
V2 = "/api/v2/sessionResults"
RESULTS = f"/api/v2/testResults/{TEST}"
STRANGER = "00000000-0000-4000-8000-000000000000"
FEW = SandboxOptions(rate_requests=None, sessions=20)
RECORDED = {Product(name) for name in STUDYV2 if name != "SURVEY"}


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    """Return a client of a sandbox with 20 sessions a test; TEST is think-out-loud."""
    async with called(FEW) as found:
        found.sandbox.set_product(TEST, "THINK_OUT_LOUD")
        yield found


async def session(caller: Caller) -> str:
    """Return the id of a session that a listing has shown."""
    return (await caller.ids(limit=1))[0]


async def with_clips(caller: Caller) -> str:
    """Return the id of a session that has clips."""
    for session_id in await caller.ids(limit=50):
        if (await caller.told(f"{V2}/{session_id}/clips"))["clips"]:
            return session_id
    raise AssertionError("no session has clips")


# What a product has.


async def test_products_are_spread_by_seed_and_can_be_set():
    products = [product_of(7, uuid_from(str(number))) for number in range(100)]
    assert set(products) == set(STUDYV2)
    assert products == [product_of(7, uuid_from(str(number))) for number in range(100)]
    async with called(FEW) as caller:
        caller.sandbox.set_product(TEST.upper(), "SURVEY")
        assert caller.sandbox.product(TEST) is Product.SURVEY
        with pytest.raises(ValueError, match="nothing"):
            caller.sandbox.set_product(TEST, "nothing")


PRODUCTS_OF: dict[str, set[Product]] = {
    "/api/v3/sessionResults/{session}": set(STUDYV2),
    f"{V2}/{{session}}/transcript": {Product.THINK_OUT_LOUD, Product.LIVE_CONVERSATION},
    f"{V2}/{{session}}/videoDownloadUrl": RECORDED,
    f"{V2}/{{session}}/clips": RECORDED,
    f"{RESULTS}/highlightreels": RECORDED,
    f"{RESULTS}/qxScores": {Product.NON_THINK_OUT_LOUD},
    f"{V2}?testId={TEST}": set(STUDYV2),
    f"{V1}/studies/{TEST}": {Product.CLASSIC},
    f"{V1}/studies/{TEST}/completed-sessions": {Product.CLASSIC},
}


@pytest.mark.parametrize("product", Product)
async def test_a_product_has_what_is_published_for_it_and_404_for_the_rest(product, caller):
    session_id = await session(caller)
    caller.sandbox.set_product(TEST, product)
    found = {path: await caller.ask(path.format(session=session_id)) for path in PRODUCTS_OF}
    assert {path for path, answer in found.items() if answer.status == 200} == {
        path for path, products in PRODUCTS_OF.items() if product in products
    }
    assert {answer.status for answer in found.values()} == {200, 404}


async def test_a_session_is_found_once_its_test_was_listed_and_until_it_is_removed(caller):
    first = caller.sandbox.session_ids(TEST)[0]
    async with called(FEW) as other:
        path = f"/api/v3/sessionResults/{first}"
        assert (await other.ask(path)).status == 404
        await other.page(limit=1)
        assert (await other.ask(path)).status == 200
        assert (await other.told(path.replace(first, first.upper())))["sessionId"] == first
        other.sandbox.complete(TEST)
        newest = other.sandbox.session_ids(TEST)[0]
        assert (await other.ask(f"/api/v3/sessionResults/{newest}")).status == 200
        other.sandbox.remove(TEST, 1)
        assert (await other.ask(path)).status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v3/sessionResults/x", 400),
        (f"/api/v3/sessionResults/{STRANGER}", 404),
        (f"{V2}/{STRANGER}/transcript", 404),
        (f"{RESULTS}/highlightreels/{STRANGER}", 404),
        (f"{RESULTS}/highlightreels/x", 400),
        (f"{V1}/workspaces/x", 400),
        (f"{V1}/workspaces/{STRANGER}", 404),
        (f"{V1}/studies/x", 400),
        (f"{V1}/studies/{STRANGER}", 404),
        (f"{V1}/session/{STRANGER}", 404),
        (f"{V1}/clip/{STRANGER}", 404),
        (f"{V1}/highlightreel/{'0' * 20}", 404),
    ],
)
async def test_what_is_not_there_is_refused_in_the_words_of_its_version(path, status, caller):
    answer = await caller.ask(path)
    assert answer.status == status
    code = {400: "BAD_REQUEST", 404: "NOT_FOUND"}[status]
    if path.startswith(V1):
        assert answer.json()["errorCode"] == code and answer.json()["errorMessage"]
    else:
        assert "message" in answer.json()


async def test_everything_is_guarded_counted_and_logged_alike():
    async with called(SandboxOptions(rate_requests=3, sessions=1)) as caller:
        token, caller.token = caller.token, "x"
        assert (await caller.ask(f"{V1}/workspaces")).json()["errorCode"] == "UNAUTHORIZED"
        caller.token = token
        answer = await caller.ask(f"{V1}/workspaces")
        assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, "1")
        caller.sandbox.forbid(TEST, 403)
        assert (await caller.ask(f"{RESULTS}/qxScores")).status == 403
        refused = await caller.ask(f"{V1}/workspaces/{STRANGER}")
        assert (refused.status, refused.json()["errorCode"]) == (429, "TOO_MANY_REQUESTS")
        logged = [(one.endpoint, one.test_id, one.object_id) for one in caller.sandbox.requests]
        assert logged == [
            ("workspaces", None, None),
            ("workspaces", None, None),
            ("qx", TEST, None),
            ("tests", None, STRANGER),
        ]


# Details.


async def test_details_are_those_of_the_session_and_its_test(caller):
    rows = (await caller.page(limit=50))["sessions"]
    for row in rows:
        details = await caller.told(f"/api/v3/sessionResults/{row['sessionId']}")
        assert list(details) == [
            "sessionId",
            "audienceId",
            "testPlanId",
            "sessionParticipant",
            "taskGroups",
            "tasks",
        ]
        assert details == caller.sandbox.details(row["sessionId"])
        assert details["audienceId"] == row["audienceId"]
        plan = caller.sandbox.plan(TEST)
        assert [task["uuid"] for task in details["tasks"]] == [task.uuid for task in plan.tasks]


def test_details_hold_every_published_form_and_some_that_are_not():
    types: set[str] = set()
    answers: set[str] = set()
    forms: set[str] = set()
    texts = ""
    for number in range(60):
        test_id = uuid_from(f"test {number}")
        plan = plan_of(0, test_id, product_of(0, test_id))
        assert 6 <= len(plan.questions) <= 14 and 4 <= len(plan.tasks) <= 16
        for place in range(20):
            details = details_of(plan, uuid_from(f"{number} {place}"), None)
            texts += repr(details["tasks"])
            forms |= set(_forms(details))
            for task in details["tasks"]:
                types.add(task["type"])
                answers |= ((task["response"] or {}).get("answer") or {}).keys()
    assert types == PUBLISHED.keys() | UNPUBLISHED.keys()
    assert answers == {*PUBLISHED.values(), *UNPUBLISHED.values()}
    assert forms >= {"participant", "id", "plan", "QX_SCORE", "BALANCED_COMPARISON", "skipped"}
    for script in ("\u0627", "ह", "我", "ห", "א", "😍", "\\n", '"', "=cmd", "\\u202e"):
        assert script in texts


def _forms(details: dict[str, Any]) -> list[str]:
    """Name what is null or skipped."""
    participant = details["sessionParticipant"]
    found = ["plan"] if details["testPlanId"] is None else []
    found += ["participant"] if participant is None else []
    found += ["id"] if participant and participant["participantId"] is None else []
    found += [group["type"] for group in details["taskGroups"] if group["response"] is None]
    found += ["skipped" for task in details["tasks"] if (task["response"] or {}).get("skipped")]
    return found


async def test_answers_can_be_edited(caller):
    session_id = await session(caller)
    path = f"/api/v3/sessionResults/{session_id}"
    before = await caller.told(path)
    fields = {"/tasks/0/response": {"skipped": True}, "/audienceId": "absent"}
    assert await caller.tell("edit_details", {"session_id": session_id, "fields": fields}) == 200
    after = await caller.told(path)
    assert after["tasks"][0]["response"] == {"skipped": True} and "audienceId" not in after
    assert after["tasks"][1:] == before["tasks"][1:]
    assert caller.sandbox.details(session_id) == after


def test_details_cost_little():
    plan = plan_of(0, TEST, Product.NON_THINK_OUT_LOUD)
    ids = [uuid_from(str(number)) for number in range(300)]
    started = time.process_time()
    for session_id in ids:
        details_of(plan, session_id, None)
    assert (time.process_time() - started) / len(ids) < 300e-6


@pytest.mark.parametrize(
    ("changes", "proof"),
    [
        ({"/new": 1}, lambda told: told["new"] == 1),
        ({"/tasks/*/response/new": 1}, lambda told: told["tasks"][-1]["response"]["new"] == 1),
        (
            {"/sessionParticipant/demographicsInfo/0/value": 7},
            lambda told: told["sessionParticipant"]["demographicsInfo"][0]["value"] == 7,
        ),
        ({"/taskGroups": "absent"}, lambda told: "taskGroups" not in told),
        ({"/tasks/99/type": 1, "/nothing/there": 2}, lambda told: "nothing" not in told),
    ],
)
async def test_a_field_may_be_new_odd_or_missing_at_any_level(changes, proof, caller):
    paths = [f"/api/v3/sessionResults/{session_id}" for session_id in await caller.ids(limit=50)]
    path, plain = next(
        (path, told)
        for path, told in [(path, await caller.told(path)) for path in paths]
        if told["sessionParticipant"] and told["tasks"][-1]["response"]
    )
    caller.sandbox.add_fault(fault_from({"kind": "fields", "on": "details", "value": changes}))
    assert proof(await caller.told(path))
    assert await caller.told(path) == plain, "it strikes once"


async def test_a_fault_can_strike_one_object_alone(caller):
    one, other = (await caller.ids(limit=50))[:2]
    caller.sandbox.add_fault(
        Fault(FaultKind.STATUS, on="details", object_id=other, value=500, times=0)
    )
    statuses = [(await caller.ask(f"/api/v3/sessionResults/{it}")).status for it in (one, other)]
    assert statuses == [200, 500]


async def test_an_unknown_field_can_stand_at_the_top_of_any_answer(caller):
    caller.sandbox.add_fault(Fault(FaultKind.TOP_FIELD, on="reels", value="extra"))
    assert (await caller.told(f"{RESULTS}/highlightreels"))["extra"] == {"a": 1}


# Transcripts.


async def test_a_transcript_is_served_as_webvtt_with_the_cues_that_it_was_made_of(caller):
    session_id = await session(caller)
    answer = await caller.ask(f"{V2}/{session_id}/transcript")
    transcript = caller.sandbox.transcript(session_id)
    assert answer.headers["Content-Type"].startswith("text/vtt")
    assert answer.body == transcript.body
    assert 60 <= len(transcript.cues) <= 400


def test_transcripts_take_every_lawful_form():
    found = [
        transcript_of(0, uuid_from(str(number)), product)
        for number in range(60)
        for product in (Product.THINK_OUT_LOUD, Product.LIVE_CONVERSATION)
    ]
    for transcript in found:
        text = transcript.body.decode().removeprefix("\ufeff")
        assert text.startswith("WEBVTT")
        assert len(re.findall(r"\d\.\d{3} --> \d\d:", text)) == len(transcript.cues)
        ends = [0, *(cue.end_ms for cue in transcript.cues)]
        assert all(cue.start_ms >= end for cue, end in zip(transcript.cues, ends, strict=False))
    together = b"\n".join(transcript.body for transcript in found).decode()
    for form in ("\ufeff", "\r\n", "NOTE", "STYLE", "REGION", "align:", "cue 10", "</v>", "&amp;"):
        assert form in together
    assert any(not transcript.cues for transcript in found), "some say nothing"
    assert {len({cue.speaker for cue in it.cues}) for it in found} >= {1, 2}


async def test_a_cue_may_be_malformed_and_a_transcript_none(caller):
    session_id = await session(caller)
    path = f"{V2}/{session_id}/transcript"
    caller.sandbox.add_fault(Fault(FaultKind.CUE, on="transcript", value="00:99 --> x\noops"))
    plain = caller.sandbox.transcript(session_id).body
    broken = (await caller.ask(path)).body
    assert len(broken) > len(plain) and b"oops" in broken
    caller.sandbox.add_fault(Fault(FaultKind.BODY, on="transcript", value="<html>"))
    assert (await caller.ask(path)).body == b"<html>"
    assert (await caller.ask(path)).body == plain


# What is not ready, and what changes.


async def test_what_is_not_ready_is_404_until_it_is(caller):
    session_id = await session(caller)
    path = f"{V2}/{session_id}/transcript"
    caller.sandbox.not_ready(session_id, "transcript")
    assert (await caller.ask(path)).status == 404
    assert (await caller.ask(f"{V2}/{session_id}/clips")).status == 200
    caller.sandbox.ready(session_id, "transcript")
    assert (await caller.ask(path)).status == 200
    caller.sandbox.not_ready(session_id, "transcript", until=time.time() + 60)
    assert (await caller.ask(path)).status == 404
    caller.sandbox.not_ready(session_id, "transcript", until=time.time() - 1)
    assert (await caller.ask(path)).status == 200
    with pytest.raises(ValueError, match="nothing"):
        caller.sandbox.not_ready(session_id, "nothing")


async def test_scores_are_of_the_plans_groups_and_move_with_sessions_and_editions(caller):
    caller.sandbox.set_product(TEST, "NON_THINK_OUT_LOUD")
    first = await caller.told(f"{RESULTS}/qxScores")
    groups = [group.uuid for group in caller.sandbox.plan(TEST).scored]
    assert [score["taskGroupId"] for score in first["qxScores"]] == groups
    assert first["meta"] == {"totalQxTasks": len(groups), "completes": 20}
    assert await caller.told(f"{RESULTS}/qxScores") == first
    caller.sandbox.rescore(TEST)
    second = await caller.told(f"{RESULTS}/qxScores")
    caller.sandbox.complete(TEST)
    third = await caller.told(f"{RESULTS}/qxScores")
    assert third["meta"]["completes"] == 21
    assert first["qxScores"] != second["qxScores"] != third["qxScores"]
    assert caller.sandbox.qx_scores(TEST) == third


async def test_clips_and_reels_are_added(caller):
    session_id = await session(caller)
    clips = await caller.told(f"{V2}/{session_id}/clips")
    reels = await caller.told(f"{RESULTS}/highlightreels")
    assert clips == caller.sandbox.clips(session_id) and reels == caller.sandbox.reels(TEST)
    caller.sandbox.add_clip(session_id)
    caller.sandbox.add_reel(TEST)
    more = (await caller.told(f"{V2}/{session_id}/clips"))["clips"]
    assert more[:-1] == clips["clips"]
    after = (await caller.told(f"{RESULTS}/highlightreels"))["reels"]
    assert len(after) == len(reels["reels"]) + 1
    for old, new in zip(reels["reels"], after, strict=False):
        assert new["numClips"] == old["numClips"] + 1
        assert new["lastUpdatedAtMs"] > old["lastUpdatedAtMs"]


async def test_a_clip_or_reel_is_generating_before_it_is_generated(caller):
    session_id = await with_clips(caller)
    clip_id = caller.sandbox.clips(session_id)["clips"][0]["uuid"]
    caller.sandbox.add_reel(TEST)
    reel_id = caller.sandbox.reels(TEST)["reels"][0]["uuid"]
    for path, name in (
        (f"{V2}/{session_id}/clips/{clip_id}", "clipUrl"),
        (f"{RESULTS}/highlightreels/{reel_id}", "reelUrl"),
    ):
        first, second = await caller.told(path), await caller.told(path)
        assert first["status"] == "GENERATING" and not first.get(name)
        assert second["status"] == "GENERATED"
        assert (await caller.fetch(second[name])).status == 200
    stranger = await caller.ask(f"{V2}/{await session(caller)}/clips/{reel_id}")
    assert stranger.status == 404, "a clip belongs to its session"
    failed = {"/status": "ERROR", "/clipUrl": "absent"}
    caller.sandbox.add_fault(Fault(FaultKind.FIELDS, on="clip", value=failed))
    told = await caller.told(f"{V2}/{session_id}/clips/{clip_id}")
    assert told == {"clipUuid": clip_id, "status": "ERROR"}


async def test_a_session_may_be_removed_just_before_its_answer(caller):
    session_id = await session(caller)
    caller.sandbox.before("transcript", 1, lambda sandbox, test: sandbox.remove(test, 0))
    assert (await caller.ask(f"{V2}/{session_id}/transcript")).status == 404


async def test_something_can_be_done_before_any_answer(caller):
    caller.sandbox.before("reels", 2, lambda sandbox, test: sandbox.add_reel(test), TEST)
    counts = [len((await caller.told(f"{RESULTS}/highlightreels"))["reels"]) for _ in range(3)]
    assert counts == [counts[0], counts[0] + 1, counts[0] + 1]


# Discovery, and classic tests.


async def test_workspaces_list_every_test_of_the_account_newest_first(caller):
    spaces = await caller.told(f"{V1}/workspaces")
    assert spaces == caller.sandbox.workspaces() and len(spaces) == 3
    listed = {
        space["uuid"]: await caller.told(f"{V1}/workspaces/{space['uuid']}") for space in spaces
    }
    assert listed == caller.sandbox.tests()
    entries = [entry for found in listed.values() for entry in found]
    everything = {*caller.sandbox.test_ids, *caller.sandbox.classic_ids}
    assert {entry["uuid"] for entry in entries} == everything and len(entries) == 16
    for found in listed.values():
        ordered = [entry["orderedAt"] for entry in found]
        assert ordered == sorted(ordered, reverse=True)
    for entry in entries:
        classic = entry["uuid"] in caller.sandbox.classic_ids
        assert (entry["type"] == "STUDYV2") is not classic
        assert classic or entry["productType"] == caller.sandbox.product(entry["uuid"])


async def test_a_workspace_is_read_page_by_page_in_both_directions():
    async with called(SandboxOptions(rate_requests=None, tests=117, workspaces=1)) as caller:
        (space,) = caller.sandbox.workspaces()
        path = f"{V1}/workspaces/{space['uuid']}"
        pages: list[list[dict[str, Any]]] = [await caller.told(path)]
        while pages[-1]:
            pages.append(await caller.told(path, after=pages[-1][-1]["cursor"]))
        assert [len(page) for page in pages] == [50, 50, 21, 0]
        assert list(chain(*pages)) == caller.sandbox.tests()[space["uuid"]]
        assert await caller.told(path, before=pages[1][0]["cursor"]) == pages[0]
        caller.sandbox.order_test()
        assert await caller.told(path, after=pages[0][-1]["cursor"]) == pages[1], "it holds"
        assert (await caller.ask(path, after="?!")).json()["errorCode"] == "BAD_REQUEST"


async def test_tests_are_ordered_shared_and_renamed(caller):
    spaces = [space["uuid"] for space in caller.sandbox.workspaces()]
    test_id = caller.sandbox.order_test(1, "SURVEY")
    caller.sandbox.share(test_id, 2)
    caller.sandbox.edit_test(test_id, {"/title": "=new"})
    listed = [await caller.told(f"{V1}/workspaces/{space}") for space in spaces]
    assert [found[0]["uuid"] == test_id for found in listed] == [False, True, True]
    assert (listed[1][0]["title"], listed[1][0]["productType"]) == ("=new", "SURVEY")


async def test_a_classic_test_is_read_by_v1(caller):
    test_id = caller.sandbox.classic_ids[0]
    caller.sandbox.set_sessions(test_id, 117)
    caller.sandbox.complete(test_id)
    study = await caller.told(f"{V1}/studies/{test_id}")
    assert study == caller.sandbox.study(test_id) and study["sessionCount"] == 118
    path = f"{V1}/studies/{test_id}/completed-sessions"
    first = await caller.told(path)
    second = await caller.told(path, after=first["sessions"][-1]["cursor"])
    third = await caller.told(path, after=second["sessions"][-1]["cursor"])
    sessions = [*first["sessions"], *second["sessions"], *third["sessions"]]
    assert sessions == caller.sandbox.completed(test_id)
    assert first["completedSessionCount"] == len(sessions) == 118
    one = await caller.told(f"{V1}/session/{sessions[0]['sessionUuid']}")
    assert one["uid"] == sessions[0]["sessionUuid"]
    transcripts = {
        type(answer.get("transcript")) for found in sessions for answer in found["answers"]
    }
    assert transcripts == {str, dict, type(None)}
    assert (await caller.ask(path, before="x")).status == 400


async def test_clips_and_reels_are_shown_by_v1_too(caller):
    session_id = await with_clips(caller)
    clip = caller.sandbox.clips(session_id)["clips"][0]
    caller.sandbox.add_reel(TEST)
    (*_, reel) = (await caller.told(f"{RESULTS}/highlightreels"))["reels"]
    assert (await caller.told(f"{V1}/clip/{clip['uuid']}"))["typeName"] == "Clip"
    shown = await caller.told(f"{V1}/highlightreel/{reel_token(reel['uuid'])}")
    assert (shown["title"], shown["clips"]["totalCount"]) == (reel["name"], reel["numClips"])


async def test_the_same_seed_answers_the_same_everywhere():
    async def all_of(seed: int) -> list[Any]:
        options = SandboxOptions(seed=seed, rate_requests=None, sessions=3)
        async with called(options) as caller:
            caller.sandbox.set_product(TEST, "NON_THINK_OUT_LOUD")
            session_id = await session(caller)
            return [
                caller.sandbox.tests(),
                caller.sandbox.details(session_id),
                caller.sandbox.transcript(session_id).body,
                caller.sandbox.clips(session_id),
                caller.sandbox.video(session_id).sha256,
                caller.sandbox.reels(TEST),
                caller.sandbox.qx_scores(TEST),
                caller.sandbox.completed(caller.sandbox.classic_ids[0]),
            ]

    first = await all_of(7)
    assert first == await all_of(7)
    other = await all_of(8)
    assert all(one != another for one, another in zip(first, other, strict=True))


def test_a_fault_can_be_told_for_every_endpoint():
    for endpoint in ENDPOINTS:
        assert fault_from({"kind": "status", "on": endpoint, "value": 500}).on == endpoint


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("set_product", {"test_id": TEST, "product": "SURVEY"}),
        ("order_test", {"workspace": 0}),
        ("add_reel", {"test_id": TEST}),
        ("rescore", {"test_id": TEST}),
        ("edit_test", {"test_id": TEST, "fields": {}}),
        ("set_video_bytes", {"video_bytes": 5}),
        ("replace_media", {"object_id": STRANGER}),
        ("not_ready", {"object_id": STRANGER, "endpoint": "video"}),
        ("ready", {"object_id": STRANGER, "endpoint": "video"}),
    ],
)
async def test_control_calls_are_the_methods_of_the_sandbox(name, body, caller):
    assert await caller.tell(name, body) == 200
    assert await caller.tell(name, {**body, "nothing": 1}) == 400


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("set_product", {"test_id": TEST, "product": "nothing"}),
        ("share", {"test_id": OTHER, "workspace": 0}),
        ("share", {"test_id": OTHER, "workspace": 9}),
        ("add_clip", {"session_id": STRANGER}),
        ("not_ready", {"object_id": TEST, "endpoint": "nothing"}),
    ],
)
async def test_a_control_call_for_what_is_not_there_is_refused(name, body, caller):
    assert await caller.tell(name, body) == 400
