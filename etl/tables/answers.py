"""Reads what a participant said in an answer: as text, and as a number where it is one.

The API publishes which kinds of answers there are, but the shape of none of them. So an
answer is read by its structure: what is chosen, ranked, paired or written, under any of
the names that such things go by. Nothing hangs on it: the whole answer is kept as well.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from etl.tables.json_text import Json, canonical, storable

PUBLISHED: Final = (
    "blank",
    "ratingScale",
    "multipleChoice",
    "image",
    "nps",
    "url",
    "rankOrder",
    "written",
    "figma",
    "matrix",
)
"""The kinds of answers that the API publishes; there are others, and will be more."""


class Said(NamedTuple):
    """What was said: None where there is nothing that can be put so."""

    text: str | None = None
    number: float | None = None


_NOTHING: Final = Said()


def said(kind: str | None, answer: Json) -> Said:
    """Return what an answer says. `kind` is the task's type, as the API names it."""
    name, payload = _payload(kind or "", answer)
    if payload is None:
        return _NOTHING
    found = _SAYINGS.get(name, _whatever)(payload)
    if found.text is None or storable(found.text):
        return found
    text = found.text.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return Said(text, found.number)


def _bare(kind: str) -> str:
    """Return a kind as types and answers share it: RATING_SCALE and ratingScale."""
    return kind.replace("_", "").lower()


_FIELDS: Final = {re.sub("([A-Z])", r"_\1", name).upper(): name for name in PUBLISHED}
"""The field of an answer by the type of the task: ratingScale by RATING_SCALE."""


def _payload(kind: str, answer: Json) -> tuple[str, Json]:
    """Return the part of an answer that holds what was said, and its kind.

    That is the part which bears the task's kind, else the first of a kind known here,
    else the only one, else all.
    """
    if not isinstance(answer, dict):
        return _bare(kind), answer
    named = _FIELDS.get(kind, "")
    if answer.get(named) is not None:
        return _bare(kind), answer[named]
    kind = _bare(kind)
    parts = {_bare(name): part for name, part in answer.items() if part is not None}
    for name in (kind, *parts):
        if name in parts and (name == kind or name in _SAYINGS):
            return name, parts[name]
    if kind not in _SAYINGS and len(parts) == 1:
        return next(iter(parts.items()))
    return kind, answer if parts else None


# The names that things go by, the likeliest first.

_LABELS: Final = ("label", "text", "name", "title", "value", "option", "answer", "response")
_FIGURES: Final = (
    *("value", "score", "rating", "number", "selectedValue", "selectedOption", "selected"),
    *("answer", "response", "label", "text"),
)
_CHOSEN: Final = (
    *("selectedOptions", "selectedChoices", "selectedValues", "selectedOptionIds", "selectedIds"),
    *("selected", "selectedOption", "selectedChoice", "selectedOptionId", "chosen", "answers"),
    *("responses", "choices", "options", "values", "items", "answer", "response", "value"),
)
_FLAGS: Final = ("selected", "isSelected", "checked", "chosen")
_OFFERED: Final = ("options", "choices", "items")
_IDS: Final = ("id", "uuid", "optionId", "choiceId")
_RANKED: Final = (
    *("ranking", "rankings", "rankedOptions", "ranked", "order", "rankOrder", "options", "items"),
    *("choices", "values", "selectedOptions", "answers", "answer", "responses", "response"),
)
_RANKS: Final = ("rank", "position", "order", "place")
_PAIRS: Final = (
    *("rows", "answers", "responses", "ratings", "selections", "categories", "groups", "cards"),
    *("statements", "items", "values", "answer", "response"),
)
_SUBJECTS: Final = (
    *("row", "rowLabel", "rowText", "rowName", "statement", "category", "group", "question"),
    *("item", "label", "text", "name", "title"),
)
_OBJECTS: Final = (
    *("column", "columnLabel", "columnText", "columnName", "selectedColumn", "selectedColumns"),
    *("selectedOption", "selectedOptions", "selected", "columns", "cards", "items", "value"),
    *("values", "answer", "answers", "response", "option", "rating", "score"),
)
_PATHS: Final = ("path", "selectedPath", "route", "steps", "nodes", "answer", "response", "value")
_WORDS: Final = ("text", "response", "answer", "value", "transcript", "content")
_PLACES: Final = (
    *("outcome", "result", "status", "title", "figmaPrototypeTitle", "label", "name", "text"),
    *("answer", "response", "value", "points", "clicks", "url", "prototypeUrl", "imageUrl", "link"),
)
_DEEPEST: Final = 8
"""How deep names are followed; what lies deeper is told as JSON."""


def _first(value: Json, names: Iterable[str]) -> Json:
    """Return what an object has under the first of these names, else None."""
    if isinstance(value, dict):
        for found in map(value.get, names):
            if found is not None:
                return found
    return None


