"""Reading the write log back in batches of one size, however it is cut into row groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from rundiff.baseline.order import SIGNATURE
from rundiff.engine import log
from rundiff.engine.log import CREATES, DELETES, LogWriter, change_batches, log_schema
from rundiff.testing.databases import SEALED

ID = pa.struct([("id", pa.int64())])


def records(numbers: range) -> pa.RecordBatch:
    ids = pa.StructArray.from_arrays([pa.array(numbers, pa.int64())], names=["id"])
    signatures = pa.array([number.to_bytes(32) for number in numbers], SIGNATURE)
    changed = pa.nulls(len(numbers), pa.list_(pa.string()))
    return pa.RecordBatch.from_arrays([signatures, signatures, ids, ids, changed], schema=log_schema(ID, ID))


@pytest.mark.parametrize(
    ("size", "creates"),
    [(1, [1] * 17), (4, [4, 4, 4, 4, 1]), (5, [5, 5, 5, 2]), (7, [7, 7, 3]), (17, [17]), (100, [17])],
)
def test_batches_have_one_size_over_row_groups(tmp_path: Path, size: int, creates: list[int]) -> None:
    with LogWriter(tmp_path / DELETES) as writer:
        writer.write(records(range(2)))
    with LogWriter(tmp_path / CREATES) as writer:
        for part in (range(2, 7), range(7, 8), range(8, 14), range(14, 19)):
            writer.write(records(part))
    sealed = replace(SEALED, deletes=2, updates=0, creates=17, new_action="insert")
    for after in range(20):
        batches = list(change_batches(tmp_path, 1, sealed, size, after))
        read = [(b.first_sequence + i, id_) for b in batches for i, id_ in enumerate(ids(b.records))]
        assert read == [(number + 1, number) for number in range(after, 19)]
        if after == 2:
            assert [batch.records.num_rows for batch in batches] == creates


def test_batches_of_long_records_are_not_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LogWriter(tmp_path / CREATES) as writer:
        for start in range(0, 12, 3):
            writer.write(records(range(start, start + 3)))
    monkeypatch.setattr(log, "BATCH_BYTES", records(range(6)).nbytes + 100)
    sealed = replace(SEALED, deletes=0, updates=0, creates=12, new_action="insert")
    batches = list(change_batches(tmp_path, 1, sealed, 100))
    assert [batch.records.num_rows for batch in batches] == [6, 6]
    assert [(batch.first_sequence, ids(batch.records)[0]) for batch in batches] == [(1, 0), (7, 6)]


def test_of_a_large_log_what_compresses_well_is_compressed(tmp_path: Path) -> None:
    rows = log.ROW_GROUP
    chance = np.random.default_rng(7)
    signatures = pa.FixedSizeBinaryArray.from_buffers(
        SIGNATURE, rows, [None, pa.py_buffer(chance.bytes(32 * rows))]
    )
    key = pa.StructArray.from_arrays([pa.array(chance.integers(0, 1 << 62, rows))], names=["id"])
    texts = pc.binary_join_element_wise(
        key.field("id").cast(pa.string()), "some words that all records have", " "
    )
    data = pa.StructArray.from_arrays([key.field("id"), texts], names=["id", "note"])
    batch = pa.RecordBatch.from_arrays(
        [signatures, signatures, key, data, pa.nulls(rows, pa.list_(pa.string()))],
        schema=log_schema(key.type, data.type),
    )
    for name, written in (("large", batch), ("small", batch.slice(1))):
        with LogWriter(tmp_path / name) as writer:
            writer.write(written)
        [read] = log.read_log(tmp_path / name, rows)
        assert read.equals(written)
    large, small = (pq.read_metadata(tmp_path / name).row_group(0) for name in ("large", "small"))
    codecs = {
        large.column(at).path_in_schema: large.column(at).compression for at in range(large.num_columns)
    }
    assert codecs["primary_key_signature"] == codecs["data.id"] == "UNCOMPRESSED"
    assert codecs["data.note"] == "LZ4"
    assert small.column(0).compression == "LZ4"


def ids(batch: pa.RecordBatch) -> list[int]:
    found: list[int] = batch.column("data").field("id").to_pylist()
    return found
