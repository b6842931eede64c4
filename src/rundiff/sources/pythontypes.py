"""Arrow arrays of Python values, exactly: what no Arrow type keeps becomes `rundiff.cbor`.

| the values of a column | Arrow type |
|---|---|
| int | int64, else uint64, else decimal of up to 76 digits |
| float, or float and ints that a double keeps | float64 |
| Decimal, or Decimal and int | decimal of up to 76 digits, with the scale that is needed |
| bool, str, bytes, date, time, timedelta, UUID | bool, string, binary, date32, time64, duration, `arrow.uuid` |
| datetime | timestamp in microseconds, in UTC if any of them has a zone; naive ones count as UTC |
| pandas' and NumPy's times | timestamp and duration in their own unit |
| anything else, and every other mix | `rundiff.cbor` |

NumPy's scalars count as Python's; None, `pandas.NA` and `NaT` are null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from rundiff.sources.mixedvalues import mixed_column
from rundiff.sources.spelling import Mask

__all__ = ["arrow_column"]

_SIMPLE: dict[frozenset[str], pa.DataType] = {
    frozenset({"boolean"}): pa.bool_(),
    frozenset({"float"}): pa.float64(),
    frozenset({"text"}): pa.string(),
    frozenset({"binary"}): pa.binary(),
    frozenset({"date"}): pa.date32(),
    frozenset({"time"}): pa.time64("us"),
}


def arrow_column(values: Sequence[Any]) -> tuple[pa.Array, Mask | None]:
    """Turn a column of Python values into an array of a plain type.

    The mask marks rows whose value has no signature (a lone surrogate, an unknown class), null in
    the array; None when there are none.
    """
    types: set[type] = set(map(type, values))
    kinds = frozenset(map(_kind, types)) - {"null"}
    if any(issubclass(found, np.generic) for found in types):
        values = [_native(value) for value in values]
    if nulls := {found for found in types if _kind(found) == "null"} - {type(None)}:
        values = [None if type(value) in nulls else value for value in values]
    if not kinds:
        return pa.nulls(len(values)), None
    build = _BUILDERS.get(kinds)
    try:
        if kinds in _SIMPLE:
            return pa.array(values, _SIMPLE[kinds], from_pandas=False), None
        array = build(values) if build is not None else None
    except (pa.ArrowException, ValueError, OverflowError, TypeError):
        # Out of an Arrow type's range, or a lone surrogate: kept, or told apart, value by value.
        array = None
    if array is not None:
        return array, None
    mixed, unsignable = mixed_column(values)
    if unsignable is None:
        return mixed, None
    # One bad value must not change the type of all the others.
    sound = [None if bad else value for value, bad in zip(values, unsignable.tolist(), strict=True)]
    return arrow_column(sound)[0], unsignable


def _kind(of: type) -> str:
    if of is type(None) or of.__name__ in {"NAType", "NaTType"}:
        return "null"
    if issubclass(of, bool | np.bool_):
        return "boolean"
    if issubclass(of, np.datetime64 | np.timedelta64):
        return "moment" if issubclass(of, np.datetime64) else "span"
    if issubclass(of, int | np.integer):
        return "int"
    if issubclass(of, float | np.floating):
        return "float" if of is not np.longdouble else "other"
    for kind, python in _KINDS:
        if issubclass(of, python):
            return kind
    return "other"


_KINDS: tuple[tuple[str, Any], ...] = (
    ("decimal", Decimal),
    ("text", str),
    ("binary", bytes | bytearray),
    ("datetime", datetime),
    ("date", date),
    ("time", time),
    ("duration", timedelta),
    ("uuid", UUID),
)


def _native(value: Any) -> Any:
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        return value.item()
    return value


def _integers(values: Sequence[Any]) -> pa.Array | None:
    for data_type in (pa.int64(), pa.uint64()):
        try:
            return pa.array(values, data_type)
        except (pa.ArrowInvalid, OverflowError):
            continue
    return _decimals(values)


def _floats(values: Sequence[Any]) -> pa.Array | None:
    exact = all(type(value) is not int or _keeps(value) for value in values)
    return (
        pa.array([None if value is None else float(value) for value in values], pa.float64())
        if exact
        else None
    )


def _keeps(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _decimals(values: Sequence[Any]) -> pa.Array | None:
    decimals = [None if value is None else Decimal(value) for value in values]
    before, after = 1, 0
    for value in decimals:
        if value is not None:
            exponent = value.as_tuple().exponent
            if not isinstance(exponent, int):
                return None
            before, after = max(before, value.adjusted() + 1), max(after, -exponent)
    if before + after > 76:
        return None
    data_type = pa.decimal128(38, after) if before + after <= 38 else pa.decimal256(76, after)
    return pa.array(decimals, data_type)


def _datetimes(values: Sequence[Any]) -> pa.Array:
    zoned = any(value is not None and value.tzinfo is not None for value in values)
    return pa.array(values, pa.timestamp(_finest(values), "UTC" if zoned else None))


def _durations(values: Sequence[Any]) -> pa.Array:
    return pa.array(values, pa.duration(_finest(values)))


def _finest(values: Sequence[Any]) -> str:
    """Tell whether any value is one of pandas that counts nanoseconds; all others count microseconds."""
    return "ns" if any(getattr(value, "unit", None) == "ns" for value in values) else "us"


def _uuids(values: Sequence[Any]) -> pa.Array:
    storage = pa.array([None if value is None else value.bytes for value in values], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _numpy_times(values: Sequence[Any]) -> pa.Array:
    present = [value for value in values if value is not None]
    times = np.array(present)
    unit, _ = np.datetime_data(times.dtype)
    if unit not in {"s", "ms", "us", "ns"}:
        # NumPy's days and hours are points in time and no dates.
        times = times.astype(f"{times.dtype.kind}8[s]")
    places = np.full(len(values), -1, np.int64)
    rows = [row for row, value in enumerate(values) if value is not None]
    places[rows] = np.arange(len(rows))
    return pa.array(times).take(pa.array(places, mask=places < 0))


_BUILDERS: dict[frozenset[str], Callable[[Sequence[Any]], pa.Array | None]] = {
    frozenset({"int"}): _integers,
    frozenset({"int", "float"}): _floats,
    frozenset({"decimal"}): _decimals,
    frozenset({"int", "decimal"}): _decimals,
    frozenset({"datetime"}): _datetimes,
    frozenset({"uuid"}): _uuids,
    frozenset({"duration"}): _durations,
    frozenset({"moment"}): _numpy_times,
    frozenset({"span"}): _numpy_times,
}
