"""Rows that a server sends as CSV, turned into columns of their types by Arrow, not one by one.

Arrow reads a chunk straight into the types of its columns. Where a value does not fit (PostgreSQL's
`infinity`, a year before 1), the chunk is read once more as text, and only its records are unreadable.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from rundiff.errors import SourceError
from rundiff.signing.values import Interval
from rundiff.sources.conform import conform
from rundiff.sources.contract import ReadRequest, Unreadable
from rundiff.sources.mixedvalues import mixed_column
from rundiff.sources.pins import arrow_type_of
from rundiff.sources.spelling import Mask, cast_leniently
from rundiff.sources.textreading import Pass, RawBatch, TextReading
from rundiff.sources.texttypes import TextGuess, fit_text, shortened

__all__ = ["CHUNK_BYTES", "WireColumn", "WireReading", "column", "intervals", "lists_of", "spans", "unhexed"]

CHUNK_BYTES = 8 << 20
"""How much CSV becomes one batch, with at most two chunks in memory."""

Converter = Callable[[pa.StringArray], tuple[pa.Array, Mask | None]]


class WireColumn(msgspec.Struct, frozen=True, kw_only=True):
    """One column of a result."""

    name: str
    expression: str
    """What the server is asked for: its text is what `pin` and `convert` read."""
    pin: str
    convert: Converter | None = None
    """Reads the texts, where Arrow's CSV reader can't."""

    @property
    def wire(self) -> pa.DataType:
        """The type as which Arrow's CSV reader reads the column."""
        data_type = arrow_type_of(self.pin)
        # Not known to it (seen in 26.0): decimals beyond 38 digits.
        plain = not isinstance(data_type, pa.BaseExtensionType) and not pa.types.is_decimal256(data_type)
        return data_type if self.convert is None and plain else pa.string()

    def read(self, texts: pa.StringArray) -> tuple[pa.Array, Mask | None]:
        """Read texts as the pin; the mask marks those that can't be, null in the array."""
        if self.convert is not None:
            return self.convert(texts)
        target = arrow_type_of(self.pin)
        if self.pin == "json":
            return pa.ExtensionArray.from_storage(target, texts), None
        if pa.types.is_time(target):
            # Arrow casts no text to a time of day (seen in 26.0).
            return fit_text(texts, self.pin)
        array, bad = cast_leniently(texts, target)
        return array, _mask(len(texts), bad)


def column(name: str, expression: str, pin: str, convert: Converter | None = None) -> WireColumn:
    """Describe a column."""
    return WireColumn(name=name, expression=expression, pin=pin, convert=convert)


class _Read:
    """A column that was read: its array, and which of its texts could not be."""

    __slots__ = ("array", "misfit", "texts")

    def __init__(self, array: pa.Array, misfit: Mask | None = None, texts: pa.Array | None = None) -> None:
        self.array, self.misfit = array, misfit
        self.texts = array if texts is None else texts


class _WireFields:
    """Columns that have their types from the server."""

    def guess(self) -> TextGuess:
        """Begin a guess; never needed, since every column has a pin."""
        return TextGuess()

    def holds_value(self, column: _Read) -> bool:
        """Say whether there is any value in a column."""
        return bool(column.array.null_count < len(column.array))

    def fit(self, column: _Read, pin: str, explicit: bool) -> tuple[pa.Array, Mask | None]:
        """Bring a column to its pinned type."""
        array, target = column.array, arrow_type_of(pin)
        if array.type == target:
            return array, column.misfit
        if explicit and pa.types.is_string(target) and isinstance(array.type, pa.BaseExtensionType):
            array = column.texts if pa.types.is_string(column.texts.type) else array
        if explicit and pa.types.is_integer(array.type) and pa.types.is_boolean(target):
            known = pc.fill_null(pc.is_in(array, value_set=pa.array([0, 1], array.type)), False)
            fitted, misfit = _only(array, known)
            array = fitted.cast(target)
        else:
            array, misfit = conform(array, pin, explicit=explicit)
        return array, _either(misfit, column.misfit)

    def shown(self, column: _Read, row: int) -> str:
        """Show one value in a message."""
        return shortened(column.texts[row].as_py())


