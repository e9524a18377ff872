"""Bulk export of UserTesting's Results API into Parquet.

The rooms, each importing only from those above it (`make check` proves the order):

    errors    every error a user can meet, with its exit code
    config    settings and pipelines.yaml, read once into frozen models
    pacing    all waiting: the clock, and deciding when the next send or retry may go
    auth      owns the token: one renewal under way, however many ask
    client    owns the HTTP session: a request in, an answer (bytes as they came) out
    paging    decides which page is next and whether the pages prove complete
    ledger    owns the SQLite file: work, inbox, covered, listings; knows keys and bytes
    tables    a file each: columns, key, endpoint, a pure function from answer to columns
    plan      decides what work a pipeline needs and what it costs
    lake      owns the files: inbox to batch to Parquet, then one file a destination
    report    what people and machines read: summary, JSON, progress, logs
    run       knows every stage: opens, wires, drains and closes them
    api       all of it from Python: pipelines, rows, one's own calls; also without a loop
    cli       arguments in, exit codes out
    sandbox   the simulated API; imports none of the rooms, lest one mistake hide in both

This module imports nothing: a root that re-exports ties all rooms into a knot.
"""
