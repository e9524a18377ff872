"""The table of transcripts: WebVTT in every lawful form, and in some that are not."""

import io
import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from etl.client.values import UnreadableBodyError
from etl.tables.transcripts import TRANSCRIPT
from etl.tables.webvtt import Transcript, parse
from tests.tables.served import SESSION, dicts, encoded, made_by

TIMING = "00:01.000 --> 00:02.500"


class Cue(NamedTuple):
    """What was said, by whom and when."""

    place: int
    id: str | None
    start_ms: int
    end_ms: int
    speaker: str | None
    text: str


def cues_of(transcript: Transcript) -> list[Cue]:
    return [Cue(*told) for told in zip(*transcript.cues, strict=True)]


def cue(text: str, timing: str = TIMING) -> Cue:
    """Return the only cue of a file."""
    transcript = parse(f"WEBVTT\n\n{timing}\n{text}\n")
    assert not transcript.malformed
    (only,) = cues_of(transcript)
    return only


def spoken(text: str) -> tuple[str | None, str]:
    only = cue(text)
    return only.speaker, only.text


def test_a_cue_is_a_row_with_its_place_name_times_and_speaker():
    rows = made_by(
        "transcripts",
        b"WEBVTT\n\nintro\n00:00:01.000 --> 01:00:02.500 align:start\n<v Ann Lee>Good\nmorning"
        b"\n\n00:03.000 --> 00:04.000\nBob: hello\n",
    )
    assert dicts(rows) == [
        {
            "cue_index": 0,
            "cue_id": "intro",
            "start_ms": 1000,
            "end_ms": 3_602_500,
            "speaker": "Ann Lee",
            "text": "Good\nmorning",
        },
        {
            "cue_index": 1,
            "cue_id": None,
            "start_ms": 3000,
            "end_ms": 4000,
            "speaker": None,
            "text": "Bob: hello",
        },
    ]


