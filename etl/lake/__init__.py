"""Owns the lake's files: from kept answers to batches to Parquet.

`names` says what files are called, `local` is the destination on a disk, `commits` the
lake's own record of what has landed. `rendering` makes rows of answers, `choosing` those
that land, `partitions` and `batch` gather them until a commit, `replacing` takes what they
replace out of older files, `records` are those of the tests under way, `landing` closes
batches. At a start `recovery` puts lake and ledger right, by what `strays`,
`mending` and `scan` find, and `claims` sees who feeds what; `verify` and its `keys` compare
the lake with its record.
"""
