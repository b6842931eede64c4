from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

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
    return tmp_path / "crm.db"


@pytest.fixture
def destination(path: Path) -> Iterator[Destination]:
    opened = open_destination(DestinationOptions(url=f"sqlite:///{path}", into="people"))
    yield opened
    opened.close()


def run(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [row for sql in statements for row in connection.execute(sql).fetchall()]
    finally:
        connection.close()


def deliver(destination: Destination, table: pa.Table) -> None:
    destination.check(TARGET, dict(zip(table.schema.names, table.schema.types, strict=True)))
    destination.prepare(TARGET, table.schema)
    destination.claim(TARGET, START)
    destination.deliver(TARGET, change_batch(table, "insert"), START)


def stored(destination: Destination, path: Path, array: pa.Array) -> list[tuple[Any, str]]:
    deliver(destination, pa.table({"id": list(range(len(array))), "v": array}))
    return run(path, "SELECT v, typeof(v) FROM people ORDER BY id")


def test_types_that_are_created(destination: Destination, path: Path) -> None:
    deliver(destination, every_type())
    declared = dict(run(path, "SELECT name, type FROM pragma_table_info('people')"))
    expected = {
        "BIGINT": ["id", "int8", "uint32", "int64"],
        "BOOLEAN": ["bool"],
        "": ["uint64", "nulls"],
        "REAL": ["float16", "float32", "float64", "infinity", "nan"],
        "DECIMAL(12,2)": ["money"],
        "BLOB": ["binary", "fixed"],
        "DATE": ["date", "date64"],
        "TIME": ["time_s", "time_us", "time_ns"],
        "TIMESTAMP": ["timestamp_s", "timestamp_us", "timestamp_ns", "zoned", "zoned_ns"],
    }
    known = {name: declared_type for declared_type, names in expected.items() for name in names}
    assert declared == {name: known.get(name, "TEXT") for name in declared}


def test_keys_are_not_null_and_unique(destination: Destination, path: Path) -> None:
    deliver(destination, pa.table({"id": [1], "v": [1]}))
    assert run(path, "SELECT \"notnull\", pk FROM pragma_table_info('people')") == [(1, 1), (0, 0)]


def test_large_integers(destination: Destination, path: Path) -> None:
    found = stored(destination, path, pa.array([1, 2**63 - 1, 2**63, 2**64 - 1, None], pa.uint64()))
    assert found[:2] == [(1, "integer"), (2**63 - 1, "integer")]
    assert found[2:] == [(str(2**63), "text"), (str(2**64 - 1), "text"), (None, "null")]


def test_short_decimals_are_numbers_and_long_ones_text(destination: Destination, path: Path) -> None:
    values = [Decimal("1.10"), Decimal("9999999999999.99"), Decimal("-0.01"), Decimal("5.00"), None]
    found = stored(destination, path, pa.array(values, pa.decimal128(15, 2)))
    assert [None if value is None else Decimal(repr(value)) for value, _ in found] == values
    assert [kind for _, kind in found] == ["real", "real", "real", "integer", "null"]


def test_every_short_decimal_comes_back(destination: Destination, path: Path) -> None:
    values = [Decimal(n * 7_777_777_777_777 % 10**15).scaleb(-4) for n in range(1, 2_000)]
    found = stored(destination, path, pa.array(values, pa.decimal128(15, 4)))
    assert [round(Decimal(repr(value)), 4) for value, _ in found] == values


def test_not_a_number_is_null_and_infinity_stays(destination: Destination, path: Path) -> None:
    found = stored(destination, path, pa.array([math.nan, math.inf, -math.inf, 1.5, None]))
    assert [value for value, _ in found] == [None, math.inf, -math.inf, 1.5, None]


def test_zoned_times_sort_as_text(destination: Destination, path: Path) -> None:
    times = pa.array([1_000_000, 1_500_000, 1_000_001], pa.timestamp("us", "Europe/Berlin"))
    found = [value for value, _ in stored(destination, path, times)]
    assert sorted(found) == [found[0], found[2], found[1]]
    assert found[0] == "1970-01-01T00:00:01+00:00"


def test_mixed_values_keep_their_own_types(destination: Destination, path: Path) -> None:
    found = stored(
        destination, path, encode([1, 2**70, 1.5, "07", b"x", True, None, [1], {"a": 1}, Decimal("0.10")])
    )
    assert found == [
        (1, "integer"),
        (str(2**70), "text"),
        (1.5, "real"),
        ("07", "text"),
        (b"x", "blob"),
        (1, "integer"),
        (None, "null"),
        ("[1]", "text"),
        ('{"a":1}', "text"),
        ("0.1", "text"),
    ]


def test_nothing_is_created_by_looking(destination: Destination, path: Path) -> None:
    destination.check(TARGET, {"id": pa.int64()})
    destination.forget(TARGET, ["x"])
    assert destination.position(TARGET) is None
    assert not path.exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["id", "Name", "nAME"], '"Name" and "nAME" for one column'),
        (["id", ""], "without a name"),
        (["id", "a\0b"], "NUL"),
        (["name"], 'no field "id"'),
        (["id", *(f"f{n}" for n in range(2_000))], "2001 fields"),
    ],
)
def test_names_that_are_refused(
    destination: Destination, path: Path, fields: list[str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        destination.check(TARGET, dict.fromkeys(fields, pa.int64()))
    assert not path.exists()


def test_letters_beyond_ascii_have_case(destination: Destination, path: Path) -> None:
    deliver(destination, pa.table({"id": [1], "É": [1], "é": [2]}))
    assert run(path, 'SELECT "É", "é" FROM people') == [(1, 2)]


@pytest.mark.parametrize(
    ("declared", "arrow_type", "fits"),
    [
        ("INTEGER", pa.string(), False),
        ("INTEGER", pa.int64(), True),
        ("INTEGER", pa.decimal128(20, 2), False),
        ("NUMERIC", pa.decimal128(10, 2), True),
        ("REAL", pa.int64(), True),
        ("REAL", pa.string(), False),
        ("VARCHAR(20)", pa.float64(), True),
        ("VARCHAR(20)", pa.binary(), False),
        ("TEXT", pa.timestamp("us"), True),
        ("DATETIME", pa.timestamp("us"), True),
        ("DATE", pa.string(), False),
        ("INTEGER", pa.date32(), False),
        ("JSON", pa.list_(pa.int64()), True),
        ("UUID", pa.uuid(), True),
        ("BLOB", pa.binary(), True),
        ("", pa.string(), True),
    ],
)
def test_columns_of_others(
    destination: Destination, path: Path, declared: str, arrow_type: pa.DataType, fits: bool
) -> None:
    run(path, f"CREATE TABLE People (ID INTEGER PRIMARY KEY, v {declared})")
    fields = {"id": pa.int64(), "V": arrow_type}
    if fits:
        destination.check(TARGET, fields)
    else:
        with pytest.raises(ConfigurationError) as caught:
            destination.check(TARGET, fields)
        assert '"v"' in str(caught.value)
        assert declared in str(caught.value)
        assert str(arrow_type) in str(caught.value)


@pytest.mark.parametrize(
    ("declared", "arrow_type", "fits"),
    [
        ("INTEGER", pa.float64(), False),
        ("INTEGER", pa.int64(), True),
        ("ANY", pa.string(), True),
        ("TEXT", pa.date32(), True),
        ("BLOB", pa.string(), False),
        ("BLOB", pa.binary(), True),
    ],
)
def test_strict_tables(
    destination: Destination, path: Path, declared: str, arrow_type: pa.DataType, fits: bool
) -> None:
    run(path, f"CREATE TABLE people (id INTEGER PRIMARY KEY, v {declared}) STRICT")
    if fits:
        deliver(destination, pa.table({"id": [1], "v": pa.array([None], arrow_type)}))
    else:
        with pytest.raises(ConfigurationError, match="can't hold"):
            destination.check(TARGET, {"id": pa.int64(), "v": arrow_type})


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE VIEW people AS SELECT 1 AS id", "is a view"),
        ("CREATE TABLE people (other INTEGER)", 'no column "id"'),
        ("CREATE TABLE people (id INTEGER, v TEXT, must TEXT NOT NULL)", '"must".*demands a value'),
        ("CREATE TABLE people (id INTEGER, v TEXT AS (id || ''))", "computes its column"),
    ],
)
def test_tables_that_are_refused(destination: Destination, path: Path, statement: str, message: str) -> None:
    run(path, statement)
    with pytest.raises(ConfigurationError, match=message):
        destination.check(TARGET, {"id": pa.int64(), "v": pa.string()})


