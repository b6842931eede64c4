"""Which MySQL or MariaDB column keeps a field, and how its values are written there: as SQL literals.

Sources: https://dev.mysql.com/doc/refman/8.4/en/data-types.html, https://mariadb.com/kb/en/data-types/.
Where the strict mode would still round, cut or clip (fractions of a second, digits after the point,
trailing blanks), values are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.kinds import Kind, decimal_digits, kind_of
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import hex_text, plain_text
from rundiff.destinations.tables import Column, ExistingColumn
from rundiff.errors import RecordsRefused

__all__ = ["holds", "key_type_for", "literals", "told", "type_for"]

_TEXT = pa.large_string()
_EXACT_DIGITS = 15
"""Every decimal of so many digits comes back from a double unharmed (IEEE 754, DBL_DIG)."""
_MOST_DIGITS, _MOST_SCALE = 65, 30
_KEY_CHARACTERS = 760
"""An index takes 3,072 bytes, a character up to four of them."""
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896
"""0001-01-01 and 9999-12-31 in days since 1970-01-01."""
_DAY_US = 86_400_000_000
_UTF8 = "CHARACTER SET utf8mb4"
# Comments that only one of the two databases reads: a collation that compares byte by byte, trailing
# blanks included, has another name in each.
_EXACT = f"{_UTF8} /*M! COLLATE utf8mb4_nopad_bin */ /*!80017 COLLATE utf8mb4_0900_bin */"
_UUID = "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin"

_Form = Callable[[pa.Array], pa.Array]

_TYPES = {
    Kind.NULL: f"LONGTEXT {_UTF8}",
    Kind.BOOLEAN: "BOOLEAN",
    Kind.UNSIGNED: "BIGINT UNSIGNED",
    Kind.FLOAT: "DOUBLE",
    Kind.TEXT: f"LONGTEXT {_UTF8}",
    Kind.BINARY: "LONGBLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME(6)",
    # Not TIMESTAMP, which ends in 2038.
    Kind.TIMESTAMP: "DATETIME(6)",
    Kind.DURATION: f"VARCHAR(64) {_UTF8}",
    Kind.INTERVAL: f"VARCHAR(64) {_UTF8}",
    Kind.UUID: _UUID,
    # As it was written; MySQL's own type would order its members and respell its numbers.
    Kind.JSON: f"LONGTEXT {_UTF8}",
    Kind.NESTED: "JSON",
    Kind.MIXED: "JSON",
}
_INTEGERS = {
    pa.int8(): "TINYINT",
    pa.uint8(): "TINYINT UNSIGNED",
    pa.int16(): "SMALLINT",
    pa.uint16(): "SMALLINT UNSIGNED",
    pa.int32(): "INT",
    pa.uint32(): "INT UNSIGNED",
    pa.int64(): "BIGINT",
}


def type_for(arrow_type: pa.DataType) -> str:
    """Give the column type to create; lists, structs and maps are JSON."""
    kind = kind_of(arrow_type)
    if kind is Kind.INTEGER:
        return _INTEGERS[arrow_type]
    if kind is Kind.DECIMAL:
        precision, scale = decimal_digits(arrow_type)
        fits = precision <= _MOST_DIGITS and scale <= _MOST_SCALE
        return f"DECIMAL({precision},{scale})" if fits else _TYPES[Kind.TEXT]
    return _TYPES[kind]


def key_type_for(arrow_type: pa.DataType, fields: int) -> str:
    """Give the column type of a field of a key of so many fields: indexable, and compared exactly."""
    kind, length = kind_of(arrow_type), _KEY_CHARACTERS // fields
    if kind is Kind.BINARY:
        return f"VARBINARY({length})"
    wanted = type_for(arrow_type)
    return f"VARCHAR({length}) {_EXACT}" if wanted.startswith(("LONGTEXT", "VARCHAR")) else wanted


def holds(arrow_type: pa.DataType, column: ExistingColumn) -> bool:
    """Say whether a column keeps every value of a field, or refuses it with an error."""
    return _form(arrow_type, column.type) is not None


def literals(array: pa.Array, column: Column) -> pa.Array:
    """Spell values as SQL literals for a session without backslash escapes; raises `RecordsRefused`."""
    form = _form(array.type, column.type) or plain_text
    try:
        spelled = form(array)
    except pa.ArrowInvalid as error:
        raise RecordsRefused(
            f'The column "{column.name}" of the type {column.type} can\'t hold a value of the type {array.type} '
            "without changing it: change the column's type."
        ) from error
    return pc.fill_null(spelled, "NULL")


_TOLD = {
    # A float would be written with six digits.
    **dict.fromkeys(("float", "double"), "CAST({column} + 0e0 AS CHAR)"),
    "bit": "CAST({column} + 0 AS CHAR)",
    **dict.fromkeys(
        ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"),
        "CONCAT('\\x', HEX({column}))",
    ),
    **dict.fromkeys(
        ("char", "varchar", "tinytext", "text", "mediumtext", "longtext", "json", "enum", "set"),
        "CONVERT({column} USING utf8mb4)",
    ),
}


def told(column_type: str) -> str:
    """Say how a column is asked for its values as text (template); see `rundiff.destinations.readback`."""
    base = re.match(r"[a-z]+", column_type.lower())
    return _TOLD.get("" if base is None else base[0], "CAST({column} AS CHAR)")


def _form(arrow_type: pa.DataType, column_type: str) -> _Form | None:
    """Say how values of a field travel to a column; None where the column can't keep them."""
    kind, declared = kind_of(arrow_type), column_type.lower()
    base = re.match(r"[a-z]+", declared)
    forms = _FORMS.get(base[0], {}) if base is not None else {}
    measures = [int(n) for n in re.findall(r"\d+", declared.partition(" ")[0])]
    name = "" if base is None else base[0]
    if kind is Kind.NULL:
        return plain_text if forms else None
    form = forms.get(kind)
    if form is None or not _keeps(name, arrow_type, kind, measures):
        return None
    if forms is _TEXT_FORMS:
        return lambda array: _quoted(_unclipped(form(array), name, measures))
    return form


