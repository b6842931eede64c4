from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.errors import ConfigurationError, DestinationError, RecordsRefused
from rundiff.settings import DestinationOptions
from rundiff.signing.mixed import encode
from rundiff.testing.batches import change_batch, every_type

TARGET = Target(sync_id="s", sync="people", primary_key=("id",), token=1)
START = Position(run=1, sequence=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dw.duckdb"


@pytest.fixture
def destination(path: Path) -> Iterator[Destination]:
    opened = open_destination(DestinationOptions(url=f"duckdb:///{path}", into="people"))
    yield opened
    opened.close()


def run(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path)) as connection:
        return [row for sql in statements for row in connection.execute(sql).fetchall()]


def deliver(destination: Destination, table: pa.Table) -> None:
    destination.check(TARGET, dict(zip(table.schema.names, table.schema.types, strict=True)))
    destination.prepare(TARGET, table.schema)
    destination.claim(TARGET, START)
    destination.deliver(TARGET, change_batch(table, "insert"), START)


def test_every_type_comes_back(destination: Destination, path: Path) -> None:
    table = every_type()
    deliver(destination, table)
    destination.close()
    with duckdb.connect(str(path)) as connection:
        found = connection.sql("FROM people ORDER BY id").to_arrow_table().to_pylist()
        declared = dict(connection.sql("SELECT column_name, data_type FROM duckdb_columns()").fetchall())
    assert all(value is None for name, value in found[1].items() if name != "id")
    exact = [
        *("id", "bool", "int8", "uint32", "int64", "uint64", "float16", "float32", "float64", "infinity"),
        *("money", "long_decimal", "text", "large_text", "binary", "fixed", "date", "date64", "time_s"),
        *("time_us", "timestamp_s", "timestamp_us", "timestamp_ns", "zoned", "zoned_ns", "list", "texts"),
        *("fixed_list", "uuid", "json"),
    ]
    sent = table.to_pylist()[0]
    sent["uuid"] = str(sent["uuid"])
    found[0]["uuid"] = str(found[0]["uuid"])
    assert {name: found[0][name] for name in exact} == {name: sent[name] for name in exact}
    assert found[0]["nan"] != found[0]["nan"]  # that is what NaN is
    assert (found[0]["struct"], found[0]["map"]) == ('{"a":1,"b":["x"]}', '{"k":1,"l":null}')
    assert found[0]["huge_decimal"] == str(sent["huge_decimal"])
    assert declared["time_ns"] == "TIME_NS"
    assert declared["zoned_ns"] == "TIMESTAMPTZ_NS"
    assert (declared["struct"], declared["map"], declared["nulls"]) == ("JSON", "JSON", "VARCHAR")


def test_mixed_values_are_json_text(destination: Destination, path: Path) -> None:
    deliver(destination, pa.table({"id": [1, 2, 3], "v": encode([1, "a", None])}))
    destination.close()
    assert run(path, "SELECT v FROM people ORDER BY id") == [("1",), ('"a"',), (None,)]


@pytest.mark.parametrize(
    ("declared", "arrow_type", "fits"),
    [
        ("INTEGER", pa.int64(), True),
        ("INTEGER", pa.float64(), False),
        ("INTEGER", pa.string(), False),
        ("DOUBLE", pa.int64(), True),
        ("FLOAT", pa.float64(), False),
        ("DOUBLE", pa.decimal128(15, 2), True),
        ("DOUBLE", pa.decimal128(16, 2), False),
        ("DECIMAL(12,2)", pa.decimal128(10, 2), True),
        ("DECIMAL(12,2)", pa.decimal128(10, 3), False),
        ("DECIMAL(12,2)", pa.float64(), False),
        ("DECIMAL(12,2)", pa.int64(), True),
        ("VARCHAR", pa.float64(), True),
        ("VARCHAR", pa.binary(), False),
        ("DATE", pa.timestamp("us"), False),
        ("TIMESTAMP", pa.timestamp("ns"), True),
        ("TIMESTAMP", pa.string(), False),
        ("TIMESTAMPTZ", pa.timestamp("us"), True),
        ("UUID", pa.string(), True),
        ("JSON", pa.struct({"a": pa.int64()}), True),
        ("BIGINT[]", pa.list_(pa.int32()), True),
        ("BIGINT[]", pa.list_(pa.float64()), False),
        ("VARCHAR[]", pa.list_(pa.string()), True),
        ("STRUCT(a BIGINT)", pa.struct({"a": pa.int64()}), False),
        ("ENUM('a', 'b')", pa.string(), True),
        ("HUGEINT", pa.uint64(), True),
        ("BLOB", pa.binary(), True),
        ("BOOLEAN", pa.int64(), False),
        ("INTERVAL", pa.duration("s"), True),
    ],
)
def test_columns_of_others(
    destination: Destination, path: Path, declared: str, arrow_type: pa.DataType, fits: bool
) -> None:
    run(path, f"CREATE TABLE people (id BIGINT, v {declared})")
    table = pa.table({"id": [1], "v": pa.array([None], arrow_type)})
    if fits:
        deliver(destination, table)
        destination.close()
        assert run(path, "SELECT v FROM people") == [(None,)]
    else:
        with pytest.raises(ConfigurationError, match=r'"v" of the table "people".*can\'t hold'):
            destination.check(TARGET, dict(zip(table.schema.names, table.schema.types, strict=True)))


