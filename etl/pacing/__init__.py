"""All waiting: the clock, and deciding when the next send or retry may go.

`clock` is the time that is injected everywhere, `rules` decides, `send_log` is the record
of sends that processes share and restarts inherit, `pacer` grants the slots, `events` is
how all of it tells what happens.
"""
