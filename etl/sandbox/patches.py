"""Changes to a JSON value, told by paths: `{"/tasks/0/response/new": 1, "/audienceId": "absent"}`.

A path is a JSON pointer (RFC 6901) whose `*` stands for every item of a list; the value
`"absent"` takes a field away. A path that leads nowhere changes nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

_Value = TypeVar("_Value")


def patched(value: _Value, changes: Mapping[str, object]) -> _Value:
    """Return the value with the changes made; the given one is left as it is."""
    result: _Value = msgspec.json.decode(msgspec.json.encode(value))
    for path, change in changes.items():
        *parents, last = path.split("/")[1:] or [""]
        holders: list[Any] = [result]
        for parent in parents:
            holders = [child for holder in holders for child in _children(holder, parent)]
        for holder in holders:
            _set(holder, last, change)
    return result


def _children(holder: object, name: str) -> Iterator[Any]:
    if isinstance(holder, list):
        for place in _places(holder, name):
            yield holder[place]
    elif isinstance(holder, dict) and name in holder:
        yield holder[name]


def _set(holder: object, name: str, change: object) -> None:
    if isinstance(holder, list):
        for place in _places(holder, name):
            holder[place] = change
    elif isinstance(holder, dict):
        if change == "absent":
            holder.pop(name, None)
        else:
            holder[name] = change


def _places(holder: list[Any], name: str) -> Iterable[int]:
    if name == "*":
        return range(len(holder))
    return [int(name)] if name.isdecimal() and int(name) < len(holder) else []
