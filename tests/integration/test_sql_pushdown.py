"""What databases select for runs of a part: never less than such a run covers, whatever their types and collations."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.servers.mariadb import MariadbServer

import rundiff
from rundiff.compare.scopes import among
from rundiff.engine.partitions import named_partitions, record_partitions
from rundiff.model import Scope
from rundiff.settings import SourceOptions
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest

_TYPES = {
    "postgresql": (
        "text",
        "bigint",
        "numeric(9,2)",
        "date",
        "timestamp",
        "timestamptz",
        "boolean",
        "varchar(20)",
    ),
    "mariadb": (
        "varchar(20)",
        "bigint",
        "decimal(9,2)",
        "date",
        "datetime(6)",
        "timestamp(6)",
        "boolean",
        "varchar(20)",
    ),
    "sqlite": ("TEXT", "BIGINT", "NUMERIC", "DATE", "DATETIME", "TEXT", "BOOLEAN", "TEXT COLLATE NOCASE"),
    "duckdb": (
        "VARCHAR",
        "BIGINT",
        "DECIMAL(9,2)",
        "DATE",
        "TIMESTAMP",
        "TIMESTAMPTZ",
        "BOOLEAN",
        "VARCHAR COLLATE NOCASE",
    ),
}
_FIELDS = ('region "x"', "number", "price", "day", "made", "zoned", "active", "folded")
_REGIONS = ("EU", "eu", "EU ", "É", "it's", "a\\b%s", "", None)
_AWARE = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=UTC)
_NAIVE = _AWARE.replace(tzinfo=None)


class Origin:
    """A database with a table `parts` of one row for each combination that matters."""

    def __init__(self, kind: str, url: str, mariadb: MariadbServer | None = None) -> None:
        self.kind, self.url, self._mariadb = kind, url, mariadb
        quoted = [
            "`" + name + "`" if kind == "mariadb" else '"' + name.replace('"', '""') + '"' for name in _FIELDS
        ]
        columns = ", ".join(f"{name} {type_} NULL" for name, type_ in zip(quoted, _TYPES[kind], strict=True))
        statements = [f"CREATE TABLE parts (id integer PRIMARY KEY, {columns})"]
        for number, region in enumerate(_REGIONS * 3):
            text = "NULL" if region is None else "'" + region.replace("'", "''") + "'"
            if kind == "mariadb":
                text = text.replace("\\", "\\\\")
            if number % 5 == 4:
                rest = "NULL, NULL, NULL, NULL, NULL, NULL"
            else:
                day, at = f"'2024-05-0{number % 4}'", f"'2024-05-0{number % 4} 12:00:00.250000'"
                if number % 4 == 0:
                    day, at = "'0001-01-01'", "'1999-12-31 23:59:59.999999'"
                zoned = (
                    at.replace("0'", "0+00'").replace("9'", "9+00'")
                    if kind in ("postgresql", "duckdb")
                    else at
                )
                active = ("FALSE", "TRUE")[number % 2]
                rest = f"{number % 4}, {number % 4}.50, {day}, {at}, {zoned}, {active}"
            statements.append(f"INSERT INTO parts VALUES ({number}, {text}, {rest}, {text})")
        self.do(statements)

    def do(self, statements: Sequence[str]) -> None:
        if self.kind == "postgresql":
            with psycopg.connect(self.url, autocommit=True) as connection:
                for sql in statements:
                    connection.execute(sql.encode())
        elif self._mariadb is not None:
            opened = self._mariadb.connect(self.url.rpartition("/")[2])
            with contextlib.closing(opened) as connection, connection.cursor() as cursor:
                cursor.execute("SET time_zone = '+00:00', sql_mode = ''")
                for sql in statements:
                    cursor.execute(sql)
                connection.commit()
        elif self.kind == "sqlite":
            with contextlib.closing(sqlite3.connect(self.url[10:], isolation_level=None)) as connection:
                for sql in statements:
                    connection.execute(sql)
        else:
            with duckdb.connect(self.url[10:]) as connection:
                for sql in statements:
                    connection.execute(sql)

    def read(self, *, query: bool = False, **asked: Any) -> tuple[pa.Table, dict[str, str]]:
        options = SourceOptions(query="SELECT * FROM parts -- all") if query else SourceOptions(table="parts")
        request = ReadRequest(options=options, primary_key=("id",), **asked)
        with open_source(self.url, options).open(request) as reading:
            batches = [batch.records for batch in reading]
            assert reading.end.incomplete == ()
        tables = [pa.Table.from_batches([batch]) for batch in batches]
        whole = (
            pa.concat_tables(tables, promote_options="default")
            if tables
            else pa.table({"id": pa.array([], pa.int64())})
        )
        return whole.combine_chunks(), dict(reading.pins)


@pytest.fixture(params=["postgresql", "mariadb", "sqlite", "duckdb"])
def origin(request: pytest.FixtureRequest, tmp_path: Path) -> Origin:
    if request.param == "postgresql":
        return Origin("postgresql", request.getfixturevalue("postgresql_url"))
    if request.param == "mariadb":
        server = request.getfixturevalue("mariadb_server")
        return Origin("mariadb", request.getfixturevalue("mariadb_url"), server)
    return Origin(request.param, f"{request.param}:///{tmp_path}/origin.db")


_NAMED: tuple[tuple[str, tuple[Any, ...]], ...] = (
    *(('region "x"', (value,)) for value in ("EU", "EU ", "É", "it's", "a\\b%s", "", 5)),
    ('region "x"', ("EU", "it's")),
    ("folded", ("EU",)),
    ("number", (1,)),
    ("number", ("1", "2")),
    ("number", (1.0,)),
    ("number", (Decimal(1),)),
    ("number", (2**62,)),
    ("price", ("1.50",)),
    ("price", (Decimal("1.500"),)),
    ("price", (1.5,)),
    ("day", ("2024-05-01",)),
    ("day", (date(2024, 5, 1),)),
    ("made", (_NAIVE,)),
    ("zoned", (_AWARE,)),
    ("active", (True,)),
    ("active", (1,)),
)


def test_partitions_are_read_whole(origin: Origin) -> None:
    every, pins = origin.read()
    restricted = set()
    for field, values in _NAMED:
        partitions = [{field: value} for value in values]
        try:
            covered = named_partitions(partitions, pins, None)
        except rundiff.ConfigurationError:  # such a run is refused
            continue
        of_each = record_partitions(every.to_batches()[0], [field], None)
        wanted = every.filter(pa.array(among(of_each, np.asarray(covered))))
        for query in (False, True):
            # Of a first run the types are not known yet.
            known = None if query else pins
            found, _ = origin.read(query=query, scope=Scope.PARTITION, partitions=partitions, pins=known)
            got, expected = set(found["id"].to_pylist()), set(wanted["id"].to_pylist())
            assert expected <= got, (field, values, query)
            assert rows(found) <= rows(every)
            if len(got) < every.num_rows:
                restricted.add(field)
    least = {'region "x"', "folded", "number"}
    least |= set() if origin.kind == "sqlite" else {"day", "active"}
    least |= {"price"} if origin.kind in ("postgresql", "mariadb") else set()
    assert restricted == least


def rows(table: pa.Table) -> set[str]:
    return {str(sorted(row.items())) for row in table.to_pylist()}


def test_the_cursor_keeps_its_own_value_and_nulls(origin: Origin) -> None:
    every, pins = origin.read()
    restricted = set()
    for field in _FIELDS:
        # The first, a middle and the last value.
        values = sorted(pc.unique(every[field].drop_null()).to_pylist())
        for value in {values[0], values[len(values) // 2], values[-1]}:
            at_least = pc.greater_equal(every[field], pa.scalar(value, every[field].type))
            wanted = every.filter(pc.fill_null(at_least, True)) if field != "active" else every
            for query in (False, True):
                found, _ = origin.read(
                    query=query, scope=Scope.INCREMENTAL, cursor=value, cursor_field=field, pins=pins
                )
                got = set(found["id"].to_pylist())
                assert set(wanted["id"].to_pylist()) <= got, (field, value, query)
                if len(got) < every.num_rows:
                    restricted.add(field)
                    if field not in ('region "x"', "folded"):
                        assert got == set(wanted["id"].to_pylist())
        again, _ = origin.read(
            scope=Scope.INCREMENTAL, cursor=value, cursor_field=field, pins=pins, whole=True
        )
        assert again.num_rows == every.num_rows
    assert "number" in restricted
    if origin.kind != "sqlite":
        assert {"day", "made", "zoned"} <= restricted
    if origin.kind in ("postgresql", "sqlite"):
        assert 'region "x"' in restricted


def test_zero_dates_of_mysql_count_as_null(mariadb_url: str, mariadb_server: MariadbServer) -> None:
    origin = Origin("mariadb", mariadb_url, mariadb_server)
    origin.do(["INSERT INTO parts (id, `day`, made) VALUES (100, '0000-00-00', '0000-00-00 00:00:00')"])
    for field, value in (("day", date(2024, 5, 2)), ("made", _NAIVE)):
        found, _ = origin.read(scope=Scope.INCREMENTAL, cursor=value, cursor_field=field)
        assert 100 in found["id"].to_pylist()
        assert found.num_rows < 25


def test_types_whose_comparison_is_another_are_not_selected_by(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute("CREATE TYPE mood AS ENUM ('a', 'b')")
        connection.execute("CREATE TABLE parts (id int PRIMARY KEY, c char(4), m mood, f float4, u uuid)")
        connection.execute(
            "INSERT INTO parts SELECT i, 'EU', 'a', 0.1, gen_random_uuid() FROM generate_series(1, 3) i"
        )
    options = SourceOptions(table="parts")
    for field, value in (("c", "EU  "), ("c", "EU"), ("m", "z"), ("f", 0.1), ("f", "0.1"), ("missing", "x")):
        request = ReadRequest(
            options=options, primary_key=("id",), scope=Scope.PARTITION, partitions=[{field: value}]
        )
        with open_source(postgresql_url, options).open(request) as reading:
            assert sum(batch.records.num_rows for batch in reading) == 3


def sync_parts(origin: Origin, folder: Path, **settings: Any) -> rundiff.Run:
    return rundiff.sync(
        origin.url,
        table="parts",
        primary_key="id",
        name="parts",
        destination=f"sqlite:///{folder}/crm.db",
        into="parts",
        **settings,
    )


def test_runs_of_parts_deliver_and_delete_within_them(origin: Origin, tmp_path: Path) -> None:
    run = partial(sync_parts, origin, tmp_path, max_delete_percent=100)
    assert run().counts.records_read == 24
    origin.do(
        ["DELETE FROM parts WHERE number IN (1, 2) AND id > 9", "UPDATE parts SET price = 9 WHERE number = 3"]
    )
    result = run(partition={"number": 1})
    # Of 5, 9, 13, 17 and 21 the last three went; what changed elsewhere is for other runs.
    counts = result.counts
    assert (result.complete, counts.records_read, counts.deleted, counts.updated) == (True, 2, 3, 0)
    counts = run(partition={"number": [2, 3]}).counts
    assert (counts.records_read, counts.deleted, counts.updated) == (7, 3, 5)


def test_incremental_runs_read_from_the_cursor_on(origin: Origin, tmp_path: Path) -> None:
    run = partial(sync_parts, origin, tmp_path, scope="incremental", cursor="id")
    assert run().counts.records_read == 24
    origin.do(["INSERT INTO parts (id) VALUES (30)", "INSERT INTO parts (id) VALUES (31)"])
    result = run()
    assert (result.counts.records_read, result.counts.created, result.complete) == (3, 2, True)
    assert run().counts.records_read == 1
    assert run(full_refresh=True).counts.records_read == 26


class Visits:
    """A SQLite table `visits` that is read incrementally, or by region, into one that takes no negative values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.do(
            folder / "source.db",
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, region TEXT, at INTEGER, v INTEGER)",
            "INSERT INTO visits VALUES (1, 'EU', 1, 1), (2, 'US', 2, 2)",
        )
        self.do(
            folder / "target.db",
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, region TEXT, at INTEGER, v INTEGER CHECK (v >= 0))",
        )

    def do(self, path: Path, *statements: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            return [connection.execute(statement).fetchall() for statement in statements][-1]

    def run(self, **settings: Any) -> rundiff.Run:
        return rundiff.sync(
            f"sqlite:///{self.folder / 'source.db'}",
            primary_key="id",
            name="visits",
            table="visits",
            home=self.folder / "home",
            destination=f"sqlite:///{self.folder / 'target.db'}",
            into="visits",
            **settings,
        )


def test_what_was_refused_before_the_cursor_is_tried_again(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    source = tmp_path / "source.db"
    visits.do(source, "UPDATE visits SET v = -1 WHERE id = 1")
    assert visits.run(scope="incremental", cursor="at").counts.failed == 1
    # Who mends a record by hand does not always touch its time.
    visits.do(source, "UPDATE visits SET v = 1 WHERE id = 1")
    assert visits.run(scope="incremental", cursor="at").counts.written == 1
    assert visits.do(tmp_path / "target.db", "SELECT id, v FROM visits ORDER BY id") == [(1, 1), (2, 2)]
    assert visits.run(scope="incremental", cursor="at").counts.records_read == 1  # the cursor is heeded again


def test_a_collation_that_only_another_program_knows_is_not_needed(tmp_path: Path) -> None:
    visits, source = Visits(tmp_path), tmp_path / "source.db"
    with contextlib.closing(sqlite3.connect(source)) as connection, connection:
        connection.create_collation("LOCALIZED", lambda one, other: (one > other) - (one < other))
        connection.execute("DROP TABLE visits")
        connection.execute("CREATE TABLE visits (id INTEGER PRIMARY KEY, region TEXT COLLATE LOCALIZED)")
        connection.execute("INSERT INTO visits VALUES (1, 'EU'), (2, 'US')")
    assert visits.run(partition={"region": "EU"}).counts.records_read == 1


def test_a_run_of_a_part_that_lost_its_baseline_reads_everything(tmp_path: Path) -> None:
    visits = Visits(tmp_path)
    visits.run(partition_by=["region"], scope="full")
    shutil.rmtree(next((tmp_path / "home").rglob("base-*.arrow")).parent)
    eu = {"partition_by": ["region"], "partitions": ["EU"], "scope": "partition"}
    assert visits.run(**eu, on_lost_baseline="rebaseline").counts.records_read == 2
    assert visits.run(partition_by=["region"], scope="full").counts.written == 0
