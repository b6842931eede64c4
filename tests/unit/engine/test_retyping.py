"""Values of the write log under the types of now."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from rundiff.engine.retyping import changed_pins, retyped, retyped_struct
from rundiff.signing.mixed import MixedType, decode, encode

DAY = date(2024, 5, 1)


def signed_values(array: pa.Array) -> list[Any]:
    return decode(array) if isinstance(array.type, MixedType) else array.to_pylist()


@pytest.mark.parametrize(
    ("logged", "pin", "expected"),
    [
        (pa.array([10, None, 30]), "text", ["10", None, "30"]),
        (pa.array([1.5, 2.0]), "text", ["1.5", "2"]),
        (pa.array([Decimal("1.50")]), "text", ["1.50"]),
        (pa.array([True, False]), "text", ["true", "false"]),
        (pa.array([DAY]), "text", ["2024-05-01"]),
        (pa.array(["10", "A7", None]), "integer", [10, "A7", None]),
        (pa.array(["2024-05-01"]), "date", [DAY]),
        (pa.array([1, 2**60 + 1]), "double", [1, 2**60 + 1]),
        (pa.array([7]), "mixed", [7]),
        (pa.array([7]), "duration", [7]),
        (pa.array(["x"]), "duration", ["x"]),
        (pa.array([b"\xff"]), "text", [b"\xff"]),
        (pa.array([UUID(int=5).bytes], pa.uuid()), "text", [UUID(int=5)]),
        (pa.array([[1]]), "text", [[1]]),
        (pa.nulls(2), "text", [None, None]),
        (encode([10, "A7", None, True]), "text", ["10", "A7", None, "true"]),
        (encode([10, "A7", None]), "integer", [10, "A7", None]),
        (encode([datetime(1, 1, 1, tzinfo=UTC), 3]), "integer", [datetime(1, 1, 1, tzinfo=UTC), 3]),
    ],
)
def test_what_fits_is_spelled_anew_and_the_rest_stays(
    logged: pa.Array, pin: str, expected: list[Any]
) -> None:
    records = pa.RecordBatch.from_arrays([logged, logged], ["a", "b"])
    made = retyped(records, {"a": pin, "c": "text"})
    assert signed_values(made.column("a")) == expected
    assert made.column("b").equals(logged)


def test_the_nulls_of_a_struct_stay() -> None:
    data = pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", pa.int64()), ("b", pa.string())]))
    assert retyped_struct(data, {"a": "text"}).to_pylist() == [{"a": "1", "b": "x"}, None]
    assert retyped_struct(data, {"a": "integer", "b": "text"}) is data


def test_mixed_types_change_nothing() -> None:
    pins = {"a": "integer", "b": "mixed", "c": "text"}
    assert changed_pins(pins, {"a": "text", "b": "text", "c": "mixed", "d": "date"}) == {"a": "text"}
