"""Rundiff beside its peers, on the same files, in one go: `python -m benchmarks --help`."""
