"""Owns the SQLite file of a pipeline: work, inbox, records, files; keys and bytes, no table.

`store` is the ledger, `threaded` calls it from a loop, `reading` looks into it without touching
it; `values` are what it is told and tells. `places` says where it may lie, `schema` migrates the
file, `locks` keeps two processes apart, `blobs` finds out what a disk has altered and `damage`
moves such a file away. `frames` packs answers, `records` what is known of a test; pure functions
of a record decide what of it is `due`, `held` until its file is there, or asked `afresh` by a
backfill. `fields` counts what no table knows.
"""
