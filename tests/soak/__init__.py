"""Tries to break it for as long as you like: `make soak`."""
