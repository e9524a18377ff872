"""Decides what work a pipeline needs and what it costs.

`orders` says what a run is to do, `catalogue` what is read of the workspaces first, and
`forecast` foresees the requests that all of it takes.
"""
