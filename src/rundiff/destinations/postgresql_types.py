"""Which PostgreSQL column keeps a field, and how its values travel there: as CSV for COPY.

Source: https://www.postgresql.org/docs/current/datatype.html, and `COPY` in the same manual. The session
is set to UTC and ISO dates. What a column can't keep is refused here or by the server, never rounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, decimal_digits, kind_of
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import hex_text, iso_date, plain_text
from rundiff.destinations.tables import Column, ExistingColumn
from rundiff.errors import RecordsRefused

__all__ = ["DAY_US", "FIRST_DAY", "LAST_DAY", "base_type", "holds", "told", "travels", "type_for", "wire"]

_TEXT = pa.large_string()
_EXACT_DIGITS = 15
"""Every decimal of so many digits comes back from a double unharmed (IEEE 754, DBL_DIG)."""
_MOST_DIGITS = 1_000
FIRST_DAY = -719_162
"""0001-01-01 in days since 1970-01-01: earlier dates are spelled with BC."""
DAY_US = 86_400_000_000
LAST_DAY = 2_932_896
"""9999-12-31."""
_LAST_US = 253_402_300_800_000_000
"""10000-01-01 in microseconds since 1970-01-01."""

_Form = Callable[[pa.Array], pa.Array]

_TYPES = {
    Kind.NULL: "text",
    Kind.BOOLEAN: "boolean",
    Kind.UNSIGNED: "numeric(20,0)",
    Kind.TEXT: "text",
    Kind.BINARY: "bytea",
    Kind.DATE: "date",
    Kind.TIME: "time without time zone",
    Kind.DURATION: "interval",
    Kind.INTERVAL: "interval",
    Kind.UUID: "uuid",
    # As it was written; jsonb would order its members and drop repeated ones.
    Kind.JSON: "json",
    Kind.NESTED: "jsonb",
    Kind.MIXED: "jsonb",
}
_INTEGERS = {
    pa.int8(): "smallint",
    pa.uint8(): "smallint",
    pa.int16(): "smallint",
    pa.uint16(): "integer",
    pa.int32(): "integer",
    pa.uint32(): "bigint",
    pa.int64(): "bigint",
}


def type_for(arrow_type: pa.DataType) -> str:
    """Give the column type to create: native ones, arrays of them, jsonb for what holds structs or maps."""
    kind = kind_of(arrow_type)
    if kind is Kind.INTEGER:
        return _INTEGERS[arrow_type]
    if kind is Kind.FLOAT:
        return "double precision" if arrow_type == pa.float64() else "real"
    if kind is Kind.DECIMAL:
        precision, scale = decimal_digits(arrow_type)
        return f"numeric({precision},{scale})" if precision <= _MOST_DIGITS else "numeric"
    if kind is Kind.TIMESTAMP:
        return f"timestamp {'without' if arrow_type.tz is None else 'with'} time zone"
    if kind is Kind.NESTED and not isinstance(arrow_type, pa.StructType | pa.MapType):
        item = arrow_type.value_type
        if kind_of(item) not in (Kind.NESTED, Kind.MIXED, Kind.JSON, Kind.NULL):
            return f"{type_for(item)}[]"
    return _TYPES[kind]


def holds(arrow_type: pa.DataType, column: ExistingColumn) -> bool:
    """Say whether a column keeps every value of a field, or refuses it with an error."""
    if column.enumerated:
        return kind_of(arrow_type) in (Kind.TEXT, Kind.NULL)
    return _form(arrow_type, column.type) is not None


def wire(array: pa.Array, column: Column) -> pa.Array:
    """Bring an array to a type whose CSV spelling the column reads; raises `RecordsRefused`."""
    form = _form(array.type, column.type) or plain_text  # a column that is none of ours is an enum
    try:
        return form(array)
    except pa.ArrowInvalid as error:
        raise RecordsRefused(
            f'The column "{column.name}" of the type {column.type} can\'t hold a value of the type {array.type} '
            "without changing it: change the column's type."
        ) from error


def travels(arrow_type: pa.DataType, column: Column) -> bool:
    """Say whether `wire` knows how values of a field get to a column of one of PostgreSQL's own types."""
    return _form(arrow_type, column.type) is not None


def base_type(column_type: str) -> str:
    """Give a type's name without measures and collation: `numeric` of `numeric(12,2)`."""
    return re.sub(r"\(.*?\)", "", column_type.partition(" COLLATE ")[0])


