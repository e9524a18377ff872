"""Decides which page is next, and whether the pages prove a listing complete.

Nothing here does I/O or reads a clock. `values` are the frozen types; `dialect`
learns how the API spells a page from what its answers echo; `sweep` reads pages
until they prove a test's listing; `foresight` says which pages that will take.
"""
