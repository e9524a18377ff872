"""Asks whether a test would notice if a decision were changed.

`make mutate` lets mutmut change the code that only decides, one change at a time, and holds
the changes that no test notices (survivors) against `judged.toml`, where each is judged.
"""
