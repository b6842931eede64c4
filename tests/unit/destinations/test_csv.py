from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from msgspec.structs import replace

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.errors import ConfigurationError
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch, every_type

TARGET = Target(sync_id="one", sync="people", primary_key=("id",), token=1)
START = Position(run=3, sequence=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "changes.csv"


def opened(folder: Path, target: Target = TARGET, **options: Any) -> Destination:
    destination = open_destination(DestinationOptions(url=str(folder), **options))
    destination.prepare(target, pa.schema([("id", pa.int64())]))
    destination.claim(target, START)
    return destination


def deliver(folder: Path, rows: Any, target: Target = TARGET, **options: Any) -> str:
    destination = opened(folder, target, **options)
    reached = destination.deliver(target, change_batch(rows, "create", run=3), START)
    destination.finish(target, reached)
    destination.close()
    return (folder / "run-00000003.csv").read_bytes().decode()


def data_cells(folder: Path, rows: Any, **options: Any) -> list[list[str]]:
    """Give the cells of the record's fields, as any reader of CSV sees them."""
    deliver(folder, rows, **options)
    with (folder / "run-00000003.csv").open(newline="", encoding="utf-8") as file:
        return [row[4:-4] for row in csv.reader(file)]


def test_a_row_for_each_change(folder: Path) -> None:
    found = deliver(folder, [{"id": 7, "name": "Ada", "born": None, "fine": True}])
    header, row, end = found.split("\n")
    assert header == (
        '"_rundiff_sync","_rundiff_run","_rundiff_sequence","_rundiff_action","id","name","born","fine",'
        '"_rundiff_changed_fields","_rundiff_primary_key_signature","_rundiff_data_signature",'
        '"_rundiff_idempotency_key"'
    )
    assert row.startswith('"people",3,1,"create",7,"Ada",,true,,"')
    assert row.endswith(',"one/3/1"')
    assert end == ""


def test_quotes_and_line_ends_are_quoted(folder: Path) -> None:
    rows = [{"id": 1, "v": 'a "b", c'}, {"id": 2, "v": "x\r\ny\nz"}]
    assert '"a ""b"", c"' in deliver(folder, rows)
    assert data_cells(folder, rows)[1:] == [["1", 'a "b", c'], ["2", "x\r\ny\nz"]]


def test_null_is_bare_and_empty_text_quoted(folder: Path) -> None:
    found = deliver(folder, [{"id": 1, "v": None}, {"id": 2, "v": ""}]).split("\n")
    assert '"create",1,,' in found[1]
    assert '"create",2,"",' in found[2]


def test_formulas_are_kept_unless_asked_otherwise(folder: Path) -> None:
    assert data_cells(folder, [{"id": 1, "v": "=1+1"}])[1] == ["1", "=1+1"]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠", "＋", "－"])  # noqa: RUF001
def test_what_could_be_a_formula_gets_an_apostrophe(folder: Path, sign: str) -> None:
    rows = [{"id": -1, "v": f"{sign}1", "-w": f"a{sign}", "n": -0.5}]
    header, row = data_cells(folder, rows, csv_formula_safe=True)
    assert header == ["id", "v", "'-w", "n"]
    assert row == ["-1", f"'{sign}1", f"a{sign}", "-0.5"]


def test_decimals_are_numbers_and_what_is_spelled_as_text_is_guarded(folder: Path) -> None:
    table = every_type().select(["id", "money", "duration", "binary"])
    money = pa.array([-1, None]).cast(pa.decimal128(19)).cast(pa.decimal128(12, 2), safe=False)
    table = table.set_column(1, "money", money)
    _, row, nulls = data_cells(folder, table, csv_formula_safe=True)
    assert row == ["1", "-1.00", "'-PT0.999995S", "AP8="]
    assert nulls == ["2", "", "", ""]


def test_every_type_has_a_spelling(folder: Path) -> None:
    names, row, nulls = data_cells(folder, every_type())
    cells = dict(zip(names, row, strict=True))
    expected = {
        "bool": "true",
        "uint64": str(2**64 - 1),
        "float32": "0.5",
        "infinity": "",
        "nan": "",
        "huge_decimal": "9" * 58 + ".01",
        "binary": "AP8=",
        "date64": "1969-12-31",
        "time_us": "01:02:03.0004",
        "timestamp_us": "2024-01-01T01:01:01.000001",
        "zoned": "2024-07-01T10:00:00Z",
        "list": '[1,null,"1152921504606846976"]',
        "struct": '{"a":1,"b":["x"]}',
        "json": '{"a": 1.10}',
        "uuid": "00000000-0000-0001-0000-000000000001",
    }
    assert {name: cells[name] for name in expected} == expected
    assert set(nulls[1:]) == {""}


def test_a_deletion_without_data_has_its_key(folder: Path) -> None:
    destination = opened(folder)
    batch = change_batch([{"id": 1, "v": 2}, {"id": 5, "v": 3}], "delete", run=3)
    columns = dict(zip(batch.records.schema.names, batch.records.columns, strict=True))
    data = columns["data"]
    columns["data"] = pa.StructArray.from_arrays(
        data.flatten(), fields=list(data.type), mask=pa.array([True, False])
    )
    at = destination.deliver(TARGET, replace(batch, records=pa.record_batch(columns)), START)
    columns["data"] = pa.nulls(2)
    unknown = replace(batch, first_sequence=3, records=pa.record_batch(columns))
    destination.finish(TARGET, destination.deliver(TARGET, unknown, at))
    with (folder / "run-00000003.csv").open(newline="") as file:
        assert [row[3:6] for row in csv.reader(file)][1:] == [
            ["delete", "1", ""],
            ["delete", "5", "3"],
            ["delete", "1", ""],
            ["delete", "5", ""],
        ]


def test_fields_that_come_after_the_deletions_have_a_column(folder: Path) -> None:
    destination = open_destination(DestinationOptions(url=str(folder)))
    destination.prepare(TARGET, pa.schema([("id", pa.int64()), ("new", pa.string())]))
    destination.claim(TARGET, START)
    at = destination.deliver(TARGET, change_batch([{"id": 1, "old": 1}], "delete", run=3), START)
    at = destination.deliver(TARGET, change_batch([{"id": 2, "new": "x"}], "create", run=3, first=2), at)
    destination.finish(TARGET, at)
    with (folder / "run-00000003.csv").open(newline="") as file:
        assert [row[4:7] for row in csv.reader(file)] == [
            ["id", "new", "old"],
            ["1", "", "1"],
            ["2", "x", ""],
        ]


def test_a_file_of_another_sync_is_never_replaced(folder: Path) -> None:
    deliver(folder, [{"id": 1}])
    deliver(folder, [{"id": 1}])
    deliver(folder, [{"id": 2}], replace(TARGET, sync_id="two"))
    assert sorted(path.name for path in folder.iterdir()) == ["run-00000003-two.csv", "run-00000003.csv"]


def test_names_of_its_own_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match='adds a column "_rundiff_action"'):
        open_destination(DestinationOptions(url=str(folder))).check(TARGET, {"_rundiff_action": pa.int64()})


def test_the_option_is_for_csv_alone() -> None:
    with pytest.raises(ConfigurationError, match="is no CSV"):
        open_destination(DestinationOptions(url="a.parquet", csv_formula_safe=True))
