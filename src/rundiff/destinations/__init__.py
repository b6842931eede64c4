"""Where changes go: tables and streams, behind one contract."""

from rundiff.destinations.registry import open_destination

__all__ = ["open_destination"]
