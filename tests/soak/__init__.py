"""Tries to break it for as long as you like: `make soak`.

A part is a module of this folder with a `PART`, found by looking. It names cases and tries
them; `turns` is what a part is and what it is given, `__main__` runs all parts in turn.
"""
