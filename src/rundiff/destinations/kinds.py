"""What a field holds, seen from a destination: one kind for all Arrow types that are stored alike."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

import pyarrow as pa

from rundiff.errors import ConfigurationError

__all__ = ["Kind", "check_kinds", "decimal_digits", "kind_of"]


class Kind(Enum):
    """The kinds of values that a source may hand over (duty 2 of `rundiff.sources.contract`)."""

    NULL = auto()
    BOOLEAN = auto()
    INTEGER = auto()
    UNSIGNED = auto()
    """uint64 alone: half of its values are beyond the integers of most databases."""
    FLOAT = auto()
    DECIMAL = auto()
    TEXT = auto()
    BINARY = auto()
    DATE = auto()
    TIME = auto()
    TIMESTAMP = auto()
    DURATION = auto()
    INTERVAL = auto()
    UUID = auto()
    JSON = auto()
    NESTED = auto()
    MIXED = auto()
    """`rundiff.cbor`: each value has a type of its own."""


_EXTENSIONS = {"arrow.uuid": Kind.UUID, "arrow.json": Kind.JSON, "rundiff.cbor": Kind.MIXED}

_TESTS = (
    (pa.types.is_null, Kind.NULL),
    (pa.types.is_boolean, Kind.BOOLEAN),
    (pa.types.is_uint64, Kind.UNSIGNED),
    (pa.types.is_integer, Kind.INTEGER),
    (pa.types.is_floating, Kind.FLOAT),
    (pa.types.is_decimal, Kind.DECIMAL),
    (pa.types.is_string, Kind.TEXT),
    (pa.types.is_large_string, Kind.TEXT),
    (pa.types.is_string_view, Kind.TEXT),
    (pa.types.is_binary, Kind.BINARY),
    (pa.types.is_large_binary, Kind.BINARY),
    (pa.types.is_binary_view, Kind.BINARY),
    (pa.types.is_fixed_size_binary, Kind.BINARY),
    (pa.types.is_date, Kind.DATE),
    (pa.types.is_time, Kind.TIME),
    (pa.types.is_timestamp, Kind.TIMESTAMP),
    (pa.types.is_duration, Kind.DURATION),
    (pa.types.is_interval, Kind.INTERVAL),
    (pa.types.is_list, Kind.NESTED),
    (pa.types.is_large_list, Kind.NESTED),
    (pa.types.is_fixed_size_list, Kind.NESTED),
    (pa.types.is_struct, Kind.NESTED),
    (pa.types.is_map, Kind.NESTED),
)


def kind_of(arrow_type: pa.DataType) -> Kind:
    """Give the kind of an Arrow type; raises `ConfigurationError` for types that no source hands over."""
    name: Any = getattr(arrow_type, "extension_name", None)
    if name in _EXTENSIONS:
        return _EXTENSIONS[name]
    for test, kind in _TESTS:
        if test(arrow_type):
            return kind
    raise ConfigurationError(
        f"A destination can't take values of the Arrow type {arrow_type}: cast the field to a plain type."
    )


def check_kinds(fields: Mapping[str, pa.DataType]) -> None:
    """Refuse fields of types that no source hands over."""
    for arrow_type in fields.values():
        kind_of(arrow_type)


def decimal_digits(arrow_type: pa.DataType) -> tuple[int, int]:
    """Give precision and scale of a decimal type, both at least 0, precision at least scale."""
    precision, scale = arrow_type.precision, arrow_type.scale
    if scale < 0:
        return precision - scale, 0
    return max(precision, scale), scale
