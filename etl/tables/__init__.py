"""A file each: a table's columns, key, endpoint and a pure function from answer to rows.

`values` says what a table is and `registry` finds them by looking: a new table is one
new file here that defines `TABLE`, and nothing else changes. What several share:

    json_text     reads JSON, also what is not quite
    kinds         the kinds of values that fields hold
    reading       reads served objects into columns, as a list of fields says
    times         reads timestamps
    answers       what a participant said, as text and as number
    webvtt        what was said in a video
    downloads     where a file can be had
    cursor_pages  the pages of the older API
"""
