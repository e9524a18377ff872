"""Reads WebVTT as the standard's parser does, but drops nothing that was said.

The parser of the standard (W3C, WebVTT: The Web Video Text Tracks Format) skips what it
cannot read; here a malformed cue is handed on with its text. Sign by sign it would also
take `a < b` for a tag without an end; here only what can be a tag is one.
"""

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile
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
    signature, *lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not re.fullmatch(r"WEBVTT([ \t].*)?", signature):
        raise ValueError("it does not begin with WEBVTT")
    transcript = Transcript()
    body = dropwhile(lambda line: line and _ARROW not in line, lines)
    for block in _blocks(body):
        if _ARROW not in block[0] and _ARROW not in block[min(1, len(block) - 1)]:
            if not _SILENT.match(block[0]):
                transcript.malformed.append("\n".join(block))
            continue
        place = len(transcript.cues) + len(transcript.malformed)
        cue = _cue(place, block)
        if cue is None:
            transcript.malformed.append("\n".join(block))
        else:
            transcript.cues.append(cue)
    return transcript


_ARROW: Final = "-->"
_SILENT: Final = re.compile(r"NOTE([ \t]|$)|(STYLE|REGION)[ \t]*$")
"""The first line of a block that says nothing: a comment, a style sheet, a region."""


def _blocks(lines: Iterator[str]) -> Iterator[list[str]]:
    """Return the stretches between empty lines; an arrow that is one too many begins anew."""
    block: list[str] = []
    arrows = 0
    for line in lines:
        if not line:
            if block:
                yield block
            block, arrows = [], 0
            continue
        if _ARROW in line:
            if arrows or len(block) > 1:
                yield block
                block = []
            arrows = 1
        block.append(line)
    if block:
        yield block


_MOMENT: Final = r"(?:([0-9]{1,9}):)?([0-5][0-9]):([0-5][0-9])\.([0-9]{3})"
_TIMING: Final = re.compile(rf"[ \t\f]*{_MOMENT}[ \t\f]*-->[ \t\f]*{_MOMENT}(?![0-9])")


def _cue(place: int, block: Sequence[str]) -> Cue | None:
    """Return the cue of a block, None if it is malformed."""
    named = _ARROW not in block[0]
    timing = _TIMING.match(block[1] if named else block[0])
    if timing is None:
        return None
    moments = timing.groups()
    speaker, text = _spoken("\n".join(block[1 + named :]))
    return Cue(
        place=place,
        id=block[0] if named else None,
        start_ms=_milliseconds(*moments[:4]),
        end_ms=_milliseconds(*moments[4:]),
        speaker=speaker,
        text=text,
    )


def _milliseconds(hours: str | None, minutes: str, seconds: str, thousandths: str) -> int:
    return (int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)) * 1000 + int(thousandths)


_TAG: Final = re.compile(r"</?(?:[A-Za-z][^<>]*)?>|<[0-9:.]+>")
_VOICE: Final = re.compile(r"<v(?:\.[^\s<>]*)?[ \t\n\f]([^<>]*)>")


def _spoken(markup: str) -> tuple[str | None, str]:
    """Return who speaks and what is said, without tags."""
    if "<" not in markup:
        return None, _unescaped(markup).strip(" \t\n\f")
    names = (" ".join(_unescaped(name).split()) for name in _VOICE.findall(markup))
    speakers = dict.fromkeys(filter(None, names))
    # Tags first: an escaped one is text.
    return ", ".join(speakers) or None, _unescaped(_TAG.sub("", markup)).strip(" \t\n\f")


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text) if "&" in text else text
    except ValueError:  # a number of more digits than Python converts
        return text
