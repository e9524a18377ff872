"""Runs mutmut and judges its survivors; exits 1 for one that nobody has judged."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTMUT = Path(sys.executable).with_name("mutmut")


@dataclass(frozen=True, order=True)
class Survivor:
    """A change that no test noticed: the function, the line as it was and as it was changed."""

    function: str
    was: str
    became: str

    @property
    def wording(self) -> bool:
        """Whether only the letters of a message changed: tests hold its sense."""
        return self.was != self.became and _sense(self.was) == _sense(self.became)


def _sense(line: str) -> str:
    # What mutmut does to a text: capitals, small letters, or XX about it.
    return line.replace("XX", "").casefold()


def read_survivor(shown: str) -> Survivor:
    """Read what `mutmut show` prints: the mutant's name, then a unified diff."""
    name = shown.partition("# ")[2].partition("__mutmut_")[0]
    lines = re.findall(r"^([-+])(?![-+])\s*(.*)$", shown, re.MULTILINE)
    was, became = (" ".join(text for sign, text in lines if sign == side) for side in "-+")
    return Survivor(re.sub(r"\.x(?:ǁ(\w+)ǁ|_)", r".\1.", name).replace("..", "."), was, became)


def unjudged(
    survivors: Iterable[Survivor], judged: Iterable[Mapping[str, str]]
) -> tuple[list[Survivor], list[Survivor]]:
    """Return the survivors that nobody has judged, and the judgements that are out of date."""
    known = {Survivor(one["function"], one["was"], one["became"]) for one in judged}
    found = {survivor for survivor in survivors if not survivor.wording}
    return sorted(found - known), sorted(known - found)


def statuses() -> Iterator[tuple[str, str]]:
    """Return each mutant's name and what became of it."""
    told = subprocess.run(
        [MUTMUT, "results", "--all", "true"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    yield from re.findall(r"^ *(\S+): (.+)$", told.stdout, re.MULTILINE)


def main() -> int:
    """Run, tell, and return the exit code."""
    # The same examples every time: a mutant that only luck kills is not killed.
    subprocess.run(
        [MUTMUT, "run", *sys.argv[1:]], cwd=ROOT, env={**os.environ, "CI": "1"}, check=True
    )
    results = list(statuses())
    print(
        ", ".join(f"{count} {status}" for status, count in Counter(s for _, s in results).items())
    )
    survivors = [
        read_survivor(
            subprocess.run(
                [MUTMUT, "show", name], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout
        )
        for name, status in results
        if status in ("survived", "no tests", "suspicious")
    ]
    judged = tomllib.loads((Path(__file__).parent / "judged.toml").read_text()).get("survivor", [])
    new, gone = unjudged(survivors, judged)
    print(f"{sum(one.wording for one in survivors)} survivors change only the wording of a message")
    for title, listed in (("NOT JUDGED", new), ("judged, but gone", gone)):
        for one in listed:
            print(f"{title}: {one.function}\n  - {one.was}\n  + {one.became}")
    return int(bool(new))


if __name__ == "__main__":
    sys.exit(main())
