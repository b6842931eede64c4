"""Encoded items of a whole column as Arrow binary arrays, built with NumPy.

A column's items are kept as *pieces*, laid side by side only once, when records are joined: a constant
(`bytes`) that stands in every row with a value, or a `large_binary` array that is null or empty in
every row without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = [
    "ARRAY",
    "BYTES",
    "MAP",
    "TEXT",
    "Column",
    "NumberParts",
    "Validity",
    "binary",
    "constant",
    "fixed_width",
    "heads",
    "integer_parts",
    "integers",
    "join",
    "numbers",
    "ragged",
    "scattered",
    "spans",
    "validity",
    "within",
]

BYTES, TEXT, ARRAY, MAP = 2, 3, 4, 5
"""Major types of RFC 8949, section 3.1."""

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]
NumberParts = tuple[Bytes, NDArray[np.uint64], Integers]
Validity = NDArray[np.bool_] | None
"""True where a row has a value; None when all rows have one."""

_WIDTHS = np.array([0, 1, 2, 4, 8], np.int64)
"""Bytes that follow the first one, by size class of the argument."""
_SHIFTS = np.array([0, 56, 48, 32, 0], np.uint64)
"""What brings an argument's bytes to the left end of eight, by size class."""
_INFO = np.array([0, 24, 25, 26, 27], np.uint8)


class Column(msgspec.Struct, frozen=True):
    """The encoded items of `rows` rows, and the rows that have none because of their value."""

    rows: int
    pieces: Sequence[bytes | Any]
    valid: Validity = None
    bad: Mapping[int, str] = msgspec.field(default_factory=dict)
    """Reasons by row; the bytes of these rows mean nothing."""


def validity(array: pa.Array) -> Validity:
    """Where an array has values by its own validity bitmap."""
    if array.null_count == 0:
        return None
    return array.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]  # pyarrow is untyped


def binary(offsets: Integers, data: Bytes | bytes | pa.Buffer, valid: Validity = None) -> pa.LargeBinaryArray:
    """Wrap `offsets` (rows + 1) into `data` as an array."""
    if not isinstance(data, pa.Buffer):
        data = pa.py_buffer(data)
    buffers = [_bitmap(valid), pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), data]
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def fixed_width(items: Bytes, valid: Validity = None) -> pa.LargeBinaryArray:
    """Wrap a matrix of rows by width."""
    rows, width = items.shape
    return binary(np.arange(rows + 1, dtype=np.int64) * width, np.ascontiguousarray(items).reshape(-1), valid)


def ragged(items: Bytes, lengths: Integers) -> pa.LargeBinaryArray:
    """Take the first `lengths` bytes of each row of a matrix."""
    rows, width = items.shape
    if rows and (shortest := int(lengths.min())) == int(lengths.max()):
        return fixed_width(items[:, :shortest])
    return binary(_offsets(lengths), items[np.arange(width) < lengths[:, None]])


def constant(value: bytes, rows: int, valid: Validity) -> pa.LargeBinaryArray:
    """Put one value into every row that is valid, and nothing into the others."""
    if valid is None:
        return binary(np.arange(rows + 1, dtype=np.int64) * len(value), value * rows)
    return binary(_offsets(valid.astype(np.int64) * len(value)), value * int(valid.sum()))


def scattered(rows: int, values: Mapping[int, bytes]) -> pa.LargeBinaryArray:
    """Put values into some rows, and nothing into the others."""
    lengths = np.zeros(rows, np.int64)
    order = sorted(values)
    lengths[order] = [len(values[row]) for row in order]
    return binary(_offsets(lengths), b"".join(values[row] for row in order))


def heads(major: int, arguments: Integers, valid: Validity = None) -> pa.LargeBinaryArray:
    """The heads of items with non-negative arguments (lengths, counts)."""
    return numbers(*_classes(np.uint8(major << 5), arguments.view(np.uint64)), valid)


def integers(values: NDArray[Any], valid: Validity = None, prefix: int | None = None) -> pa.LargeBinaryArray:
    """CBOR integers of any NumPy integer type; `prefix` is a byte to put before each."""
    return numbers(*integer_parts(values), valid, prefix)