def test_columns_with_defaults_are_left_to_them(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id INTEGER PRIMARY KEY, must TEXT NOT NULL DEFAULT 'x')")
    deliver(destination, pa.table({"id": [1], "v": ["a"]}))
    assert run(path, "SELECT * FROM people") == [(1, "x", "a")]


def test_updates_of_rows_whose_other_columns_demand_a_value(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id BIGINT PRIMARY KEY, v TEXT, must TEXT NOT NULL)")
    run(path, "INSERT INTO people VALUES (1, 'a', 'kept')")
    destination.claim(TARGET, START)
    destination.deliver(TARGET, change_batch([{"id": 1, "v": "b"}], "update"), START)
    assert run(path, "SELECT * FROM people") == [(1, "b", "kept")]


def test_triggers_see_updates_as_updates(destination: Destination, path: Path) -> None:
    deliver(destination, pa.table({"id": [1], "v": [1]}))
    run(
        path,
        "CREATE TABLE seen (what TEXT)",
        "CREATE TRIGGER i BEFORE INSERT ON people BEGIN INSERT INTO seen VALUES ('insert'); END",
        "CREATE TRIGGER u BEFORE UPDATE ON people BEGIN INSERT INTO seen VALUES ('update'); END",
    )
    destination.close()
    destination.deliver(
        TARGET, change_batch([{"id": 1, "v": 2}], "update", first=2), Position(run=1, sequence=1)
    )
    assert run(path, "SELECT what FROM seen") == [("update",)]


