from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundiff.destinations.contract import Target
from rundiff.destinations.render import change_lines, json_text
from rundiff.destinations.spelling import iso_date, iso_timestamp
from rundiff.signing.mixed import encode
from rundiff.signing.values import Day, Duration, Interval, Timestamp
from rundiff.testing.batches import change_batch

TARGET = Target(sync_id="id", sync='a "b"', primary_key=("id",))


def rendered(values: Any, arrow_type: pa.DataType | None = None) -> list[str]:
    texts: list[str] = json_text(pa.array(values, arrow_type)).to_pylist()
    return texts


def test_a_line_is_the_contract() -> None:
    batch = change_batch([{"id": 7, "n": None}], "update", run=3, first=9)
    digest = batch.records.column("data_signature")[0].as_py().hex()
    assert change_lines(TARGET, batch).to_pylist() == [
        (
            '{"sync":"a \\"b\\"","run":3,"sequence":9,"action":"update","primary_key":{"id":7},'
            '"data":{"id":7,"n":null},"changed_fields":null,'
            f'"primary_key_signature":"{digest}","data_signature":"{digest}","idempotency_key":"id/3/9"}}\n'
        )
    ]


def test_changed_fields_and_unknown_data() -> None:
    records = change_batch([{"id": 1, "v": 1}, {"id": 2, "v": 2}], "delete").records
    columns = dict(zip(records.schema.names, records.columns, strict=True))
    columns["data"] = pa.array([None, {"id": 2, "v": 2}], columns["data"].type)
    columns["changed_fields"] = pa.array([["v", 'x"y'], []], pa.list_(pa.string()))
    columns["data_signature"] = pa.array([None, b"\xab" * 32], pa.binary(32))
    batch = change_batch([{"id": 1, "v": 1}], "delete")
    batch = type(batch)(run=1, first_sequence=1, action=batch.action, records=pa.record_batch(columns))
    first, second = (json.loads(line) for line in change_lines(TARGET, batch).to_pylist())
    assert (first["data"], first["changed_fields"], first["data_signature"]) == (None, ["v", 'x"y'], None)
    assert (second["data"], second["changed_fields"]) == ({"id": 2, "v": 2}, [])
    assert second["data_signature"] == "ab" * 32


def test_integers_beyond_two_to_the_53_are_text() -> None:
    edge = 2**53
    assert rendered([edge, -edge, edge + 1, -edge - 1, None]) == [
        *(str(edge), str(-edge), f'"{edge + 1}"', f'"{-edge - 1}"', "null")
    ]
    assert rendered([2**64 - 1, 5], pa.uint64()) == ['"18446744073709551615"', "5"]


def test_floats() -> None:
    assert rendered([1.0, 0.1, 1e300, math.nan, math.inf, -math.inf]) == [
        "1",
        "0.1",
        "1e+300",
        "null",
        "null",
        "null",
    ]
    assert [float(text) for text in rendered([0.1], pa.float32())] == [
        pa.array([0.1], pa.float32())[0].as_py()
    ]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_come_back(values: list[float]) -> None:
    assert [float(text) for text in rendered(values)] == values


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back(values: list[str]) -> None:
    assert [json.loads(text) for text in rendered(values, pa.string())] == values
    lines = "".join(rendered(values, pa.string()))
    assert "\n" not in lines
    assert "\r" not in lines


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=20, min_value=-(10**15), max_value=10**15)
    )
)
def test_decimals_are_their_digits(values: list[Decimal]) -> None:
    for value, text in zip(values, rendered(values, pa.decimal128(38, 20)), strict=True):
        assert Decimal(json.loads(text)) == value
        assert "E" not in text


@given(st.lists(st.datetimes()))
def test_timestamps_come_back(values: list[datetime]) -> None:
    naive = rendered(values, pa.timestamp("us"))
    assert [datetime.fromisoformat(json.loads(text)) for text in naive] == values
    zoned = [value.replace(tzinfo=UTC) for value in values]
    assert [
        datetime.fromisoformat(json.loads(text)) for text in rendered(zoned, pa.timestamp("us", "UTC"))
    ] == zoned


