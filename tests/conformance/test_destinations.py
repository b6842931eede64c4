"""All destinations against the one suite, a deliberately weak one included."""
# ruff: noqa: ARG002  # the contract fixes the arguments, whether the weak destination needs them or not

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pymysql
import pymysql.cursors
import pytest
from psycopg.rows import dict_row
from tests.servers.mariadb import MariadbServer
from tests.servers.seaweed import SeaweedServer

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.model import Action
from rundiff.settings import DestinationOptions
from rundiff.testing.destinations import DestinationSuite, Harness

UGLY_TABLE = 'the "people"; select'


def sqlite_rows(path: Path, table: str) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    finally:
        connection.close()


def sqlite_run(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute(sql)
        connection.commit()
    finally:
        connection.close()


def duckdb_rows(path: Path, table: str) -> list[dict[str, Any]]:
    with duckdb.connect(str(path)) as connection:
        found: list[dict[str, Any]] = connection.sql(f"SELECT * FROM {table}").to_arrow_table().to_pylist()
        return found


def duckdb_run(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)


def opener(url: str, into: str | None = None) -> Callable[[], Any]:
    return lambda: open_destination(DestinationOptions(url=url, into=into))


def in_mode(url: str, into: str) -> Callable[[str], Any]:
    return lambda mode: open_destination(DestinationOptions(url=url, into=into, mode=mode))


class TestSqlite(DestinationSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "a b#%.db"
        quoted = '"' + UGLY_TABLE.replace('"', '""') + '"'
        return Harness(
            open=opener(f"sqlite:///{path}", quoted),
            mode=in_mode(f"sqlite:///{path}", quoted),
            rows=lambda: sqlite_rows(path, quoted),
            sql=lambda sql: sqlite_run(path, sql.format(table=quoted)),
        )


class TestSqliteWithoutIndex(DestinationSuite):
    """Someone else's table: no key is declared, so every statement goes by the stage."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "theirs.db"
        sqlite_run(path, "CREATE TABLE t (id BIGINT NOT NULL)")
        return Harness(
            open=opener(f"sqlite:///{path}", "t"),
            rows=lambda: sqlite_rows(path, "t"),
            sql=lambda sql: sqlite_run(path, sql.format(table="t")),
        )

    def test_composite_keys(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN region TEXT")
        super().test_composite_keys(harness, destination)

    def test_nasty_texts(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN text TEXT")
        super().test_nasty_texts(harness, destination)


class TestSqliteRowid(DestinationSuite):
    """Someone else's table, with an INTEGER PRIMARY KEY that would number the rows itself."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "theirs.db"
        sqlite_run(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v CHECK (v <> 'refused'))")
        return Harness(
            open=opener(f"sqlite:///{path}", "t"),
            rows=lambda: sqlite_rows(path, "t"),
            sql=lambda sql: sqlite_run(path, sql.format(table="t")),
        )

    def refusal(self) -> list[dict[str, Any]]:
        return [{"id": n, "v": "refused" if n == 5 else "fine"} for n in range(8)]

    def data(self, harness: Harness) -> list[dict[str, Any]]:
        return [{name: value for name, value in row.items() if name != "v"} for row in super().data(harness)]

    def test_composite_keys(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("DROP TABLE {table}")
        harness.sql("CREATE TABLE {table} (id INTEGER, region TEXT, PRIMARY KEY (region, id)) WITHOUT ROWID")
        super().test_composite_keys(harness, destination)

    def test_nasty_texts(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("DROP TABLE {table}")
        harness.sql("CREATE TABLE {table} (id INTEGER, text TEXT, PRIMARY KEY (text, id)) WITHOUT ROWID")
        super().test_nasty_texts(harness, destination)


class TestDuckdb(DestinationSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "main.duckdb"  # a file whose catalogue would be called like its schema
        quoted = '"' + UGLY_TABLE.replace('"', '""') + '"'
        return Harness(
            open=opener(f"duckdb:///{path}", quoted),
            mode=in_mode(f"duckdb:///{path}", quoted),
            rows=lambda: duckdb_rows(path, quoted),
            sql=lambda sql: duckdb_run(path, sql.format(table=quoted)),
        )


class TestDuckdbWithKey(DestinationSuite):
    """Someone else's table in a schema, with a primary key: rows are updated in place."""

    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "theirs.duckdb"
        duckdb_run(path, "CREATE SCHEMA crm")
        duckdb_run(path, "CREATE TABLE crm.t (id BIGINT PRIMARY KEY)")
        return Harness(
            open=opener(f"duckdb:///{path}", "crm.t"),
            rows=lambda: duckdb_rows(path, "crm.t"),
            sql=lambda sql: duckdb_run(path, sql.format(table="crm.t")),
        )

    def test_composite_keys(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("DROP TABLE {table}")
        harness.sql("CREATE TABLE {table} (id BIGINT, region VARCHAR, PRIMARY KEY (region, id))")
        super().test_composite_keys(harness, destination)

    def test_nasty_texts(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("DROP TABLE {table}")
        harness.sql("CREATE TABLE {table} (id BIGINT, text VARCHAR, PRIMARY KEY (text, id))")
        super().test_nasty_texts(harness, destination)


def fits_microseconds(value: pa.Scalar) -> bool:
    """Say whether a time is a whole number of microseconds."""
    unit = getattr(value.type, "unit", "us")
    return unit != "ns" or not value.is_valid or value.value % 1_000 == 0


def postgresql_holds(value: pa.Scalar) -> bool:
    return fits_microseconds(value) and "\0" not in str(value)


def postgresql_rows(url: str, table: str) -> list[dict[str, Any]]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == {"to_regclass": None}:
            return []
        return connection.execute(f"SELECT * FROM {table}".encode()).fetchall()


def postgresql_run(url: str, sql: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(sql.encode())


class TestPostgresql(DestinationSuite):
    @pytest.fixture
    def harness(self, postgresql_url: str) -> Harness:
        quoted = '"' + UGLY_TABLE.replace('"', '""') + '"'
        return Harness(
            open=opener(postgresql_url, quoted),
            mode=in_mode(postgresql_url, quoted),
            rows=lambda: postgresql_rows(postgresql_url, quoted),
            sql=lambda sql: postgresql_run(postgresql_url, sql.format(table=quoted)),
            holds=postgresql_holds,
        )


class TestPostgresqlWithoutIndex(DestinationSuite):
    """Someone else's table in a schema: no key is declared, so nothing leads to a row."""

    @pytest.fixture
    def harness(self, postgresql_url: str) -> Harness:
        postgresql_run(postgresql_url, 'CREATE SCHEMA "Crm"')
        postgresql_run(postgresql_url, 'CREATE TABLE "Crm"."T" (id bigint NOT NULL)')
        url = postgresql_url
        return Harness(
            open=opener(url, "Crm.T"),
            rows=lambda: postgresql_rows(url, '"Crm"."T"'),
            sql=lambda sql: postgresql_run(url, sql.format(table='"Crm"."T"')),
            holds=postgresql_holds,
        )

    def test_composite_keys(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN region text")
        super().test_composite_keys(harness, destination)

    def test_nasty_texts(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN text text")
        super().test_nasty_texts(harness, destination)


def mariadb_holds(value: pa.Scalar) -> bool:
    number = value.as_py() if pa.types.is_floating(value.type) else 0.0
    as_text = pa.types.is_duration(value.type)
    return (as_text or fits_microseconds(value)) and math.isfinite(number or 0.0)


class Mariadb:
    """One database of a server, as the suite reads it."""

    def __init__(self, server: MariadbServer, url: str) -> None:
        self.server, self.url, self.name = server, url, url.rpartition("/")[2]

    def rows(self, table: str) -> list[dict[str, Any]]:
        connection = self.server.connect(self.name, cursorclass=pymysql.cursors.DictCursor)
        with contextlib.closing(connection), connection.cursor() as cursor:
            try:
                cursor.execute(f"SELECT * FROM {table}")
            except pymysql.err.ProgrammingError as error:
                if error.args[0] == 1146:  # there is no such table
                    return []
                raise
            return list(cursor.fetchall())

    def run(self, sql: str) -> None:
        with contextlib.closing(self.server.connect(self.name)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)


@pytest.fixture
def mariadb(mariadb_server: MariadbServer, mariadb_url: str) -> Mariadb:
    return Mariadb(mariadb_server, mariadb_url)


class TestMariadb(DestinationSuite):
    @pytest.fixture
    def harness(self, mariadb: Mariadb) -> Harness:
        quoted = '"' + UGLY_TABLE.replace('"', '""') + '"'
        return Harness(
            open=opener(mariadb.url, quoted),
            mode=in_mode(mariadb.url, quoted),
            rows=lambda: mariadb.rows(quoted),
            sql=lambda sql: mariadb.run(sql.format(table=quoted)),
            holds=mariadb_holds,
        )


class TestMariadbOfOthers(DestinationSuite):
    """Someone else's table in another database, without a key, whose texts compare without regard to case."""

    @pytest.fixture
    def harness(self, mariadb: Mariadb) -> Harness:
        other = f"{mariadb.name} other"
        mariadb.run(f'CREATE DATABASE "{other}" DEFAULT COLLATE utf8mb4_general_ci')
        table = f'"{other}"."T"'
        mariadb.run(f"CREATE TABLE {table} (id BIGINT NOT NULL)")
        return Harness(
            open=opener(mariadb.url.replace("mysql://", "mariadb://"), table),
            rows=lambda: mariadb.rows(table),
            sql=lambda sql: mariadb.run(sql.format(table=table)),
            holds=mariadb_holds,
        )

    def test_composite_keys(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN region VARCHAR(20)")
        super().test_composite_keys(harness, destination)

    def test_nasty_texts(self, harness: Harness, destination: Any) -> None:
        assert harness.sql is not None
        harness.sql("ALTER TABLE {table} ADD COLUMN text VARCHAR(100)")
        super().test_nasty_texts(harness, destination)


class TestJsonLines(DestinationSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        path = tmp_path / "changes.jsonl"

        def changes() -> list[dict[str, Any]]:
            # Not splitlines: U+2028 is no line end in JSON.
            lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
            return [json.loads(line) for line in lines if line]

        return Harness(open=opener(str(path)), changes=changes)


class TestParquet(DestinationSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        folder = tmp_path / "changes.parquet"

        def changes() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            for path in sorted(folder.glob("*.parquet")):
                found += pq.read_table(path).to_pylist()
                with duckdb.connect() as connection:
                    assert connection.read_parquet(str(path)).to_arrow_table().num_rows == len(
                        pq.read_table(path)
                    )
            return found

        return Harness(open=opener(str(folder)), changes=changes)


def csv_changes(content: bytes) -> list[dict[str, Any]]:
    """Read a CSV file by another reader than Rundiff's own."""
    table = arrow_csv.read_csv(
        pa.BufferReader(content),
        read_options=arrow_csv.ReadOptions(block_size=len(content) + 1),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        ),
    )
    found = []
    for row in table.to_pylist():
        data = {name: value for name, value in row.items() if not name.startswith("_rundiff_")}
        key = {name: data[name] for name in ("region", "id") if name in data}
        found.append({"action": row["_rundiff_action"], "primary_key": key, "data": data})
    return found


class TestCsv(DestinationSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> Harness:
        folder = tmp_path / "changes.csv"

        def changes() -> list[dict[str, Any]]:
            files = sorted(folder.glob("*.csv"))
            return [change for path in files for change in csv_changes(path.read_bytes())]

        return Harness(open=opener(str(folder)), changes=changes)


def in_bucket(server: SeaweedServer, place: str, kind: str) -> Harness:
    """Reach a prefix of a bucket, and read its objects of a kind."""

    def changes() -> list[dict[str, Any]]:
        names = [name for name in server.names(place) if name.endswith(kind)]
        return [change for name in names for change in read[kind](server.read(place, name))]

    read: dict[str, Callable[[bytes], list[dict[str, Any]]]] = {
        ".parquet": lambda content: pq.read_table(pa.BufferReader(content)).to_pylist(),
        ".csv": csv_changes,
        ".jsonl": lambda content: [json.loads(line) for line in content.split(b"\n") if line],
    }
    return Harness(open=opener(f"s3://{place}/people{kind}"), changes=changes)


class TestParquetOnS3(DestinationSuite):
    @pytest.fixture
    def harness(self, seaweed_server: SeaweedServer, s3_place: str) -> Harness:
        return in_bucket(seaweed_server, s3_place, ".parquet")


class TestCsvOnS3(DestinationSuite):
    @pytest.fixture
    def harness(self, seaweed_server: SeaweedServer, s3_place: str) -> Harness:
        return in_bucket(seaweed_server, s3_place, ".csv")


class TestJsonLinesOnS3(DestinationSuite):
    @pytest.fixture
    def harness(self, seaweed_server: SeaweedServer, s3_place: str) -> Harness:
        return in_bucket(seaweed_server, s3_place, ".jsonl")


WEAK = Capabilities(new_action=Action.CREATE, transactional=False, upserts=False, wants_previous=False)


@dataclass
class ListDestination:
    """A weak destination: a list that is appended to and knows nothing."""

    items: list[dict[str, Any]] = field(default_factory=list)
    identity: str = "list"
    capabilities: Capabilities = WEAK

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        pass

    def position(self, target: Target) -> Position | None:
        return None

    def strangers(self, target: Target) -> Sequence[str]:
        return ()

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        return pa.array([False] * keys.num_rows)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        pass

    def claim(self, target: Target, start: Position) -> None:
        pass

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        pass

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        self.items += batch.records.select(["primary_key", "data"]).to_pylist()
        return Position(run=batch.run, sequence=batch.last_sequence)

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        return reached

    def finish(self, target: Target, reached: Position) -> None:
        pass

    def close(self) -> None:
        pass


class TestWeak(DestinationSuite):
    @pytest.fixture
    def harness(self) -> Harness:
        items: list[dict[str, Any]] = []
        return Harness(open=lambda: ListDestination(items), changes=lambda: items)
