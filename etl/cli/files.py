"""`etl init`: files to start from."""

import os
from pathlib import Path

from etl.cli.output import say
from etl.config.templates import env_template, pipelines_template
from etl.errors import UsageError


def write_templates(config: Path) -> None:
    """Write the pipelines file and `.env` beside it; what exists is left as it is."""
    files = {config: (pipelines_template(), 0o644), config.parent / ".env": (env_template(), 0o600)}
    wrote = [path for path, (text, mode) in files.items() if create(path, text, mode)]
    for path in files.keys() - set(wrote):
        say(f"{path} exists already and was left as it is.")
    for path in wrote:
        say(f"Wrote {path}.")
    say(
        f"Next: put your credentials into {config.parent / '.env'}, your test ids into {config}, "
        "then run `etl check`."
    )


def create(path: Path, text: str, mode: int) -> bool:
    """Write a new file; return False, and leave it as it is, where there is one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"It cannot be written: {error.strerror}.", where=str(path)) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True
