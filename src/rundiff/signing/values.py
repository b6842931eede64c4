"""Values that Python's own types can't hold: nanoseconds, far dates, calendar intervals."""

from __future__ import annotations

import msgspec

__all__ = ["Day", "Duration", "Interval", "Timestamp"]


class Timestamp(msgspec.Struct, frozen=True):
    """A point in time: `seconds` since 1970-01-01T00:00:00Z, floored, and 0 ≤ `nanoseconds` < 10^9."""

    seconds: int
    nanoseconds: int = 0


class Duration(msgspec.Struct, frozen=True):
    """A duration, or a time of day since midnight: floored `seconds` and 0 ≤ `nanoseconds` < 10^9."""

    seconds: int
    nanoseconds: int = 0


class Day(msgspec.Struct, frozen=True):
    """A date as the number of days since 1970-01-01; dates beyond the years 1 to 9999 need it."""

    number: int


class Interval(msgspec.Struct, frozen=True):
    """A calendar interval whose parts do not add up: months, days and nanoseconds, each with its sign."""

    months: int
    days: int
    nanoseconds: int
