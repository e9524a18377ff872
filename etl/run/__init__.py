"""Knows every stage: opens, wires, drains and closes them.

`looks` decides which page to ask next over all tests, `fetching` asks it, `keeping`
makes answers durable, `pipeline` wires the stages of one pipeline and `export` runs
several, with signals, limits and the report.
"""
