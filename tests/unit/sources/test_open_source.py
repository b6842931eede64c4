from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rundiff.errors import ConfigurationError, SourceError
from rundiff.sources import known_schemes, open_source, register
from rundiff.sources.contract import ReadRequest
from rundiff.sources.files import StandardInput
from rundiff.sources.rows import RowsSource
from tests.unit.sources.reads import read_all

CSV = b"id,name\n1,Ada\n"
JSON = b'[{"id": 1, "name": "Ada"}]'
RECORDS = [{"id": 1, "name": "Ada"}]


@pytest.mark.parametrize(
    "name", ["a.csv", "A.CSV", "a.txt", "a.csv.gz", "a.CSV.Zst", "a.json", "a.jsonl", "a.ndjson.gz"]
)
def test_extension_tells_the_format(name: str, tmp_path: Path) -> None:
    data = (
        CSV
        if "csv" in name.lower() or "txt" in name
        else JSON
        if name.endswith("json")
        else JSON[1:-1] + b"\n"
    )
    if name.lower().endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    if name.lower().endswith(".zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    (tmp_path / name).write_bytes(data)
    assert read_all(tmp_path / name).records == RECORDS
    assert read_all(f"file://{tmp_path / name}").records == RECORDS


@pytest.mark.parametrize(
    "data", [CSV, JSON, JSON[1:-1] + b"\n", b"\xef\xbb\xbf" + CSV, gzip.compress(CSV, mtime=0), b"\n " + JSON]
)
def test_standard_input_is_csv_or_json(data: bytes) -> None:
    source = StandardInput(io.BytesIO(data))
    assert read_all(source).records == RECORDS
    assert source.may_delete_without_count is False
    assert source.location == "-"


def test_standard_input_of_a_process() -> None:
    program = (
        "from rundiff.sources import open_source\n"
        "from rundiff.sources.contract import ReadRequest\n"
        "with open_source('-').open(ReadRequest()) as reading:\n"
        "    print([batch.records.to_pylist() for batch in reading], dict(reading.pins))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=CSV, capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"{[RECORDS]} {{'id': 'integer', 'name': 'text'}}"


def test_empty_standard_input() -> None:
    with pytest.raises(SourceError, match="empty"):
        read_all(StandardInput(io.BytesIO(b"")))


@pytest.mark.parametrize("name", ["a.xlsx", "a", "s3://bucket/a.csv", ""])
def test_unknown_kinds_list_what_is_known(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"known|path"):
        read_all(name)


@pytest.mark.parametrize("source", [5, {"id": [1]}, b"a.csv", None])
def test_other_objects_are_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="can't be read as records"):
        open_source(source)


def test_files_that_are_not_there_or_empty_or_folders(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "empty.csv.gz").write_bytes(gzip.compress(b"", mtime=0))
    (tmp_path / "no.csv.gz").write_bytes(CSV)
    (tmp_path / "no.parquet").write_bytes(CSV)
    (tmp_path / "folder.csv").mkdir()
    for name in (
        "missing.csv",
        "mi*ng.csv",
        "empty.csv",
        "empty.parquet",
        "empty.csv.gz",
        "no.csv.gz",
        "no.parquet",
    ):
        with pytest.raises(SourceError):
            read_all(str(tmp_path / name))
    with pytest.raises(SourceError, match="folder"):
        open_source(tmp_path / "folder.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(CSV)
    path.chmod(0)
    with pytest.raises(SourceError, match="permission"):
        read_all(path)


def test_glob_reads_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        pq.write_table(pa.table({"id": [number]}), tmp_path / f"part-{number:02}.parquet")
    source = open_source(str(tmp_path / "part-*.parquet"))
    assert source.location == str(tmp_path / "part-*.parquet")
    with source.open(ReadRequest()) as reading:
        assert [batch.records["id"].to_pylist() for batch in reading] == [[1], [2], [10]]
        assert reading.bytes_read == reading.total_bytes


def test_glob_of_several_kinds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(CSV)
    (tmp_path / "b.csv.bak").write_bytes(CSV)
    (tmp_path / "c.json").write_bytes(JSON)
    assert read_all(str(tmp_path / "*.csv")).records == RECORDS
    with pytest.raises(ConfigurationError):
        read_all(str(tmp_path / "[ac].*"))


def test_name_with_magic_signs_is_a_file_first(tmp_path: Path) -> None:
    (tmp_path / "a[1].csv").write_bytes(CSV)
    assert read_all(str(tmp_path / "a[1].csv")).records == RECORDS


def test_schemes_can_be_registered() -> None:
    register("words", lambda url: RowsSource([{"word": url.partition("://")[2]}]))
    assert "words" in known_schemes()
    assert read_all("words://hello").records == [{"word": "hello"}]
