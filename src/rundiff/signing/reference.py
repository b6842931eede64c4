"""The specification of signatures, one value at a time (design section 3, format version 1).

The encoding is RFC 8949's core deterministic encoding (section 4.2.1) with the numeric reduction of
the dCBOR profile; times follow RFC 9581 (tags 1001 and 1002), dates RFC 8943 (tag 100), decimals
and big integers RFC 8949 section 3.4. Every other signer must agree with this module on every value.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from rundiff.signing.values import Day, Duration, Interval, Timestamp

__all__ = ["NULL", "UnsignableValue", "encode", "head", "number", "signature"]

NULL = b"\xf6"
_NAN = b"\xf9\x7e\x00"
_INFINITY = b"\xf9\x7c\x00"
_MINUS_INFINITY = b"\xf9\xfc\x00"

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = range(7)
"""Major types of RFC 8949, section 3.1."""

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_NANOSECONDS_PER_UNIT = {"W": 604_800 * 10**9, "D": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9} | {
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}


class UnsignableValue(ValueError):
    """A value that has no signature; `field` is the top-level field that holds it, where known."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"field {field!r}: {reason}")
        self.reason = reason
        self.field = field


def signature(
    record: Mapping[str, Any], fields: Iterable[str] | None = None, key: bytes | None = None
) -> bytes:
    """Sign one record: 32 bytes, SHA-256 of its encoding, or HMAC-SHA-256 (RFC 2104) under `key`.

    Only `fields` count (None: all fields of the record); a field that is null or missing counts the
    same. The order of fields does not matter. Raises `UnsignableValue` that names the field.
    """
    names = record.keys() if fields is None else set(fields)
    message = _map((name, record.get(name)) for name in names)
    if key is None:
        return hashlib.sha256(message).digest()
    return hmac.digest(key, message, "sha256")


def encode(value: Any) -> bytes:
    """Encode one value; raises `UnsignableValue`.

    Takes None, bool, int, float, Decimal, str, bytes, date, datetime, time, timedelta, UUID, lists,
    tuples, mappings, NumPy scalars and arrays, pandas' Timestamp and Timedelta, and the values of
    `rundiff.signing.values`. Not-a-time values of NumPy and pandas are null.
    """
    try:
        return _encode(value)
    except RecursionError:
        raise UnsignableValue("the value is nested too deeply to be signed; flatten it") from None


def _encode(value: Any) -> bytes:  # noqa: PLR0911, PLR0912 - one branch per row of the specification's table
    if value is None:
        return NULL
    if isinstance(value, bool):
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return number(value, 0)
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        return head(_BYTES, len(raw)) + raw
    if isinstance(value, UUID):
        return _text(str(value))
    if isinstance(value, Timestamp | datetime):
        return _timestamp(value)
    if isinstance(value, Day | date):
        return head(_TAG, 100) + number(_daynumber(value), 0)
    if isinstance(value, Duration | time | timedelta):
        return _duration(value)
    if isinstance(value, Interval | pa.MonthDayNano):
        parts = (value.months, value.days, value.nanoseconds)
        return head(_TAG, 1002) + _array(parts)
    if isinstance(value, Mapping):
        return _map(value.items(), named=False)
    if isinstance(value, list | tuple):
        return _array(value)
    return _numpy(value)


def head(major: int, argument: int) -> bytes:
    """Give the head of a data item, its argument in the shortest form (RFC 8949, section 4.2.1)."""
    first = major << 5
    if argument < 24:
        return bytes((first | argument,))
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << (8 * width):
            return bytes((first | info,)) + argument.to_bytes(width, "big")
    raise UnsignableValue("the value is longer than 2^64 items")


