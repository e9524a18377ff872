"""A deterministic simulation: the real exporter in a virtual world, drawn from a seed.

Virtual are the clock, the network (`tests/virtual_network.py`), the threads (their work is
done inline, after a pause that the seed draws) and chance; real are the files, below
/dev/shm, and all the code. `plan` says what a seed draws, `disk` kills and fails at the
seams, `world` holds all of it, `checker` compares lake and server, `journey` runs one seed.
"""