class WireReading(TextReading):
    """One reading of a result; see `contract.Reading`. Every column has a type from the server."""

    def __init__(
        self,
        chunks: Callable[[Pass], Iterator[tuple[bytes, Sequence[Unreadable]]]],
        columns: Sequence[WireColumn],
        request: ReadRequest,
        label: str,
    ) -> None:
        self._columns = columns
        self._chunks = chunks
        self._label = label
        self.rows = 0
        """Records that came so far, unreadable ones included."""
        self.stated: int | None = None
        """How many the server says to have sent, once it has."""
        known = {**{one.name: one.pin for one in columns}, **(request.pins or {})}
        super().__init__(self._raw, _WireFields(), replace(request, pins=known), None)

    def _raw(self, walk: Pass) -> Iterator[RawBatch]:
        with ThreadPoolExecutor(1, thread_name_prefix="rundiff-read") as pool:
            waiting: tuple[Future[Mapping[str, _Read]], Sequence[Unreadable]] | None = None
            # While one chunk is parsed, the next one arrives.
            for chunk, unreadable in self._chunks(walk):
                following = pool.submit(_parsed, chunk, self._columns), unreadable
                if waiting is not None:
                    yield self._batch(waiting[0].result(), waiting[1])
                waiting = following
            if waiting is not None:
                yield self._batch(waiting[0].result(), waiting[1])
        if self.stated is not None and self.rows != self.stated:
            raise SourceError(
                f"{self._label}: {self.stated:,} rows were sent, and {self.rows:,} arrived. Run again."
            )

    def _batch(self, columns: Mapping[str, _Read], unreadable: Sequence[Unreadable]) -> RawBatch:
        before, count = self.rows, len(next(iter(columns.values())).array)
        self.rows += count + len(unreadable)
        return RawBatch(columns, count, lambda row: f"{self._label}, row {before + row + 1}", unreadable)


def _parsed(chunk: bytes, columns: Sequence[WireColumn]) -> Mapping[str, _Read]:
    if not chunk:
        return {one.name: _Read(pa.array([], arrow_type_of(one.pin))) for one in columns}
    try:
        arrays = _read_csv(chunk, [one.wire for one in columns], 1 << 20)
    except pa.ArrowInvalid:
        # A value that is not of its type, bytes that are no UTF-8, or a record longer than a block.
        return _parsed_leniently(chunk, columns)
    return {
        one.name: _Read(array) if array.type == arrow_type_of(one.pin) else _Read(*one.read(array), array)
        for one, array in zip(columns, arrays, strict=True)
    }


def _parsed_leniently(chunk: bytes, columns: Sequence[WireColumn]) -> Mapping[str, _Read]:
    try:
        arrays = _read_csv(chunk, [pa.binary()] * len(columns), len(chunk) + 1)
    except pa.ArrowInvalid as error:
        raise SourceError(f"The database sent rows that can't be taken apart: {error}. Run again.") from error
    read = {}
    for one, array in zip(columns, arrays, strict=True):
        texts, bad = cast_leniently(array, pa.string())
        fitted, misfit = one.read(texts)
        read[one.name] = _Read(fitted, _either(misfit, _mask(len(texts), bad)), array if bad else texts)
    return read


def _read_csv(chunk: bytes, types: Sequence[pa.DataType], block: int) -> list[pa.Array]:
    from pyarrow import csv

    names = [str(number) for number in range(len(types))]
    table = csv.read_csv(
        pa.py_buffer(chunk),
        csv.ReadOptions(column_names=names, block_size=block),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=dict(zip(names, types, strict=True)),
            # An empty unquoted field is null, a quoted one is empty text.
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
            true_values=["1"],
            false_values=["0"],
        ),
    ).combine_chunks()
    return [one.chunk(0) if one.num_chunks else pa.array([], one.type) for one in table.columns]


def unhexed(prefix: int = 0, *, uuid: bool = False) -> Converter:
    """Make a converter of hexadecimal digits, behind `prefix` other characters, to bytes or UUIDs."""

    def convert(texts: pa.StringArray) -> tuple[pa.Array, None]:
        present = texts.drop_null()
        if uuid:
            present = pc.replace_substring(present, "-", "")
        elif prefix:
            # Nulls are left out first: with them Arrow's slicing fails (seen in 26.0).
            present = pc.binary_slice(present.cast(pa.binary()), prefix)
        lengths = np.zeros(len(texts), np.int64)
        lengths[texts.is_valid().to_numpy(zero_copy_only=False)] = pc.binary_length(present)
        joined = b"".join(present.cast(pa.binary()).to_pylist())
        data = pa.py_buffer(bytes.fromhex(joined.decode("ascii")))
        offsets = pa.py_buffer(np.concatenate([[0], np.cumsum(lengths // 2)]).astype(np.int32))
        valid = texts.is_valid()
        binary = pa.BinaryArray.from_buffers(
            pa.binary(), len(texts), [valid.buffers()[1] if texts.null_count else None, offsets, data]
        )
        if not uuid:
            return binary, None
        return pa.ExtensionArray.from_storage(pa.uuid(), binary.cast(pa.binary(16))), None

    return convert


_INTERVAL = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?)(\d+)(?:\.(\d+))?S)?)?"
)