@given(st.dates())
def test_dates_by_arithmetic(value: date) -> None:
    days = value.toordinal() - date(1970, 1, 1).toordinal()
    assert iso_date(days) == value.isoformat()
    assert iso_timestamp(days * 86_400 + 3_661, 0) == f"{value.isoformat()}T01:01:01"


def test_times_beyond_the_calendar() -> None:
    assert rendered([2 * 10**9, -719_529], pa.date32()) == ['"5477784-01-06"', '"-0001-12-31"']
    assert rendered([10**12], pa.timestamp("s")) == ['"33658-09-27T01:46:40"']


def test_times_lose_trailing_zeros_alone() -> None:
    assert rendered([time(20, 0, 0), time(20, 0, 0, 500_000)], pa.time64("us")) == [
        '"20:00:00"',
        '"20:00:00.5"',
    ]
    assert rendered([timedelta(hours=1), timedelta(seconds=-1.5)], pa.duration("ms")) == [
        '"PT3600S"',
        '"-PT1.5S"',
    ]


def test_nested_values_follow_the_same_rules() -> None:
    struct = pa.struct(
        {"big": pa.list_(pa.int64()), "at": pa.timestamp("s"), "raw": pa.binary(), 'q"': pa.null()}
    )
    row = {"big": [2**60, None], "at": datetime(2024, 1, 1, tzinfo=UTC), "raw": b"ab", 'q"': None}
    array = pa.array([None, row, {"big": None}], struct)
    expected = '{"big":["1152921504606846976",null],"at":"2024-01-01T00:00:00","raw":"YWI=","q\\"":null}'
    assert json_text(array).to_pylist()[:2] == ["null", expected]
    assert json_text(array.slice(1, 1)).to_pylist() == [expected]
    assert rendered([{}, None], pa.struct([])) == ["{}", "null"]


def test_lists_and_maps_sliced() -> None:
    lists = pa.array([[1, 2], None, [], [3]], pa.list_(pa.int64()))
    assert json_text(lists.slice(1)).to_pylist() == ["null", "[]", "[3]"]
    pairs = pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int64(), 2))
    assert json_text(pairs.slice(1)).to_pylist() == ["null", "[3,4]"]
    maps = pa.array([[("a", 1)], None, [("b", None), ("c", 3)]], pa.map_(pa.string(), pa.int64()))
    assert json_text(maps.slice(1)).to_pylist() == ["null", '{"b":null,"c":3}']


def test_a_null_map_hides_its_entries() -> None:
    maps = pa.MapArray.from_arrays(
        pa.array([0, 1, 2]), pa.array(["hidden", "a"]), pa.array([9, 1]), mask=pa.array([True, False])
    )
    assert json_text(maps).to_pylist() == ["null", '{"a":1}']


def test_map_keys_are_text() -> None:
    assert rendered([[(1, True)], [(2, None)]], pa.map_(pa.int64(), pa.bool_())) == [
        '{"1":true}',
        '{"2":null}',
    ]
    keys = pa.map_(pa.struct({"a": pa.int64()}), pa.int64())
    assert rendered([[({"a": 1}, 2)]], keys) == ['{"{\\"a\\":1}":2}']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (2**53 + 1, '"9007199254740993"'),
        (10**30, '"1000000000000000000000000000000"'),
        (math.nan, "null"),
        (1.5, "1.5"),
        (Decimal("1.50"), '"1.5"'),
        ("a\n", '"a\\n"'),
        (b"ab", '"YWI="'),
        (date(2024, 2, 29), '"2024-02-29"'),
        (Day(2 * 10**9), '"5477784-01-06"'),
        (datetime(2024, 1, 1, 10, 0, 0, 500, tzinfo=UTC), '"2024-01-01T10:00:00.0005Z"'),
        (Timestamp(0, 1), '"1970-01-01T00:00:00.000000001Z"'),
        (timedelta(seconds=90), '"PT90S"'),
        (Duration(-1, 999_999_999), '"-PT0.000000001S"'),
        (Interval(1, 2, -3_000), '"P1M2DT-0.000003S"'),
        ([1, {"k": [2**60]}], '[1,{"k":["1152921504606846976"]}]'),
        ({"a": {"b": 1}}, '{"a":{"b":1}}'),
    ],
)
def test_mixed_values_follow_the_same_rules(value: Any, text: str) -> None:
    assert json_text(encode([value])).to_pylist() == [text]
