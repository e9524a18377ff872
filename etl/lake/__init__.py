"""Owns the lake's files: from kept answers to batches to Parquet.

`names` says what files are called, `local` is the destination on a disk, `commits` the
lake's own record of what has landed, `batch` the rows gathered until a commit, `landing`
takes kept answers and closes batches, `recovery` puts lake and ledger right at a start.
"""
