"""Owns the HTTP sessions: a request in, an answer (bytes as they came) out.

`values` are the frozen types that the other rooms share; `http` is the one place
that talks to the API. Media are fetched from elsewhere, by `media`: `media_values` is what it
takes and gives, `media_rules` decides.
"""
