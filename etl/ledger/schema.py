"""The ledger's tables, and how an older file becomes one of today."""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE work (
        endpoint TEXT NOT NULL,
        test_id TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,
        not_before_us INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        PRIMARY KEY (endpoint, test_id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE inbox (
        frame INTEGER PRIMARY KEY,
        heads BLOB NOT NULL,
        length INTEGER NOT NULL,
        bodies BLOB NOT NULL
    ) STRICT;
    CREATE TABLE records (
        test_id TEXT PRIMARY KEY,
        looked_at_us INTEGER,
        verified_at_us INTEGER,
        outcome TEXT,
        rows INTEGER NOT NULL DEFAULT 0,
        length INTEGER NOT NULL,
        record BLOB NOT NULL
    ) STRICT;
    CREATE TABLE commits (batch INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE files (
        path TEXT PRIMARY KEY,
        batch INTEGER NOT NULL,
        rows INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        started_at_us INTEGER NOT NULL,
        status TEXT,
        report TEXT
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE records ADD COLUMN newest_due_us INTEGER;
    ALTER TABLE records ADD COLUMN due INTEGER NOT NULL DEFAULT 0;
    """,
    """
    CREATE TABLE unknown_fields (
        field TEXT PRIMARY KEY,
        first_seen_us INTEGER NOT NULL,
        last_seen_us INTEGER NOT NULL,
        answers INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE runs DROP COLUMN report;
    """,
)
"""Statement by statement, each version's step from the one before; only ever appended to."""

VERSION: Final = len(MIGRATIONS)