def _keeps(base: str, arrow_type: pa.DataType, kind: Kind, measures: list[int]) -> bool:
    """Say whether a type's measures leave the values as they are."""
    if base == "decimal":
        scale = measures[1] if len(measures) > 1 else 0
        return kind is not Kind.DECIMAL or decimal_digits(arrow_type)[1] <= scale
    if base in ("float", "double"):
        exact = kind is not Kind.DECIMAL or decimal_digits(arrow_type)[0] <= _EXACT_DIGITS
        return exact and not measures and (base == "double" or arrow_type in (pa.float16(), pa.float32()))
    if base in ("time", "datetime", "timestamp"):
        needed = {"s": 0, "ms": 3}.get(getattr(arrow_type, "unit", "s"), 6)
        return (measures[0] if measures else 0) >= needed
    if base == "binary":
        return pa.types.is_fixed_size_binary(arrow_type) and [arrow_type.byte_width] == measures
    return True


def _joined(*parts: pa.Array | str) -> pa.Array:
    pieces = [pa.scalar(part, _TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*pieces, pa.scalar("", _TEXT))


def _quoted(text: pa.Array) -> pa.Array:
    return _joined("'", pc.replace_substring(text, "'", "''"), "'")


_BYTES = {"tinytext": 2**8 - 1, "text": 2**16 - 1, "mediumtext": 2**24 - 1}


def _unclipped(text: pa.Array, base: str, measures: list[int]) -> pa.Array:
    """Refuse texts whose trailing blanks would be cut off, which no mode makes an error."""
    blank = pc.ends_with(text, " ")
    if base != "char":
        limit = measures[0] if base == "varchar" else _BYTES.get(base)
        if limit is None:
            return text
        long = pc.greater(pc.utf8_length(text) if base == "varchar" else pc.binary_length(text), limit)
        blank = pc.and_(blank, long)
    if pc.any(blank).as_py():
        raise pa.ArrowInvalid("trailing blanks")
    return text


def _digits(array: pa.Array) -> pa.Array:
    return pc.cast(pc.cast(array, pa.int8()) if pa.types.is_boolean(array.type) else array, _TEXT)


def _whole_float(array: pa.Array) -> pa.Array:
    # In quotes: a bare number with a point would be a decimal first.
    return _quoted(plain_text(pc.cast(array, pa.float64())))


def _floats(array: pa.Array) -> pa.Array:
    if not pc.all(pc.is_finite(pc.cast(array, pa.float64()))).as_py() and array.null_count < len(array):
        raise pa.ArrowInvalid("no finite number")
    return _quoted(plain_text(array))


def _spelled(array: pa.Array) -> pa.Array:
    return _quoted(plain_text(array))


def _json(array: pa.Array) -> pa.Array:
    text = json_text(array)
    return pc.if_else(array.is_valid(), text, pa.scalar(None, _TEXT)) if array.null_count else text


def _quoted_json(array: pa.Array) -> pa.Array:
    return _quoted(_json(array))


def _texts(array: pa.Array) -> pa.Array:
    return pc.cast(array, _TEXT)


def _quoted_texts(array: pa.Array) -> pa.Array:
    return _quoted(_texts(array))


def _binary(array: pa.Array) -> pa.Array:
    if pa.types.is_fixed_size_binary(array.type) and array.type.byte_width:
        return _joined("x'", hex_text(array), "'")
    # One by one: Arrow spells no bytes of various lengths in hex.
    return _joined("x'", pa.array([None if v is None else v.hex() for v in array.to_pylist()], _TEXT), "'")


def _within(counts: pa.Array, low: int, high: int) -> None:
    bounds = pc.min_max(counts)
    if (
        bounds["min"].as_py() is not None
        and not low <= bounds["min"].as_py() <= bounds["max"].as_py() <= high
    ):
        raise pa.ArrowInvalid("a year before 1 or after 9999")


def _dates(array: pa.Array) -> pa.Array:
    days = pc.cast(array, pa.date32())
    _within(pc.cast(days, pa.int32()), _FIRST_DAY, _LAST_DAY)
    return _spelled(days)


def _times(array: pa.Array) -> pa.Array:
    return _spelled(pc.cast(array, pa.time64("us")))


def _timestamps(array: pa.Array) -> pa.Array:
    naive = pc.cast(pc.cast(array, pa.timestamp(array.type.unit)), pa.timestamp("us"))
    _within(pc.cast(naive, pa.int64()), _FIRST_DAY * _DAY_US, (_LAST_DAY + 1) * _DAY_US - 1)
    return _quoted(pc.cast(naive, _TEXT))


_Forms = Mapping[Kind, _Form]
_INTEGER_FORMS: _Forms = {Kind.BOOLEAN: _digits, Kind.INTEGER: _digits, Kind.UNSIGNED: _digits}
_FLOAT_FORMS: _Forms = {
    Kind.BOOLEAN: _digits,
    Kind.INTEGER: _whole_float,
    Kind.UNSIGNED: _whole_float,
    Kind.FLOAT: _floats,
    Kind.DECIMAL: _spelled,
}
_TEXT_FORMS: _Forms = {
    **{kind: plain_text for kind in Kind if kind not in (Kind.BINARY, Kind.NESTED, Kind.MIXED, Kind.TEXT)},
    Kind.TEXT: _texts,
    Kind.NESTED: _json,
    Kind.MIXED: _json,
}
_BINARY_FORMS: _Forms = {Kind.BINARY: _binary}
_MOMENT_FORMS: _Forms = {Kind.TIMESTAMP: _timestamps}
_FORMS: Mapping[str, _Forms] = {
    **dict.fromkeys(("boolean", "tinyint", "smallint", "mediumint", "int", "bigint"), _INTEGER_FORMS),
    **dict.fromkeys(("float", "double"), _FLOAT_FORMS),
    **dict.fromkeys(("char", "varchar", "tinytext", "text", "mediumtext", "longtext"), _TEXT_FORMS),
    **dict.fromkeys(("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"), _BINARY_FORMS),
    "decimal": {**_INTEGER_FORMS, Kind.DECIMAL: _spelled},
    "date": {Kind.DATE: _dates},
    "time": {Kind.TIME: _times},
    "datetime": _MOMENT_FORMS,
    "timestamp": _MOMENT_FORMS,
    "uuid": {Kind.UUID: _spelled, Kind.TEXT: _quoted_texts},
    "json": {
        Kind.JSON: _spelled,
        Kind.TEXT: _quoted_texts,
        Kind.NESTED: _quoted_json,
        Kind.MIXED: _quoted_json,
    },
}
"""How each kind travels to each type of column, by the first word of the type."""
