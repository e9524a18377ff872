"""Control calls: `POST /_sandbox/NAME` with JSON changes a sandbox in another process.

The names are those of `Sandbox`'s methods, the JSON their arguments by name:
`complete {test_id, n}`, `finish_late {test_id, position}`, `remove {test_id, positions}`,
`edit {test_id, position, fields}`, `swap {test_id, one, other}`, `set_sessions {test_id,
count}`, `revoke_tokens {}`, `revoke_credentials {}`, `forbid {test_id, status}`,
`neighbour {requests}`, `fault {kind, on, test_id, object_id, nth, times, value, headers}`,
`set_product {test_id, product}`, `order_test {workspace, product}`, `share {test_id,
workspace}`, `edit_test {test_id, fields}`, `edit_details {session_id, fields}`, `add_clip
{session_id}`, `add_reel {test_id}`, `rescore {test_id}`, `not_ready {object_id, endpoint,
until}`, `ready {object_id, endpoint}`, `replace_media {object_id}`, `set_video_bytes
{video_bytes}`. The `fields` of `edit_test` and `edit_details` are changes by paths
(`patches`).
`GET /_sandbox/state?testId=…` tells counts, and the ids that a test lists now.
"""

from typing import Any, Final

from aiohttp import web

from etl.sandbox.faults import fault_from
from etl.sandbox.state import Sandbox

_CALLS: Final = frozenset(
    {
        "add_clip",
        "add_reel",
        "complete",
        "edit_details",
        "edit_test",
        "finish_late",
        "forbid",
        "neighbour",
        "not_ready",
        "order_test",
        "ready",
        "replace_media",
        "rescore",
        "revoke_credentials",
        "revoke_tokens",
        "set_product",
        "set_sessions",
        "set_video_bytes",
        "share",
        "swap",
    }
)


def add_control(app: web.Application, sandbox: Sandbox) -> None:
    """Add the control calls to a server."""

    async def change(request: web.Request) -> web.Response:
        try:
            told = await request.json()
            if not isinstance(told, dict):
                raise ValueError("the arguments are a JSON object")  # noqa: TRY004, TRY301
            _change(sandbox, request.match_info["name"], told)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"ok": True})

    async def state(request: web.Request) -> web.Response:
        test_id = request.query.get("testId")
        return web.json_response(
            {
                "grants": sandbox.grants,
                "statuses": {str(status): count for status, count in sandbox.statuses.items()},
                "requests": sum(sandbox.statuses.values()),
                "test_ids": sandbox.test_ids,
                "classic_ids": sandbox.classic_ids,
                "products": {test: sandbox.product(test) for test in sandbox.test_ids},
                "transfers": len(sandbox.transfers),
                "media_bytes": sandbox.media_bytes,
                "tokens_at_media": sandbox.tokens_at_media,
                "session_ids": sandbox.session_ids(test_id) if test_id else None,
            }
        )

    app.router.add_post("/_sandbox/{name}", change)
    app.router.add_get("/_sandbox/state", state)


def _change(sandbox: Sandbox, name: str, told: dict[str, Any]) -> None:
    """Carry out a control call; raises ValueError for a name that is none."""
    match name:
        case "fault":
            sandbox.add_fault(fault_from(told))
        case "remove":
            sandbox.remove(told["test_id"], *told["positions"])
        case "edit":
            sandbox.edit(told["test_id"], told["position"], **told["fields"])
        case _ if name in _CALLS:
            getattr(sandbox, name)(**told)
        case _:
            raise ValueError(f"there is no control call {name!r}")
