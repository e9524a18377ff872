"""Speed and memory, measured in one run against the bare floor: `make bench`."""
