"""A simulated API on a real loopback socket, deterministic by seed.

It shares no code with the rest of `etl`, lest one mistake hide in both. `data` is the
sessions of a test, `tokens` and `limits` what guards them, `faults` everything that an API
or a network can do wrong, `pages` the listing, `control` how it is changed from outside
while it runs, and `server` puts it on a socket.
"""
