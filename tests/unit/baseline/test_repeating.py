"""Which fields a dictionary pays for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rundiff.baseline.columns import repeating_fields


def test_fields_that_repeat_values_are_named() -> None:
    numbers = np.arange(10_000)
    records = pa.record_batch(
        {
            "id": pa.array(numbers),
            "city": pa.array([f"city {n % 50}" for n in numbers]),
            "mail": pa.array([f"{n}@example.com" for n in numbers]),
            "mostly null": pa.array([n if n % 10 == 0 else None for n in numbers]),
            "tags": pa.array([["a"]] * 10_000),
            "half": pa.array(numbers % 5, pa.float16()),
        }
    )
    assert repeating_fields(records.to_struct_array()) == ["city", "mostly null", "half"]


def test_few_records_repeat_what_they_repeat() -> None:
    assert repeating_fields(pa.record_batch({"v": pa.array([1, 2])}).to_struct_array()) == []
    assert repeating_fields(pa.record_batch({"v": pa.array([1, 1])}).to_struct_array()) == ["v"]
    assert repeating_fields(pa.array([{"v": 1}]).slice(1)) == ["v"]