def integer_parts(values: NDArray[Any]) -> NumberParts:
    """First bytes, left-aligned arguments and argument widths of CBOR integers."""
    if values.dtype == np.uint64:
        return _classes(np.uint8(0), values)
    values = values.astype(np.int64, copy=False)
    sign = values >> 63
    # -1 - n is what CBOR stores of a negative n: in two's complement, all its bits flipped.
    return _classes((sign & 0x20).astype(np.uint8), (values ^ sign).view(np.uint64))


def numbers(
    first: Bytes,
    payload: NDArray[np.uint64],
    widths: Integers,
    valid: Validity = None,
    prefix: int | None = None,
) -> pa.LargeBinaryArray:
    """Items of one first byte and the leftmost `widths` bytes of a payload."""
    lead = 1 if prefix is None else 2
    items = np.empty((len(first), lead + 8), np.uint8)
    if prefix is not None:
        items[:, 0] = prefix
    items[:, lead - 1] = first
    items[:, lead:] = payload.astype(">u8").view(np.uint8).reshape(-1, 8)
    lengths = widths + lead
    if valid is not None:
        lengths = np.where(valid, lengths, 0)
    return ragged(items, lengths)


def spans(items: pa.LargeBinaryArray, offsets: Integers, valid: Validity = None) -> pa.LargeBinaryArray:
    """Join each run of neighbouring items to one, without copying: `offsets` (rows + 1) count items.

    The items must hold no nulls.
    """
    _, starts, data = items.buffers()
    edges = np.frombuffer(starts, np.int64)[items.offset : items.offset + len(items) + 1]
    return binary(edges[offsets], data if data is not None else b"", valid)


def within(column: Column, valid: Validity) -> Column:
    """Take values away where `valid` (of the column's parent) is false; shares the bytes."""
    if valid is None:
        return column
    both = valid if column.valid is None else column.valid & valid
    pieces = [piece if isinstance(piece, bytes) else _masked(piece, valid) for piece in column.pieces]
    return Column(column.rows, pieces, both, {row: why for row, why in column.bad.items() if valid[row]})


def join(columns: Sequence[Column], rows: int) -> pa.LargeBinaryArray:
    """Lay the columns' pieces side by side: one value for each row, never null."""
    parts: list[Any] = []
    for column in columns:
        for piece in column.pieces:
            if not isinstance(piece, bytes):
                parts.append(piece)
            elif column.valid is not None:
                parts.append(constant(piece, rows, column.valid))
            elif parts and isinstance(parts[-1], bytes):
                parts[-1] += piece
            else:
                parts.append(piece)
    if len(parts) == 1 and not isinstance(parts[0], bytes) and parts[0].null_count == 0:
        return parts[0]
    if all(isinstance(part, bytes) for part in parts):
        return constant(b"".join(parts), rows, None)
    scalars = [pa.scalar(part, pa.large_binary()) if isinstance(part, bytes) else part for part in parts]
    separator = pa.scalar(b"", pa.large_binary())
    return pc.binary_join_element_wise(*scalars, separator, null_handling="replace", null_replacement="")


def _classes(major: Bytes | np.uint8, arguments: NDArray[np.uint64]) -> NumberParts:
    size = (arguments >= 24).view(np.int8)
    for limit in (1 << 8, 1 << 16, 1 << 32):
        size = size + (arguments >= limit).view(np.int8)
    first = np.where(size == 0, arguments.astype(np.uint8), _INFO[size]) | major
    return first, arguments << _SHIFTS[size], _WIDTHS[size]


def _offsets(lengths: Integers) -> Integers:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _bitmap(valid: Validity) -> pa.Buffer | None:
    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _masked(piece: pa.LargeBinaryArray, valid: NDArray[np.bool_]) -> pa.LargeBinaryArray:
    own = validity(piece)
    _, offsets, data = piece.buffers()
    edges = np.frombuffer(offsets, np.int64)[piece.offset : piece.offset + len(piece) + 1]
    return binary(edges, data if data is not None else b"", valid if own is None else own & valid)
