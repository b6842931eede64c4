from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.signing.mixed import decode
from rundiff.signing.reference import encode
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest
from rundiff.sources.pythontypes import arrow_column
from rundiff.sources.rows import BATCH_ROWS
from tests.unit.sources.reads import read_all


def test_fields_are_the_union_over_all_rows() -> None:
    outcome = read_all([{"id": 1}, {"id": 2, "name": "Ada"}, {}, {"other": None}])
    assert outcome.records[1] == {"id": 2, "name": "Ada", "other": None}
    assert len(outcome.records) == 4
    assert outcome.pins == {"id": "integer", "name": "text"}


def test_generator_is_read_once_in_batches() -> None:
    def rows() -> Iterator[dict[str, int]]:
        for row in range(BATCH_ROWS + 1):
            yield {"id": row}

    outcome = read_all(rows())
    assert [batch.num_rows for batch in outcome.batches] == [BATCH_ROWS, 1]


def test_rows_that_are_no_records() -> None:
    outcome = read_all([{"id": 1}, 5, {2: "x"}, {"id": "\ud800"}, {"id": 3, "x": object()}, {"id": 4}])
    assert [record["id"] for record in outcome.records] == [1, 4]
    assert outcome.unreadable == [("row 2", None), ("row 3", None), ("row 4", "id"), ("row 5", "x")]
    assert outcome.pins["id"] == "integer"


AWARE = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("values", "pin"),
    [
        ([1, -1], "integer"),
        ([2**64 - 1, 0], "unsigned"),
        ([2**70, -1], "decimal(38,0)"),
        ([10**80], "mixed"),
        ([1, 2.5], "double"),
        ([2**60 + 1, 2.5], "mixed"),
        ([Decimal("1.50"), 2], "decimal(38,2)"),
        ([Decimal("0.5"), 0.5], "mixed"),
        ([Decimal("NaN")], "mixed"),
        ([True, False], "boolean"),
        ([True, 1], "mixed"),
        (["a", b"a"], "mixed"),
        ([dt.date(2024, 1, 1)], "date"),
        ([dt.date(2024, 1, 1), dt.datetime(2024, 1, 1)], "mixed"),  # noqa: DTZ001 - naive on purpose
        ([dt.datetime(2024, 1, 1)], "timestamp"),  # noqa: DTZ001 - naive on purpose
        ([dt.datetime(2024, 1, 1), AWARE], "timestamp with time zone"),  # noqa: DTZ001 - naive on purpose
        ([dt.time(12)], "time"),
        ([dt.timedelta(1)], "duration"),
        ([uuid.UUID(int=5)], "uuid"),
        ([[1], {"a": 1}], "mixed"),
        ([np.int32(1), np.int64(2)], "integer"),
        ([np.float32(0.5)], "double"),
        ([np.datetime64("2024-01-01"), None], "timestamp(s)"),
        ([pd.Timestamp("2024-01-01T00:00:00.123456789"), pd.NaT], "timestamp(ns)"),
        ([pd.NA, "x"], "text"),
    ],
)
def test_column_types(values: list[Any], pin: str) -> None:
    outcome = read_all([{"x": value} for value in values])
    assert outcome.pins == {"x": pin}
    assert outcome.unreadable == []


def test_naive_datetimes_count_as_utc() -> None:
    outcome = read_all([{"t": dt.datetime(2024, 1, 1)}, {"t": AWARE}])  # noqa: DTZ001 - naive on purpose
    assert [record["t"].hour for record in outcome.records] == [0, 10]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.decimals(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.lists(st.integers(), max_size=2),
)


@given(
    st.one_of(
        st.lists(VALUES, max_size=6), *[st.lists(one, max_size=6) for one in (st.integers(), st.decimals())]
    )
)
def test_columns_keep_every_value(values: list[Any]) -> None:
    array, unsignable = arrow_column(values)
    assert unsignable is None
    if getattr(array.type, "extension_name", "") == "rundiff.cbor":
        found = [item if item is not None else encode(None) for item in array.storage.to_pylist()]
    else:
        found = [encode(item) for item in array.to_pylist()]
    assert found == [encode(value) for value in values]


@pytest.mark.parametrize(
    ("pinned", "values", "widened"),
    [
        ("integer", [1.0, 2.0], "integer"),
        ("integer", [1.5], "double"),
        ("integer", [2**64 - 1], "decimal(38,0)"),
        ("integer", [Decimal("1.5")], "decimal(38,1)"),
        ("integer", ["x"], "mixed"),
        ("double", [1, 2], "double"),
        ("double", [2**60 + 1], "mixed"),
        ("double", [Decimal("0.5")], "mixed"),
        ("decimal(38,1)", [Decimal("1.25")], "decimal(38,2)"),
        ("decimal(38,1)", [0.5], "mixed"),
        ("boolean", [1], "mixed"),
        ("timestamp", [AWARE], "timestamp"),
        ("mixed", [1], "mixed"),
    ],
)
def test_pins_widen_and_no_row_is_lost(pinned: str, values: list[Any], widened: str) -> None:
    outcome = read_all([{"x": value} for value in values], ReadRequest(pins={"x": pinned}))
    assert outcome.pins == {"x": widened}
    assert outcome.unreadable == []
    assert [record["x"] for record in outcome.records] == [
        value.replace(tzinfo=None) - value.utcoffset() if isinstance(value, dt.datetime) else value
        for value in values
    ]


def test_asked_types_bind_rows_too() -> None:
    outcome = read_all([{"x": "5"}, {"x": 6}, {"x": "x"}][:1], types={"x": "integer"})
    assert outcome.records == [{"x": 5}]
    text = read_all([{"x": 5}], types={"x": "text"})
    assert text.records == [{"x": "5"}]


def test_nested_values_are_kept_as_they_are() -> None:
    rows = [{"x": {"a": 1}}, {"x": {"b": [None, "c"]}}, {"x": {}}]
    with open_source(rows).open(ReadRequest()) as reading:
        (batch,) = list(reading)
    assert decode(batch.records.column("x")) == [row["x"] for row in rows]
