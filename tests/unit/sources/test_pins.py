from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.errors import ConfigurationError
from rundiff.sources.pins import ALIASES, arrow_type_of, canonical_pin, pin_of

SCALARS = st.sampled_from(
    [
        pa.int64(),
        pa.uint64(),
        pa.float64(),
        pa.string(),
        pa.binary(),
        pa.bool_(),
        pa.date32(),
        pa.uuid(),
        pa.json_(),
    ]
    + [pa.decimal128(38, 2), pa.decimal128(1, 0), pa.decimal256(76, 76), pa.decimal256(40, 3)]
    + [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
    + [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")]
    + [pa.duration(unit) for unit in ("s", "ms", "us", "ns")]
)
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        st.tuples(inner, inner).map(lambda pair: pa.map_(*pair)),
        st.dictionaries(st.text(max_size=6), inner, max_size=3).map(
            lambda members: pa.struct(list(members.items()))
        ),
    ),
    max_leaves=6,
)


@given(TYPES)
def test_name_of_a_type_parses_back(data_type: pa.DataType) -> None:
    pin = pin_of(data_type)
    assert pin is not None
    assert arrow_type_of(pin) == data_type


@pytest.mark.parametrize("alias", ALIASES)
def test_aliases_mean_pins(alias: str) -> None:
    assert canonical_pin(alias.upper()) == ALIASES[alias]


@pytest.mark.parametrize(
    ("given", "pin"),
    [
        ("VARCHAR(20)", "text"),
        ("numeric( 10, 2 )", "decimal(10,2)"),
        ("Timestamp(3) with time zone", "timestamp(ms) with time zone"),
        ("timestamp(6)", "timestamp"),
        ("list < int >", "list<integer>"),
        ("mixed", "mixed"),
    ],
)
def test_spellings(given: str, pin: str) -> None:
    assert canonical_pin(given) == pin


@pytest.mark.parametrize(
    "wrong",
    ["", "integr", "list<", "list<integer", "decimal(77,2)", "decimal(3,4)", "time with time zone", "text>"],
)
def test_unknown_types_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="type"):
        arrow_type_of(wrong)


def test_types_without_values_have_no_pin() -> None:
    assert pin_of(pa.null()) is None
    assert pin_of(pa.list_(pa.null())) is None
    assert pin_of(pa.struct([("a", pa.null())])) is None
