"""`rundiff.cbor`: columns of mixed types, each value kept as its own encoding.

A field of mappings may hold a number in one row and a text in the next. Arrow has no plain type for
that, so such a column holds the deterministic encoding of each value (`rundiff.signing.reference`),
and signers embed these bytes as they are. The encoding keeps a value, not its Python type: a whole
float comes back as an integer, a UUID as text, a naive datetime as one in UTC, a time of day as a
timedelta.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import cbor2
import pyarrow as pa

from rundiff.signing.reference import NULL, UnsignableValue
from rundiff.signing.reference import encode as encode_value
from rundiff.signing.values import Day, Duration, Interval, Timestamp

__all__ = ["MixedType", "decode", "encode"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MixedType(pa.ExtensionType):  # type: ignore[misc]  # pyarrow is untyped
    """The extension type `rundiff.cbor` over `binary`; a null stays an Arrow null."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "rundiff.cbor")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> MixedType:
        return cls()


def _register() -> None:
    try:
        pa.register_extension_type(MixedType())
    except pa.ArrowKeyError:  # registered already: the module was imported anew
        pa.unregister_extension_type("rundiff.cbor")
        pa.register_extension_type(MixedType())


_register()


def encode(values: Iterable[Any]) -> pa.ExtensionArray:
    """Encode Python values, one by one, into a `rundiff.cbor` array; None becomes null.

    Raises `UnsignableValue` at the first value that has no encoding; `encode` of
    `rundiff.signing.reference` finds out which.
    """
    items = map(encode_value, values)
    storage = pa.array([None if item == NULL else item for item in items], pa.binary())
    return pa.ExtensionArray.from_storage(MixedType(), storage)


def decode(array: pa.ExtensionArray) -> list[Any]:
    """Give the values of a `rundiff.cbor` array as Python values; null becomes None.

    Points in time come as datetimes in UTC, durations and times of day as timedeltas, dates as dates,
    numbers of tag 4 as Decimals; what does not fit these (nanoseconds, far years) as the values of
    `rundiff.signing.values`. Raises `UnsignableValue` if the bytes are no encoding.
    """
    return [None if item is None else _decode_one(item) for item in array.storage.to_pylist()]


def _decode_one(item: bytes) -> Any:
    try:
        return cbor2.loads(item, semantic_decoders=_DECODERS)
    except (cbor2.CBORError, KeyError, TypeError, ValueError) as error:
        raise UnsignableValue(f"a rundiff.cbor value is damaged ({error}); write the column anew") from None


def _decimal(parts: Any, _immutable: bool) -> Decimal:
    exponent, mantissa = parts
    sign, digits, _ = Decimal(mantissa).as_tuple()
    return Decimal((sign, digits, exponent))


def _timestamp(parts: Any, _immutable: bool) -> datetime | Timestamp:
    seconds, nanoseconds = parts[1], parts.get(-9, 0)
    if nanoseconds % 1_000 == 0:
        try:
            return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1_000)
        except OverflowError:
            pass
    return Timestamp(seconds, nanoseconds)


def _duration(parts: Any, _immutable: bool) -> timedelta | Duration | Interval:
    if isinstance(parts, list | tuple):
        return Interval(*parts)
    seconds, nanoseconds = parts[1], parts.get(-9, 0)
    if nanoseconds % 1_000 == 0:
        try:
            return timedelta(seconds=seconds, microseconds=nanoseconds // 1_000)
        except OverflowError:
            pass
    return Duration(seconds, nanoseconds)


def _date(number: Any, _immutable: bool) -> date | Day:
    try:
        return _EPOCH.date() + timedelta(days=number)
    except OverflowError:
        return Day(number)


_DECODERS = {4: _decimal, 100: _date, 1001: _timestamp, 1002: _duration}