@pytest.mark.parametrize(
    "head",
    [
        "WEBVTT",
        "\ufeffWEBVTT",
        "WEBVTT - made by hand",
        "WEBVTT\tmade by hand",
        "WEBVTT\nKind: captions\nLanguage: de",
        "WEBVTT\n\n\n",
        "WEBVTT\n\nNOTE a comment\nof two lines",
        "WEBVTT\n\nNOTE\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:left",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_lawful_head_and_line_end_is_read(head: str, end: str):
    text = f"{head}\n\n{TIMING}\nHello\n\nNOTE last\n\n00:03.000 --> 00:04.000\nBye"
    transcript = parse(text.replace("\n", end))
    assert [one.text for one in cues_of(transcript)] == ["Hello", "Bye"]
    assert not transcript.malformed


@pytest.mark.parametrize(
    ("timing", "start_ms", "end_ms"),
    [
        ("00:00.000 --> 00:00.001", 0, 1),
        ("59:59.999 --> 1:00:00.000", 3_599_999, 3_600_000),
        ("00:00:01.000 --> 100:00:00.000", 1000, 360_000_000),
        ("00:01.000-->00:02.000", 1000, 2000),
        ("\t00:01.000 \t-->\t 00:02.000 \t", 1000, 2000),
        ("00:01.000 --> 00:02.000 position:10%,line-left align:left size:35%", 1000, 2000),
        ("00:02.000 --> 00:01.000", 2000, 1000),
    ],
)
def test_every_lawful_timing_is_read(timing: str, start_ms: int, end_ms: int):
    only = cue("Hello", timing)
    assert (only.start_ms, only.end_ms) == (start_ms, end_ms)


@pytest.mark.parametrize(
    ("markup", "speaker", "text"),
    [
        ("<v Mary>Hello", "Mary", "Hello"),
        ("<v.loud.first Mary Ann>Hello</v>", "Mary Ann", "Hello"),
        ("<v\tMary>Hello", "Mary", "Hello"),
        ("<v  Mary \n Ann >Hello", "Mary Ann", "Hello"),
        ("<v Q&amp;A>Hello", "Q&A", "Hello"),
        ("<v>Hello", None, "Hello"),
        ("<v Mary>Hi</v> <v Bob>Ho</v> <v Mary>He", "Mary, Bob", "Hi Ho He"),
        ("Mary: Hello", None, "Mary: Hello"),
        ("<b>one</b> <i.x>two</i> <u>three</u>", None, "one two three"),
        ("<c.yellow.bg_blue>one</c> <lang en-GB>two</lang>", None, "one two"),
        ("<ruby>漢<rt>kan</rt></ruby>", None, "漢kan"),
        ("one <00:01.500>two <00:00:02.000>three", None, "one two three"),
        ("a &amp; b &lt;b&gt; &#233;&#xE9;", None, "a & b <b> éé"),
        ("&lrm;a&rlm;&nbsp;", None, "\u200ea\u200f\u00a0"),
        ("AT&T & me", None, "AT&T & me"),
        ("1 < 2 and I <3 you", None, "1 < 2 and I <3 you"),
        ("&#" + "9" * 5000 + ";", None, "&#" + "9" * 5000 + ";"),
        ("", None, ""),
        ("שלום \u202e عالم", None, "שלום \u202e عالم"),
        ("a\0b", None, "a\N{REPLACEMENT CHARACTER}b"),
        (" - dash", None, "- dash"),
    ],
)
def test_markup_says_who_speaks_and_is_no_text(markup: str, speaker: str | None, text: str):
    assert spoken(markup) == (speaker, text)


@pytest.mark.parametrize(
    "block",
    [
        "00:01,000 --> 00:02,000\nSubRip writes commas",
        "00:01.000 --> 00:02\nno thousandths",
        "00:01.000 --> \nno end",
        "1:02.000 --> 00:03.000\none digit",
        "00:61.000 --> 01:02.000\nsixty-one seconds",
        "00:01.000 --> 00:02.0000\nfour digits",
        "x 00:01.000 --> 00:02.000\nsomething before",
        "\u0660\u0660:\u0660\u0661.\u0660\u0660\u0660 --> 00:02.000\nother digits",
        "name\n00:01.000 -> 00:02.000\nhalf an arrow",
        "words that belong to no cue",
        "NOTES are no comment",
    ],
)
def test_a_malformed_cue_is_rejected_with_its_text_and_the_rest_lands(block: str):
    raw = f"WEBVTT\n\n{TIMING}\nbefore\n\n{block}\n\n{TIMING}\nafter".encode()
    rows = made_by("transcripts", raw)
    assert [(reject.body, reject.session_id) for reject in rows.rejects] == [(block, SESSION)]
    assert [(row["cue_index"], row["text"]) for row in dicts(rows)] == [(0, "before"), (2, "after")]


def test_an_arrow_begins_a_cue_also_without_an_empty_line():
    transcript = parse(f"WEBVTT\n{TIMING}\none\n{TIMING}\ntwo\n\nname\n{TIMING}\nthree")
    assert [(one.id, one.text) for one in cues_of(transcript)] == [
        (None, "one"),
        (None, "two"),
        ("name", "three"),
    ]


def test_a_transcript_without_a_word_has_no_rows():
    for raw in (b"WEBVTT", b"WEBVTT\n", b"\xef\xbb\xbfWEBVTT\r\n\r\nNOTE nothing was said\r\n"):
        rows = made_by("transcripts", raw)
        assert not rows.keys and not rows.rejects and set(rows.columns) > {"text"}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"webvtt\n",
        b"WEBVTTX\n",
        b" WEBVTT",
        b"\nWEBVTT",
        b"<html>",
        b'{"a": 1}',
        b'"hello"',
        b'"',
    ],
)
def test_what_is_no_webvtt_is_unreadable(raw: bytes):
    with pytest.raises(UnreadableBodyError):
        TRANSCRIPT.decode(raw)


def test_a_transcript_may_come_as_a_json_string():
    text = f"WEBVTT\n\n{TIMING}\n<v Ann>“Quoted”\n"
    assert TRANSCRIPT.decode(encoded(text)) == TRANSCRIPT.decode(text.encode())


