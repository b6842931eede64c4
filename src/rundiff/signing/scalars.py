"""Encode columns of numbers, texts and times: one item a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from numpy.typing import NDArray

from rundiff.signing import reference
from rundiff.signing.blocks import (
    BYTES,
    TEXT,
    Column,
    NumberParts,
    Validity,
    fixed_width,
    heads,
    integer_parts,
    integers,
    numbers,
    ragged,
    scattered,
    validity,
)

__all__ = ["encode_scalar"]

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TIMESTAMP, _DURATION, _DATE = b"\xd9\x03\xe9", b"\xd9\x03\xea", b"\xd8\x64"
_MILLISECONDS_PER_DAY = 86_400_000
_SHORT_EXPONENT = 24
"""Exponents down to -24 have heads of one byte."""
_NOT_UTF8 = "the text is not valid UTF-8; mend the text, or read it with its own encoding"


def encode_scalar(array: pa.Array) -> Column:  # noqa: PLR0911 - one branch per kind of Arrow type
    """Encode an array of a type without children; extension types by their names."""
    kind, rows, valid = array.type, len(array), validity(array)
    if pt.is_null(kind) or rows == 0:
        return Column(rows, (), np.zeros(rows, np.bool_))
    if isinstance(kind, pa.BaseExtensionType):
        return _encode_extension(array, kind.extension_name)
    if pt.is_boolean(kind):
        return _booleans(array.fill_null(False).cast(pa.uint8()).to_numpy(), valid)
    if pt.is_integer(kind):
        return Column(rows, (integers(_values(array, kind.to_pandas_dtype()), valid),), valid)
    if pt.is_floating(kind):
        return Column(rows, (_floats(_values(array, kind.to_pandas_dtype()), valid),), valid)
    if pt.is_decimal(kind):
        return _decimals(array, valid)
    if pt.is_date(kind):
        return Column(rows, (_DATE, integers(_days(array), valid)), valid)
    if pt.is_timestamp(kind):
        return _times(_TIMESTAMP, _values(array, np.int64), kind.unit, valid)
    if pt.is_time(kind) or pt.is_duration(kind):
        width = np.int32 if pt.is_time32(kind) else np.int64
        return _times(_DURATION, _values(array, width), kind.unit, valid)
    if pt.is_interval(kind):
        return _intervals(array, valid)
    if pt.is_fixed_size_binary(kind):
        items = _values(array, np.uint8, kind.byte_width).reshape(rows, kind.byte_width)
        head = np.frombuffer(reference.head(BYTES, kind.byte_width), np.uint8)
        return Column(rows, (fixed_width(_beside(head, items), valid),), valid)
    is_text = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)
    return _strings(array, TEXT if is_text else BYTES, valid)


def _encode_extension(array: pa.Array, name: str) -> Column:
    storage, valid = array.storage, validity(array.storage)
    if name == "arrow.bool8":
        return _booleans(_values(storage, np.int8) != 0, valid)
    if name == "arrow.uuid":
        return Column(len(storage), (fixed_width(_uuid_items(_values(storage, np.uint8, 16)), valid),), valid)
    if name == "rundiff.cbor":
        return Column(len(storage), (storage.cast(pa.large_binary()),), valid)
    return encode_scalar(storage)  # arrow.json: its text


def _values(array: pa.Array, dtype: Any, per_row: int = 1) -> NDArray[Any]:
    """The array's values buffer, without copying; what stands in null rows is arbitrary."""
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(0, dtype)
    start = array.offset * per_row
    return np.frombuffer(buffer, dtype)[start : start + len(array) * per_row]


def _booleans(values: NDArray[Any], valid: Validity) -> Column:
    items = (values.astype(np.uint8) + 0xF4).reshape(-1, 1)
    return Column(len(values), (fixed_width(items, valid),), valid)