def told(column_type: str) -> str:
    """Say how a column is asked for its values as text (template); see `rundiff.destinations.readback`."""
    # As JSON, in which items can be told apart without PostgreSQL's own rules.
    return (
        "to_json({column})::text"
        if column_type.partition(" COLLATE ")[0].endswith("[]")
        else "{column}::text"
    )


def _form(arrow_type: pa.DataType, column_type: str) -> _Form | None:
    """Say how values of a field travel to a column; None where the column can't keep them."""
    kind, declared = kind_of(arrow_type), column_type.partition(" COLLATE ")[0]
    if declared.endswith("[]"):
        return _array_form(arrow_type, kind, declared[:-2])
    base = base_type(declared)
    digits = [int(number) for number in re.findall(r"\d+", declared)]
    if base not in _FORMS:
        return None
    if kind is Kind.NULL:
        return _text
    form = _FORMS[base].get(kind)
    if form is None or (base == "real" and kind is Kind.FLOAT and arrow_type == pa.float64()):
        return None
    if base == "numeric" and digits:
        fits = kind is not Kind.FLOAT and (
            kind is not Kind.DECIMAL or decimal_digits(arrow_type)[1] <= digits[1]
        )
        return form if fits else None
    if base == "double precision" and kind is Kind.DECIMAL:
        return form if decimal_digits(arrow_type)[0] <= _EXACT_DIGITS else None
    if digits and base.startswith(("time", "interval")):  # fewer digits of a second: it would round
        return form if kind is not Kind.INTERVAL and getattr(arrow_type, "unit", "us") == "s" else None
    return form


def _array_form(arrow_type: pa.DataType, kind: Kind, item_type: str) -> _Form | None:
    if kind is Kind.NULL:
        return _text
    if kind is not Kind.NESTED or isinstance(arrow_type, pa.StructType | pa.MapType):
        return None
    item = None if item_type.endswith("[]") else _form(arrow_type.value_type, item_type)
    return None if item is None else lambda array: _array_literals(array, item)


def _array_literals(array: pa.Array, item: _Form) -> pa.Array:
    """Spell lists as array literals (PostgreSQL manual, section 8.15.2), every item in quotes."""
    import numpy as np

    values = _text(item(array.flatten()))
    for character in ("\\", '"'):
        values = pc.replace_substring(values, character, "\\" + character)
    values = pc.fill_null(_joined('"', values, '"'), "NULL")
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    offsets = np.zeros(len(array) + 1, np.int64)
    np.cumsum(np.asarray(lengths), out=offsets[1:])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), values)
    text = _joined("{", pc.binary_join(lists, pa.scalar(",", _TEXT)), "}")
    return _masked(text, array)


def _joined(*parts: pa.Array | str) -> pa.Array:
    pieces = [pa.scalar(part, _TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*pieces, pa.scalar("", _TEXT))


def _masked(text: pa.Array, like: pa.Array) -> pa.Array:
    return pc.if_else(like.is_valid(), text, pa.scalar(None, _TEXT)) if like.null_count else text


def _text(array: pa.Array) -> pa.Array:
    return pc.cast(array, _TEXT)


def _as_it_is(array: pa.Array) -> pa.Array:
    return array


def _whole(array: pa.Array) -> pa.Array:
    return pc.cast(array, pa.int8()) if pa.types.is_boolean(array.type) else array


def _floats(array: pa.Array) -> pa.Array:
    return pc.cast(array, pa.float32()) if array.type == pa.float16() else array


def _to_float(array: pa.Array) -> pa.Array:
    return pc.cast(_whole(array), pa.float32())


def _to_double(array: pa.Array) -> pa.Array:
    return pc.cast(_whole(array), pa.float64())


def _widened(array: pa.Array) -> pa.Array:
    return pc.cast(array, pa.float64())


def _json(array: pa.Array) -> pa.Array:
    return _masked(json_text(array), array)


def _binary(array: pa.Array) -> pa.Array:
    if pa.types.is_fixed_size_binary(array.type) and array.type.byte_width:
        return _joined("\\x", hex_text(array))
    # One by one: Arrow spells no bytes of various lengths in hex.
    return pa.array([None if item is None else "\\x" + item.hex() for item in array.to_pylist()], _TEXT)


def _dates(array: pa.Array) -> pa.Array:
    days = pc.cast(array, pa.date32())
    bounds = pc.min_max(pc.cast(days, pa.int32()))
    if bounds["min"].as_py() is None or bounds["min"].as_py() >= FIRST_DAY:
        return plain_text(days)
    # One by one: dates before Christ are rare.
    counts = pc.cast(days, pa.int32()).to_pylist()
    return pa.array([None if day is None else _spelled_date(day) for day in counts], _TEXT)


def _spelled_date(days: int) -> str:
    date = iso_date(days)
    if days >= FIRST_DAY:
        return date
    return f"{1 - int(date[:-6]):04d}{date[-6:]} BC"  # the year 0 of ISO 8601 is 1 BC


def _times(array: pa.Array) -> pa.Array:
    return plain_text(pc.cast(array, pa.time64("us")))


def _timestamps(array: pa.Array) -> pa.Array:
    """Give microseconds, of which those beyond years of four digits are spelled one by one."""
    naive = pc.cast(pc.cast(array, pa.timestamp(array.type.unit)), pa.timestamp("us"))
    counts = pc.cast(naive, pa.int64())
    bounds = pc.min_max(counts)
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    if low is None or (low >= FIRST_DAY * DAY_US and high < _LAST_US):
        return naive
    return pa.array(
        [None if count is None else _spelled_moment(count) for count in counts.to_pylist()], _TEXT
    )


def _spelled_moment(count: int) -> str:
    days, rest = divmod(count, DAY_US)
    seconds, fraction = divmod(rest, 1_000_000)
    date, _, era = _spelled_date(days).partition(" ")
    time = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:06d}"
    return f"{date} {time} {era}".rstrip()


