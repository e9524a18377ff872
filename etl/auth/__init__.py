"""Owns the token: one renewal under way, however many ask.

`token` knows how long one lives, `grants` reads what the token endpoint answers,
`manager` decides when to renew, and tells a forbidden test from refused credentials.
"""