def _floats(values: NDArray[Any], valid: Validity) -> pa.LargeBinaryArray:
    with np.errstate(over="ignore", invalid="ignore"):
        wide = values.astype(np.float64, copy=False)
        whole = (wide == np.trunc(wide)) & (wide >= -(2.0**63)) & (wide < 2.0**64)
        if whole.all():
            return numbers(*_whole_floats(wide), valid)
        single = wide.astype(np.float32)
        first = np.full(len(wide), 0xFB, np.uint8)
        payload = wide.view(np.uint64).copy()
        widths = np.full(len(wide), 8, np.int64)
        fits = np.flatnonzero((single == wide) | np.isnan(wide))
        if len(fits):
            _shorten(single[fits], fits, (first, payload, widths))
        if whole.any():
            at = np.flatnonzero(whole)
            first[at], payload[at], widths[at] = _whole_floats(wide[at])
    return numbers(first, payload, widths, valid)


def _shorten(single: NDArray[np.float32], at: NDArray[np.int64], out: tuple[NDArray[Any], ...]) -> None:
    """Write the single or half form of floats that single precision keeps, at their rows."""
    first, payload, widths = out
    half = single.astype(np.float16)
    nan = np.isnan(single)
    short = (half == single) | nan
    half_bits = np.where(nan, np.uint16(0x7E00), half.view(np.uint16)).astype(np.uint64)
    single_bits = single.view(np.uint32).astype(np.uint64)
    first[at] = np.where(short, 0xF9, 0xFA)
    payload[at] = np.where(short, half_bits << np.uint64(48), single_bits << np.uint64(32))
    widths[at] = np.where(short, 2, 4)


def _whole_floats(values: NDArray[np.float64]) -> NumberParts:
    """Parts of integers for whole floats within [-2^63, 2^64)."""
    big = values >= 2.0**63
    small = np.where(big, 0.0, values).astype(np.int64)
    if not big.any():
        return integer_parts(small)
    first, payload, widths = integer_parts(small)
    first[big], payload[big], widths[big] = integer_parts(values[big].astype(np.uint64))
    return first, payload, widths


def _days(array: pa.Array) -> NDArray[Any]:
    if pt.is_date32(array.type):
        return _values(array, np.int32)
    return _values(array, np.int64) // _MILLISECONDS_PER_DAY


