"""Pinned types: the names that are shown and stored, and the Arrow types that they stand for.

| pin | Arrow type of every delivered batch |
|---|---|
| `integer`, `unsigned`, `double` | int64, uint64, float64 |
| `decimal(p,s)` | decimal128 up to 38 digits, else decimal256 up to 76 |
| `text`, `binary`, `boolean` | string, binary, bool |
| `date` | date32 |
| `time`, `timestamp`, `timestamp with time zone`, `duration` | in microseconds; the zone is UTC |
| the same with `(s)`, `(ms)` or `(ns)`, as in `timestamp(ns) with time zone` | in that unit |
| `uuid`, `json` | `arrow.uuid`, `arrow.json` |
| `mixed` | `rundiff.cbor`: each value's own dCBOR encoding |
| `list<PIN>`, `struct<NAME: PIN, ...>`, `map<PIN, PIN>` | list, struct, map of those |

A field name of a struct that is not a plain word stands in double quotes, doubled inside.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Any

import pyarrow as pa

from rundiff.errors import ConfigurationError

__all__ = ["ALIASES", "arrow_type_of", "canonical_pin", "pin_of"]

ALIASES = {
    "bigint": "integer",
    "int": "integer",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "integer",
    "long": "integer",
    "smallint": "integer",
    "tinyint": "integer",
    "ubigint": "unsigned",
    "uint": "unsigned",
    "uint64": "unsigned",
    "float": "double",
    "float32": "double",
    "float64": "double",
    "double precision": "double",
    "real": "double",
    "decimal": "decimal(38,9)",
    "numeric": "decimal(38,9)",
    "char": "text",
    "str": "text",
    "string": "text",
    "utf8": "text",
    "varchar": "text",
    "blob": "binary",
    "bytea": "binary",
    "bytes": "binary",
    "varbinary": "binary",
    "bool": "boolean",
    "date32": "date",
    "datetime": "timestamp",
    "timestamptz": "timestamp with time zone",
    "timestamp without time zone": "timestamp",
    "interval": "duration",
    "jsonb": "json",
}
"""Other spellings that `--types` takes, and what they mean."""

_SIMPLE: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "unsigned": pa.uint64(),
    "double": pa.float64(),
    "text": pa.string(),
    "binary": pa.binary(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "uuid": pa.uuid(),
    "json": pa.json_(),
}
_WORDS = (*_SIMPLE, "decimal(38,2)", "time", "timestamp", "timestamp with time zone", "duration", "mixed")
_DECIMAL = re.compile(r"(?:decimal|numeric)\((\d+)(?:,(\d+))?\)")
_TEMPORAL = re.compile(r"(time|timestamp|timestamptz|duration)(?:\((s|ms|us|ns|[0-9])\))?( with time zone)?")
_DIGITS_TO_UNIT = {"0": "s", "1": "ms", "2": "ms", "3": "ms", "4": "us", "5": "us", "6": "us"}
_PLAIN_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def pin_of(data_type: pa.DataType) -> str | None:  # noqa: PLR0912 - one branch per row of the table
    """Name the pin of an Arrow type that `plain.plain_type` gave.

    None for a type that holds no value yet (null, or a nested type with null in it), which is not
    pinned before its first value comes. Raises `ConfigurationError` for types that have no pin.
    """
    kind = pa.types
    if kind.is_null(data_type):
        return None
    for word, simple in _SIMPLE.items():
        if data_type == simple:
            return word
    pin: str | None = None
    if isinstance(data_type, pa.BaseExtensionType):
        pin = "mixed" if data_type.extension_name == "rundiff.cbor" else None
    elif kind.is_decimal(data_type):
        pin = f"decimal({data_type.precision},{data_type.scale})"
    elif kind.is_time(data_type):
        pin = "time" + _unit_suffix(data_type)
    elif kind.is_duration(data_type):
        pin = "duration" + _unit_suffix(data_type)
    elif kind.is_timestamp(data_type):
        pin = "timestamp" + _unit_suffix(data_type) + (" with time zone" if data_type.tz else "")
    elif kind.is_list(data_type):
        inner = pin_of(data_type.value_type)
        return inner and f"list<{inner}>"
    elif kind.is_map(data_type):
        key, item = pin_of(data_type.key_type), pin_of(data_type.item_type)
        return f"map<{key}, {item}>" if key and item else None
    elif kind.is_struct(data_type):
        members = [(member.name, pin_of(member.type)) for member in data_type]
        if any(inner is None for _, inner in members):
            return None
        return "struct<" + ", ".join(f"{_quoted(name)}: {inner}" for name, inner in members) + ">"
    if pin is None:
        raise ConfigurationError(
            f"Values of the Arrow type {data_type} can't be compared; convert them first."
        )
    return pin


@lru_cache(maxsize=4096)
def arrow_type_of(pin: str) -> pa.DataType:
    """Give the Arrow type in which values of a pin are delivered.

    Takes the aliases of `--types` too. Raises `ConfigurationError` with a suggestion for a name
    that means nothing.
    """
    return _Parser(pin).whole()


def canonical_pin(name: str) -> str:
    """Bring a name that a person gave (`VARCHAR`, `numeric(10,2)`) to the pin it means."""
    pin = pin_of(arrow_type_of(name))
    if pin is None:
        raise ConfigurationError(f"`{name}` is not a type that a field can be pinned to.")
    return pin


def _unit_suffix(data_type: Any) -> str:
    return "" if data_type.unit == "us" else f"({data_type.unit})"


def _quoted(name: str) -> str:
    return name if _PLAIN_WORD.fullmatch(name) else '"' + name.replace('"', '""') + '"'


class _Parser:
    """A recursive descent over the nested forms; words and their aliases are looked up whole."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def whole(self) -> pa.DataType:
        data_type = self._pin()
        self._skip_space()
        if self._at != len(self._text):
            raise self._unknown(self._text)
        return data_type

    def _pin(self) -> pa.DataType:
        self._skip_space()
        nested = re.compile(r"(list|struct|map)\s*<", re.IGNORECASE).match(self._text, self._at)
        if nested is None:
            return self._word()
        self._at = nested.end()
        kind = nested.group(1).lower()
        if kind == "list":
            data_type = pa.list_(self._pin())
        elif kind == "map":
            key = self._pin()
            self._expect(",")
            data_type = pa.map_(key, self._pin())
        else:
            data_type = self._struct()
        self._expect(">")
        return data_type

    def _struct(self) -> pa.DataType:
        members: list[pa.Field] = []
        while not self._peek(">"):
            if members:
                self._expect(",")
            name = self._name()
            self._expect(":")
            members.append(pa.field(name, self._pin()))
        return pa.struct(members)

    def _name(self) -> str:
        self._skip_space()
        quoted = re.compile(r'"((?:[^"]|"")*)"|([^:,<>"]+)').match(self._text, self._at)
        if quoted is None:
            raise self._unknown(self._text)
        self._at = quoted.end()
        return str(quoted.group(2)).strip() if quoted.group(1) is None else quoted.group(1).replace('""', '"')

    def _word(self) -> pa.DataType:
        start = self._at
        found = re.compile(r"[^<>(),:]*(?:\([^)]*\))?[^<>(),:]*").match(self._text, start)
        word = found.group() if found else ""
        self._at = start + len(word)
        return self._scalar(word)

    def _scalar(self, word: str) -> pa.DataType:
        name = re.sub(r"\s*([(),])\s*", r"\1", " ".join(word.lower().split()))
        name = re.sub(r"\)(?=\w)", ") ", name)
        name = ALIASES.get(name, name)
        if name in _SIMPLE:
            return _SIMPLE[name]
        if name == "mixed":
            from rundiff.signing.mixed import MixedType

            return MixedType()
        if re.fullmatch(r"(?:var)?char\(\d+\)", name):
            return pa.string()
        if decimal := _DECIMAL.fullmatch(name):
            return self._decimal(word, int(decimal.group(1)), int(decimal.group(2) or 0))
        if temporal := _TEMPORAL.fullmatch(name):
            return self._temporal(word, *temporal.groups())
        raise self._unknown(word.strip())

    def _decimal(self, word: str, precision: int, scale: int) -> pa.DataType:
        if not 1 <= precision <= 76 or scale > precision:
            raise ConfigurationError(
                f"`{word.strip()}` is not a decimal type: it takes 1 to 76 digits, and no more of them after the point."
            )
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)

    def _temporal(self, word: str, kind: str, unit: str | None, zone: str | None) -> pa.DataType:
        unit = "us" if unit is None else _DIGITS_TO_UNIT.get(unit, "ns") if unit.isdigit() else unit
        if kind == "timestamptz":
            kind, zone = "timestamp", zone or "UTC"
        if kind == "timestamp":
            return pa.timestamp(unit, "UTC" if zone else None)
        if zone:
            raise self._unknown(word.strip())
        if kind == "duration":
            return pa.duration(unit)
        return pa.time32(unit) if unit in {"s", "ms"} else pa.time64(unit)

    def _unknown(self, word: str) -> ConfigurationError:
        known = [*_WORDS, *ALIASES]
        close = difflib.get_close_matches(word.lower(), known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else "known are: " + ", ".join(_WORDS) + ", list<...>."
        return ConfigurationError(f"`{word}` is not a type; {hint}")

    def _skip_space(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _peek(self, sign: str) -> bool:
        self._skip_space()
        return self._text.startswith(sign, self._at)

    def _expect(self, sign: str) -> None:
        if not self._peek(sign):
            raise self._unknown(self._text)
        self._at += len(sign)
