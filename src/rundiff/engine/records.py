"""Arrow values as Python values, for callers that take write records one by one."""

from __future__ import annotations

from rundiff.destinations.objects import values, write_records

__all__ = ["values", "write_records"]
