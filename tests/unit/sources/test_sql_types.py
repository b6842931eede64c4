"""Values of each database, as they are delivered."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import psycopg
import pytest

from rundiff.errors import ConfigurationError, KeyFieldMissing, SourceError
from rundiff.settings import SourceOptions
from rundiff.signing.values import Interval
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest, Unreadable
from tests.servers.mariadb import MariadbServer
from tests.unit.sources.reads import plain_records


def read(
    url: str, pins: dict[str, str] | None = None, **options: Any
) -> tuple[list[dict[str, Any]], list[Unreadable], dict[str, str]]:
    """Read a whole source: its records, what was unreadable, and its pins."""
    given = SourceOptions(**options)
    request = ReadRequest(options=given, primary_key=("id",), pins=pins)
    records, unreadable = [], []
    with open_source(url, given).open(request) as reading:
        for batch in reading:
            batch.records.validate(full=True)
            records += plain_records(batch.records)
            unreadable += batch.unreadable
        assert reading.end.incomplete == ()
        return records, unreadable, dict(reading.pins)


UUID_TEXT = "11111111-2222-3333-4444-555555555555"
POSTGRESQL = [
    ("smallint", "2", "integer", 2),
    ("boolean", "true", "boolean", True),
    ("real", "0.1", "double", 0.10000000149011612),
    ("float8", "'-Infinity'", "double", float("-inf")),
    ("float8", "0.30000000000000004", "double", 0.30000000000000004),
    ("numeric(10,2)", "1.5", "decimal(10,2)", Decimal("1.50")),
    ("numeric(60,2)", f"{'9' * 58}.12", "decimal(60,2)", Decimal(f"{'9' * 58}.12")),
    ("numeric(3,-2)", "12345", "decimal(5,0)", Decimal(12300)),
    ("numeric(2,4)", "0.0012", "decimal(4,4)", Decimal("0.0012")),
    ("numeric", "1.5", "decimal(38,9)", Decimal("1.500000000")),
    ("numeric", "1.123456789012", "decimal(38,12)", Decimal("1.123456789012")),
    ("numeric", f"{'7' * 60}.5", "decimal(76,9)", Decimal(f"{'7' * 60}.5")),
    ("numeric", "7" * 90, "text", "7" * 90),
    ("text", "E'a\"b,c\\r\\nd\\\\'", "text", 'a"b,c\r\nd\\'),
    ("text", "''", "text", ""),
    ("char(4)", "'ab'", "text", "ab  "),
    ("bytea", "'\\xdeadbeef'", "binary", b"\xde\xad\xbe\xef"),
    ("bytea", "'\\x'", "binary", b""),
    ("date", "'2020-02-29'", "date", date(2020, 2, 29)),
    ("time", "'12:30:00.5'", "time", time(12, 30, 0, 500_000)),
    ("timestamp", "'2020-01-01 00:00:00.123456'", "timestamp", datetime(2020, 1, 1, 0, 0, 0, 123_456)),  # noqa: DTZ001 -- a timestamp without a zone
    (
        "timestamptz",
        "'2020-01-01 00:00:00+02'",
        "timestamp with time zone",
        datetime(2019, 12, 31, 22, tzinfo=UTC),
    ),
    (
        "interval",
        "'1 year 2 mons -3 days -04:05:06.7'",
        "mixed",
        Interval(14, -3, -(4 * 3600 + 5 * 60 + 6) * 10**9 - 7 * 10**8),
    ),
    ("uuid", f"'{UUID_TEXT}'", "uuid", UUID(UUID_TEXT)),
    ("json", "'{\"a\":  1}'", "json", '{"a":  1}'),
    ("jsonb", "'{\"a\":  1}'", "json", '{"a": 1}'),
    ("int[]", "'{1,NULL,3}'", "list<integer>", [1, None, 3]),
    ("text[]", '\'{a,NULL,"x,y",""}\'', "list<text>", ["a", None, "x,y", ""]),
    ("bool[]", "'{t,f}'", "list<boolean>", [True, False]),
    ("numeric(4,1)[]", "'{1.5}'", "list<decimal(4,1)>", [Decimal("1.5")]),
    ("real[]", "'{0.1}'", "list<double>", [0.10000000149011612]),
    ("uuid[]", f"'{{{UUID_TEXT}}}'", "list<uuid>", [UUID(UUID_TEXT)]),
    ("inet", "'10.0.0.1'", "text", "10.0.0.1"),
    ("bit(3)", "'101'", "text", "101"),
]


@pytest.mark.parametrize(("kind", "value", "pin", "expected"), POSTGRESQL)
def test_postgresql(postgresql_url: str, kind: str, value: str, pin: str, expected: Any) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(f'CREATE TABLE t (id int, "v ""é" {kind})'.encode())
        connection.execute(f"INSERT INTO t VALUES (1, {value}), (2, NULL)".encode())
    records, unreadable, pins = read(postgresql_url, table="t")
    assert unreadable == []
    assert pins == {"id": "integer", 'v "é': pin}
    assert records == [{"id": 1, 'v "é': expected}, {"id": 2, 'v "é': None}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "'infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamptz", "'-infinity'"),
        ("time", "'24:00'"),
        ("numeric", "'NaN'"),
        ("numeric(5,2)", "'NaN'"),
        ("int[]", "'{{1,2},{3,4}}'"),
    ],
)
def test_values_of_postgresql_that_have_no_plain_type(postgresql_url: str, kind: str, value: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(f"CREATE TABLE t (id int, v {kind})".encode())
        connection.execute(f"INSERT INTO t VALUES (1, NULL), (2, {value}), (3, NULL)".encode())
    records, unreadable, _ = read(postgresql_url, table="t")
    assert [record["id"] for record in records] == [1, 3]
    assert [(one.location, one.field) for one in unreadable] == [("public.t, row 2", "v")]


MARIADB = [
    ("boolean", "1", "boolean", True),
    ("tinyint(1)", "5", "integer", 5),
    ("bigint unsigned", "18446744073709551615", "unsigned", 2**64 - 1),
    ("float", "0.1", "double", 0.10000000149011612),
    ("double", "0.30000000000000004", "double", 0.30000000000000004),
    ("decimal(10,2)", "-1.5", "decimal(10,2)", Decimal("-1.50")),
    ("decimal(65,30) unsigned", "1.5", "decimal(65,30)", Decimal("1.5")),
    ("year", "2024", "integer", 2024),
    ("bit(1)", "b'1'", "boolean", True),
    ("bit(9)", "b'100000001'", "unsigned", 257),
    ("set('a','b')", "'a,b'", "text", "a,b"),
    ("enum('x','y')", "'y'", "text", "y"),
    ("text character set utf8mb4", "'q\"uo,\\n\\\\ é😀'", "text", 'q"uo,\n\\ é😀'),
    ("varchar(9)", "''", "text", ""),
    ("varbinary(9)", "x'00ff'", "binary", b"\x00\xff"),
    ("blob", "x''", "binary", b""),
    ("date", "'2020-02-29'", "date", date(2020, 2, 29)),
    ("date", "'0000-00-00'", "date", None),
    ("datetime(3)", "'0000-00-00 00:00:00'", "timestamp", None),
    ("datetime(6)", "'2020-01-01 00:00:00.123456'", "timestamp", datetime(2020, 1, 1, 0, 0, 0, 123_456)),  # noqa: DTZ001 -- as above
    (
        "timestamp(3) null",
        "'2020-01-01 00:00:00.5'",
        "timestamp with time zone",
        datetime(2020, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC),
    ),
    ("time", "'12:30:01'", "time", time(12, 30, 1)),
    ("time(6)", "'-100:00:00.5'", "duration", -timedelta(hours=100, milliseconds=500)),
]


@pytest.mark.parametrize(("kind", "value", "pin", "expected"), MARIADB)
def test_mariadb(
    mariadb_server: MariadbServer, mariadb_url: str, kind: str, value: str, pin: str, expected: Any
) -> None:
    opened = mariadb_server.connect(mariadb_url.rpartition("/")[2])
    with contextlib.closing(opened) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = '', time_zone = '+00:00'")
        cursor.execute(f'CREATE TABLE `t ``x` (id int, `v ``%s"é` {kind})')
        cursor.execute(f"INSERT INTO `t ``x` VALUES (1, {value}), (2, NULL)")
    records, unreadable, pins = read(mariadb_url, table="t `x")
    assert unreadable == []
    assert pins == {"id": "integer", 'v `%s"é': pin}
    assert records == [{"id": 1, 'v `%s"é': expected}, {"id": 2, 'v `%s"é': None}]


def test_a_boolean_of_mariadb_that_becomes_a_number_is_unreadable(
    mariadb_server: MariadbServer, mariadb_url: str
) -> None:
    opened = mariadb_server.connect(mariadb_url.rpartition("/")[2])
    with contextlib.closing(opened) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 1 AS id, CAST(0 AS INT) AS v")
        cursor.execute("ALTER TABLE t MODIFY v tinyint(1)")
        _, _, pins = read(mariadb_url, table="t")
        assert pins["v"] == "boolean"
        cursor.execute("INSERT INTO t VALUES (2, 2)")
    assert [one.field for one in read(mariadb_url, pins, table="t")[1]] == ["v"]
    assert [one["v"] for one in read(mariadb_url, table="t", types={"v": "integer"})[0]] == [0, 2]


def test_sqlite_goes_by_values(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute('CREATE TABLE "a "" b" (id, whole, number, mixed DATE)')
        rows = [(1, 2**62, 1.5, "a"), (2, None, 2, b"\x00"), (3, -1, None, 2.5)]
        connection.executemany('INSERT INTO "a "" b" VALUES (?, ?, ?, ?)', rows)
        connection.execute("""INSERT INTO "a "" b" VALUES (4, 1, 1, CAST(x'ff' AS TEXT))""")
        connection.commit()
    records, unreadable, pins = read(f"sqlite:///{tmp_path}/a.db", table='"a "" b"')
    assert pins == {"id": "integer", "whole": "integer", "number": "double", "mixed": "mixed"}
    assert [tuple(record.values()) for record in records] == rows
    assert [(one.location, one.field) for one in unreadable] == [('main."a "" b", row 4', "mixed")]


DUCKDB = [
    ("170141183460469231731687303715884105727::HUGEINT", "decimal(39,0)", Decimal(2**127 - 1)),
    ("1.5::DECIMAL(30,5)", "decimal(30,5)", Decimal("1.50000")),
    (f"'{UUID_TEXT}'::UUID", "uuid", UUID(UUID_TEXT)),
    ("'{\"a\":1}'::JSON", "json", '{"a":1}'),
    ("'101'::BIT", "text", "101"),
    ("'12:00:00+02'::TIMETZ", "text", "12:00:00+02"),
    ("[1, NULL]", "list<integer>", [1, None]),
    ("{'a': 'x'}", "struct<a: text>", {"a": "x"}),
    ("MAP {'a': 1}", "map<text, integer>", [("a", 1)]),
    ("INTERVAL '14 months 3 days'", "mixed", Interval(14, 3, 0)),
    ("'y'::ENUM('x', 'y')", "text", "y"),
    (
        "TIMESTAMPTZ '2020-01-01 00:00:00+02'",
        "timestamp with time zone",
        datetime(2019, 12, 31, 22, tzinfo=UTC),
    ),
    ("255::UTINYINT", "integer", 255),
]


@pytest.mark.parametrize(("value", "pin", "expected"), DUCKDB)
def test_duckdb(tmp_path: Path, value: str, pin: str, expected: Any) -> None:
    with duckdb.connect(tmp_path / "main.db") as connection:
        connection.execute(f'CREATE TABLE "T.x" AS SELECT 1 AS id, {value} AS "v ""é"')
    records, unreadable, pins = read(f"duckdb:///{tmp_path}/main.db", table='"t.x"')
    assert unreadable == []
    assert pins == {"id": "integer", 'v "é': pin}
    assert records == [{"id": 1, 'v "é': expected}]


def test_unions_of_duckdb_are_refused(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS id, union_value(n := 1) AS u")
    with pytest.raises(ConfigurationError, match="`u`"):
        read(f"duckdb:///{tmp_path}/a.db", table="t")


def test_what_is_wrong_is_told_before_anything_is_read(postgresql_url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        read(postgresql_url, table="missing")
    with pytest.raises(SourceError, match="more than one column 'id'"):
        read(postgresql_url, query="SELECT 1 AS id, 2 AS id")
    with pytest.raises(KeyFieldMissing, match="no column id"):
        read(postgresql_url, query="SELECT 1 AS x")
    with pytest.raises(SourceError, match="syntax error"):
        read(postgresql_url, query="DELETE FROM t")
    for scheme in ("sqlite", "duckdb"):
        with pytest.raises(SourceError, match="There is no"):
            read(f"{scheme}:///{tmp_path}/missing.db", table="t")
        (tmp_path / "no.db").write_text("no database, only words " * 100)
        with pytest.raises(SourceError, match="is not a"):
            read(f"{scheme}:///{tmp_path}/no.db", table="t")


@pytest.mark.parametrize(
    "url", ["sqlite:///:memory:", "duckdb://host/x", "postgresql://u:p@h", "mysql://h/d?zzz=1"]
)
def test_urls_that_name_no_database(url: str) -> None:
    with pytest.raises(ConfigurationError):
        open_source(url, SourceOptions(table="t"))


def test_locations_hold_no_user_and_no_query() -> None:
    options = SourceOptions(table='"a.b"')
    assert (
        open_source("postgres://u:secret@H:1/d", options).location == 'postgresql://h:1/d?table=public."a.b"'
    )
    assert open_source("mariadb://u:secret@h/d", options).location == 'mysql://h:3306/d?table=d."a.b"'
    by_query = open_source("mysql://u:secret@h/d", SourceOptions(query="SELECT 'hush'")).location
    assert "secret" not in by_query
    assert "hush" not in by_query
