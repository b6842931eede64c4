"""The specification against an independent encoder, and what its encodings decode to."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import cbor2
from hypothesis import given
from hypothesis import strategies as st

from rundiff.signing import mixed, signature
from rundiff.signing.reference import encode

SMALL = 2**63 - 1
# Where both must agree: cbor2 reduces no numbers, and orders keys by length first, so that only keys
# of one length stand in the order of their bytes in both.
names_of_one_length = st.text("abcdefgh", min_size=2, max_size=2)
agreed = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-SMALL, SMALL)
    | st.floats().filter(lambda value: not value.is_integer() or abs(value) > 2.0**64)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.text("abcdefgh", min_size=2, max_size=2),
            inner.filter(lambda member: member is not None),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(value=agreed)
def test_an_independent_encoder_agrees(value: Any) -> None:
    assert encode(value) == cbor2.dumps(value, canonical=True)


@given(record=st.dictionaries(st.text(max_size=20), agreed, max_size=30))
def test_records_are_maps_in_bytewise_order_of_encoded_names(record: dict[str, Any]) -> None:
    members = sorted((cbor2.dumps(name), value) for name, value in record.items() if value is not None)
    body = b"".join(name + cbor2.dumps(value, canonical=True) for name, value in members)
    head = cbor2.dumps([0] * len(members))[: -len(members) or None]
    message = bytes([head[0] + 0x20]) + head[1:] + body
    assert signature(record) == hashlib.sha256(message).digest()


@given(value=st.integers() | st.integers(-(2**70), 2**70) | st.integers(-30, 30).map(lambda n: n * 10**25))
def test_integers_decode_to_themselves(value: int) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    assert found == value


@given(value=st.floats(allow_nan=False))
def test_floats_decode_to_themselves(value: float) -> None:
    found = cbor2.loads(encode(value))
    assert found == value


@given(value=st.decimals(allow_nan=False))
def test_decimals_decode_to_themselves(value: Decimal) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    assert found == value


@given(value=st.decimals(allow_nan=False, allow_infinity=False), zeros=st.integers(0, 20))
def test_trailing_zeros_of_decimals_mean_nothing(value: Decimal, zeros: int) -> None:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    assert encode(Decimal((sign, digits + (0,) * zeros, exponent - zeros))) == encode(value)


@given(value=st.integers(-(2**63), 2**64 - 1))
def test_whole_numbers_sign_alike_in_every_type_that_holds_them(value: int) -> None:
    assert encode(Decimal(value)) == encode(value) == cbor2.dumps(value)
    if int(float(value)) == value:
        assert encode(float(value)) == encode(value)


@given(value=st.dates() | st.timedeltas())
def test_dates_and_durations_decode_to_themselves(value: Any) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    assert found == value


@given(
    value=st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())  # noqa: DTZ001 - bounds are naive
)
def test_points_in_time_decode_to_themselves_in_utc(value: datetime) -> None:
    (found,) = mixed.decode(mixed.encode([value]))
    # Python calls ambiguous local times unequal to every time of another zone: compare in UTC.
    assert found == value.astimezone(UTC)


key_values = st.none() | st.text("a-", max_size=3) | st.integers(-2, 2) | st.binary(max_size=2)
composite = st.lists(key_values, min_size=2, max_size=3)


@given(one=composite, other=composite)
def test_composite_keys_never_meet(one: list[Any], other: list[Any]) -> None:
    keys = [
        {f"k{place}": value for place, value in enumerate(key) if value is not None} for key in (one, other)
    ]
    assert (signature(keys[0]) == signature(keys[1])) == (keys[0] == keys[1])
