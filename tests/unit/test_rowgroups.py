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
from rundiff.rowgroups import RowGroup, RowGroups

ROWS = 5_000


def table(rows: int = ROWS) -> pa.Table:
    numbers = np.arange(rows)
    record = pa.StructArray.from_arrays(
        [
            pa.array(numbers),
            pa.array([None if n % 7 == 0 else f"text {n % 40}" for n in numbers.tolist()]),
            pa.array([[1.5] * (n % 3) for n in numbers.tolist()]),
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
    # Lists of 15 and more have longer heads in the footer.
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


def test_one_row_group_is_the_file_that_arrow_writes() -> None:
    rows = table()
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    assert written([(rows, ROWS)], compression="zstd") == sink.getvalue()


def test_long_values_make_smaller_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rowgroups, "GROUP_BYTES", 10_000)
    rows = pa.table({"text": ["x" * 1_000] * 95})
    metadata = pq.read_metadata(io.BytesIO(written([(rows, ROWS)])))
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == [10] * 9 + [5]


def test_after_an_error_the_file_has_none_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(400)
    stream = io.BytesIO()
    file = RowGroups(stream, rows.schema, {})
    file.write(rows, 100)
    encoded = RowGroups._encoded

    def refuse_the_last(self: RowGroups, part: pa.Table | None, schema: pa.Schema) -> pa.Buffer:
        if part is not None and part["number"][0].as_py() == 300:
            raise pa.ArrowInvalid("too long")
        return encoded(self, part, schema)

    with monkeypatch.context() as patch:
        patch.setattr(RowGroups, "_encoded", refuse_the_last)
        with pytest.raises(pa.ArrowInvalid, match="too long"):
            file.write(rows, 100)
    file.write(rows.slice(300), 100)
    file.end()
    back = pq.read_table(io.BytesIO(stream.getvalue()))
    assert back.equals(pa.concat_tables([rows, rows.slice(300)]))


def test_a_column_is_copied_from_another_file(tmp_path: Path) -> None:
    rows = table()
    path = tmp_path / "log.parquet"
    options = {"compression": "zstd", "use_dictionary": ["data.word"], "write_page_checksum": True}
    path.write_bytes(written([(rows.select(["data", "number"]), 700)], **options))
    stream = io.BytesIO()
    file = RowGroups(stream, rows.schema, {"compression": "zstd"})
    file.write(rows.slice(0, 10), ROWS)
    start = 0
    for group in range(8):
        here = rows.slice(start, 625)
        assert file.write_with(here, "data", RowGroup(path, group))
        start += 625
    file.write(rows.slice(0, 10), ROWS)
    file.end()
    with pq.ParquetFile(io.BytesIO(stream.getvalue()), page_checksum_verification=True) as back:
        assert back.read().equals(pa.concat_tables([rows.slice(0, 10), rows, rows.slice(0, 10)]))
        copied, stored = back.metadata.row_group(3), pq.read_metadata(path).row_group(2)
        assert copied.total_byte_size == sum(copied.column(at).total_uncompressed_size for at in range(5))
        for mine, theirs in zip(range(1, 4), range(3), strict=True):
            left, right = copied.column(mine), stored.column(theirs)
            assert left.path_in_schema == right.path_in_schema
            assert pages(stream.getvalue(), left) == pages(path.read_bytes(), right)
    other = tmp_path / "whole.parquet"
    other.write_bytes(stream.getvalue())
    counted = duckdb.connect().execute(f"SELECT count(*), count(data.word) FROM '{other}'").fetchone()
    assert counted == (ROWS + 20, sum(1 for one in back_words(rows) if one))


def pages(content: bytes, column: pq.ColumnChunkMetaData) -> bytes:
    start = column.dictionary_page_offset or column.data_page_offset
    return content[start : start + column.total_compressed_size]


def back_words(rows: pa.Table) -> list[str | None]:
    every = pa.concat_tables([rows.slice(0, 10), rows, rows.slice(0, 10)])["data"].to_pylist()
    return [record and record["word"] for record in every]


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        ({"data": pa.array([{"id": 1}])}, {}),
        ({"data": pa.array(["text"])}, {}),
        ({"else": pa.array([1])}, {}),
        ({"data": pa.array([{"id": "a"}, {"id": "b"}])}, {}),
        ({"data": pa.array([{"id": "a"}])}, {"compression": "lz4"}),
    ],
    ids=[
        "another type inside",
        "another type",
        "no such column",
        "other rows",
        "a compression that few read",
    ],
)
def test_what_is_stored_otherwise_is_not_copied(
    tmp_path: Path, stored: dict[str, pa.Array], options: dict[str, str]
) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table(stored), path, **options)
    rows = pa.table({"n": pa.array([1]), "data": pa.array([{"id": "a"}])})
    stream = io.BytesIO()
    file = RowGroups(stream, rows.schema, {})
    assert not file.write_with(rows, "data", RowGroup(path, 0))
    file.write(rows, 1)
    file.end()
    assert pq.read_table(io.BytesIO(stream.getvalue())).equals(rows)
