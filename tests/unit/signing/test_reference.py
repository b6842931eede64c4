"""What the specification says of single values and records."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rundiff.signing import UnsignableValue, signature
from rundiff.signing.reference import encode
from rundiff.signing.values import Duration, Timestamp


def signed(value: Any) -> bytes:
    return signature({"value": value})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"id": ("a-b", "c")}, {"id": ("a", "b-c")}),
        ({"a": "a-b", "b": "c"}, {"a": "a", "b": "b-c"}),
        ({"a": "ab", "b": ""}, {"a": "a", "b": "b"}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": ""}, {"a": None}),
        ({"a": "1"}, {"a": 1}),
        ({"a": True}, {"a": 1}),
        ({"a": False}, {"a": None}),
        ({"a": {}}, {"a": None}),
        ({"a": []}, {"a": None}),
        ({"a": [None]}, {"a": []}),
        ({"a": b"x"}, {"a": "x"}),
        ({"a": date(2020, 1, 1)}, {"a": datetime(2020, 1, 1, tzinfo=UTC)}),
        ({"a": Decimal("0.5")}, {"a": 0.5}),
        ({"a": "\u00fc"}, {"a": "u\u0308"}),
        ({"a": 1}, {"b": 1}),
        ({"a": 2.0**64}, {"a": 2**64}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
    ],
)
def test_different_records_have_different_signatures(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    assert signature(one) != signature(other)


@pytest.mark.parametrize(
    "equal",
    [
        [1, 1.0, Decimal("1.00"), Decimal(1), np.int8(1), np.float16(1), np.uint64(1)],
        [0, -0.0, 0.0, Decimal("-0"), Decimal("0E+5"), Decimal("0.000")],
        [2**63, 2.0**63, Decimal(2**63), np.uint64(2**63)],
        [2**64, Decimal(2**64), Decimal("18446744073709551616.00")],
        [10**30, Decimal("1E+30"), Decimal("1000E+27")],
        [-(10**30), Decimal("-1.0E+30")],
        [0.5, np.float16(0.5), np.float32(0.5)],
        [math.nan, -math.nan, np.float32("nan"), Decimal("NaN"), Decimal("sNaN123"), Decimal("-NaN")],
        [math.inf, Decimal("Infinity"), np.float16("inf")],
        [None, np.datetime64("NaT"), np.timedelta64("NaT"), pd.NaT],
        ["a", np.str_("a")],
        [b"a", bytearray(b"a"), memoryview(b"a"), np.bytes_(b"a")],
        [True, np.bool_(True)],
        [[1, 2], (1, 2), np.array([1, 2]), [1.0, Decimal(2)]],
        [date(2020, 2, 1), np.datetime64("2020-02-01"), np.datetime64("2020-02", "M")],
        [
            datetime.fromisoformat("2020-01-01T12:00:00"),
            datetime(2020, 1, 1, 12, tzinfo=UTC),
            datetime(2020, 1, 1, 13, tzinfo=timezone(timedelta(hours=1))),
            np.datetime64("2020-01-01T12", "h"),
            np.datetime64("2020-01-01T12:00:00", "ns"),
            pd.Timestamp("2020-01-01 12:00"),
            Timestamp(1577880000),
        ],
        [Timestamp(0, 1), np.datetime64(1, "ns"), pd.Timestamp(1)],
        [timedelta(days=-1), np.timedelta64(-1, "D"), pd.Timedelta(-1, "D"), Duration(-86400)],
        [Duration(-1, 999_999_999), np.timedelta64(-1, "ns"), pd.Timedelta(-1, "ns")],
        [time(1, 2, 3), timedelta(hours=1, minutes=2, seconds=3)],
        [datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), Timestamp(253402318799, 999_999_000)],
    ],
    ids=lambda equal: f"{len(equal)} x {equal[0]}",
)
def test_equal_values_have_one_signature(equal: list[Any]) -> None:
    assert len({signed(value) for value in equal}) == 1


def test_null_is_missing_also_inside_maps() -> None:
    assert signature({"a": 1, "b": None}) == signature({"a": 1})
    assert signed({"x": 1, "y": None}) == signed({"x": 1})
    assert signed({"x": {"y": None}}) == signed({"x": {}})


def test_order_of_fields_means_nothing_and_fields_choose() -> None:
    record = {"b": 2, "a": 1, "c": 3}
    assert signature(record) == signature(dict(sorted(record.items())))
    assert signature(record, ["a", "b"]) == signature({"a": 1, "b": 2})
    assert signature(record, ["b", "a", "a", "absent"]) == signature({"a": 1, "b": 2})
    assert signature(record, []) == hashlib.sha256(b"\xa0").digest()


def test_a_key_makes_it_hmac() -> None:
    # RFC 2104 written out, for a key that is shorter than a block.
    key, message = b"k" * 20, bytes.fromhex("a1616101")
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()
    assert signature({"a": 1}, key=key) == outer
    assert signature({"a": 1}, key=key) != signature({"a": 1}, key=key + b"\1")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\ud800", "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
        ({float("nan"): 1, float("nan"): 2}, "twice"),
        ({None: 1}, "null key"),
        ({1, 2}, "set"),
        (object(), "object"),
        (1j, "complex"),
        (time(1, tzinfo=UTC), "time zone"),
        (np.timedelta64(1, "M"), "units of 'M'"),
        (np.datetime64(1, "ps"), "units of 'ps'"),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_has_no_signature_is_named(value: Any, reason: str) -> None:
    with pytest.raises(UnsignableValue, match=reason) as caught:
        signature({"fine": 1, "odd": value})
    assert caught.value.field == "odd"
    assert str(caught.value).startswith("field 'odd': ")
    assert isinstance(caught.value, ValueError)


def test_keys_that_sign_alike_are_duplicates_even_if_python_tells_them_apart() -> None:
    with pytest.raises(UnsignableValue, match="twice"):
        encode({_Spelled("1"): 1, "1": 2})


class _Spelled(str):
    """A text that Python's dict keeps beside an equal one."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return self is other


def test_map_keys_sort_by_their_encoding() -> None:
    assert (
        encode({0.25: "a", Decimal("0.1"): "b", 2: "c"}).hex()
        == "a302" + "6163" + "c48220" + "01" + "6162" + "f93400" + "6161"
    )


def test_field_names_are_texts() -> None:
    with pytest.raises(UnsignableValue, match="field name must be text, not int"):
        signature({1: 2})  # type: ignore[dict-item]
    with pytest.raises(UnsignableValue, match="lone surrogate"):
        signature({"\ud800": 2})


def test_endless_nesting_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsignableValue, match="nested too deeply") as caught:
        signature({"a": endless})
    assert caught.value.field == "a"


def test_huge_exponents_are_not_written_out() -> None:
    assert encode(Decimal("1E+999999")).hex() == "c4821a000f423f01"
    assert encode(Decimal("-1E-999999")).hex() == "c4823a000f423e20"
    assert encode(Decimal(10**5000 + 1))[:3].hex() == "c48200"