def test_bytes_that_are_not_utf_8_are_replaced_as_the_standard_says():
    (row,) = dicts(made_by("transcripts", f"WEBVTT\n\n{TIMING}\nna".encode() + b"\xefve"))
    assert row["text"] == "na\N{REPLACEMENT CHARACTER}ve"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("first", "unit"),
    [("", "<a"), ("", "<v "), ("<v", " "), ("", "&#"), ("", "<v a><"), ("", "a\n"), ("", "-->")],
)
def test_five_megabytes_of_anything_are_read_in_time(first: str, unit: str):
    text = first + unit * (5_000_000 // len(unit))
    transcript = parse(f"WEBVTT\n\n{TIMING}\n{text}\n\n{text}")
    assert len(cues_of(transcript)) == 1 and len(transcript.malformed) >= 1


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="<>&"), min_size=1
).filter(lambda text: text.strip() == text and "-->" not in text and text.isprintable())
MOMENTS = st.integers(0, 359_999_999)
LINES = st.lists(WORDS, min_size=1, max_size=3)


def moment(ms: int, *, hours: bool) -> str:
    minutes, rest = divmod(ms, 60_000)
    spelled = f"{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"
    return f"{minutes // 60:02}:{spelled}" if hours or minutes >= 60 else spelled


@given(
    st.lists(st.tuples(st.none() | WORDS, MOMENTS, MOMENTS, st.none() | WORDS, LINES), max_size=6),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_is_lawful_is_read_as_another_reader_does(cues, hours: bool, end: str):
    text = "WEBVTT\n"
    for name, start, finish, voice, lines in cues:
        spoken_by = "" if voice is None else f"<v {voice}>"
        text += "\n" + (f"{name}\n" if name else "")
        text += f"{moment(start, hours=hours)} --> {moment(finish, hours=hours)}\n"
        text += spoken_by + "\n".join(lines) + "\n"
    ours = parse(text.replace("\n", end))
    assert not ours.malformed
    assert [(one.id, one.start_ms, one.end_ms, one.text) for one in cues_of(ours)] == [
        (name, start, finish, "\n".join(lines)) for name, start, finish, _, lines in cues
    ]
    assert [one.speaker for one in cues_of(ours)] == [
        None if voice is None else " ".join(voice.split()) for *_, voice, _ in cues
    ]
    theirs = webvtt.from_buffer(io.StringIO(text)).captions
    assert [(one.text, one.identifier) for one in theirs] == [
        (one.text, one.id) for one in cues_of(ours)
    ]
    assert [one.start for one in theirs] == [
        moment(one.start_ms, hours=True) for one in cues_of(ours)
    ]


@given(st.text(st.sampled_from("WEBVT\n\r <>&;v.:0123-aNOTE\t\0\ufeff")))
def test_no_text_is_lost_between_cues_and_rejects(text: str):
    transcript = parse(f"WEBVTT\n\n{text}")
    places = transcript.cues.places
    assert list(places) == sorted(set(places))
    assert all(place < len(places) + len(transcript.malformed) for place in places)


def test_the_python_of_the_system_finds_the_same_cues():
    # Debian 12 has 3.11.2, whose possessive groups take more than they match.
    python = "/usr/bin/python3"
    newer = "import sys; sys.exit(sys.version_info < (3, 11))"
    if not Path(python).exists() or subprocess.run([python, "-c", newer], check=False).returncode:
        pytest.skip("this system has no Python of its own that is new enough")
    head = "WEBVTT\nKind: captions\n\n"
    texts = [
        f"{head}{TIMING}\n<v Ann>one\ntwo\n\n\nNOTE no cue\n\nname\n{TIMING}\nthree\n",
        f"{head}words\n\n",
        f"WEBVTT\n{TIMING}\nfour\n{TIMING}\nfive\n--> six\nseven",
    ]
    code = (
        "import json, sys; from etl.tables.webvtt import parse;"
        "read = map(parse, json.load(sys.stdin));"
        "print(json.dumps([[one.cues, one.malformed] for one in read]))"
    )
    command = [python, "-c", code]
    done = subprocess.run(
        command, input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    here = [[one.cues, one.malformed] for one in map(parse, texts)]
    assert json.loads(done.stdout) == json.loads(json.dumps(here))