def value_in(destination: Destination, path: Path, declared: str, array: pa.Array) -> Any:
    run(path, f"CREATE TABLE people (id BIGINT, v {declared})")
    deliver(destination, pa.table({"id": [1], "v": array}))
    destination.close()
    [(value,)] = run(path, "SELECT v::VARCHAR FROM people")
    return value


def test_values_keep_in_columns_of_others(destination: Destination, path: Path) -> None:
    zoned = pa.array([datetime(2024, 7, 1, 12, tzinfo=UTC)], pa.timestamp("us", "Europe/Berlin"))
    assert value_in(destination, path, "TIMESTAMP", zoned) == "2024-07-01 12:00:00"


def test_naive_times_count_as_utc(destination: Destination, path: Path) -> None:
    naive = pa.array([0], pa.timestamp("us"))
    run(path, "CREATE TABLE people (id BIGINT, v TIMESTAMPTZ)")
    deliver(destination, pa.table({"id": [1], "v": naive}))
    destination.close()
    assert run(path, "SELECT epoch(v) FROM people") == [(0,)]


@pytest.mark.parametrize(
    ("declared", "array"),
    [
        ("INTEGER", pa.array([2**40])),
        ("DOUBLE", pa.array([2**53 + 1])),
        ("TIMESTAMP", pa.array([1], pa.timestamp("ns"))),
        ("DECIMAL(4,2)", pa.array([Decimal("123.45")])),
        ("DECIMAL(4,2)", pa.array([12_345])),
        ("UUID", pa.array(["secret"])),
        ("JSON", pa.array(["{secret"])),
        ("ENUM('a')", pa.array(["secret"])),
        ("INTEGER CHECK (v < 5)", pa.array([7])),
        ("INTERVAL", pa.array([pa.MonthDayNano([0, 0, 1])])),
    ],
)
def test_values_that_do_not_fit_are_refused_without_being_told(
    destination: Destination, path: Path, declared: str, array: pa.Array
) -> None:
    run(path, f"CREATE TABLE people (id BIGINT, v {declared})")
    with pytest.raises(RecordsRefused) as caught:
        deliver(destination, pa.table({"id": [1], "v": array}))
    assert "secret" not in str(caught.value)
    assert str(2**40) not in str(caught.value)
    assert destination.position(TARGET) == START
    destination.close()
    assert run(path, "SELECT count(*) FROM people") == [(0,)]


def test_a_refused_key_names_no_value(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id BIGINT, mail VARCHAR UNIQUE)")
    with pytest.raises(RecordsRefused, match="unique constraint") as caught:
        deliver(destination, pa.table({"id": [1, 2], "mail": ["secret@x", "secret@x"]}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE VIEW people AS SELECT 1 AS id", "is a view"),
        ("CREATE TABLE people (other INTEGER)", 'no column "id"'),
        ("CREATE TABLE people (id BIGINT, must VARCHAR NOT NULL)", '"must".*demands a value'),
        ("CREATE TABLE people (id BIGINT, v VARCHAR GENERATED ALWAYS AS ('x'))", "computes its column"),
    ],
)
def test_tables_that_are_refused(destination: Destination, path: Path, statement: str, message: str) -> None:
    run(path, statement)
    with pytest.raises(ConfigurationError, match=message):
        destination.check(TARGET, {"id": pa.int64(), "v": pa.string()})


def test_a_missing_schema_is_refused(path: Path) -> None:
    for existing in (False, True):
        destination = open_destination(DestinationOptions(url=f"duckdb:///{path}", into="sales.people"))
        with pytest.raises(ConfigurationError, match='no schema "sales"'):
            destination.check(TARGET, {"id": pa.int64()})
        destination.close()
        assert path.exists() == existing
        run(path, "SELECT 1")


def test_generated_columns_and_duplicates_of_others_stay(destination: Destination, path: Path) -> None:
    run(
        path,
        "CREATE TABLE people (id BIGINT, v BIGINT, doubled BIGINT GENERATED ALWAYS AS (v * 2), note VARCHAR)",
        "INSERT INTO people (id, v, note) VALUES (1, 1, 'a'), (1, 1, 'b'), (2, 2, 'c')",
    )
    destination.claim(TARGET, START)
    destination.deliver(TARGET, change_batch([{"id": 1, "v": 5}], "update"), START)
    destination.close()
    assert run(path, "SELECT * FROM people ORDER BY ALL") == [
        (1, 5, 10, "a"),
        (1, 5, 10, "b"),
        (2, 2, 4, "c"),
    ]


