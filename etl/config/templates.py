"""What `etl init` writes to start from."""

from collections.abc import Iterable, Sequence
from typing import Final

_PIPELINES: Final = """\
# What etl exports, and where to. `etl schema --config` prints every key;
# `etl check` proves that it works before the first export.
version: 1

pipelines:
  nightly:
    # The ids of your tests: the UUID in a test's address.
    tests:
      - 00000000-0000-0000-0000-000000000000
    tables: [sessions]
    lake:
      url: ./lake            # beside this file, wherever etl is started
      partition_by: [test_id]

# The credentials come from .env beside this file, or from the environment.
# connections:
#   default:
#     rate_limit: {requests: 10, seconds: 60}   # what the vendor publishes
"""

_ENV: Final = """\
# Read by etl beside pipelines.yaml. Keep it to yourself: chmod 600, and never commit it.
USERTESTING_CLIENT_ID=
USERTESTING_CLIENT_SECRET=
# Or name a file, or a command, that holds the secret:
# USERTESTING_CLIENT_SECRET_FILE=/run/secrets/usertesting
# USERTESTING_CLIENT_SECRET_COMMAND=op read op://team/usertesting/secret
# The key of hashed columns, if any; `openssl rand -hex 32` makes one. Keep a copy of it.
# ETL_HASH_KEY=
"""


def pipelines_template() -> str:
    """Return a commented pipelines file; only its test id is to be filled in."""
    return _PIPELINES


def pipelines_file(pipelines: Iterable[tuple[str, Sequence[tuple[str, str]]]]) -> str:
    """Return a pipelines file that exports tests, given as id and title for each connection.

    Titles stand in comments, printable and on one line: they are foreign text.
    """
    parts = ["# What `etl discover` has found. Credentials come from .env beside this file.\n"]
    parts.append("version: 1\n\npipelines:\n")
    for connection, tests in pipelines:
        name = "discovered" if connection == "default" else f"discovered-{connection}"[:64]
        parts.append(f"  {name}:\n    connection: {connection}\n    tests:\n")
        parts += [f"      - {test_id}  # {title}\n" for test_id, title in tests]
        parts.append("    tables: [sessions]        # `etl schema` shows them all\n")
        parts.append("    lake: {url: ./lake}\n")
    return "".join(parts)


def env_template() -> str:
    """Return a commented `.env` with room for the credentials."""
    return _ENV
