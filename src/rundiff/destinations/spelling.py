"""The plain spelling of single-valued columns: ISO 8601 times, digits of decimals, lower-case UUIDs.

Sources: ISO 8601-1:2019 for dates, times and durations (years beyond four digits are written with all
their digits, years before 0 with a minus sign), RFC 9562 section 4 for UUIDs.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, kind_of

__all__ = ["hex_text", "iso_date", "iso_duration", "iso_interval", "iso_timestamp", "plain_text"]

_TEXT = pa.large_string()
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), np.uint8).reshape(256, 2)
_DAY = 86_400


def plain_text(array: pa.Array) -> pa.Array:
    """Spell the values of a column as large_string; null stays null.

    Takes every kind but binary, nested and mixed ones. Timestamps with a zone are spelled in UTC
    with a `Z`; fractions of seconds without trailing zeros; decimals without an exponent; integers
    and floats in the fewest digits that keep the value.
    """
    return _SPELLINGS[kind_of(array.type)](array)


def hex_text(array: pa.Array) -> pa.Array:
    """Spell fixed_size_binary values in lower-case hex, as large_string; null stays null."""
    width = array.type.byte_width
    taken = array.fill_null(bytes(width)) if array.null_count else array
    start = taken.offset * width
    raw = np.frombuffer(taken.buffers()[1], np.uint8)[start : start + len(taken) * width]
    digits = np.ascontiguousarray(_HEX[raw])
    offsets = np.arange(len(taken) + 1, dtype=np.int64) * (2 * width)
    text = pa.LargeStringArray.from_buffers(len(taken), pa.py_buffer(offsets), pa.py_buffer(digits))
    return _masked(text, array)


def iso_date(days: int) -> str:
    """Spell days since 1970-01-01 (proleptic Gregorian calendar), for years of any length."""
    # Days in eras of 400 years, counted from 0000-03-01 so that a leap day ends its year.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    rest = day - (365 * year + year // 4 - year // 100)
    shifted = (5 * rest + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    number = year + era * 400 + (month <= 2)
    sign = "-" if number < 0 else ""
    return f"{sign}{abs(number):04d}-{month:02d}-{rest - (153 * shifted + 2) // 5 + 1:02d}"


def iso_timestamp(seconds: int, nanoseconds: int) -> str:
    """Spell a point in time given as seconds since 1970 and 0 ≤ nanoseconds < 10^9; without a zone."""
    days, rest = divmod(seconds, _DAY)
    return (
        f"{iso_date(days)}T{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}{_fraction(nanoseconds)}"
    )


def iso_duration(seconds: int, nanoseconds: int) -> str:
    """Spell a duration in seconds, `PT90.5S`; a negative one with the sign in front."""
    total = seconds * 1_000_000_000 + nanoseconds
    whole, rest = divmod(abs(total), 1_000_000_000)
    return f"{'-' if total < 0 else ''}PT{whole}{_fraction(rest)}S"


def _fraction(nanoseconds: int) -> str:
    return f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""


def _masked(text: pa.Array, like: pa.Array) -> pa.Array:
    return pc.if_else(like.is_valid(), text, pa.scalar(None, text.type)) if like.null_count else text


def _cast(array: pa.Array) -> pa.Array:
    return pc.cast(array, _TEXT)


def _floats(array: pa.Array) -> pa.Array:
    # Through double, which keeps the value that was signed: a float32 0.1 is not the double 0.1.
    return pc.cast(pc.cast(array, pa.float64()), _TEXT)


def _decimals(array: pa.Array) -> pa.Array:
    text = pc.cast(array, _TEXT)
    return _respelled(array, text, pc.match_substring(text, "E"), lambda value: format(value, "f"))


def _respelled(
    array: pa.Array, text: pa.Array, odd: pa.Array, spell: Callable[[Decimal], str] | Callable[[int], str]
) -> pa.Array:
    """Spell the few values anew that Arrow's cast spells otherwise."""
    odd = pc.fill_null(odd, False)
    if not pc.any(odd).as_py():
        return text
    speller: Any = spell
    return pc.replace_with_mask(
        text, odd, pa.array([speller(value) for value in array.filter(odd).to_pylist()], _TEXT)
    )


def _out_of_range(text: pa.Array) -> pa.Array:
    return pc.starts_with(text, "<")  # Arrow spells years beyond ±32767 as `<value out of range: …>`


def _dates(array: pa.Array) -> pa.Array:
    days = pc.cast(array, pa.date32())
    text = pc.cast(days, _TEXT)
    return _respelled(pc.cast(days, pa.int32()), text, _out_of_range(text), iso_date)


def _times(array: pa.Array) -> pa.Array:
    return _trimmed(pc.cast(array, _TEXT), array.type.unit)


def _trimmed(text: pa.Array, unit: str) -> pa.Array:
    return text if unit == "s" else pc.replace_substring_regex(text, r"\.?0+$", "")


def _timestamps(array: pa.Array) -> pa.Array:
    unit = array.type.unit
    scale = _PER_SECOND[unit]
    naive = pc.cast(array, pa.timestamp(unit))
    text = pc.replace_substring(_trimmed(pc.cast(naive, _TEXT), unit), " ", "T", max_replacements=1)

    def spell(count: int) -> str:
        seconds, rest = divmod(count, scale)
        return iso_timestamp(seconds, rest * (1_000_000_000 // scale))

    text = _respelled(pc.cast(naive, pa.int64()), text, _out_of_range(text), spell)
    return text if array.type.tz is None else pc.binary_join_element_wise(text, pa.scalar("Z", _TEXT), _EMPTY)


def _durations(array: pa.Array) -> pa.Array:
    scale = _PER_SECOND[array.type.unit]
    # One by one: durations are rare, and Arrow has no text for them.
    counts = pc.cast(array, pa.int64()).to_pylist()
    return pa.array(
        [None if n is None else iso_duration(n // scale, n % scale * (10**9 // scale)) for n in counts], _TEXT
    )


def _intervals(array: pa.Array) -> pa.Array:
    # One by one, as above.
    return pa.array([None if item is None else iso_interval(*item) for item in array.to_pylist()], _TEXT)


def iso_interval(months: int, days: int, nanoseconds: int) -> str:
    """Spell a calendar interval, `P1M2DT3.5S`; each part carries its own sign."""
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    sign = "-" if nanoseconds < 0 else ""
    return f"P{months}M{days}DT{sign}{seconds}{_fraction(rest)}S"


def _uuids(array: pa.Array) -> pa.Array:
    digits = hex_text(array.storage)
    bounds = (0, 8, 12, 16, 20, 32)
    parts = [pc.utf8_slice_codeunits(digits, *pair) for pair in pairwise(bounds)]
    return pc.binary_join_element_wise(*parts, pa.scalar("-", _TEXT))


def _storage(array: pa.Array) -> pa.Array:
    return pc.cast(array.storage, _TEXT)


_EMPTY = pa.scalar("", _TEXT)
_SPELLINGS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    Kind.NULL: _cast,
    Kind.BOOLEAN: _cast,
    Kind.INTEGER: _cast,
    Kind.UNSIGNED: _cast,
    Kind.FLOAT: _floats,
    Kind.DECIMAL: _decimals,
    Kind.TEXT: _cast,
    Kind.DATE: _dates,
    Kind.TIME: _times,
    Kind.TIMESTAMP: _timestamps,
    Kind.DURATION: _durations,
    Kind.INTERVAL: _intervals,
    Kind.UUID: _uuids,
    Kind.JSON: _storage,
}
