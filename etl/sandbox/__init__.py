"""A simulated API on a real loopback socket, deterministic by seed.

It shares no code with the rest of `etl`, lest one mistake hide in both.

What it holds, each a pure function of the seed: `data` the sessions of a test, `products`
and `plans` what a test is and asks, `details`, `transcripts`, `recordings` and `scores` what
came of it, `discovery` workspaces and what they list, `classic` the older tests, `media` the
files, and `texts` the words. `account` and `contents` put them together, with what was
changed since.

How it answers: `tokens` and `limits` guard it, `pages` reads the listing's parameters,
`routes` are the endpoints, `transfers` the media, `faults` all that an API can say wrong and
`wire` all that a network can do to it. `state` is a running sandbox, `server` puts it on a
socket, and `control` changes it from outside while it runs.
"""