def _integer(n: int) -> bytes:
    """An integer within [-2^64, 2^64) as such, any other as a bignum (tags 2 and 3)."""
    major, argument = (_UNSIGNED, n) if n >= 0 else (_NEGATIVE, -1 - n)
    if argument < 1 << 64:
        return head(major, argument)
    raw = argument.to_bytes((argument.bit_length() + 7) // 8, "big")
    return head(_TAG, 2 if n >= 0 else 3) + head(_BYTES, len(raw)) + raw


def number(mantissa: int, exponent: int) -> bytes:
    """Encode mantissa * 10^exponent: a CBOR integer when whole and within 64 bits, else tag 4."""
    if mantissa == 0:
        return head(_UNSIGNED, 0)
    if 0 <= exponent <= 20:
        whole = mantissa * 10**exponent
        if -(1 << 63) <= whole < 1 << 64:
            return _integer(whole)
    while mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
        if exponent == 0 and -(1 << 63) <= mantissa < 1 << 64:
            return _integer(mantissa)
    return head(_TAG, 4) + head(_ARRAY, 2) + _integer(exponent) + _integer(mantissa)


def _decimal(value: Decimal) -> bytes:
    if value.is_nan():
        return _NAN
    if value.is_infinite():
        return _INFINITY if value > 0 else _MINUS_INFINITY
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - only NaN and infinities have letters here
    return number(int(Decimal((sign, digits, 0))), exponent)


def _float(value: float) -> bytes:
    if math.isnan(value):
        return _NAN
    if value.is_integer() and -(2.0**63) <= value < 2.0**64:
        return _integer(int(value))
    for first, layout in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(layout, value)
        except OverflowError:
            continue
        if struct.unpack(layout, packed)[0] == value:
            return first + packed
    return b"\xfb" + struct.pack(">d", value)


def _text(value: str) -> bytes:
    try:
        raw = value.encode("utf-8")
    except UnicodeEncodeError:
        raise UnsignableValue(
            "the text holds a lone surrogate, which has no UTF-8 form; mend the text"
        ) from None
    return head(_TEXT, len(raw)) + raw


def _array(values: Sequence[Any]) -> bytes:
    return head(_ARRAY, len(values)) + b"".join(map(_encode, values))


def _map(items: Iterable[tuple[Any, Any]], named: bool = True) -> bytes:
    """A map without its null members, keys in bytewise order of their encoding.

    `named` is true for records: their keys are texts, and errors name the field.
    """
    members: dict[bytes, bytes] = {}
    for key, value in items:
        if named:
            if not isinstance(key, str):
                raise UnsignableValue(
                    f"a field name must be text, not {type(key).__name__}; rename the field"
                )
            try:
                encoded_key, encoded = _text(key), encode(value)
            except UnsignableValue as error:
                raise UnsignableValue(error.reason, key) from None
        else:
            encoded_key, encoded = _encode(key), _encode(value)
        if encoded_key == NULL:
            raise UnsignableValue("a map has a null key; give every member a key")
        if encoded_key in members:
            raise UnsignableValue(f"a map holds the key {key!r} twice; make its keys unique")
        members[encoded_key] = encoded
    kept = sorted(item for item in members.items() if item[1] != NULL)
    return head(_MAP, len(kept)) + b"".join(key + value for key, value in kept)


def _seconds_and_nanoseconds(tag: int, total_nanoseconds: int) -> bytes:
    """The map of RFC 9581, section 3: {1: seconds, -9: nanoseconds}, -9 left out when 0."""
    seconds, nanoseconds = divmod(total_nanoseconds, 10**9)
    fraction = _integer(-9) + _integer(nanoseconds) if nanoseconds else b""
    opening = head(_TAG, tag) + head(_MAP, 2 if fraction else 1)
    return opening + _integer(1) + _integer(seconds) + fraction


def _timestamp(value: Timestamp | datetime) -> bytes:
    if isinstance(value, Timestamp):
        return _seconds_and_nanoseconds(1001, value.seconds * 10**9 + value.nanoseconds)
    if value != value:  # noqa: PLR0124 - pandas' NaT is a datetime that differs from itself
        return NULL
    day = value.toordinal() - _EPOCH_ORDINAL
    total = (day * 86_400 * 10**6 + _microseconds_of_day(value)) * 1_000 + getattr(value, "nanosecond", 0)
    return _seconds_and_nanoseconds(1001, total - _nanoseconds(value.utcoffset() or timedelta()))


def _duration(value: Duration | time | timedelta) -> bytes:
    if isinstance(value, Duration):
        return _seconds_and_nanoseconds(1002, value.seconds * 10**9 + value.nanoseconds)
    if isinstance(value, time):
        if value.tzinfo is not None:
            raise UnsignableValue(
                "a time of day with a time zone can't be signed; drop the zone or add the date"
            )
        return _seconds_and_nanoseconds(1002, _microseconds_of_day(value) * 1_000)
    return _seconds_and_nanoseconds(1002, _nanoseconds(value))


def _microseconds_of_day(value: time | datetime) -> int:
    return (value.hour * 3_600 + value.minute * 60 + value.second) * 10**6 + value.microsecond


def _nanoseconds(value: timedelta) -> int:
    microseconds = (value.days * 86_400 + value.seconds) * 10**6 + value.microseconds
    return microseconds * 1_000 + getattr(value, "nanoseconds", 0)  # pandas' Timedelta has these beside


def _daynumber(value: Day | date) -> int:
    return value.number if isinstance(value, Day) else value.toordinal() - _EPOCH_ORDINAL


def _numpy(value: Any) -> bytes:
    # A NumPy value can only exist where NumPy was imported: the reference need not import it.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.datetime64 | numpy.timedelta64):
            return _numpy_time(value, numpy)
        if isinstance(value, numpy.generic):
            plain = value.item()
            if not isinstance(plain, numpy.generic):
                return _encode(plain)
        if isinstance(value, numpy.ndarray) and value.ndim:
            return _array(list(value))
    raise UnsignableValue(
        f"a value of type {type(value).__name__} can't be signed; "
        f"bring it to a plain type, or exclude the field"
    )


def _numpy_time(value: Any, numpy: Any) -> bytes:
    """NumPy's times by their counts, since their `item()` turns nanoseconds into bare integers."""
    if numpy.isnat(value):
        return NULL
    unit, step = numpy.datetime_data(value.dtype)
    is_point = isinstance(value, numpy.datetime64)
    if is_point and unit in {"Y", "M", "W", "D"}:
        return _encode(Day(int(value.astype("datetime64[D]").astype("int64"))))
    if unit not in _NANOSECONDS_PER_UNIT:
        raise UnsignableValue(
            f"a {type(value).__name__} in units of {unit!r} can't be signed; bring it to ns"
        )
    count = int(value.astype("int64")) * step
    return _seconds_and_nanoseconds(1001 if is_point else 1002, count * _NANOSECONDS_PER_UNIT[unit])
