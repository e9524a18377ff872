"""Knows every stage: opens, wires, drains and closes them.

What is asked are `errands`: of the `catalogue` (workspaces and their tests), of listings
(`looks` decides which page is next over all tests, `pages` asks it; `classic` both of classic
tests), and of what follows from these (`follow_ups`, `files`). `sources` says which go first.
`fetching` runs errands from whichever source, `keeping` makes answers durable, `draining` lands
them, `inbox` passes on what an earlier process left. `opening` puts ledger and lake right
before, `pipeline` wires the stages of one pipeline, `export` runs several, with signals, limits
and the report; `discovery` reads the catalogue alone.
"""
