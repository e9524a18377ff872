"""Decides what work a pipeline needs and what it costs.

`orders` says what a run is to do, `catalogue` what is read of the workspaces first, `kinds` by
which listing a test is looked at. `forecast` foresees the requests that all of it takes, and
`files_ahead` the files.
"""
