"""Reads WebVTT as the standard's parser does, but drops nothing that was said.

The parser of the standard (W3C, WebVTT: The Web Video Text Tracks Format) skips what it
cannot read; here a malformed cue is handed on with its text. Sign by sign it would also
take `a < b` for a tag without an end; here only what can be a tag is one.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Cues(NamedTuple):
    """What was said from one moment to another, in milliseconds: a value for each cue.

    `places` are those among all cues, malformed ones too, from 0. `speakers` are whom the
    voice tags of a cue name, several separated by commas.
    """

    places: Sequence[int] = ()
    ids: Sequence[str | None] = ()
    starts_ms: Sequence[int] = ()
    ends_ms: Sequence[int] = ()
    speakers: Sequence[str | None] = ()
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """The cues of a file in their order, and the text of those that are malformed."""

    cues: Cues = field(repr=False)
    malformed: Sequence[str] = field(repr=False)


def parse(text: str) -> Transcript:
    """Return what a WebVTT file says; raises ValueError if it is none."""
    text = text.removeprefix("\N{BYTE ORDER MARK}").replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("it does not begin with WEBVTT")
    blocks = [block for block in _BLOCK.findall(text, head.end()) if not _is_silent(block[-1])]
    places = [place for place, block in enumerate(blocks) if not block[-1]]
    malformed = [block[-1] for block in blocks if block[-1]]
    if not places:
        return Transcript(Cues(), malformed)
    names, h1, c1, t1, h2, c2, t2, said, _ = zip(*(blocks[place] for place in places), strict=True)
    speakers, texts = zip(*map(_spoken, said), strict=True)
    ids = [name or None for name in names]
    starts_ms, ends_ms = _milliseconds(h1, c1, t1), _milliseconds(h2, c2, t2)
    return Transcript(Cues(places, ids, starts_ms, ends_ms, speakers, texts), malformed)


_ARROW: Final = "-->"
_LINE: Final = r"(?!.*-->).++"
"""A line that is not empty and has no arrow: an arrow begins a block, as an empty line does."""
_LINES: Final = rf"(?:\n{_LINE}|(?!))*+"
"""Lines that follow. Python before 3.11.5 goes on from where none does: `(?!)` leads it back."""
_HEAD: Final = re.compile(rf"WEBVTT(?:[ \t].*)?{_LINES}(?!.)")
"""The signature and what is said of the file: as far as an empty line, or an arrow."""
_MOMENT: Final = r"(?:([0-9]{1,9}):)?([0-5][0-9]:[0-5][0-9])\.([0-9]{3})"
_TIMING: Final = rf"[ \t\f]*+{_MOMENT}[ \t\f]*+-->[ \t\f]*+{_MOMENT}(?![0-9]).*+"
_BLOCK: Final = re.compile(
    rf"(?:({_LINE})\n)?{_TIMING}({_LINES})\n*+"
    rf"|((?:(?:{_LINE}\n)?.*-->.*+|{_LINE}){_LINES})\n*+"
)
"""A cue: its name, both its moments in three parts, what is said. Or a block that is none."""


def _is_silent(block: str) -> bool:
    """Say whether a block that is no cue says nothing."""
    return block != "" and _ARROW not in block and _SILENT.match(block) is not None


_SILENT: Final = re.compile(r"NOTE([ \t]|$)|(STYLE|REGION)[ \t]*$", re.MULTILINE)
"""How a comment, a style sheet or a region begins."""


def _milliseconds(
    hours: Iterable[str], clocks: Iterable[str], thousandths: Iterable[str]
) -> list[int]:
    return [
        _CLOCK_MS[clock] + int(thousandth) + (int(hour) * 3_600_000 if hour else 0)
        for hour, clock, thousandth in zip(hours, clocks, thousandths, strict=True)
    ]


_CLOCK_MS: Final = {f"{m:02}:{s:02}": 1000 * (60 * m + s) for m in range(60) for s in range(60)}
"""The milliseconds of each minute and second of an hour."""


_TAG: Final = re.compile(r"</?(?:[A-Za-z][^<>]*)?>|<[0-9:.]+>")
_VOICE: Final = re.compile(r"<v(?:\.[^\s<>]*)?[ \t\n\f]([^<>]*)>")
_ONE_VOICE: Final = re.compile(rf"[ \t\n\f]*{_VOICE.pattern}([^<]*)(?:</v>[ \t\n\f]*)?")
"""What is said with one voice tag before it, as most cues are: no other tag is looked for."""


def _spoken(markup: str) -> tuple[str | None, str]:
    """Return who speaks and what is said, without tags."""
    if "<" not in markup:
        return None, _unescaped(markup).strip(" \t\n\f")
    if one := _ONE_VOICE.fullmatch(markup):
        name, words = one.groups()
        return _named(name) or None, _unescaped(words).strip(" \t\n\f")
    speakers = dict.fromkeys(filter(None, map(_named, _VOICE.findall(markup))))
    # Tags first: an escaped one is text.
    return ", ".join(speakers) or None, _unescaped(_TAG.sub("", markup)).strip(" \t\n\f")


def _named(name: str) -> str:
    return " ".join(_unescaped(name).split())


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text) if "&" in text else text
    except ValueError:  # a number of more digits than Python converts
        return text
