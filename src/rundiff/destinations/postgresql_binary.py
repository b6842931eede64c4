"""Rows for COPY in PostgreSQL's binary format, as far as their columns' types have a plain one.

The server spends most of a COPY of text on parsing it: 1 million rows of 12 fields took it 1.6 s of CSV and
0.7 s of binary rows. Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format"; the forms
of values are those of the types' receive functions. The rows are written by pgpq.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, kind_of
from rundiff.destinations.postgresql_types import DAY_US, FIRST_DAY, LAST_DAY, base_type, travels, wire
from rundiff.destinations.tables import Column

if TYPE_CHECKING:
    from pgpq import ArrowToPostgresBinaryEncoder

__all__ = ["binary_rows"]

_PIECE_ROWS = 16_384
_TEXT = pa.large_string()
_JSONB_VERSION = pa.scalar("\x01", _TEXT)


def binary_rows(arrays: Sequence[pa.Array], columns: Sequence[Column]) -> Iterator[bytes] | None:
    """Give what COPY reads, piece by piece; None where a column has to travel as text.

    That is so for types without a plain binary form, for values that need the server's own words of
    refusal or its calendar, and where the package pgpq is missing.
    """
    try:
        from pgpq import ArrowToPostgresBinaryEncoder
    except ImportError:
        return None
    values = []
    for array, column in zip(arrays, columns, strict=True):
        value = _binary(array, column)
        if value is None:
            return None
        values.append(value)
    rows = pa.table(values, names=[str(number) for number in range(len(values))])
    return _pieces(rows, ArrowToPostgresBinaryEncoder(rows.schema))


def _pieces(rows: pa.Table, encoder: ArrowToPostgresBinaryEncoder) -> Iterator[bytes]:
    yield encoder.write_header()
    for piece in rows.to_batches(max_chunksize=_PIECE_ROWS):
        yield encoder.write_batch(piece)
    yield encoder.finish()


def _binary(array: pa.Array, column: Column) -> pa.Array | None:
    """Bring an array to the type whose binary form is the column's; None where there is none."""
    kind = kind_of(array.type)
    if kind is Kind.NULL:
        return pa.nulls(len(array), _TEXT)
    form = _FORMS.get((base_type(column.type), kind))
    if form is None or not travels(array.type, column):
        return None
    try:
        return form(array, column)
    except pa.ArrowInvalid:  # it does not fit: on the way as text it is refused by name
        return None


def _cast(to: pa.DataType) -> Callable[[pa.Array, Column], pa.Array]:
    return lambda array, _: array if array.type == to else pc.cast(array, to)


def _real(array: pa.Array, _: Column) -> pa.Array | None:
    return None if array.type == pa.float64() else pc.cast(array, pa.float32())


def _texts(array: pa.Array, _: Column) -> pa.Array:
    return array if array.type in (pa.string(), _TEXT) else pc.cast(array, _TEXT)


def _decimals(array: pa.Array, _: Column) -> pa.Array | None:
    return array if pa.types.is_decimal128(array.type) and array.type.scale >= 0 else None


def _dates(array: pa.Array, _: Column) -> pa.Array | None:
    days = pc.cast(array, pa.date32())
    bounds = pc.min_max(pc.cast(days, pa.int32()))
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    return days if low is None or (low >= FIRST_DAY and high <= LAST_DAY) else None


def _times(array: pa.Array, _: Column) -> pa.Array | None:
    times = pc.cast(array, pa.time64("us"))
    latest = pc.max(pc.cast(times, pa.int64())).as_py()
    # Arrow's times end before 24:00, which the server would take, and nothing could read back.
    return times if latest is None or latest < DAY_US else None


def _timestamps(array: pa.Array, column: Column) -> pa.Array | None:
    naive = wire(array, column)
    return naive if pa.types.is_timestamp(naive.type) else None  # text: beyond years of four digits


def _uuids(array: pa.Array, _: Column) -> pa.Array:
    # Sixteen bytes behind their length: the same as of bytea.
    return pc.cast(array.storage, pa.binary())


def _jsonb(array: pa.Array, column: Column) -> pa.Array:
    text = pc.cast(wire(array, column), _TEXT)
    return pc.binary_join_element_wise(_JSONB_VERSION, text, pa.scalar("", _TEXT))


_Form = Callable[[pa.Array, Column], pa.Array | None]
_WHOLE: Mapping[str, _Form] = {
    "smallint": _cast(pa.int16()),
    "integer": _cast(pa.int32()),
    "bigint": _cast(pa.int64()),
}
_FORMS: Mapping[tuple[str, Kind], _Form] = {
    **{(base, kind): form for base, form in _WHOLE.items() for kind in (Kind.INTEGER, Kind.UNSIGNED)},
    ("boolean", Kind.BOOLEAN): _cast(pa.bool_()),
    ("real", Kind.FLOAT): _real,
    ("double precision", Kind.FLOAT): _cast(pa.float64()),
    ("numeric", Kind.DECIMAL): _decimals,
    ("text", Kind.TEXT): _texts,
    ("character varying", Kind.TEXT): _texts,
    ("bytea", Kind.BINARY): _cast(pa.large_binary()),
    ("date", Kind.DATE): _dates,
    ("time without time zone", Kind.TIME): _times,
    ("timestamp without time zone", Kind.TIMESTAMP): _timestamps,
    ("timestamp with time zone", Kind.TIMESTAMP): _timestamps,
    ("uuid", Kind.UUID): _uuids,
    ("json", Kind.JSON): wire,
    **{("jsonb", kind): _jsonb for kind in (Kind.JSON, Kind.NESTED, Kind.MIXED)},
}
"""How each kind travels to each type of column, by the type's name without its measures."""