def _times(tag: bytes, counts: NDArray[Any], unit: str, valid: Validity) -> Column:
    """Maps of seconds and, where not 0, nanoseconds under a tag."""
    per_second = _PER_SECOND[unit]
    seconds = counts.astype(np.int64, copy=False)
    if per_second == 1:
        return Column(len(counts), (tag + b"\xa1\x01", integers(seconds, valid)), valid)
    seconds, rest = np.divmod(seconds, per_second)
    if valid is not None:
        rest = np.where(valid, rest, 0)
    fractional = rest != 0
    if not fractional.any():
        return Column(len(counts), (tag + b"\xa1\x01", integers(seconds, valid)), valid)
    opening = np.empty((len(counts), 2), np.uint8)
    opening[:, 0] = 0xA1 + fractional
    opening[:, 1] = 0x01
    fraction = integers(rest * (10**9 // per_second), fractional, prefix=0x28)
    pieces = (tag, fixed_width(opening, valid), integers(seconds, valid), fraction)
    return Column(len(counts), pieces, valid)


def _intervals(array: pa.Array, valid: Validity) -> Column:
    parts = _values(array, np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")]))
    pieces = [integers(parts[name], valid) for name in ("months", "days", "nanoseconds")]
    return Column(len(array), (_DURATION + b"\x83", *pieces), valid)


def _decimals(array: pa.Array, valid: Validity) -> Column:
    """Decimals whose digits fit 64 bits by NumPy; the rest, which are rare, one by one."""
    mantissa, narrow = _mantissas(array)
    if not narrow.all():
        array = _fewer_digits(array)
        mantissa, narrow = _mantissas(array)
    rows, scale = len(array), array.type.scale
    if scale < 0 or scale > _SHORT_EXPONENT:
        narrow = np.zeros(rows, np.bool_)
    present = narrow if valid is None else narrow & valid
    mantissa = np.where(present, mantissa, 0)
    zeros = np.zeros(rows, np.int64)
    left = np.flatnonzero(mantissa)
    for _ in range(max(scale, 0)):
        tenth, digit = np.divmod(mantissa[left], 10)
        stripped = digit == 0
        left = left[stripped]
        if not len(left):
            break
        mantissa[left] = tenth[stripped]
        zeros[left] += 1
    fraction = present & (zeros < scale) & (mantissa != 0)
    pieces = [integers(mantissa, None if present.all() else present)]
    if fraction.any():
        opening = np.empty((rows, 3), np.uint8)
        opening[:, 0] = 0xC4
        opening[:, 1] = 0x82
        opening[:, 2] = 0x20 + (scale - zeros - 1)
        pieces.insert(0, ragged(opening, np.where(fraction, 3, 0)))
    wide = np.flatnonzero(~narrow if valid is None else ~narrow & valid).tolist()
    if wide:
        width = array.type.byte_width
        raw = _values(array, np.uint8, width).tobytes()
        found = (int.from_bytes(raw[row * width : (row + 1) * width], "little", signed=True) for row in wide)
        items = {row: reference.number(digits, -scale) for row, digits in zip(wide, found, strict=True)}
        pieces.append(scattered(rows, items))
    return Column(rows, pieces, valid)


def _fewer_digits(array: pa.Array) -> pa.Array:
    """Bring decimals to a smaller scale if that keeps them all: types of 18 digits often hold 2."""
    kind = array.type
    for scale in (6, 12):
        if scale < kind.scale:
            precision = kind.precision - kind.scale + scale
            smaller = pa.decimal256 if pt.is_decimal256(kind) else pa.decimal128
            try:
                return array.cast(smaller(max(precision, scale), scale))
            except pa.ArrowInvalid:
                continue
    return array


def _mantissas(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The low 64 bits of each decimal's digits, and where these are all of it."""
    words = array.type.byte_width // 8
    if words == 0:
        return _values(array, np.int32).astype(np.int64), np.ones(len(array), np.bool_)
    parts = _values(array, np.int64, words).reshape(len(array), words)
    low = parts[:, 0]
    narrow = np.ones(len(array), np.bool_)
    for word in range(1, words):
        narrow &= parts[:, word] == low >> 63
    return low, narrow


def _uuid_items(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Heads and lower-case texts (RFC 9562) of UUIDs."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    hexadecimal = digits[np.stack((raw >> 4, raw & 15), axis=-1)].reshape(-1, 32)
    dash = np.full((len(hexadecimal), 1), ord("-"), np.uint8)
    parts = np.split(hexadecimal, (8, 12, 16, 20), axis=1)
    dashed = [part for group in parts[:-1] for part in (group, dash)]
    text = np.concatenate((*dashed, parts[-1]), axis=1)
    return _beside(np.frombuffer(reference.head(TEXT, 36), np.uint8), text)


def _beside(head: NDArray[np.uint8], items: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate((np.broadcast_to(head, (len(items), len(head))), items), axis=1)


def _strings(array: pa.Array, major: int, valid: Validity) -> Column:
    raw = array.cast(pa.large_binary())
    lengths = np.diff(np.frombuffer(raw.buffers()[1], np.int64)[raw.offset : raw.offset + len(raw) + 1])
    bad = _invalid_rows(raw) if major == TEXT else {}
    return Column(len(raw), (heads(major, lengths, valid), raw), valid, bad)


def _invalid_rows(raw: pa.LargeBinaryArray) -> dict[int, str]:
    """Rows whose bytes are not UTF-8 (RFC 3629, which has no surrogates)."""
    try:
        raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        # One by one only where Arrow has found something: it doesn't say in which rows.
        return {
            row: _NOT_UTF8 for row, item in enumerate(raw) if item.is_valid and not _is_utf8(item.as_py())
        }
    return {}


def _is_utf8(item: bytes) -> bool:
    try:
        item.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