def test_keys_compare_exactly_in_a_table_that_ignores_case(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id TEXT PRIMARY KEY COLLATE NOCASE, v INTEGER)")
    run(path, "INSERT INTO people VALUES ('A', 1)")
    destination.claim(TARGET, START)
    with pytest.raises(RecordsRefused, match="UNIQUE"):
        destination.deliver(TARGET, change_batch([{"id": "a", "v": 2}], "update"), START)
    assert run(path, "SELECT * FROM people") == [("A", 1)]


def test_integers_that_a_column_would_round_are_refused(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id INTEGER PRIMARY KEY, v REAL)")
    with pytest.raises(RecordsRefused, match=r'"v".*would round'):
        deliver(destination, pa.table({"id": [1], "v": [2**53 + 1]}))
    assert run(path, "SELECT count(*) FROM people") == [(0,)]


def test_a_refusal_names_the_constraint_and_no_value(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id INTEGER PRIMARY KEY, mail TEXT UNIQUE)")
    with pytest.raises(RecordsRefused, match=r"UNIQUE constraint failed: people\.mail") as caught:
        deliver(destination, pa.table({"id": [1, 2], "mail": ["secret@x", "secret@x"]}))
    assert "secret" not in str(caught.value)


def test_a_locked_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rundiff.destinations.sqlite._BUSY_SECONDS", 0.05)
    destination = open_destination(DestinationOptions(url=f"sqlite:///{path}", into="people"))
    deliver(destination, pa.table({"id": [1]}))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DestinationError, match="locked by another program"):
        destination.deliver(TARGET, change_batch([{"id": 2}], "insert", first=2), Position(run=1, sequence=1))
    other.execute("ROLLBACK")
    destination.deliver(TARGET, change_batch([{"id": 2}], "insert", first=2), Position(run=1, sequence=1))
    other.close()
    destination.close()


def test_places_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 100)
    for name, error in (
        ("missing/a.db", ConfigurationError),
        (".", ConfigurationError),
        ("text.db", DestinationError),
    ):
        destination = open_destination(DestinationOptions(url=f"sqlite:///{tmp_path}/{name}", into="t"))
        with pytest.raises(error):
            destination.check(TARGET, {"id": pa.int64()})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_read_only_files(destination: Destination, path: Path) -> None:
    run(path, "CREATE TABLE people (id INTEGER PRIMARY KEY)")
    path.chmod(0o400)
    with pytest.raises(DestinationError, match="read-only"):
        destination.check(TARGET, {"id": pa.int64()})


def test_the_journal_mode_stays(destination: Destination, path: Path) -> None:
    run(path, "PRAGMA journal_mode = WAL", "CREATE TABLE people (id INTEGER PRIMARY KEY)")
    deliver(destination, pa.table({"id": [1]}))
    assert run(path, "PRAGMA journal_mode") == [("wal",)]


def test_an_unindexed_table_is_walked_once(destination: Destination, path: Path) -> None:
    """Without an index on either side, 20,000 rows against 20,000 would take minutes."""
    run(path, "CREATE TABLE people (id BIGINT, v BIGINT)")
    table = pa.table({"id": range(20_000), "v": range(20_000)})
    deliver(destination, table)
    reached = Position(run=1, sequence=20_000)
    reached = destination.deliver(TARGET, change_batch(table, "update", first=20_001), reached)
    destination.deliver(TARGET, change_batch(table.slice(5), "delete", first=40_001), reached)
    assert run(path, "SELECT count(*) FROM people") == [(5,)]
    assert run(path, "SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'people' AND type = 'index'") == [
        (0,)
    ]
