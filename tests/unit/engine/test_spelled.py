"""Values as destinations spell them, read as their types; what can't be read is said, never taken for null."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from rundiff.engine.spelled import read_back

READ: list[tuple[str, str, Any]] = [
    ("integer", "-12", -12),
    ("integer", "5.0", 5),
    ("unsigned", "18446744073709551615", 2**64 - 1),
    ("double", "1e+20", 1e20),
    ("double", "1.50", 1.5),
    ("decimal(12,2)", "1.1", Decimal("1.10")),
    ("text", "", ""),
    ("binary", "\\x00FF", b"\x00\xff"),
    ("binary", "\\x", b""),
    ("boolean", "1", True),
    ("boolean", "f", False),
    ("date", "2024-02-29", date(2024, 2, 29)),
    ("timestamp with time zone", "2024-01-01 00:00:00+00", datetime(2024, 1, 1, tzinfo=UTC)),
    ("timestamp with time zone", "2024-01-01T00:00:00.500000Z", datetime(2024, 1, 1, 0, 0, 0, 500_000, UTC)),
    ("timestamp with time zone", "2024-01-01 00:00:00.000000", datetime(2024, 1, 1, tzinfo=UTC)),
    ("json", '{"a": 1.10}', '{"a": 1.10}'),
    ("list<integer>", "[1, null, 3]", [1, None, 3]),
    ("struct<a: double, b: list<text>>", '{"b":["x"],"a":1}', {"a": 1.0, "b": ["x"]}),
]
ODD = [
    ("integer", "abc"),
    ("integer", ""),
    ("integer", "1.5"),
    ("integer", "\\x31"),
    ("double", "Infinity"),
    ("decimal(4,2)", "1.239"),
    ("binary", "00ff"),
    ("binary", "\\xzz"),
    ("boolean", "2"),
    ("date", "2024-01-01 00:00:00"),
    ("timestamp", "2024-01-01 00:00:00+02"),
    ("timestamp", "infinity"),
    ("list<integer>", "[1"),
    ("list<integer>", "null"),
    ("list<integer>", '["1"]'),
    ("list<text>", "{}"),
    ("struct<a: integer>", '{"a": 1, "b": 2}'),
    ("struct<a: boolean>", '{"a": 1}'),
    ("duration", "PT1S"),
    ("map<text, integer>", "{}"),
    ("mixed", "1"),
]


def texts(*values: str | None) -> pa.RecordBatch:
    return pa.record_batch({"f": pa.array(values, pa.string())})


@pytest.mark.parametrize(("pin", "spelled", "value"), READ)
def test_a_spelling_is_read_as_its_type(pin: str, spelled: str, value: Any) -> None:
    back = read_back(texts(spelled, None), {"f": pin})
    assert back.records.column(0).to_pylist() == [value, None]
    assert not back.odd.any()
    assert not back.fields


@pytest.mark.parametrize(("pin", "spelled"), ODD)
def test_what_no_type_reads_is_odd(pin: str, spelled: str) -> None:
    back = read_back(texts(None, spelled, None), {"f": pin})
    assert back.odd.tolist() == [False, True, False]
    assert list(back.fields) == ["f"]


def test_a_field_that_never_had_a_value_has_none() -> None:
    assert read_back(texts("x", None), {}).odd.tolist() == [True, False]
    assert not read_back(texts(None, None), {}).odd.any()
