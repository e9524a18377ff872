"""Owns the HTTP session: a request in, an answer (bytes as they came) out.

`values` are the frozen types that the other rooms share; `http` is the one place
that talks to the API.
"""
