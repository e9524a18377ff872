"""Reads WebVTT as the standard's parser does, but drops nothing that was said.

The parser of the standard (W3C, WebVTT: The Web Video Text Tracks Format) skips what it
cannot read; here a malformed cue is handed on with its text. Sign by sign it would also
take `a < b` for a tag without an end; here only what can be a tag is one.
"""

import html
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class Cue(NamedTuple):
    """What was said from one moment to another, in milliseconds.

    `place` is its place among the cues, malformed ones too, from 0. `speaker` is who
    its voice tags name, several separated by commas.
    """

    place: int
    id: str | None
    start_ms: int
    end_ms: int
    speaker: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """The cues of a file in their order, and the text of those that are malformed."""

    cues: list[Cue] = field(default_factory=list, repr=False)
    malformed: list[str] = field(default_factory=list, repr=False)


def parse(text: str) -> Transcript:
    """Return what a WebVTT file says; raises ValueError if it is none."""
    text = text.removeprefix("\N{BYTE ORDER MARK}").replace("\0", "\N{REPLACEMENT CHARACTER}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = _HEAD.match(text)
    if head is None:
        raise ValueError("it does not begin with WEBVTT")
    transcript = Transcript()
    cues, malformed = transcript.cues, transcript.malformed
    for name, h1, c1, t1, h2, c2, t2, said, other in _BLOCK.findall(text, head.end()):
        if not other:
            place = len(cues) + len(malformed)
            speaker, words = _spoken(said)
            start_ms, end_ms = _milliseconds(h1, c1, t1), _milliseconds(h2, c2, t2)
            cues.append(Cue(place, name or None, start_ms, end_ms, speaker, words))
        elif _ARROW in other or not _SILENT.match(other):
            malformed.append(other)
    return transcript


_ARROW: Final = "-->"
_HEAD: Final = re.compile(r"WEBVTT(?:[ \t].*)?(?:\n(?!.*-->).+)*+(?!.)")
"""The signature and what is said of the file: as far as an empty line, or an arrow."""
_MOMENT: Final = r"(?:([0-9]{1,9}):)?([0-5][0-9]:[0-5][0-9])\.([0-9]{3})"
_TIMING: Final = rf"[ \t\f]*+{_MOMENT}[ \t\f]*+-->[ \t\f]*+{_MOMENT}(?![0-9]).*+"
_LINE: Final = r"(?!.*-->).++"
"""A line that is not empty and has no arrow: an arrow begins a block, as an empty line does."""
_BLOCK: Final = re.compile(
    rf"(?:({_LINE})\n)?{_TIMING}((?:\n{_LINE})*+)"
    rf"|((?:(?:{_LINE}\n)?+.*-->.*+|{_LINE})(?:\n{_LINE})*+)"
)
"""A cue: its name, both its moments in three parts, what is said. Or a block that is none."""
_SILENT: Final = re.compile(r"NOTE([ \t]|$)|(STYLE|REGION)[ \t]*$", re.MULTILINE)
"""A block that says nothing: a comment, a style sheet, a region."""


def _milliseconds(hours: str, clock: str, thousandths: str) -> int:
    within = _SECONDS[clock] * 1000 + int(thousandths)
    return int(hours) * 3_600_000 + within if hours else within


_SECONDS: Final = {f"{m:02}:{s:02}": 60 * m + s for m in range(60) for s in range(60)}
"""The second of each minute and second of an hour."""


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
