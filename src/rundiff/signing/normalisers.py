"""Normalisers over Arrow arrays of one plain type; `rundiff.signing.nested` finds these inside of others.

Each gives an array of the same length, nulls where they were, and depends on nothing but the value itself:
the same value is brought to the same form in every batch, on every machine, with and without the native core.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from rundiff.signing import mixed
from rundiff.signing.normalised import quantised
from rundiff.signing.normalising import Quantise

__all__ = ["casefold", "is_number", "is_text", "is_truncatable", "quantise", "trim", "truncate"]

_LARGEST_STEP = 2.0**53
"""From here on a double has no fractions of a step."""
_WIDEST = 76
"""Digits of Arrow's widest decimal type."""
_EXACT = Context(prec=60)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def is_number(kind: pa.DataType) -> bool:
    """Say whether `round` and `quantize` fit a type."""
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind))


def is_text(kind: pa.DataType) -> bool:
    """Say whether `trim` and `casefold` fit a type."""
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def is_truncatable(kind: pa.DataType) -> bool:
    """Say whether `truncate` fits a type."""
    return bool(pt.is_timestamp(kind) or pt.is_time(kind) or pt.is_duration(kind))


def quantise(array: pa.Array, step: Quantise) -> pa.Array:
    """Bring numbers to the nearest whole multiple of a step, half to even.

    A double is divided by the step, rounded, and multiplied again, in doubles: one that lies as near to the middle
    between two multiples as doubles can tell may go to either. From 2^53 steps on, and where it is no number, it
    stays as it is. Integers and decimals are exact.
    """
    if pt.is_floating(array.type):
        return _quantised_doubles(array.cast(pa.float64()), step)
    if step.step.numerator == 1 and (pt.is_integer(array.type) or _is_finer(step, max(0, array.type.scale))):
        return array
    return _quantised_decimals(array, step)


def _is_finer(step: Quantise, scale: int) -> bool:
    """Whether every decimal of `scale` digits after the point is a whole multiple of a step of 1/n."""
    return bool(step.step.denominator % 10**scale == 0)


def _quantised_doubles(array: pa.Array, step: Quantise) -> pa.Array:
    values = array.fill_null(0.0).to_numpy()
    up, down = float(step.step.denominator), float(step.step.numerator)
    with np.errstate(over="ignore", invalid="ignore"):
        steps = values * up / down if down != 1.0 else values * up
        result = np.rint(steps)
        if down != 1.0:
            result *= down
        result /= up
    # Also false where it is not a number.
    coarse = ~(np.abs(steps) < _LARGEST_STEP)
    if coarse.any():
        result[coarse] = values[coarse]
    return pa.array(result, mask=_nulls(array))


def _quantised_decimals(array: pa.Array, step: Quantise) -> pa.Array:
    kind = array.type
    before, scale = (20, 0) if pt.is_integer(kind) else (kind.precision - kind.scale, max(0, kind.scale))
    multiple = _EXACT.divide(Decimal(step.step.numerator), Decimal(step.step.denominator))
    _, digits, exponent = multiple.as_tuple()
    after = max(scale, -int(exponent))
    # Rounding up may carry into one more digit.
    precision = max(before, len(digits) + int(exponent)) + 1 + after
    if precision > _WIDEST:
        return mixed.encode(quantised(value, step) for value in array.to_pylist())
    wide = pa.decimal128(precision, after) if precision <= 38 else pa.decimal256(precision, after)
    return pc.round_to_multiple(array.cast(wide), pa.scalar(multiple, wide), round_mode="half_to_even")


def truncate(array: pa.Array, nanoseconds: int) -> pa.Array:
    """Cut points in time (as of UTC), times of day and durations down to whole units, away from later ones."""
    kind = array.type
    per_unit = nanoseconds * _PER_SECOND[kind.unit] // 10**9
    if per_unit <= 1:
        return array
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    values = array.view(width).fill_null(0).to_numpy()
    beyond = values % per_unit
    # The first moments that 64 bits can tell have no whole unit before them.
    beyond[values < np.iinfo(values.dtype).min + beyond] = 0
    return pa.array(values - beyond, width, mask=_nulls(array)).view(kind)


def trim(array: pa.Array) -> pa.Array:
    """Take white space (Unicode's, as `str.strip`) off both ends of text."""
    return _of_text(array, pc.utf8_trim_whitespace)


def casefold(array: pa.Array) -> pa.Array:
    """Fold upper and lower case by Unicode's full case folding, as `str.casefold`."""
    return _of_text(array, _casefolded)


def _of_text(array: pa.Array, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    if pt.is_string_view(array.type):
        array = array.cast(pa.large_string())
    try:
        return function(array)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        # Some text is not UTF-8: it stays as it is, for the signer to say so of its record.
        valid = pa.array([_is_utf8(value) for value in array.cast(_binary(array.type)).to_pylist()])
        empty = pa.scalar("", array.type)
        return pc.if_else(valid, function(pc.if_else(valid, array, empty)).cast(array.type), array)


def _binary(kind: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pt.is_large_string(kind) else pa.binary()


def _is_utf8(value: bytes | None) -> bool:
    try:
        return value is None or value.decode() is not None
    except UnicodeDecodeError:
        return False


def _casefolded(array: pa.Array) -> pa.Array:
    """Fold ASCII by Arrow, other text as one long string: Python's folding takes each character by itself."""
    lower = pc.ascii_lower(array)
    other = pc.fill_null(pc.invert(pc.string_is_ascii(array)), False)
    count = pc.sum(other).as_py()
    if not count:
        return lower
    folded = _folded(array.filter(other))
    return folded if count == len(array) else pc.replace_with_mask(lower, other, folded.cast(lower.type))


def _folded(array: pa.Array) -> pa.Array:
    """Fold texts without nulls."""
    texts = array.cast(pa.large_string())
    everything = _bytes_of(texts)
    # A control character is its own folding, and parts the texts where none of them has it.
    mark = next((code for code in range(32) if bytes([code]) not in everything), None)
    if mark is None:
        return pa.array([text.casefold() for text in texts.to_pylist()], pa.large_string())
    marked = pc.binary_join_element_wise(texts, pa.scalar("", texts.type), pa.scalar(chr(mark), texts.type))
    data = np.frombuffer(_bytes_of(marked).decode().casefold().encode(), np.uint8)
    ends = np.flatnonzero(data == mark)
    offsets = np.concatenate(([0], ends - np.arange(len(ends)))).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[data != mark])]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def _bytes_of(texts: pa.Array) -> bytes:
    """Give the bytes of all texts, which lie side by side in an array that was just made."""
    data = texts.buffers()[2]
    return b"" if data is None else data.to_pybytes()


def _nulls(array: pa.Array) -> NDArray[np.bool_] | None:
    if array.null_count == 0:
        return None
    nulls: Any = array.is_null().to_numpy(zero_copy_only=False)
    return nulls  # type: ignore[no-any-return]