def _durations(array: pa.Array) -> pa.Array:
    counts = pc.cast(pc.cast(array, pa.duration("us")), pa.int64())
    return _joined(_text(counts), " microseconds")


def _intervals(array: pa.Array) -> pa.Array:
    # One by one: calendar intervals are rare, and Arrow has no arithmetic on them.
    texts: list[str | None] = []
    for item in array.to_pylist():
        if item is not None and item[2] % 1_000:
            raise pa.ArrowInvalid("nanoseconds in an interval")
        texts.append(
            None if item is None else f"{item[0]} months {item[1]} days {item[2] // 1_000} microseconds"
        )
    return pa.array(texts, _TEXT)


_Forms = Mapping[Kind, _Form]
_JSON_FORMS: _Forms = {Kind.JSON: plain_text, Kind.TEXT: _text, Kind.NESTED: _json, Kind.MIXED: _json}
_INTEGER_FORMS: _Forms = {Kind.BOOLEAN: _whole, Kind.INTEGER: _as_it_is, Kind.UNSIGNED: _as_it_is}
_TEXT_FORMS: _Forms = {
    **{kind: plain_text for kind in Kind if kind not in (Kind.BINARY, Kind.NESTED, Kind.MIXED, Kind.TEXT)},
    Kind.TEXT: _text,
    Kind.NESTED: _json,
    Kind.MIXED: _json,
}
_FORMS: Mapping[str, _Forms] = {
    "boolean": {Kind.BOOLEAN: _as_it_is},
    "smallint": _INTEGER_FORMS,
    "integer": _INTEGER_FORMS,
    "bigint": _INTEGER_FORMS,
    "numeric": {**_INTEGER_FORMS, Kind.DECIMAL: plain_text, Kind.FLOAT: _widened},
    "real": {Kind.BOOLEAN: _whole, Kind.INTEGER: _to_float, Kind.UNSIGNED: _to_float, Kind.FLOAT: _floats},
    "double precision": {
        Kind.BOOLEAN: _whole,
        Kind.INTEGER: _to_double,
        Kind.UNSIGNED: _to_double,
        Kind.FLOAT: _widened,
        Kind.DECIMAL: plain_text,
    },
    "text": _TEXT_FORMS,
    "character varying": _TEXT_FORMS,
    "citext": {Kind.TEXT: _text},
    "bytea": {Kind.BINARY: _binary},
    "date": {Kind.DATE: _dates},
    "time without time zone": {Kind.TIME: _times},
    "timestamp without time zone": {Kind.TIMESTAMP: _timestamps},
    "timestamp with time zone": {Kind.TIMESTAMP: _timestamps},
    "interval": {Kind.DURATION: _durations, Kind.INTERVAL: _intervals},
    "uuid": {Kind.UUID: plain_text, Kind.TEXT: _text},
    "json": _JSON_FORMS,
    "jsonb": _JSON_FORMS,
}
"""How each kind travels to each type of column, by the type's name without its measures."""
