"""Parquet files that the native reader can't decode, or not to their end: Arrow goes on, and says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rundiff.errors import SourceError
from rundiff.sources.columnar import NATIVE_ROWS
from tests.unit.sources.reads import read_all

ROWS = 2 * max(NATIVE_ROWS) + 10


def ids(path: Path) -> list[int]:
    return [record["id"] for record in read_all(path).records]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "lz4", "zstd", "brotli"])
def test_all_compressions_are_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(5000)}), path, compression=compression, row_group_size=700)
    assert ids(path) == list(range(5000))


def test_text_that_is_no_utf8_does_not_hide_the_records_around_it(tmp_path: Path) -> None:
    texts = pa.array([b"plain"] * (ROWS - 1) + [b"\xff"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), ROWS, texts.buffers())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": range(ROWS), "t": column}), path, row_group_size=1000)
    read: list[int] = []
    from rundiff.sources import open_source
    from rundiff.sources.contract import ReadRequest

    with open_source(path).open(ReadRequest()) as reading:
        for batch in reading:
            read += batch.records.column("id").to_pylist()
    assert read == list(range(ROWS))


def test_a_file_without_rows_is_empty_and_one_of_many_small_groups_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), path)
    assert ids(path) == []
    pq.write_table(pa.table({"id": range(100)}), path, row_group_size=1)
    assert ids(path) == list(range(100))


def test_times_in_the_old_spelling_of_96_bits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = pa.array([0, 86_400_000_000_001], pa.timestamp("ns"))
    pq.write_table(pa.table({"t": times}), path, use_deprecated_int96_timestamps=True)
    [batch] = read_all(path).batches
    assert batch.column("t").cast(pa.int64()).to_pylist() == [0, 86_400_000_000_001]


def test_a_page_that_was_damaged_fails_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"id": range(ROWS), "t": [f"text {n}" for n in range(ROWS)]})
    pq.write_table(table, path, compression="zstd", row_group_size=50_000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.parquet can't be read"):
        read_all(path)


def test_a_file_with_two_fields_of_one_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"]), path)
    with pytest.raises(SourceError, match="more than one field 'id'"):
        read_all(path)
