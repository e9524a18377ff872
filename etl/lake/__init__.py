"""Owns the lake's files: from kept answers to batches to Parquet.

What there is:  `local` is the destination on a disk, `names` says what its files are called,
`commits` its own record of what has landed, one file a commit.

Landing:  `landing` takes answers and closes batches. Of a `landing_plan`, `rendering` makes rows
of them, many at a time (`ahead`), which stay `loose` as long as they are few; `personal` hides
what is not to land, `choosing` says which rows do, `holding` has some wait for their files
(`media_parts`). `batch` gathers them by `partitions` until a commit, `replacing` takes what they
replace out of older files, `records` are those of the tests under way, `tally` counts.

A start:  `recovery` puts lake and ledger right by what `strays`, `mending` and `scan` find, and
`claims` sees who feeds what.

Once more:  `rebuilding` makes tables anew of kept answers (`kept`, found by `bodies`), each row of
the one that `provenance` tells; `workers` do the reading (`remaking`), `carrying` takes along what
cannot be made, `adding` fills tables that a pipeline has got since. `open_records` are those of
the tests that are gone through.

A look:  `verify` and `verify_media` compare the lake with its record, by `keys` in a `scratch`
database; `sizes` says how large files are.
"""
