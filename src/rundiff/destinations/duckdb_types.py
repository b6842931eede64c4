"""Which DuckDB column keeps a field, and in which Arrow type the values travel there.

Source: https://duckdb.org/docs/stable/sql/data_types/overview. Values are brought to the column's own
type by Arrow's safe casts, which refuse to lose anything, since DuckDB's casts round silently.
"""

from __future__ import annotations

import re
from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, decimal_digits, kind_of
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import plain_text
from rundiff.destinations.tables import Column, ExistingColumn
from rundiff.errors import RecordsRefused

__all__ = ["holds", "told", "type_for", "wire"]

_EXACT_DIGITS = 15
"""Every decimal of so many digits comes back from a double unharmed (IEEE 754, DBL_DIG)."""
_MOST_DIGITS = 38
_TEXT = pa.large_string()

_TYPES = {
    Kind.NULL: "VARCHAR",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.UNSIGNED: "UBIGINT",
    Kind.TEXT: "VARCHAR",
    Kind.BINARY: "BLOB",
    Kind.DATE: "DATE",
    Kind.INTERVAL: "INTERVAL",
    Kind.UUID: "UUID",
    Kind.JSON: "JSON",
    Kind.MIXED: "VARCHAR",
}
_INTEGERS = {
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
}
_WHOLE = {Kind.BOOLEAN, Kind.INTEGER, Kind.UNSIGNED}
_ZONED = "TIMESTAMP WITH TIME ZONE"
_CASTS: dict[str, tuple[set[Kind], pa.DataType]] = {
    **{name: (_WHOLE, arrow_type) for name, arrow_type in _INTEGERS.items()},
    "BOOLEAN": ({Kind.BOOLEAN}, pa.bool_()),
    "BLOB": ({Kind.BINARY}, pa.large_binary()),
    "DATE": ({Kind.DATE}, pa.date32()),
    "TIME": ({Kind.TIME}, pa.time64("us")),
    "TIME_NS": ({Kind.TIME}, pa.time64("ns")),
    "TIMESTAMP_S": ({Kind.TIMESTAMP}, pa.timestamp("s")),
    "TIMESTAMP_MS": ({Kind.TIMESTAMP}, pa.timestamp("ms")),
    "TIMESTAMP": ({Kind.TIMESTAMP}, pa.timestamp("us")),
    "TIMESTAMP_NS": ({Kind.TIMESTAMP}, pa.timestamp("ns")),
    _ZONED: ({Kind.TIMESTAMP}, pa.timestamp("us", "UTC")),
    "TIMESTAMPTZ_NS": ({Kind.TIMESTAMP}, pa.timestamp("ns", "UTC")),
}
"""The kinds that a column type takes by a safe cast to an Arrow type. Naive times count as UTC."""
_JSON_KINDS = {Kind.JSON, Kind.NESTED, Kind.MIXED, Kind.TEXT}


def type_for(arrow_type: pa.DataType) -> str:
    """Give the column type to create: native ones, JSON for what holds structs or maps.

    Structs and maps gain members as sources grow, which a native type would refuse.
    """
    kind = kind_of(arrow_type)
    if kind is Kind.NESTED:
        return _nested_type(arrow_type)
    if kind is Kind.INTEGER:
        return next(name for name, candidate in _INTEGERS.items() if candidate == arrow_type)
    if kind is Kind.FLOAT:
        return "DOUBLE" if arrow_type == pa.float64() else "FLOAT"
    if kind is Kind.DECIMAL:
        precision, scale = decimal_digits(arrow_type)
        return f"DECIMAL({precision},{scale})" if precision <= _MOST_DIGITS else "VARCHAR"
    if kind is Kind.TIME:
        return "TIME_NS" if arrow_type.unit == "ns" else "TIME"
    if kind is Kind.TIMESTAMP:
        return _timestamp_type(arrow_type)
    if kind is Kind.DURATION:
        return "VARCHAR" if arrow_type.unit == "ns" else "INTERVAL"
    return _TYPES[kind]


def _timestamp_type(arrow_type: pa.DataType) -> str:
    if arrow_type.unit != "ns":
        return "TIMESTAMP" if arrow_type.tz is None else _ZONED
    if arrow_type.tz is None:
        return "TIMESTAMP_NS"
    return "TIMESTAMPTZ_NS" if _knows_zoned_nanoseconds() else _ZONED


@cache
def _knows_zoned_nanoseconds() -> bool:
    import duckdb

    with duckdb.connect() as connection:
        try:
            connection.execute("SELECT NULL::TIMESTAMPTZ_NS")
        except duckdb.Error:
            return False
        return True


def _nested_type(arrow_type: pa.DataType) -> str:
    if pa.types.is_struct(arrow_type) or pa.types.is_map(arrow_type):
        return "JSON"
    item = arrow_type.value_type
    if kind_of(item) in (Kind.NULL, Kind.MIXED, Kind.DURATION, Kind.INTERVAL, Kind.UUID, Kind.JSON):
        return "JSON"
    inner = type_for(item)
    return (
        "JSON" if inner == "JSON" or (inner == "VARCHAR" and kind_of(item) is not Kind.TEXT) else f"{inner}[]"
    )


def holds(arrow_type: pa.DataType, column: ExistingColumn) -> bool:
    """Say whether a column keeps every value of a field, or refuses it with an error."""
    return _travels(arrow_type, column.type) is not None