def _label(value: Json, names: Iterable[str] = _LABELS, depth: int = 0) -> str | None:
    """Return what people call a thing."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return _written_number(value)
    if not value:
        return None
    if depth == _DEEPEST:
        return canonical(value)
    if isinstance(value, list):
        return "; ".join(_labels(value, depth + 1)) or None
    if isinstance(value.get("x"), (int, float)) and isinstance(value.get("y"), (int, float)):
        return f"({value['x']}, {value['y']})"
    return _label(_first(value, names), depth=depth + 1)


def _labels(values: Iterable[Json], depth: int = 0) -> list[str]:
    return [label for value in values if (label := _label(value, depth=depth)) is not None]


def _written_number(number: float) -> str:
    whole = abs(number) < 2**53 and number == int(number)
    return str(int(number) if whole else number)


_NUMERAL: Final = re.compile(r"\s*-?[0-9]{1,15}(\.[0-9]{1,15})?\s*")


def _figure(value: Json, depth: int = 0) -> float | None:
    """Return the number that a thing is, or says."""
    if isinstance(value, bool) or depth == _DEEPEST:
        return None
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 2**63 else None
    if isinstance(value, str):
        return float(value) if _NUMERAL.fullmatch(value) else None
    if isinstance(value, list):
        return _figure(value[0], depth + 1) if len(value) == 1 else None
    inner = (value.get(name) for name in _FIGURES) if value else ()
    found = (_figure(one, depth + 1) for one in inner if one is not None)
    return next((figure for figure in found if figure is not None), None)


# What each kind of answer says.


def _rated(payload: Json) -> Said:
    """A point on a scale: its label where it has one, else its number."""
    number = _figure(payload)
    label = _label(_first(payload, ("label", "text", "selectedLabel", "selectedOption")))
    if number is None:
        return Said(label or _told(payload))
    return Said(label or _written_number(number), number)


def _picked(payload: Json) -> Said:
    return Said("; ".join(_labels(_chosen(payload))) or None)


def _chosen(payload: Json, depth: int = 0) -> Sequence[Json]:
    """Return the things chosen, by their labels where only ids are given."""
    found = payload if isinstance(payload, list) else _first(payload, _CHOSEN)
    if isinstance(found, dict) and depth < _DEEPEST:
        return _chosen(found, depth + 1) or [found]
    things = found if isinstance(found, list) else [found if found is not None else payload]
    flags = [_first(thing, _FLAGS) for thing in things]
    if any(isinstance(flag, bool) for flag in flags):
        things = [thing for thing, flag in zip(things, flags, strict=True) if flag is True]
    names = _offered(payload)
    return [names.get(thing, thing) if isinstance(thing, (str, int)) else thing for thing in things]


def _offered(payload: Json) -> Mapping[str | int, Json]:
    """Return the things to choose from, by their ids."""
    offered = _first(payload, _OFFERED)
    things = offered if isinstance(offered, list) else []
    named = ((_first(thing, _IDS), thing) for thing in things)
    return {name: thing for name, thing in named if isinstance(name, (str, int))}


def _ranked(payload: Json) -> Said:
    """Things in order, the first first."""
    found = payload if isinstance(payload, list) else _first(payload, _RANKED)
    if found is None and isinstance(payload, dict):
        found = [{"label": label, "rank": rank} for label, rank in payload.items()]
    things = found if isinstance(found, list) else _chosen(found)
    for name in _RANKS:
        ranks = [_figure(_first(thing, (name,))) for thing in things]
        if ranks and None not in ranks:
            order = sorted(range(len(ranks)), key=lambda place: ranks[place] or 0.0)
            things = [things[place] for place in order]
            break
    labels = enumerate(_labels(things), start=1)
    return Said("; ".join(f"{place}. {label}" for place, label in labels) or None)


def _paired(payload: Json) -> Said:
    """Pairs of a thing and what was said of it: of a matrix, or groups with their cards."""
    found = payload if isinstance(payload, list) else _first(payload, _PAIRS)
    pairs = found if found is not None else payload
    if isinstance(pairs, dict):
        pairs = [{"row": name, "value": value} for name, value in pairs.items()]
    if not isinstance(pairs, list):
        return Said(_label(pairs))
    texts = [_pair(pair) for pair in pairs]
    return Said("; ".join(text for text in texts if text is not None) or None)


def _pair(pair: Json) -> str | None:
    subject = _label(_first(pair, _SUBJECTS))
    said_of_it = _first(pair, _OBJECTS)
    things = _chosen(said_of_it) if said_of_it is not None else []
    objects = ", ".join(_labels(things))
    if subject is None or not objects:
        return objects or (None if subject is None and isinstance(pair, dict) else _label(pair))
    return f"{subject}: {objects}"


def _walked(payload: Json) -> Said:
    """A way through a tree."""
    found = payload if isinstance(payload, list) else _first(payload, _PATHS)
    steps = found if isinstance(found, list) else [found if found is not None else payload]
    return Said(" > ".join(_labels(steps)) or _outcome(payload))


def _wrote(payload: Json) -> Said:
    return Said(_label(payload, _WORDS))


def _went(payload: Json) -> Said:
    """A page, picture or prototype that was shown: how it went, else what it was."""
    return Said(_outcome(payload) or _label(payload, _PLACES))


def _outcome(payload: Json) -> str | None:
    for name, (good, bad) in (
        ("success", ("success", "failure")),
        ("completed", ("completed", "not completed")),
    ):
        found = _first(payload, (name,))
        if isinstance(found, bool):
            return good if found else bad
    return None


def _whatever(payload: Json) -> Said:
    """An answer of a kind that is not known here."""
    number = None if isinstance(payload, str) else _figure(payload)
    text = _told(payload)
    return Said(text, number if number is not None and text == _written_number(number) else None)


def _told(payload: Json) -> str | None:
    return _label(payload) or _paired(payload).text


_Saying: TypeAlias = Callable[[Json], Said]

_SAYINGS: Final[Mapping[str, _Saying]] = {
    "ratingscale": _rated,
    "rating": _rated,
    "likert": _rated,
    "slider": _rated,
    "nps": _rated,
    "multiplechoice": _picked,
    "singlechoice": _picked,
    "screener": _picked,
    "rankorder": _ranked,
    "ranking": _ranked,
    "matrix": _paired,
    "cardsort": _paired,
    "treetest": _walked,
    "written": _wrote,
    "verbal": _wrote,
    "blank": _wrote,
    "url": _went,
    "image": _went,
    "figma": _went,
}
