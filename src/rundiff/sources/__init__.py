"""Sources: everything that can hand over its records whole, read as Arrow batches."""

from rundiff.sources.registry import known_schemes, open_source, register

__all__ = ["known_schemes", "open_source", "register"]
