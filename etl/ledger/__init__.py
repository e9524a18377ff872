"""Owns the SQLite file of a pipeline: work, inbox, records, files; keys and bytes, no table.

`records` is what is known of a test and how it is packed, `frames` how answers are, `blobs`
finds out what a disk has altered and `damage` moves such a file away, `fields` counts what
no table knows, `locks` keeps two processes apart, `schema` migrates the file and `store` is
the ledger.
"""
