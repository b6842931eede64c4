"""Number types of text against an oracle that works on single values with Python's decimals."""

from __future__ import annotations

import re
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rundiff.sources.numbers import NumberGuess, fit_number
from rundiff.sources.spelling import spell

NUMBER = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
SPELLINGS = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(allow_nan=False, allow_infinity=False, places=3).map(str),
    st.from_regex(r"[-+]?[0-9]{0,20}\.?[0-9]{0,20}([eE][-+]?[0-9]{1,3})?", fullmatch=True),
    st.text("0123456789.-+eE ", max_size=6),
).filter(bool)


def guessed(texts: list[str]) -> str | None:
    guess = NumberGuess()
    for start in range(0, len(texts), 2):  # several batches, as when reading
        guess.add(pa.array(texts[start : start + 2], pa.string()))
    return guess.pin


def is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def double_keeps(text: str) -> bool:
    value = float(text)
    return value - value == 0 and Decimal(repr(value)) == Decimal(text)


@given(st.lists(SPELLINGS, min_size=1, max_size=8))
@example(["-0", "-0.0", "0.0"])
@example(["1e400", "1"])
def test_numbers_are_what_the_grammar_says(texts: list[str]) -> None:
    assert spell(pa.array(texts)).number.tolist() == [is_number(text) for text in texts]


@given(st.lists(SPELLINGS.filter(is_number), min_size=1, max_size=6))
@example(["9223372036854775807", "-9223372036854775808"])
@example(["18446744073709551615"])
@example(["18446744073709551616"])
@example(["9007199254740993"])
@example(["9007199254740993.0"])
@example(["0.1", "12345678901234567890123"])
def test_first_type_that_keeps_every_value_is_taken(texts: list[str]) -> None:
    values = [Decimal(text) for text in texts]
    pin = guessed(texts)
    if all(re.fullmatch(r"-?[0-9]+", text) for text in texts) and all(
        -(2**63) <= one < 2**63 for one in values
    ):
        assert pin == "integer"
    elif all(re.fullmatch(r"[0-9]+", text) for text in texts) and all(one < 2**64 for one in values):
        assert pin == "unsigned"
    elif all(map(double_keeps, texts)):
        assert pin == "double"
    else:
        assert pin is None or pin.startswith("decimal(")
    if pin is not None:
        from rundiff.sources.pins import arrow_type_of

        array, misfit = fit_number(pa.array(texts), arrow_type_of(pin))
        assert not misfit.any()
        kept = [Decimal(repr(one)) if isinstance(one, float) else Decimal(one) for one in array.to_pylist()]
        assert kept == values


@given(
    st.lists(SPELLINGS, min_size=1, max_size=6),
    st.sampled_from([pa.int64(), pa.uint64(), pa.float64(), pa.decimal128(10, 2), pa.decimal256(76, 30)]),
)
def test_value_fits_or_is_told(texts: list[str], data_type: pa.DataType) -> None:
    array, misfit = fit_number(pa.array(texts), data_type)
    assert array.type == data_type
    for text, found, bad in zip(texts, array.to_pylist(), misfit.tolist(), strict=True):
        if bad:
            assert found is None
            assert not is_number(text) or not fits(Decimal(text), text, data_type)
        else:
            assert (
                Decimal(repr(found)) == Decimal(text) if isinstance(found, float) else found == Decimal(text)
            )


def fits(value: Decimal, text: str, data_type: pa.DataType) -> bool:
    if data_type == pa.float64():
        return double_keeps(text)
    if data_type in (pa.int64(), pa.uint64()):
        low, high = (-(2**63), 2**63) if data_type == pa.int64() else (0, 2**64)
        return value == value.to_integral_value() and low <= value < high
    scaled = value.scaleb(data_type.scale)
    return scaled == scaled.to_integral_value() and abs(scaled) < Decimal(10) ** data_type.precision


@pytest.mark.parametrize(
    "text", ["007", "+1", " 1", "1 ", "1.", ".", "-", "1,5", "nan", "inf", "0x10", "1_000", "--1", "1-"]
)
def test_these_are_no_numbers(text: str) -> None:
    assert guessed([text]) is None
