"""What the native core does in one pass says the same as the steps that it stands for."""

from __future__ import annotations

import contextlib
import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rundiff.baseline.columns import conform, is_flat
from rundiff.baseline.order import argsort, words
from rundiff.compare.seen import NativeSeen, PythonSeen
from rundiff.model import Match
from tests.property.signing_arrays import PLAIN_KINDS, build, optional

if os.environ.get("RUNDIFF_REQUIRE_NATIVE") == "1":
    native: Any = importlib.import_module("rundiff._native")
else:
    native = pytest.importorskip("rundiff._native", reason="the native core isn't built here")

FLAT_KINDS = [kind for kind in PLAIN_KINDS if is_flat(kind)]
COMPRESSIONS = ["none", "snappy", "gzip", "lz4", "zstd"]


def relaxed(examples: int) -> settings:
    """Settings for strategies that draw whole arrays."""
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


def values(column: pa.ChunkedArray) -> str:
    """All values as text, in which NaN is NaN; times as numbers, which Python can't all hold."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return str(column.to_pylist())


@st.composite
def flat_batches(draw: Any, min_rows: int = 0) -> pa.RecordBatch:
    """Batches of some flat fields, the first one with few values, so that keys repeat."""
    kinds = draw(st.lists(st.sampled_from(FLAT_KINDS), max_size=3))
    rows = draw(st.integers(min_rows, 20))
    columns = [pa.array(draw(st.lists(st.integers(0, 9), min_size=rows, max_size=rows)), pa.int64())]
    for kind in kinds:
        raws = draw(st.lists(optional(kind), min_size=rows, max_size=rows))
        columns.append(build(draw, kind, raws))
    return pa.RecordBatch.from_arrays(columns, [f"f{number}" for number in range(len(columns))])


def lookup_of(keys: pa.Array, data: pa.Array, flags: list[int]) -> Any:
    order = argsort(words(keys))
    distinct = [row for at, row in enumerate(order) if at == 0 or keys[row] != keys[order[at - 1]]]
    columns = [keys.take(pa.array(distinct, pa.int64())), data.take(pa.array(distinct, pa.int64()))]
    marks = pa.array([flags[row % len(flags)] for row in distinct], pa.uint8())
    names = ["primary_key_signature", "data_signature", "flags"]
    return native.Lookup([pa.RecordBatch.from_arrays([*columns, marks], names)] if distinct else [], [])


@relaxed(120)
@given(batch=flat_batches(), data=st.data())
def test_examining_is_signing_then_probing_then_marking(batch: pa.RecordBatch, data: Any) -> None:
    names = batch.schema.names
    key = data.draw(st.none() | st.binary(min_size=1, max_size=8))
    keys, content, bad = native.sign2(batch, names[:1], names, key)
    if bad:
        lookup = native.Lookup([], [])
        assert native.examine(lookup, batch, names[:1], names, key).unsignable == bad
        return
    keys, content = pa.array(keys), pa.array(content)
    held = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    changed = data.draw(st.booleans())
    rows = pa.array(np.flatnonzero(held), pa.int64())
    known = keys.take(rows), (keys if changed else content).take(rows)
    lookup = lookup_of(*known, flags=data.draw(st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1)))
    if data.draw(st.booleans()):
        lookup.prepare(1 << 40)
    first, second = NativeSeen(lookup.base_rows), PythonSeen(lookup.base_rows)
    for start in range(0, max(len(batch), 1), 7):
        part = batch.slice(start, 7)
        taken = first.core.take(native.examine(lookup, part, names[:1], names, key))
        probed = lookup.probe(keys.slice(start, 7), content.slice(start, 7))
        state, position = (column.to_numpy(zero_copy_only=False) for column in probed)
        kept = np.flatnonzero(second.take(state, position))
        assert taken[0].to_pylist() == kept.tolist()
        for column, whole in zip(taken[1:3], (keys, content), strict=True):
            assert column.to_pylist() == whole.slice(start, 7).take(pa.array(kept, pa.int64())).to_pylist()
        assert taken[3].to_pylist() == state[kept].tolist()
        assert taken[4].to_pylist() == position[kept].tolist()
    assert first.read.tolist() == second.read.tolist()
    assert first.implied.tolist() == second.implied.tolist()
    assert first.dropped_duplicates == second.dropped_duplicates


@relaxed(200)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.sampled_from(list(Match)), st.integers(0, 9)), max_size=12), max_size=6
    ),
    keep_all=st.booleans(),
)
def test_both_kinds_of_marks_agree(batches: list[list[tuple[Match, int]]], keep_all: bool) -> None:
    pair = NativeSeen(10, keep_all=keep_all), PythonSeen(10, keep_all=keep_all)
    for batch in batches:
        state = np.array([kind for kind, _ in batch], dtype=np.uint8)
        position = np.array([-1 if kind is Match.NEW else at for kind, at in batch], dtype=np.int64)
        one, other = (seen.take(state, position) for seen in pair)
        assert one.tolist() == other.tolist()
    assert pair[0].read.tolist() == pair[1].read.tolist()
    assert pair[0].implied.tolist() == pair[1].implied.tolist()
    assert pair[0].dropped_duplicates == pair[1].dropped_duplicates


@relaxed(120)
@given(
    batch=flat_batches(min_rows=1),
    layout=st.tuples(st.integers(1, 9), st.sampled_from(COMPRESSIONS), st.booleans(), st.sampled_from("12")),
    rows=st.integers(1, 8),
)
def test_parquet_files_are_read_as_arrow_reads_them(
    tmp_path_factory: Any, batch: pa.RecordBatch, layout: Any, rows: int
) -> None:
    group, compression, dictionary, version = layout
    path = tmp_path_factory.getbasetemp() / "native.parquet"
    try:
        pq.write_table(
            pa.Table.from_batches([batch]),
            path,
            row_group_size=group,
            compression=compression,
            use_dictionary=dictionary,
            data_page_version=f"{version}.0",
            data_page_size=64,
        )
    except (pa.ArrowException, OSError):
        assume(False)  # a value or type that Parquet can't hold
    expected = pq.read_table(path)
    schema = pa.schema([pa.field(field.name, field.type) for field in expected.schema])
    parts = list(native.ParquetReader(path, schema, rows))
    assert all(len(part) <= rows for part in parts)
    read = pa.Table.from_batches([pa.RecordBatch.from_struct_array(part) for part in parts], schema)
    read.validate(full=True)
    for name in schema.names:
        assert values(read.column(name)) == values(expected.column(name))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_column_of_long_texts_is_read_in_lanes(tmp_path: Path, version: str, *, dictionary: bool) -> None:
    """It weighs more than all others, so each core decodes batches of its own."""
    ids = np.arange(18_000)
    texts = [None if n % 13 == 0 else f"{n % 700} " * (400 + n % 300) for n in ids.tolist()]
    table = pa.table({"id": ids, "text": texts, "even": pa.array(ids % 2 == 0)})
    path = tmp_path / "long.parquet"
    pq.write_table(
        table, path, row_group_size=5_000, data_page_version=version, use_dictionary=["text"] * dictionary
    )
    batches = list(native.ParquetReader(path, table.schema, 4_096))
    assert [len(batch) for batch in batches] == [4_096] * 4 + [18_000 - 4 * 4_096]
    read = pa.Table.from_batches([pa.RecordBatch.from_struct_array(batch) for batch in batches])
    assert read.equals(table)


@relaxed(80)
@given(
    count=st.integers(1, 60),
    group=st.integers(1, 20),
    asked=st.lists(st.integers(0, 80), max_size=30),
    data=st.data(),
)
def test_records_are_found_by_signature(
    tmp_path_factory: Any, count: int, group: int, asked: list[int], data: Any
) -> None:
    def key(number: int) -> bytes:
        return number.to_bytes(4, "big") * 8

    path: Path = tmp_path_factory.getbasetemp() / "log.parquet"
    held = sorted(data.draw(st.sets(st.integers(0, 80), min_size=count // 2 + 1, max_size=count)))
    table = pa.table(
        {
            "primary_key_signature": pa.array([key(number) for number in held], pa.binary(32)),
            "data": pa.array([{"id": number, "name": f"n{number}"} for number in held]),
        }
    )
    # Keys repeat nowhere, and the write log never has a dictionary of them.
    pq.write_table(table, path, row_group_size=group, write_page_checksum=True, use_dictionary=False)
    wanted = sorted(set(asked))
    found = native.find_records(path, "data", pa.array([key(number) for number in wanted], pa.binary(32)))
    answer = {
        wanted[at]: record
        for hits, records in found
        for at, record in zip(hits.to_pylist(), records.to_pylist(), strict=True)
    }
    assert answer == {number: {"id": number, "name": f"n{number}"} for number in wanted if number in held}


@relaxed(150)
@given(
    batch=flat_batches(min_rows=1),
    layout=st.tuples(
        st.integers(1, 20),
        st.sampled_from(COMPRESSIONS),
        st.booleans(),
        st.sampled_from("112"),
        st.booleans(),
    ),
    data=st.data(),
)
def test_found_records_are_as_arrow_reads_them(
    tmp_path_factory: Any, batch: pa.RecordBatch, layout: Any, data: Any
) -> None:
    group, compression, dictionary, version, whole = layout
    path: Path = tmp_path_factory.getbasetemp() / "values.parquet"
    count = batch.num_rows
    missing = data.draw(st.lists(st.just(False) if whole else st.booleans(), min_size=count, max_size=count))
    records = pa.StructArray.from_arrays(
        batch.columns, fields=list(batch.schema), mask=None if whole else pa.array(missing)
    )
    keys = pa.array([number.to_bytes(32) for number in range(count)], pa.binary(32))
    try:
        pq.write_table(
            pa.table({"primary_key_signature": keys, "data": records}),
            path,
            row_group_size=group,
            compression=compression,
            use_dictionary=[f"data.{name}" for name in batch.schema.names] if dictionary else False,
            data_page_version=f"{version}.0",
            data_page_size=64,
            write_batch_size=data.draw(st.integers(1, 8)),
        )
    except (pa.ArrowException, OSError):
        assume(False)  # a value or type that Parquet can't hold
    wanted = pa.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    expected = pq.read_table(path, columns=["data"]).column(0).combine_chunks().take(wanted)
    try:
        found = native.find_records(path, "data", keys.take(wanted))
    except ValueError:
        assert version == "2"  # keys in pages that the write log does not have
        return
    assert [at for hits, _ in found for at in hits.to_pylist()] == list(range(len(wanted)))
    parts = [pa.array(part) for _, part in found]
    for part in parts:
        part.validate(full=True)
    # Parquet has no seconds: they come as milliseconds.
    read = pa.chunked_array([conform(part, expected.type) for part in parts])
    assert read.is_valid().to_pylist() == expected.is_valid().to_pylist()
    for place in range(batch.num_columns):
        one, other = (pc.struct_field(side, [place]) for side in (read, pa.chunked_array([expected])))
        assert values(one) == values(other)


def test_logs_cut_short_or_damaged_are_refused(tmp_path: Path) -> None:
    keys = pa.array([number.to_bytes(32) for number in range(500)], pa.binary(32))
    records = pa.array(
        [{"id": number, "name": None if number % 3 else f"n{number}"} for number in range(500)]
    )
    path = tmp_path / "log.parquet"
    pq.write_table(
        pa.table({"primary_key_signature": keys, "data": records}),
        path,
        use_dictionary=False,
        compression={"primary_key_signature": "none", "data.id": "none", "data.name": "lz4"},
        write_page_checksum=True,
    )
    whole = path.read_bytes()
    for at in range(4, len(whole) - 900, 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with contextlib.suppress(ValueError):
            found = native.find_records(path, "data", keys)
            assert pa.concat_arrays([pa.array(part) for _, part in found]).equals(records)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"."):
        native.find_records(path, "data", keys)
