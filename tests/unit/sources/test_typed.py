"""Sources with types of their own: Parquet, Arrow, and tables in memory."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rundiff.errors import ConfigurationError, KeyFieldMissing, SourceError
from rundiff.sources.contract import ReadRequest
from rundiff.sources.typedreading import MAX_ROWS
from tests.unit.sources.reads import read_all


@pytest.mark.parametrize(
    ("array", "pin", "values"),
    [
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), "text", ["a", "b", None, "a"]),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"]), "text", ["x", "x", "y"]),
        (pa.array(["a", None], pa.string_view()), "text", ["a", None]),
        (pa.array([b"a"], pa.binary_view()), "binary", [b"a"]),
        (pa.array(["a"], pa.large_string()), "text", ["a"]),
        (pa.array([b"ab"], pa.binary(2)), "binary", [b"ab"]),
        (pa.array([1, None], pa.int8()), "integer", [1, None]),
        (pa.array([2**32 - 1], pa.uint32()), "integer", [2**32 - 1]),
        (pa.array([2**64 - 1], pa.uint64()), "unsigned", [2**64 - 1]),
        (pa.array([1.5], pa.float16()), "double", [1.5]),
        (pa.array([Decimal("1.50")], pa.decimal32(5, 2)), "decimal(5,2)", [Decimal("1.50")]),
        (pa.array([[1], None], pa.list_view(pa.int32())), "list<integer>", [[1], None]),
        (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), "list<integer>", [[1, 2]]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), "map<text, integer>", [[("k", 1)]]),
        (pa.array([dt.date(2024, 1, 1)], pa.date64()), "date", [dt.date(2024, 1, 1)]),
        (pa.array([dt.time(1, 2)], pa.time32("s")), "time(s)", [dt.time(1, 2)]),
        (pa.array([0], pa.timestamp("ms", "Europe/Berlin")), "timestamp(ms) with time zone", None),
        (pa.array([pa.MonthDayNano([1, 2, 3])]), "mixed", None),
        (pa.array([[pa.MonthDayNano([1, 2, 3])]]), "mixed", None),
        (pa.array(["{}"], pa.json_()), "json", ["{}"]),
        (pa.array([1], pa.int8()).cast(pa.bool8()), "boolean", [True]),
        (
            pa.array([{"a": "x"}], pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))])),
            "struct<a: text>",
            None,
        ),
    ],
)
def test_types_become_plain(array: pa.Array, pin: str, values: list[Any] | None) -> None:
    outcome = read_all(pa.table({"x": array}))
    assert outcome.pins == {"x": pin}
    if values is not None:
        assert [record["x"] for record in outcome.records] == values
    assert outcome.unreadable == []


def test_unions_and_unknown_extensions_are_refused_before_the_run() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    for array in (
        union,
        pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)).cast(pa.fixed_shape_tensor(pa.float64(), [2])),
    ):
        with pytest.raises(ConfigurationError, match="`odd`"):
            read_all(pa.table({"odd": array}))


@pytest.mark.parametrize(
    ("pinned", "array", "kept", "lost"),
    [
        ("integer", pa.array([1, 2], pa.int8()), [1, 2], []),
        ("integer", pa.array([3.0, 2.5]), [3], [2]),
        ("integer", pa.array(["1", None]), [None], [1]),
        ("double", pa.array([2**60, 2**60 + 1]), [float(2**60)], [2]),
        ("double", pa.array([Decimal("0.5"), Decimal("0.123456789012345678")]), [0.5], [2]),
        ("decimal(5,2)", pa.array([Decimal("1.500"), Decimal("1.505")]), [Decimal("1.50")], [2]),
        ("decimal(5,2)", pa.array([0.25, 0.125]), [Decimal("0.25")], [2]),
        (
            "timestamp",
            pa.array([1_000, 1_001], pa.timestamp("ns")),
            [dt.datetime(1970, 1, 1, 0, 0, 0, 1)],  # noqa: DTZ001 - Arrow gives naive ones
            [2],
        ),
        ("text", pa.array([1]), [], [1]),
        ("date", pa.array([dt.datetime(2024, 1, 1)]), [], [1]),  # noqa: DTZ001 - Arrow gives naive ones
        ("mixed", pa.array([1]), [1], []),
    ],
)
def test_pins_are_checked_by_family(pinned: str, array: pa.Array, kept: list[Any], lost: list[int]) -> None:
    outcome = read_all(pa.table({"x": array}), ReadRequest(pins={"x": pinned}))
    assert [record["x"] for record in outcome.records] == kept
    assert outcome.unreadable == [(f"row {row}", "x") for row in lost]
    assert outcome.pins == {"x": pinned}


def test_struct_that_gains_a_member_keeps_it() -> None:
    table = pa.table({"x": pa.array([[{"a": 1, "b": "new"}]])})
    outcome = read_all(table, ReadRequest(pins={"x": "list<struct<a: integer>>"}))
    assert outcome.records == [{"x": [{"a": 1, "b": "new"}]}]
    assert outcome.pins == {"x": "list<struct<a: integer, b: text>>"}


def test_asked_types_are_converted() -> None:
    table = pa.table({"zip": [94103], "amount": ["1.50"]})
    outcome = read_all(table, types={"zip": "text", "amount": "decimal(10,2)"})
    assert outcome.records == [{"zip": "94103", "amount": Decimal("1.50")}]


def test_parquet_with_pinned_types_passes_untouched(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array(range(MAX_ROWS + 5)), "name": pa.array(["x"] * (MAX_ROWS + 5))})
    pq.write_table(table, tmp_path / "a.parquet")
    outcome = read_all(tmp_path / "a.parquet")
    assert pa.Table.from_batches(outcome.batches) == table
    assert max(batch.num_rows for batch in outcome.batches) <= MAX_ROWS


def test_columns_without_values_have_no_pin() -> None:
    outcome = read_all(pa.table({"x": pa.nulls(2)}))
    assert outcome.pins == {}
    assert outcome.batches[0].schema.field("x").type == pa.string()


def test_one_huge_batch_is_sliced() -> None:
    outcome = read_all(pa.table({"x": pa.array(range(3 * MAX_ROWS))}))
    assert [batch.num_rows for batch in outcome.batches] == [MAX_ROWS] * 3


def test_polars_pandas_and_duckdb() -> None:
    frame = pl.DataFrame({"id": [1, 2], "kind": pl.Series(["a", "b"], dtype=pl.Categorical)})
    expected = [{"id": 1, "kind": "a"}, {"id": 2, "kind": "b"}]
    assert read_all(frame).records == expected
    pandas = pd.DataFrame({"id": [0, 1, 2], "kind": pd.Categorical(["x", "a", "b"])})
    assert read_all(pandas[pandas.id > 0]).records == expected
    assert read_all(pandas[pandas.id > 0].set_index("id")).records == [
        {"id": 1, "kind": "a"},
        {"id": 2, "kind": "b"},
    ]
    relation = duckdb.sql("select * from (values (1, 'a'), (2, 'b')) t(id, kind)")
    assert read_all(relation).records == expected


def test_reader_that_breaks_off_is_an_error() -> None:
    def batches() -> Any:
        yield pa.record_batch({"id": [1]})
        raise OSError("connection lost")

    reader = pa.RecordBatchReader.from_batches(pa.schema([("id", pa.int64())]), batches())
    with pytest.raises(SourceError, match="after 1 rows"):
        read_all(reader)


def test_key_and_names_are_checked_first() -> None:
    with pytest.raises(KeyFieldMissing, match="`id`"):
        read_all(pa.table({"x": [1]}), ReadRequest(primary_key=("id",)))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    with pytest.raises(SourceError, match="more than one field 'x'"):
        read_all(twice)
