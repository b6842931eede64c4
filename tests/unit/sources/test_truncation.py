"""A file that is cut in the middle never looks complete with fewer records."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from rundiff.errors import SourceError
from rundiff.sources.contract import ReadRequest
from tests.unit.sources.reads import read_all

ROWS = [{"id": row, "name": f"name {row}", "note": f'two\nlines, "{row}"'} for row in range(5_000)]


def csv_bytes() -> bytes:
    lines = ["id,name,note"]
    lines += [
        '{},{},"{}"'.format(row["id"], row["name"], str(row["note"]).replace('"', '""')) for row in ROWS
    ]
    return ("\n".join(lines) + "\n").encode()


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=500)
    return sink.getvalue()


def ipc_bytes(file: bool) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    return sink.getvalue()


def feather_bytes() -> bytes:
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
FORMATS = {
    "a.csv": csv_bytes(),
    "a.csv.gz": gzip.compress(csv_bytes()),
    "a.csv.zst": pa.compress(csv_bytes(), "zstd", asbytes=True),
    "a.jsonl": LINES,
    "a.jsonl.gz": gzip.compress(LINES[: len(LINES) // 2]) + gzip.compress(LINES[len(LINES) // 2 :]),
    "a.json": json.dumps(ROWS).encode(),
    "a.parquet": parquet_bytes(),
    "a.parquet.gz": gzip.compress(parquet_bytes()),
    "a.arrow": ipc_bytes(True),
    "a.ipc": ipc_bytes(False),
    "a.feather": feather_bytes(),
}


def cuts(length: int) -> list[int]:
    return [*(length * tenth // 10 for tenth in range(10)), length - 9, length - 4, length - 1]


@pytest.mark.parametrize("name", FORMATS)
def test_whole_file_is_complete(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FORMATS[name])
    outcome = read_all(
        path, ReadRequest(ended_with_newline=True if "csv" in name or "jsonl" in name else None)
    )
    assert outcome.records == ROWS
    assert outcome.incomplete == ()
    assert outcome.unreadable == []


@pytest.mark.parametrize("name", FORMATS)
def test_cut_file_is_never_complete(name: str, tmp_path: Path) -> None:
    data = FORMATS[name]
    text = "csv" in name or "jsonl" in name
    pins = {"id": "integer", "name": "text", "note": "text"}
    for cut in cuts(len(data)):
        path = tmp_path / name
        path.write_bytes(data[:cut])
        try:
            outcome = read_all(path, ReadRequest(pins=pins, ended_with_newline=True if text else None))
        except SourceError:
            continue
        assert outcome.incomplete or outcome.unreadable, f"cut at {cut} of {len(data)}"
        known = {row["id"]: row for row in ROWS}
        wrong: list[Any] = [record for record in outcome.records if known[record["id"]] != record]
        assert wrong == []