def test_of_duplicates_without_columns_of_others_one_stays(destination: Destination, path: Path) -> None:
    run(
        path,
        "CREATE TABLE people (id DECIMAL(20, 2), c0 VARCHAR, doubled BIGINT GENERATED ALWAYS AS (id * 2))",
        "INSERT INTO people (id, c0) VALUES (1, 'a'), (1, 'b'), (2, 'c')",
    )
    destination.claim(TARGET, START)
    destination.deliver(TARGET, change_batch([{"id": 1, "c0": "x"}, {"id": 3, "c0": "y"}], "update"), START)
    destination.close()
    assert run(path, "SELECT * FROM people ORDER BY ALL") == [(1, "x", 2), (2, "c", 4), (3, "y", 6)]


def test_keys_compare_byte_by_byte_whatever_the_collation(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id VARCHAR COLLATE NOCASE, v INT)", "INSERT INTO people VALUES ('AB', 1)")
    deliver(destination, pa.table({"id": ["ab", "cd", "CD"], "v": [2, 3, 4]}))
    at = Position(run=1, sequence=3)
    at = destination.deliver(TARGET, change_batch([{"id": "ab", "v": 5}], "update", first=4), at)
    destination.deliver(TARGET, change_batch([{"id": "CD", "v": None}], "delete", first=5), at)
    destination.close()
    assert run(path, "SELECT * FROM people ORDER BY v") == [("AB", 1), ("cd", 3), ("ab", 5)]


def test_a_table_that_changes_meanwhile_is_read_anew(destination: Destination, path: Path) -> None:
    deliver(destination, pa.table({"id": [1, 2], "v": ["a", "b"]}))
    with duckdb.connect(str(path)) as other:  # of this process: DuckDB lets no other one in
        other.execute("ALTER TABLE people ADD COLUMN note VARCHAR")
        other.execute("UPDATE people SET note = 'kept'")
        other.execute("CREATE UNIQUE INDEX one ON people (id)")
    destination.prepare(TARGET, pa.schema({"id": pa.int64(), "v": pa.string()}))
    destination.deliver(
        TARGET, change_batch([{"id": 2, "v": "c"}], "update", first=3), Position(run=1, sequence=2)
    )
    destination.close()
    assert run(path, "SELECT * FROM people ORDER BY id") == [(1, "a", "kept"), (2, "c", "kept")]


def test_a_file_that_another_process_holds(destination: Destination, path: Path) -> None:
    run(path, "SELECT 1")
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DestinationError, match=f"held open by the process {holder.pid}"):
            destination.check(TARGET, {"id": pa.int64()})
        holder.communicate("")


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("no database at all" * 1_000)
    for name, error in (
        ("missing/a.duckdb", ConfigurationError),
        (".", ConfigurationError),
        ("text.duckdb", DestinationError),
    ):
        destination = open_destination(DestinationOptions(url=f"duckdb:///{tmp_path}/{name}", into="t"))
        with pytest.raises(error):
            destination.check(TARGET, {"id": pa.int64()})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_read_only_files(destination: Destination, path: Path) -> None:
    run(path, "SELECT 1")
    path.chmod(0o400)
    with pytest.raises(DestinationError, match="read-only"):
        destination.check(TARGET, {"id": pa.int64()})


@pytest.mark.parametrize("stem", ["main", "temp", "system", 'q"uote', "a b"])
def test_files_of_any_name(tmp_path: Path, stem: str) -> None:
    destination = open_destination(DestinationOptions(url=f"duckdb:///{tmp_path}/{stem}.db", into="people"))
    deliver(destination, pa.table({"id": [1, 2], "v": ["a", "b"]}))
    at = destination.deliver(
        TARGET, change_batch([{"id": 1, "v": "c"}], "update", first=3), Position(run=1, sequence=2)
    )
    destination.deliver(TARGET, change_batch([{"id": 2, "v": "b"}], "delete", first=4), at)
    destination.close()
    assert run(tmp_path / f"{stem}.db", "SELECT * FROM people") == [(1, "c")]


@pytest.mark.parametrize("name", ["s", "t", "v"])
@pytest.mark.parametrize("mode", ["mirror", "append", "history", "soft_delete"])
def test_struct_columns_of_others_are_no_aliases(path: Path, mode: str, name: str) -> None:
    """DuckDB reads `s.c0` as the member `c0` of a column `s` before it looks for an alias."""
    run(path, f"CREATE TABLE people (id INT, n VARCHAR, {name} STRUCT(c0 INT, id INT, n VARCHAR))")
    run(path, "INSERT INTO people VALUES (100, 'other', {'c0': 100, 'id': 100, 'n': 'x'}) RETURNING id")
    opened = open_destination(DestinationOptions(url=f"duckdb:///{path}", into="people", mode=mode))
    keys = pa.RecordBatch.from_pydict({"id": pa.array([1, 2], pa.int32())})
    assert opened.existing_keys(TARGET, keys).to_pylist() == [False, False]
    table = pa.table({"id": pa.array([1, 2], pa.int32()), "n": ["a", "b"]})
    deliver(opened, table)
    at = Position(run=1, sequence=2)
    changed = pa.table({"id": pa.array([2], pa.int32()), "n": ["B"]})
    opened.deliver(TARGET, change_batch(changed, "update", first=3), at)
    opened.close()
    found = run(path, "SELECT id, n FROM people ORDER BY id, n")
    assert {(1, "a"), (2, "B"), (100, "other")} <= set(found)
