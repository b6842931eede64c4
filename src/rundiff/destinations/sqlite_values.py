"""Columns as lists of values that SQLite stores, made column by column."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, kind_of
from rundiff.destinations.mixed import decode, mixed_native
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import plain_text
from rundiff.destinations.tables import Column
from rundiff.errors import RecordsRefused

__all__ = ["affinity", "spelled_out", "storable"]

_EXACT_DOUBLE = 2**53
_INT64_MAX = 2**63 - 1
_AFFINITIES = (  # https://www.sqlite.org/datatype3.html section 3.1, in its order
    ("INT", "INTEGER"),
    ("CHAR", "TEXT"),
    ("CLOB", "TEXT"),
    ("TEXT", "TEXT"),
    ("BLOB", "BLOB"),
    ("REAL", "REAL"),
    ("FLOA", "REAL"),
    ("DOUB", "REAL"),
)


def affinity(declared: str, *, strict: bool = False) -> str:
    """Give the affinity of a declared column type: INTEGER, REAL, NUMERIC, TEXT, or BLOB for none."""
    upper = declared.upper()
    if not upper or (strict and upper == "ANY"):
        return "BLOB"
    return next((name for part, name in _AFFINITIES if part in upper), "NUMERIC")


def storable(array: pa.Array, column: Column) -> list[Any]:
    """Give the values of a column as SQLite stores them: int, float, str, bytes or None.

    Raises `RecordsRefused` for numbers that the column would round.
    """
    kind, stored_as = kind_of(array.type), affinity(column.type)
    if kind is Kind.MIXED:
        return [None if value is None else mixed_native(value) for value in decode(array)]
    if kind is Kind.UNSIGNED and stored_as == "BLOB":
        return _unsigned(array)
    if kind in _NUMERIC and stored_as == "TEXT":
        return _objects(plain_text(array))
    if kind in (Kind.INTEGER, Kind.UNSIGNED):
        return _integers(array, column, _EXACT_DOUBLE if stored_as == "REAL" else _INT64_MAX)
    if kind is Kind.DECIMAL:
        # Through the digits, which Arrow rounds correctly; a column without a type gets them as they are.
        text = plain_text(array)
        return _objects(text) if stored_as == "BLOB" else _numbers(pc.cast(text, pa.float64()))
    return _CONVERSIONS.get(kind, _spelled)(array)


def spelled_out(values: Sequence[Any]) -> pa.Array:
    """Spell the values of a column, as SQLite gives them, as text; binary as `\\x` and hexadecimal digits."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {str}:
        return pa.array(values, pa.string())
    if kinds == {int}:
        return pa.array(values, pa.int64()).cast(pa.string())
    if kinds == {float}:
        return pa.array(values, pa.float64()).cast(pa.string())
    # One by one: a column of several types, or of bytes, for which Arrow has no hexadecimal digits.
    floats = pa.array([value for value in values if type(value) is float], pa.float64()).cast(pa.string())
    digits = iter(floats.to_pylist())
    return pa.array([next(digits) if type(v) is float else _spell(v) for v in values], pa.string())


def _spell(value: str | int | bytes | None) -> str | None:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    return None if value is None else str(value)


def _objects(array: pa.Array) -> list[Any]:
    """Convert text and binary; null becomes None."""
    values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
    return values


def _numbers(array: pa.Array) -> list[Any]:
    """Convert numbers; null becomes None (NaN does so in SQLite itself)."""
    if not array.null_count:
        values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return values
    values = array.fill_null(0).to_numpy(zero_copy_only=False).tolist()
    for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist():
        values[row] = None
    return values


def _integers(array: pa.Array, column: Column, limit: int) -> list[Any]:
    bounds = pc.min_max(array)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    if high is not None and (high > limit or (limit == _EXACT_DOUBLE and low < -limit)):
        raise RecordsRefused(
            f'The column "{column.name}" of the type {column.type} would round an integer beyond {limit}: '
            "change the column's type."
        )
    return _numbers(array)


def _unsigned(array: pa.Array) -> list[Any]:
    if (pc.max(array).as_py() or 0) <= _INT64_MAX:
        return _numbers(array)
    values: list[Any] = array.to_pylist()
    return [str(value) if value is not None and value > _INT64_MAX else value for value in values]


def _spelled(array: pa.Array) -> list[Any]:
    return _objects(plain_text(array))


def _timestamps(array: pa.Array) -> list[Any]:
    # `+00:00` for `Z`, which stands behind the point: so text sorts by time, with and without fractions.
    text = plain_text(array)
    return _objects(text if array.type.tz is None else pc.replace_substring(text, "Z", "+00:00"))


_NUMERIC = (Kind.BOOLEAN, Kind.INTEGER, Kind.UNSIGNED, Kind.FLOAT, Kind.DECIMAL)
_CONVERSIONS: dict[Kind, Callable[[pa.Array], list[Any]]] = {
    Kind.BOOLEAN: lambda array: _numbers(pc.cast(array, pa.int8())),
    Kind.FLOAT: lambda array: _numbers(pc.cast(array, pa.float64())),
    Kind.TEXT: _objects,
    Kind.BINARY: _objects,
    Kind.TIMESTAMP: _timestamps,
    Kind.NESTED: lambda array: _objects(
        pc.if_else(array.is_valid(), json_text(array), pa.scalar(None, pa.large_string()))
    ),
}
