"""Columns of mixed types (`rundiff.cbor`), value by value: each has a type of its own."""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from rundiff.destinations.spelling import iso_date, iso_duration, iso_interval, iso_timestamp
from rundiff.signing.values import Day, Duration, Interval, Timestamp

__all__ = ["SAFE_INTEGER", "decode", "mixed_json", "mixed_native"]

SAFE_INTEGER = 2**53
"""Integers up to this one are numbers on the stream, those beyond are strings (design section 7)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode(array: pa.Array) -> list[Any]:
    """Give the values of a `rundiff.cbor` column as Python values; null becomes None."""
    from rundiff.signing.mixed import decode as decode_values

    return decode_values(array)


def mixed_json(value: Any) -> str:
    """Give a decoded value as JSON text, by the rules of `rundiff.destinations.render.json_text`."""
    return msgspec.json.encode(_plain(value)).decode()


def mixed_native(value: Any) -> int | float | str | bytes | None:
    """Give a decoded value in a type that SQLite stores: 64-bit integer, double, text or binary.

    Larger integers and decimals become their digits, times ISO 8601, lists and maps JSON text; true
    is 1; NaN, which SQLite can't store, is None.
    """
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if value is None or isinstance(value, str | bytes):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    plain = _plain(value)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _plain(value: Any) -> Any:
    """Bring a value to what JSON has."""
    for types, convert in _PLAIN:
        if isinstance(value, types):
            return convert(value)
    raise TypeError(f"a value of the type {type(value).__name__} has no JSON form")


def _same(value: Any) -> Any:
    return value


def _integer(value: int) -> int | str:
    return value if abs(value) <= SAFE_INTEGER else str(value)


def _float(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _decimal(value: Decimal) -> str | None:
    return format(value, "f") if value.is_finite() else None


def _binary(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _datetime(value: datetime) -> str:
    since = value - _EPOCH
    return iso_timestamp(since.days * 86_400 + since.seconds, since.microseconds * 1_000) + "Z"


def _timedelta(value: timedelta) -> str:
    return iso_duration(value.days * 86_400 + value.seconds, value.microseconds * 1_000)


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {_key(key): _plain(member) for key, member in value.items()}


def _key(key: Any) -> str:
    plain = _plain(key)
    return plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()


def _sequence(value: list[Any] | tuple[Any, ...]) -> list[Any]:
    return [_plain(member) for member in value]


_Types = type[Any] | tuple[type[Any], ...]
_PLAIN: tuple[tuple[_Types, Callable[[Any], Any]], ...] = (
    ((type(None), bool, str), _same),
    (int, _integer),
    (float, _float),
    (Decimal, _decimal),
    (bytes, _binary),
    (datetime, _datetime),  # before date, which it is, too
    (date, lambda value: value.isoformat()),
    (timedelta, _timedelta),
    (Timestamp, lambda value: iso_timestamp(value.seconds, value.nanoseconds) + "Z"),
    (Duration, lambda value: iso_duration(value.seconds, value.nanoseconds)),
    (Day, lambda value: iso_date(value.number)),
    (Interval, lambda value: iso_interval(value.months, value.days, value.nanoseconds)),
    (Mapping, _mapping),
    ((list, tuple), _sequence),
)