def wire(array: pa.Array, column: Column) -> pa.Array:
    """Bring an array to the Arrow type of a column; raises `RecordsRefused` if a value would be changed."""
    form = _travels(array.type, column.type)
    try:
        if form == "text":
            return plain_text(array)
        if form == "json":
            return pc.if_else(array.is_valid(), json_text(array), pa.scalar(None, _TEXT))
        if form == "digits":
            return pc.cast(pc.cast(plain_text(array), pa.float64()), _float_type(column.type))
        if form is None or form == "as it is":
            return _whole_microseconds(array)
        return pc.cast(pc.cast(array, pa.int8()) if pa.types.is_boolean(array.type) else array, form)
    except pa.ArrowInvalid as error:
        raise RecordsRefused(
            f'The column "{column.name}" of the type {column.type} can\'t hold a value of the type {array.type} '
            "without changing it: change the column's type."
        ) from error


def told(column_type: str) -> str:
    """Say how a column is asked for its values as text (template); see `rundiff.destinations.readback`."""
    if column_type == "BLOB":
        return "'\\x' || hex({column})"
    if column_type.endswith("]") or column_type.startswith(("STRUCT(", "MAP(", "UNION(")):
        return "to_json({column})::VARCHAR"
    return "CAST({column} AS VARCHAR)"


def _whole_microseconds(array: pa.Array) -> pa.Array:
    """Refuse calendar intervals with nanoseconds, which DuckDB would cut off."""
    if kind_of(array.type) is Kind.INTERVAL and any(
        item[2] % 1_000 for item in array.drop_null().to_pylist()
    ):
        raise pa.ArrowInvalid("nanoseconds in an interval")
    return array


def _float_type(column_type: str) -> pa.DataType:
    return pa.float32() if column_type == "FLOAT" else pa.float64()


def _travels(arrow_type: pa.DataType, column_type: str) -> pa.DataType | str | None:
    """Give the Arrow type to cast to, or a word for another form; None where the column can't keep the field."""
    kind = kind_of(arrow_type)
    if column_type in _CASTS:
        kinds, form = _CASTS[column_type]
        return form if kind in kinds else "text" if kind is Kind.NULL else None
    if kind is Kind.NULL:
        return "text"
    if column_type == "VARCHAR":
        return _as_text(kind)
    if column_type == "JSON":
        return _as_json(kind)
    if column_type in ("FLOAT", "DOUBLE"):
        return _as_float(arrow_type, kind, column_type)
    if column_type.startswith("DECIMAL("):
        return _as_decimal(arrow_type, kind, column_type)
    return _as_other(arrow_type, kind, column_type)


def _as_text(kind: Kind) -> str | None:
    if kind is Kind.BINARY:
        return None
    return "json" if kind in (Kind.NESTED, Kind.MIXED) else "text"


def _as_json(kind: Kind) -> str | None:
    if kind not in _JSON_KINDS:
        return None
    return "text" if kind in (Kind.JSON, Kind.TEXT) else "json"


def _as_float(arrow_type: pa.DataType, kind: Kind, column_type: str) -> pa.DataType | str | None:
    form = _float_type(column_type)
    if kind in _WHOLE:
        return form
    if kind is Kind.FLOAT:
        return form if column_type == "DOUBLE" or arrow_type != pa.float64() else None
    exact = (
        kind is Kind.DECIMAL and column_type == "DOUBLE" and decimal_digits(arrow_type)[0] <= _EXACT_DIGITS
    )
    return "digits" if exact else None


def _as_decimal(arrow_type: pa.DataType, kind: Kind, column_type: str) -> pa.DataType | str | None:
    if kind in (Kind.INTEGER, Kind.UNSIGNED):
        return "as it is"  # DuckDB refuses what does not fit
    precision, scale = map(int, re.findall(r"\d+", column_type))
    if kind is Kind.DECIMAL and decimal_digits(arrow_type)[1] <= scale:
        return pa.decimal128(precision, scale)
    return None


def _as_other(arrow_type: pa.DataType, kind: Kind, column_type: str) -> pa.DataType | str | None:
    if (
        column_type.endswith("[]")
        and kind is Kind.NESTED
        and not isinstance(arrow_type, pa.StructType | pa.MapType)
    ):
        item = _travels(arrow_type.value_type, column_type[:-2])
        return pa.list_(item) if isinstance(item, pa.DataType) else _same_list(item, arrow_type)
    if column_type == "INTERVAL":
        if kind is Kind.DURATION:
            return pa.duration("us")
        return "as it is" if kind is Kind.INTERVAL else None
    if column_type == "UUID":
        return "text" if kind in (Kind.UUID, Kind.TEXT) else None
    if column_type == "HUGEINT":
        return "as it is" if kind in (Kind.INTEGER, Kind.UNSIGNED) else None
    if column_type.startswith("ENUM("):
        return "text" if kind is Kind.TEXT else None
    return None


def _same_list(item: str | None, arrow_type: pa.DataType) -> str | None:
    """A list travels as it is where its items need no more than DuckDB's own, exact cast."""
    is_text = kind_of(arrow_type.value_type) is Kind.TEXT
    return "as it is" if item == "as it is" or (item == "text" and is_text) else None