def intervals(texts: pa.StringArray) -> tuple[pa.Array, Mask | None]:
    """Read ISO 8601 intervals as PostgreSQL writes them, with a sign for each part, as `mixed`.

    One by one, since each becomes an encoding of its own.
    """
    found: list[Any] = [None if text is None else _interval(text) for text in texts.to_pylist()]
    array, misfit = mixed_column([None if value is _NONE else value for value in found])
    unread = _mask(len(found), [row for row, value in enumerate(found) if value is _NONE])
    return array, _either(misfit, unread)


_NONE = object()


def _interval(text: str) -> Any:
    match = _INTERVAL.fullmatch(text)
    if match is None:
        return _NONE
    years, months, days, hours, minutes = (int(part or 0) for part in match.groups()[:5])
    sign, seconds, fraction = match.groups()[5:]
    nanoseconds = int(seconds or 0) * 10**9 + int((fraction or "0").ljust(9, "0")[:9])
    whole = (hours * 3600 + minutes * 60) * 10**9 + (-nanoseconds if sign else nanoseconds)
    return Interval(years * 12 + months, days, whole)


def spans(texts: pa.StringArray) -> tuple[pa.Array, Mask | None]:
    """Read MySQL's `-838:59:59.000000` as durations in microseconds."""
    parts = pc.extract_regex(texts, r"^(?P<n>-?)(?P<h>\d+):(?P<m>\d+):(?P<s>\d+)(?:\.(?P<f>\d+))?$")
    known = parts.is_valid()

    def number(name: str) -> Any:
        digits = pc.struct_field(parts, name)
        if name == "f":
            digits = pc.utf8_rpad(digits, 6, "0")
        return digits.cast(pa.int64())

    seconds = pc.add(pc.add(pc.multiply(number("h"), 3600), pc.multiply(number("m"), 60)), number("s"))
    micros = pc.add(pc.multiply(seconds, 1_000_000), number("f"))
    signed = pc.if_else(pc.equal(pc.struct_field(parts, "n"), "-"), pc.negate(micros), micros)
    bad = np.flatnonzero(pc.and_(texts.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False))
    return signed.cast(pa.duration("us")), _mask(len(texts), bad.tolist())


def lists_of(element: WireColumn) -> Converter:
    """Make a converter of JSON arrays of texts to lists of the element's type.

    One by one as far as the JSON goes; the elements of all rows are read together.
    """

    def convert(texts: pa.StringArray) -> tuple[pa.Array, Mask | None]:
        values = [None if text is None else json.loads(text) for text in texts.to_pylist()]
        # Arrays of more than one dimension have the same type in the server, and none here.
        deep = [row for row, value in enumerate(values) if value and any(type(i) is list for i in value)]
        for row in deep:
            values[row] = None
        lists = pa.array(values, pa.list_(pa.string()))
        items, misfit = element.read(lists.values)
        misfits = set(deep)
        if misfit is not None:
            owner = np.searchsorted(lists.offsets.to_numpy(), np.flatnonzero(misfit), "right") - 1
            misfits.update(owner.tolist())
        array = pa.ListArray.from_arrays(
            lists.offsets, items, type=pa.list_(items.type), mask=lists.is_null()
        )
        return array, _mask(len(values), sorted(misfits))

    return convert


def _only(array: pa.Array, known: pa.BooleanArray) -> tuple[pa.Array, Mask | None]:
    bad = pc.and_(array.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    kept = pc.if_else(known, array, pa.scalar(None, array.type))
    return kept, bad if bad.any() else None


def _either(left: Mask | None, right: Mask | None) -> Mask | None:
    if left is None or right is None:
        return right if left is None else left
    return left | right


def _mask(length: int, rows: Sequence[int]) -> Mask | None:
    if not len(rows):
        return None
    mask = np.zeros(length, np.bool_)
    mask[list(rows)] = True
    return mask
