"""Arguments in, exit codes out.

`app` names the commands and their options and imports nothing heavy, so that `--help`
and `--version` are quick; each command's work is in a module of its own, imported when
it is called.
"""

import gc
import sys
from typing import NoReturn

from etl.errors import EtlError


def main() -> NoReturn:
    """Run the command line, and exit as the contract says; never shows a traceback but a bug's."""
    # Modules and answers are thousands of objects that form no cycle: looking through them for
    # some, as often as Python does by itself, took a tenth of each start and an eighth of a run.
    gc.set_threshold(50_000, 20, 100)
    from etl.cli.app import app
    from etl.cli.crash import guard_against_crashes, story_of

    guard_against_crashes()
    try:
        app()
    except EtlError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone (`etl status | head`): nothing is left to say to it.
        sys.stdout = open("/dev/null", "w", encoding="utf-8")  # noqa: SIM115, PTH123
        sys.exit(0)
    except Exception as bug:  # noqa: BLE001 - the one place where a bug is told from an error
        print(story_of(bug), end="", file=sys.stderr)
        _say(
            "This is a bug in etl. Please report it with the lines above and the output of "
            "`etl --version`; they hold neither data nor secrets."
        )
        sys.exit(1)
    sys.exit(0)


def _say(text: str) -> None:
    from etl.report.terminal import printable

    print(f"etl: {printable(text)}", file=sys.stderr)
