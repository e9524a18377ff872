"""What a sandbox holds, as it is served now, and how tests and control calls change it.

Everything is a pure function of the seed and of what was changed since. These are the rows
that a correct export lands, table by table:

    sessions                            rows
    session_details, demographics,
    task_groups, tasks                  details
    transcripts                         transcript, its cues
    videos                              video
    clips                               clips, and clip_file
    highlight_reels                     reels, and reel_file
    qx_scores                           qx_scores
    workspaces, tests                   workspaces, tests
    studies, study_tasks                study
    completed_sessions,
    completed_session_answers,
    screener_responses                  completed
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import Any, Final, NamedTuple

from etl.sandbox import classic
from etl.sandbox.account import Account
from etl.sandbox.data import Listing, Row, sessions_of
from etl.sandbox.details import details_of
from etl.sandbox.media import MediaFile, media_file
from etl.sandbox.options import SandboxOptions
from etl.sandbox.patches import patched
from etl.sandbox.plans import Plan, plan_of
from etl.sandbox.products import Product
from etl.sandbox.recordings import clips_of, reels_of
from etl.sandbox.scores import scores_of
from etl.sandbox.transcripts import Transcript, transcript_of

_LISTINGS_KEPT: Final = 64
_CLASSIC_COUNTS: Final = (0, 1, 49, 50, 51, 120)
_CLASSIC_MADE_FROM: Final = 100_000
"""Where the serials begin of sessions that are completed while the sandbox runs."""

_plan_of = lru_cache(maxsize=256)(plan_of)


class Place(NamedTuple):
    """Where a session belongs."""

    test_id: str
    audience_id: object


class Contents(Account):
    """All that a sandbox holds."""

    def __init__(self, options: SandboxOptions) -> None:
        """Hold nothing that was not asked for yet."""
        super().__init__(options)
        self.video_bytes = options.video_bytes
        self._listings: OrderedDict[str, Listing] = OrderedDict()
        self._changed: dict[str, Listing] = {}
        self._unindexed: dict[str, None] = {}
        self._places: dict[str, Place] = {}
        self._detail_edits: dict[str, dict[str, object]] = {}
        self._classic_serials: dict[str, list[int]] = {}
        self._classic_made: Counter[str] = Counter()
        self._classic_places: dict[str, tuple[str, int]] = {}
        self._clip_sessions: dict[str, str] = {}
        self._reel_tests: dict[str, str] = {}
        self._editions: Counter[str] = Counter()
        self._added: Counter[tuple[str, str]] = Counter()

    # The sessions of a test.

    def listing(self, test_id: str) -> Listing:
        """Return a test's listing, made when it is first asked for."""
        test_id = test_id.lower()
        if test_id in self._changed:
            return self._changed[test_id]
        if test_id not in self._listings:
            rows = sessions_of(self.options.seed, test_id, self.options.sessions)
            self._listings[test_id] = Listing(rows)
            self._unindexed[test_id] = None
            if len(self._listings) > _LISTINGS_KEPT:
                self._listings.popitem(last=False)
        return self._listings[test_id]

    def place(self, session_id: str) -> Place | None:
        """Return where a session belongs; None if no test was listed that has it.

        The tests listed last are looked through first, each once.
        """
        session_id = session_id.lower()
        while session_id not in self._places and self._unindexed:
            test_id, _ = self._unindexed.popitem()
            rows = self.listing(test_id).rows
            self._unindexed.pop(test_id, None)
            self._index(test_id, rows)
        return self._places.get(session_id)

    def _index(self, test_id: str, rows: Iterable[Row]) -> None:
        shared: dict[str, Place] = {}
        for row in rows:
            audience = row.get("audienceId")
            place = shared.setdefault(str(audience), Place(test_id, audience))
            self._places[str(row["sessionId"])] = place

    def _to_change(self, test_id: str) -> Listing:
        return self._changed.setdefault(test_id.lower(), self.listing(test_id))

    def session_ids(self, test_id: str) -> list[str]:
        """Return the ids that a test lists now, newest first."""
        return [str(row["sessionId"]) for row in self.listing(test_id).rows]

    def rows(self, test_id: str) -> list[Row]:
        """Return the sessions that a test lists now, as they are served."""
        return list(self.listing(test_id).rows)

    def set_sessions(self, test_id: str, count: int) -> None:
        """Give a test so many sessions."""
        test_id = test_id.lower()
        if self.product(test_id) is Product.CLASSIC:
            self._classic_serials[test_id] = list(range(count, 0, -1))
            return
        self._forget(self.listing(test_id).rows)
        self._changed[test_id] = Listing(sessions_of(self.options.seed, test_id, count))
        self._unindexed[test_id] = None

    def complete(self, test_id: str, n: int = 1) -> None:
        """Complete sessions: they appear at the head."""
        if self.product(test_id) is Product.CLASSIC:
            for _ in range(n):
                self._complete_classic(test_id, 0)
            return
        for _ in range(n):
            self._insert(test_id, 0, late=False)

    def finish_late(self, test_id: str, position: int) -> None:
        """Complete a session that started long ago: it appears behind known ones."""
        if self.product(test_id) is Product.CLASSIC:
            self._complete_classic(test_id, position)
            return
        self._insert(test_id, position, late=True)

    def _insert(self, test_id: str, position: int, *, late: bool) -> None:
        listing = self._to_change(test_id)
        row = listing.new_row(test_id, late=late)
        listing.insert(position, row)
        self._index(test_id.lower(), [row])

    def remove(self, test_id: str, *positions: int) -> None:
        """Remove sessions, as the vendor does with refunded ones: nothing of them is left."""
        if self.product(test_id) is Product.CLASSIC:
            serials = self._classic_to_change(test_id)
            for position in sorted(positions, reverse=True):
                del serials[position]
            return
        listing = self._to_change(test_id)
        for position in sorted(positions, reverse=True):
            self._forget([listing.rows[position]])
            listing.remove(position)

    def _forget(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._places.pop(str(row["sessionId"]), None)

    def edit(self, test_id: str, position: int, **fields: object) -> None:
        """Change fields of a session, by their names in the API."""
        listing = self._to_change(test_id)
        listing.edit(position, fields)
        self._index(test_id.lower(), [listing.rows[position]])

    def swap(self, test_id: str, one: int, other: int) -> None:
        """Exchange two sessions."""
        self._to_change(test_id).swap(one, other)

    # What is known of a session or a test. Each raises KeyError for a session that no test
    # lists, and answers also where the product has no such endpoint (`has` says that).

    def plan(self, test_id: str) -> Plan:
        """Return what a test asks."""
        return _plan_of(self.options.seed, test_id.lower(), self.product(test_id))

    def details(self, session_id: str) -> dict[str, Any]:
        """Return a session's details as they are served."""
        session_id = session_id.lower()
        place = self._placed(session_id)
        details = details_of(self.plan(place.test_id), session_id, place.audience_id)
        edits = self._detail_edits.get(session_id)
        return patched(details, edits) if edits else details

    def edit_details(self, session_id: str, fields: Mapping[str, object]) -> None:
        """Change a session's details, by paths (`patches`)."""
        self._detail_edits.setdefault(session_id.lower(), {}).update(fields)

    def transcript(self, session_id: str) -> Transcript:
        """Return a session's transcript, and the cues that it was made of."""
        place = self._placed(session_id)
        product = self.product(place.test_id)
        return transcript_of(self.options.seed, session_id.lower(), product)

    def clips(self, session_id: str) -> dict[str, Any]:
        """Return the clips of a session's video."""
        session_id = session_id.lower()
        test_id = self._placed(session_id).test_id
        added = self._added["clips", session_id]
        told = clips_of(self.options.seed, test_id, session_id, added)
        self._clip_sessions.update((clip["uuid"], session_id) for clip in told["clips"])
        return told

    def add_clip(self, session_id: str) -> None:
        """Cut another clip, which goes into the test's reels too."""
        test_id = self._placed(session_id).test_id
        self._added["clips", session_id.lower()] += 1
        self._added["clips", test_id] += 1

    def reels(self, test_id: str) -> dict[str, Any]:
        """Return the highlight reels of a test."""
        test_id = test_id.lower()
        reels, clips = self._added["reels", test_id], self._added["clips", test_id]
        told = reels_of(self.options.seed, test_id, reels, clips)
        self._reel_tests.update(
            (classic.reel_token(reel["uuid"]), test_id) for reel in told["reels"]
        )
        return told

    def add_reel(self, test_id: str) -> None:
        """Make another highlight reel."""
        self._added["reels", test_id.lower()] += 1

    def qx_scores(self, test_id: str) -> dict[str, Any]:
        """Return the QXscores of a test's sessions as they are now."""
        edition = self._added["scores", test_id.lower()]
        completes = len(self.listing(test_id).rows)
        return scores_of(self.options.seed, self.plan(test_id), completes, edition)

    def rescore(self, test_id: str) -> None:
        """Reckon other scores from the same sessions."""
        self._added["scores", test_id.lower()] += 1

    def _placed(self, session_id: str) -> Place:
        place = self.place(session_id)
        if place is None:
            raise KeyError(f"no test lists session {session_id}")
        return place

    # Media.

    def video(self, session_id: str) -> MediaFile:
        """Return the video of a session."""
        return self.file("videos", session_id)

    def clip_file(self, clip_id: str) -> MediaFile:
        """Return the file of a clip."""
        return self.file("clips", clip_id)

    def reel_file(self, reel_id: str) -> MediaFile:
        """Return the file of a highlight reel."""
        return self.file("reels", reel_id)

    def file(self, folder: str, object_id: str) -> MediaFile:
        """Return a file of `videos`, `clips` or `reels`."""
        object_id = object_id.lower()
        return media_file(folder, object_id, self.video_bytes, self._editions[object_id])

    def replace_media(self, object_id: str) -> None:
        """Put other bytes, with another ETag, in the place of a file."""
        self._editions[object_id.lower()] += 1

    def set_video_bytes(self, video_bytes: int) -> None:
        """Make all files larger or smaller."""
        self.video_bytes = video_bytes

    # Classic tests.

    def completed_serials(self, test_id: str) -> Sequence[int]:
        """Return the serials of a classic test's sessions, in the order in which it lists them."""
        test_id = test_id.lower()
        if test_id in self._classic_serials:
            return self._classic_serials[test_id]
        count = self.options.sessions
        if count is None:
            count = Random(f"{self.options.seed}:{test_id}").choice(_CLASSIC_COUNTS)
        return range(count, 0, -1)

    def _classic_to_change(self, test_id: str) -> list[int]:
        test_id = test_id.lower()
        return self._classic_serials.setdefault(test_id, list(self.completed_serials(test_id)))

    def _complete_classic(self, test_id: str, position: int) -> None:
        """Complete a session of a classic test, which appears at this place."""
        serials = self._classic_to_change(test_id)
        self._classic_made[test_id.lower()] += 1
        serials.insert(position, _CLASSIC_MADE_FROM + self._classic_made[test_id.lower()])

    def study(self, test_id: str) -> dict[str, Any]:
        """Return the definition of a classic test."""
        count = len(self.completed_serials(test_id))
        return classic.study_of(self.options.seed, test_id.lower(), count)

    def completed(self, test_id: str) -> list[dict[str, Any]]:
        """Return the sessions of a classic test, newest first."""
        serials = self.completed_serials(test_id)
        return [self.completed_session(test_id, serial) for serial in serials]

    def completed_session(self, test_id: str, serial: int) -> dict[str, Any]:
        """Return a session of a classic test; the n-th that was completed has serial n."""
        told = classic.completed_of(self.options.seed, test_id.lower(), serial)
        self._classic_places[told["sessionUuid"]] = (test_id.lower(), serial)
        return told

    def v1_session(self, session_id: str) -> dict[str, Any]:
        """Return a classic session; raises KeyError if no list of a test has shown it."""
        _, serial = self._classic_places[session_id]
        return classic.session_of(self.options.seed, session_id, serial)

    def v1_clip(self, clip_id: str) -> dict[str, Any]:
        """Return a clip as v1 shows it; raises KeyError if no list of clips has shown it."""
        session_id = self._clip_sessions[clip_id]
        test_id = self._placed(session_id).test_id
        title = self.entry(test_id)["title"] if test_id in self._ordered else "A test"
        told = self.clips(session_id)["clips"]
        return classic.clip_of(next(clip for clip in told if clip["uuid"] == clip_id), title)

    def v1_reel(self, token: str) -> dict[str, Any]:
        """Return a reel as v1 shows it; raises KeyError if no list of reels has shown it."""
        told = self.reels(self._reel_tests[token])["reels"]
        shown = {classic.reel_token(reel["uuid"]): reel for reel in told}
        return classic.reel_of(shown[token])
