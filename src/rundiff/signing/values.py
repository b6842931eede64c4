"""Values that Python's own types can't hold: nanoseconds, far dates, calendar intervals."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Day", "Duration", "Interval", "Timestamp"]


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A point in time: `seconds` since 1970-01-01T00:00:00Z, floored, and 0 ≤ `nanoseconds` < 10^9."""

    seconds: int
    nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration, or a time of day since midnight: floored `seconds` and 0 ≤ `nanoseconds` < 10^9."""

    seconds: int
    nanoseconds: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """A date as the number of days since 1970-01-01; dates beyond the years 1 to 9999 need it."""

    number: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A calendar interval whose parts do not add up: months, days and nanoseconds, each with its sign."""

    months: int
    days: int
    nanoseconds: int
