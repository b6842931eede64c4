"""How numbers are written: which texts are numbers, and with how many digits.

A number is an optional minus sign, digits without leading zeros, an optional point with digits
after it, and an optional exponent (`12`, `-0.50`, `.5`, `1e-07`). Nothing else is: `007`, `+1`,
` 1`, `1.`, `1,5`, `nan` and `0x10` are text.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["SURE_DIGITS", "Spelling", "cast_leniently", "shortest_mask", "spell", "text_bytes"]

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

SURE_DIGITS = 15
"""So many significant digits survive the way through a double unchanged (IEEE 754 binary64)."""

_EXPONENT = r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)[eE][+-]?[0-9]{1,6}$"


class Spelling(msgspec.Struct, frozen=True):
    """What a look at the bytes tells of each text of an array without nulls."""

    plain: Mask
    """A number without an exponent."""
    whole: Mask
    """One without a point, too."""
    exponent: Mask
    """A number with an exponent."""
    digits: Ints
    """All digits, an upper bound of the significant ones; meaningful where `plain`."""
    scale: Ints
    """Digits after the point; meaningful where `plain`."""
    negative: Mask

    @property
    def number(self) -> Mask:
        """A number of either form."""
        return self.plain | self.exponent


def text_bytes(texts: pa.StringArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Give the offsets (n + 1) and the bytes that they point into, without copying."""
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return starts, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def spell(texts: pa.StringArray) -> Spelling:
    """Look at every text of an array that holds no nulls and no empty texts."""
    count = len(texts)
    if not count:
        none = np.zeros(0, np.bool_)
        return Spelling(none, none, none, np.zeros(0, np.int64), np.zeros(0, np.int64), none)
    starts, data = text_bytes(texts)
    base, stop = int(starts[0]), int(starts[-1])
    begin = starts[:-1].astype(np.int64) - base
    end = starts[1:].astype(np.int64) - base
    data = data[base:stop]
    length = end - begin
    is_digit = (data - np.uint8(48)) < 10
    negative = data[begin] == 45
    first = np.minimum(begin + negative, end - 1)
    after_first = data[np.minimum(first + 1, end - 1)]
    leading_zero = (data[first] == 48) & (end - first > 1) & (after_first != 46)
    odd = np.flatnonzero(~is_digit)
    if len(odd) == 0:
        plain = ~leading_zero
        return Spelling(plain, plain, np.zeros(count, np.bool_), length, np.zeros(count, np.int64), negative)
    digits = np.add.reduceat(is_digit, begin, dtype=np.int64)
    points = odd[data[odd] == 46]
    owner = np.searchsorted(begin, points, "right") - 1
    dots = np.bincount(owner, minlength=count)
    scale = np.zeros(count, np.int64)
    scale[owner] = end[owner] - 1 - points
    plain = (digits + dots + negative == length) & (dots <= 1) & (digits > 0) & ~leading_zero
    plain &= data[end - 1] != 46
    exponent = np.zeros(count, np.bool_)
    if not plain.all():
        rest = np.flatnonzero(~plain)
        matches = pc.match_substring_regex(texts.take(pa.array(rest)), _EXPONENT)
        exponent[rest[matches.to_numpy(zero_copy_only=False)]] = True
    return Spelling(plain, plain & (dots == 0), exponent, digits, scale, negative)


def shortest_mask(texts: pa.StringArray) -> Mask:
    """Tell where the shortest spelling of the nearest double is the number that was written.

    Takes an array of numbers without nulls. Arrow prints doubles in their shortest form (ECMAScript
    style), so equal texts settle most values at once; the rest is compared as decimals, one by one.
    """
    doubles = texts.cast(pa.float64())
    same: Mask = pc.equal(doubles.cast(pa.string()), texts).to_numpy(zero_copy_only=False).copy()
    for row in np.flatnonzero(~same):
        value = doubles[int(row)].as_py()
        same[row] = value - value == 0 and Decimal(repr(value)) == Decimal(texts[int(row)].as_py())
    return same


def cast_leniently(values: pa.Array, data_type: pa.DataType, **options: Any) -> tuple[pa.Array, list[int]]:
    """Cast what can be cast without loss; the rest becomes null and its rows are listed.

    Arrow has no cast that passes over single values, hence the halving: one call for an array
    without a misfit, about log2(n) more for each misfit.
    """
    try:
        return values.cast(data_type, **options), []
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if len(values) == 1:
            return pa.nulls(1, data_type), [0]
    middle = len(values) // 2
    left, bad_left = cast_leniently(values.slice(0, middle), data_type, **options)
    right, bad_right = cast_leniently(values.slice(middle), data_type, **options)
    return pa.concat_arrays([left, right]), [*bad_left, *(middle + row for row in bad_right)]
