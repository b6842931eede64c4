"""Conditions: what they say of records, and what is none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from rundiff.compare.marks import holds, matches_all, named_fields
from rundiff.engine.conditions import parse_condition
from rundiff.errors import ConfigurationError
from rundiff.signing.mixed import encode

RECORDS = pa.RecordBatch.from_pylist(
    [
        {"d": None, "s": "x", "n": 1, "b": True, "t": None, "Odd name": 1.5},
        {"d": "2024", "s": None, "n": None, "b": None, "t": None, "Odd name": None},
        {"d": None, "s": "it's", "n": 5, "b": False, "t": None, "Odd name": 2.0},
    ]
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("d is not null", [1]),
        ("d is null and s = 'x'", [0]),
        ("s = 'it''s'", [2]),
        ("s != 'x'", [2]),
        ("s <> 'x' or s is null", [1, 2]),
        ("not (n = 1)", [2]),
        ("b", [0]),
        ("not b", [2]),
        ("b = 'true'", [0]),
        ("1 = n", [0]),
        ("n = '5'", [2]),
        ("n = 1.5", []),
        ("n <> 1180591620717411303424", [0, 2]),
        ('"Odd name" = 2', [2]),
        ("t = 1 or missing = 1", []),
        ("missing is null", [0, 1, 2]),
    ],
)
def test_conditions(text: str, rows: list[int]) -> None:
    marked = holds(parse_condition(text), RECORDS)
    assert [row for row, found in enumerate(marked.tolist()) if found] == rows


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n >",
        "n > 3",
        "lower(s) = 'x'",
        "read_text('/etc/passwd') = 'x'",
        "n = (select 1)",
        "n = 1; drop table t",
        "n = 1 group by n",
        "1 = 1",
        "a.b = 1",
        "n = null",
        "n = m",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ConfigurationError, match="deleted_when can't be"):
        parse_condition(text)


def test_the_fields_that_a_condition_names() -> None:
    assert list(named_fields(parse_condition("a = 1 and not (b is null or c)"))) == ["a", "b", "c"]


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the field n, which holds int64 values, with 'many'"):
        holds(parse_condition("n = 'many'"), RECORDS)


def test_fields_of_mixed_types_compare_as_they_are_signed() -> None:
    mixed: Any = encode([1.0, "1", None])
    records = pa.RecordBatch.from_arrays([mixed], ["m"])
    assert holds(parse_condition("m = 1"), records).tolist() == [True, False, False]
    assert holds(parse_condition("m = '1'"), records).tolist() == [False, True, False]


def test_all_values_must_be_those_of_one_record() -> None:
    assert matches_all({"n": 5, "s": "it's"}, RECORDS, "sentinel")
    assert not matches_all({"n": 5, "s": "x"}, RECORDS, "sentinel")
