"""Row groups that were encoded side by side: one file like any other, whoever reads it."""

from __future__ import annotations

import io
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rundiff import rowgroups
from rundiff.rowgroups import RowGroups

ROWS = 5_000


def table(rows: int = ROWS) -> pa.Table:
    numbers = np.arange(rows)
    record = pa.StructArray.from_arrays(
        [
            pa.array(numbers),
            pa.array([None if n % 7 == 0 else f"text {n % 40}" for n in numbers.tolist()]),
            pa.array([[15] * (n % 3) for n in numbers.tolist()]),
        ],
        names=["id", "word", "list"],
        mask=pa.array(numbers % 11 == 0),
    )
    return pa.table({"number": numbers, "data": record, "none": pa.nulls(rows)})


def written(parts: list[tuple[pa.Table, int]], **options: object) -> bytes:
    stream = io.BytesIO()
    file = RowGroups(stream, parts[0][0].schema, options)
    for rows, most in parts:
        file.write(rows, most)
    file.end()
    return stream.getvalue()


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_many_row_groups_are_one_file(tmp_path: Path, compression: str) -> None:
    rows = table()
    options = {"compression": compression, "use_dictionary": ["data.word"], "write_page_checksum": True}
    content = written([(rows, 173), (rows.slice(0, 1), 173), (rows.slice(9), ROWS)], **options)
    path = tmp_path / "whole.parquet"
    path.write_bytes(content)
    expected = pa.concat_tables([rows, rows.slice(0, 1), rows.slice(9)])
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        assert file.read().equals(expected)
        assert file.num_row_groups == 31
        middle = file.read_row_group(17)
        assert middle.num_rows <= 173
        # The numbers are in order, so that the statistics of each row group are its own.
        statistics = file.metadata.row_group(17).column(0).statistics
        assert (statistics.min, statistics.max) == (middle["number"][0].as_py(), middle["number"][-1].as_py())
    counted = (
        duckdb.connect().execute(f"SELECT count(*), sum(number), count(data.word) FROM '{path}'").fetchone()
    )
    words = sum(1 for record in expected["data"].to_pylist() if record and record["word"])
    assert counted == (expected.num_rows, pc.sum(expected["number"]).as_py(), words)


def test_it_says_of_itself_what_arrows_own_file_says() -> None:
    rows = table().replace_schema_metadata({"owner": "a sync"})
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    ours, arrows = (
        pq.ParquetFile(io.BytesIO(content))
        for content in (written([(rows, ROWS)], compression="zstd"), sink.getvalue())
    )
    assert ours.schema_arrow.equals(arrows.schema_arrow, check_metadata=True)
    assert ours.schema.equals(arrows.schema)
    assert ours.metadata.created_by == arrows.metadata.created_by
    assert ours.metadata.format_version == arrows.metadata.format_version
    described = [
        [file.metadata.row_group(0).column(at).to_dict() for at in range(file.metadata.num_columns)]
        for file in (ours, arrows)
    ]
    for columns in described:
        for column in columns:
            column["encodings"] = set(column["encodings"])
    assert described[0] == described[1]


def test_floating_point_numbers_keep_their_least_and_greatest_value() -> None:
    rows = pa.table({"nested": [{"a": [1.5]}, {"a": [2.5]}]})
    column = pq.read_metadata(io.BytesIO(written([(rows, 1)]))).row_group(1).column(0)
    assert (column.statistics.min, column.statistics.max) == (2.5, 2.5)


def test_long_values_make_smaller_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowgroups, "GROUP_BYTES", 10_000)
    rows = pa.table({"text": ["x" * 1_000] * 95})
    metadata = pq.read_metadata(io.BytesIO(written([(rows, ROWS)])))
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [10] * 9 + [5]


def test_a_file_without_rows() -> None:
    assert pq.read_table(io.BytesIO(written([(table(0), ROWS)]))).equals(table(0))


def test_after_an_error_no_call_goes_on() -> None:
    stream = io.BytesIO()
    file = RowGroups(stream, table().schema, {})
    file.write(table(), ROWS)
    file.write(pa.table({"other": [1]}), ROWS)
    with pytest.raises(OSError, match="a row group can't be encoded"):
        _write_many(file)
    with pytest.raises(OSError, match="could not be written"):
        file.write(table(), ROWS)
    with pytest.raises(OSError, match="could not be written"):
        file.end()
    file.abandon()
    del file
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(stream.getvalue()))


def _write_many(file: RowGroups) -> None:
    for _ in range(9):
        file.write(table(), ROWS)


def test_an_abandoned_file_is_no_whole_one() -> None:
    stream = io.BytesIO()
    file = RowGroups(stream, table().schema, {})
    for _ in range(4):
        file.write(table(), ROWS)
    file.abandon()
    del file
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(stream.getvalue()))
