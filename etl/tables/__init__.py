"""A file each: a table's columns, key, endpoint and a pure function from answer to rows.

`values` says what a table is and `registry` finds them by looking: a new table is one
new file here that defines `TABLE`, and nothing else changes. `json_text` and `times`
read what more than one table must read with care.
"""
