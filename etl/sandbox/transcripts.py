"""A session's transcript: WebVTT in every lawful form, beside the cues that it was made of.

The cues are kept as they were before they were written down, so that whoever reads the text
can be judged without trusting a second reader.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from etl.sandbox.products import Product
from etl.sandbox.texts import NAMES, SENTENCES

_MODERATOR: Final = "Moderator"
_SETTINGS: Final = (
    "",
    "",
    " align:start",
    " position:10%,line-left align:left size:35%",
    " line:0 position:20% size:60%",
    " vertical:rl line:-1",
)
_NOTES: Final = (
    "NOTE made by a machine",
    "NOTE\nA comment of several lines,\nwith --like an arrow-- in it",
    "NOTE\tconfidence 0.93",
)
_STYLE: Final = "STYLE\n::cue(v[voice=Moderator]) {\n  color: lime;\n}"
_REGION: Final = "REGION\nid:fred\nwidth:40%\nlines:3"
_ESCAPED: Final = (
    ("Tom & Jerry < 3", "Tom &amp; Jerry &lt; 3"),
    ("a > b, not a\u00a0line break", "a &gt; b, not a&nbsp;line break"),
    ("the &amp; sign itself", "the &amp;amp; sign itself"),
    ("left\u200e and right\u200f", "left&lrm; and right&rlm;"),
    ("really, no", "<i>really</i>, <b.loud>no</b>"),
    ("one two", "one <00:00:00.500>two"),
    ("好的 yes", "<lang zh>好的</lang> <c.yellow.bg_blue>yes</c>"),
    ("first line\nsecond line", "first line\nsecond line"),
    ("=SUM(A1:A9)", "=SUM(A1:A9)"),
    ("漢字", "<ruby>漢<rt></rt></ruby>字"),
)
"""What is seen, and how it is written."""


class Cue(NamedTuple):
    """A cue as it is meant: tags gone, entities read, lines joined by a newline."""

    id: str | None
    start_ms: int
    end_ms: int
    speaker: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """A transcript as it is served, and the cues in it."""

    body: bytes
    cues: tuple[Cue, ...]


@dataclass(frozen=True, slots=True)
class _Manner:
    """How one transcript is written down."""

    hours: bool
    ids: bool
    settings: tuple[str, ...]
    notes: bool
    voices: tuple[tuple[str | None, str, str], ...]
    """The speakers, with what is written before and after their words."""


def transcript_of(seed: int, session_id: str, product: Product) -> Transcript:
    """Return what `GET /api/v2/sessionResults/{sessionId}/transcript` answers."""
    random = Random(f"{seed}:transcript:{session_id}")
    chance = random.random
    manner = _Manner(
        hours=chance() < 0.7,
        ids=chance() < 0.3,
        settings=_SETTINGS if chance() < 0.2 else ("",),
        notes=chance() < 0.3,
        voices=_voices(random, product),
    )
    blocks = ["WEBVTT" + random.choice(("", "", " - Transcript", "\nKind: captions"))]
    blocks += [_STYLE] if chance() < 0.1 else []
    blocks += [_REGION] if chance() < 0.05 else []
    # Somebody may say nothing at all.
    cues = [] if chance() < 0.02 else list(_cues(random, manner))
    for number, (_, block) in enumerate(cues):
        if manner.notes and number % 40 == 7:
            blocks.append(_NOTES[number // 40 % len(_NOTES)])
        blocks.append(block)
    text = "\n\n".join(blocks) + random.choice(("\n", "\n\n", ""))
    if chance() < 0.1:
        text = text.replace("\n", "\r\n")
    mark = "\ufeff" if chance() < 0.05 else ""
    return Transcript((mark + text).encode(), tuple([cue for cue, _ in cues]))


def _voices(random: Random, product: Product) -> tuple[tuple[str | None, str, str], ...]:
    speakers = [random.choice(NAMES)]
    if product is Product.LIVE_CONVERSATION:
        speakers.append(_MODERATOR)
    elif random.random() < 0.3:
        return ((None, "", ""),)
    before, after = ("<v {}>", "</v>") if random.random() < 0.8 else ("<v.first.loud {}>", "")
    return tuple((name, before.format(name.replace("&", "&amp;")), after) for name in speakers)


def _cues(random: Random, manner: _Manner) -> Iterator[tuple[Cue, str]]:
    """Yield 60 to 400 cues, each with its block of text."""
    chance = random.random
    language = random.choice(SENTENCES)
    voices, settings = manner.voices, manner.settings
    at = int(chance() * 4_000)
    for number in range(1, 61 + int(chance() * 341)):
        draw = chance()
        end = at + 300 + int(draw * 6_000)
        speaker, before, after = voices[int(draw * 97) % len(voices)]
        text = written = language[int(draw * 1_000) % len(language)]
        if draw < 0.04:
            text, written = _ESCAPED[int(draw * 25 * len(_ESCAPED))]
        cue_id, head = None, ""
        if manner.ids:
            cue_id = f"cue {number}" if number % 10 == 0 else str(number)
            head = cue_id + "\n"
        start_time, end_time = _time(at, manner.hours), _time(end, manner.hours)
        setting = settings[number % len(settings)]
        yield (
            Cue(cue_id, at, end, speaker, text),
            f"{head}{start_time} --> {end_time}{setting}\n{before}{written}{after}",
        )
        at = end + (0 if draw < 0.5 else int(draw * 1_500))


def _time(moment: int, hours: bool) -> str:  # noqa: FBT001 - how all times here are written
    minutes, rest = divmod(moment, 60_000)
    seconds = rest / 1_000
    if hours or minutes > 59:
        return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:06.3f}"
    return f"{minutes:02}:{seconds:06.3f}"
