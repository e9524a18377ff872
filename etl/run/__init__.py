"""Knows every stage: opens, wires, drains and closes them.

What is asked are `errands`, leased in a `line` each: of the `catalogue` (workspaces and their
tests), of listings (`looks` decides which page is next over all tests, `pages` asks it; `classic`
both of classic tests), and of what follows from these (`follow_ups`, `followers`; `files` and
their `transfers`). `sources` says which go first, `backfilling` which once more. `fetching` runs
errands from whichever source, `keeping` makes answers durable, `queue` bounds what waits,
`draining` lands them, `inbox` passes on what an earlier process left. `opening` puts ledger and
lake right before, `pipeline` wires the stages of one pipeline over its `stores` and says the
`outcome`; `export` runs several in one `world`, with signals, limits and the report; `discovery`
reads the catalogue alone.
"""
