"""What is particular to PostgreSQL and MariaDB: types, tables of others, refusals, lost connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest

from rundiff.destinations import open_destination
from rundiff.destinations.contract import Destination, Position, Target
from rundiff.errors import ConfigurationError, DestinationError, RecordsRefused
from rundiff.settings import DestinationOptions
from rundiff.testing.batches import change_batch, every_type
from rundiff.testing.nasty import NASTY
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PostgresqlServer

TARGET = Target(sync_id="0b9c4ea8-1f3e-4c55-9d28-3a1d1c6d0009", sync="people", primary_key=("id",), token=1)
START = Position(run=1, sequence=0)


class Server:
    """One database of one of the two kinds."""

    def __init__(self, kind: str, url: str, server: PostgresqlServer | MariadbServer) -> None:
        self.kind, self.url, self.server = kind, url, server

    def open(self, into: str = "people") -> Destination:
        return open_destination(DestinationOptions(url=self.url, into=into))

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        if isinstance(self.server, PostgresqlServer):
            with psycopg.connect(self.url) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []
        opened = self.server.connect(self.url.rpartition("/")[2])
        with contextlib.closing(opened) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    name = request.param
    return Server(name, request.getfixturevalue(f"{name}_url"), request.getfixturevalue(f"{name}_server"))


@pytest.fixture
def postgresql(postgresql_url: str, postgresql_server: PostgresqlServer) -> Server:
    return Server("postgresql", postgresql_url, postgresql_server)


@pytest.fixture
def mariadb(mariadb_url: str, mariadb_server: MariadbServer) -> Server:
    return Server("mariadb", mariadb_url, mariadb_server)


@pytest.fixture
def destination(server: Server) -> Iterator[Destination]:
    with contextlib.closing(server.open()) as opened:
        yield opened


def deliver(
    destination: Destination, rows: pa.Table | list[dict[str, Any]], at: Position = START
) -> Position:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    destination.check(TARGET, dict(zip(table.column_names, table.schema.types, strict=True)))
    destination.prepare(TARGET, table.schema)
    destination.claim(TARGET, at)
    return destination.deliver(TARGET, change_batch(table, "insert", first=at.sequence + 1), at)


def test_types_come_back_from_postgresql_as_they_were(postgresql: Server) -> None:
    with contextlib.closing(postgresql.open()) as destination:
        table = every_type().drop_columns(["time_ns", "timestamp_ns", "zoned_ns", "duration_ns"])
        deliver(destination, table)
    with psycopg.connect(postgresql.url, row_factory=psycopg.rows.dict_row) as connection:
        row = connection.execute("SELECT * FROM people WHERE id = 1").fetchone()
    assert row is not None
    expected = {
        "int64": -(2**63),
        "uint64": Decimal(2**64 - 1),
        "float64": 0.1,
        "infinity": float("inf"),
        "money": Decimal("1.10"),
        "huge_decimal": Decimal("9" * 58 + ".01"),
        "text": "é \U0001f600",
        "binary": b"\x00\xff",
        "date": date(2024, 2, 29),
        "time_us": time(1, 2, 3, 400),
        "timestamp_us": datetime(2024, 1, 1, 1, 1, 1, 1),  # noqa: DTZ001  # naive on purpose
        "zoned": datetime(2024, 7, 1, 10, tzinfo=UTC),
        "duration": timedelta(seconds=-1, microseconds=5),
        "list": [1, None, 2**60],
        "texts": ["a", 'b"', None],
        "struct": {"a": 1, "b": ["x"]},
        "uuid": UUID(int=2**64 + 1),
    }
    assert {name: row[name] for name in expected} == expected
    assert str(row["nan"]) == "nan"


def test_types_come_back_from_mariadb_as_they_were(mariadb: Server) -> None:
    refused = ["time_ns", "timestamp_ns", "zoned_ns", "infinity", "nan"]
    with contextlib.closing(mariadb.open()) as destination:
        deliver(destination, every_type().drop_columns(refused))
    names = [
        "int64",
        "uint64",
        "float64",
        "money",
        "text",
        "binary",
        "date",
        "timestamp_us",
        "zoned",
        "uuid",
        "struct",
    ]
    columns = ", ".join(f'"{name}"' for name in names)
    [row] = mariadb.ask(f"SELECT {columns} FROM people WHERE id = 1")
    assert list(row) == [
        -(2**63),
        2**64 - 1,
        0.1,
        Decimal("1.10"),
        "é \U0001f600",
        b"\x00\xff",
        date(2024, 2, 29),
        datetime(2024, 1, 1, 1, 1, 1, 1),  # noqa: DTZ001  # MySQL has no zones
        datetime(2024, 7, 1, 10),  # noqa: DTZ001  # as above
        str(UUID(int=2**64 + 1)),
        '{"a":1,"b":["x"]}',
    ]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("VARCHAR(3)", "abcd"),
        ("SMALLINT", 40_000),
        ("INTEGER", -(2**31) - 1),
    ],
)
def test_values_beyond_a_column_are_refused_and_not_told(server: Server, declared: str, value: Any) -> None:
    server.ask(f"CREATE TABLE people (id BIGINT PRIMARY KEY, v {declared})")
    with (
        contextlib.closing(server.open()) as destination,
        pytest.raises(RecordsRefused, match='"v"') as caught,
    ):
        deliver(destination, [{"id": 1, "v": value}])
    assert str(value) not in str(caught.value)
    assert server.ask("SELECT count(*) FROM people") == [(0,)]


@pytest.mark.parametrize(
    ("declared", "arrow_type"),
    [
        ("INTEGER", pa.float64()),
        ("NUMERIC(5,1)", pa.decimal128(5, 2)),
        ("DATE", pa.timestamp("us")),
        ("TIMESTAMP(3)", pa.timestamp("us")),
        ("INTEGER", pa.string()),
        ("VARCHAR(20)", pa.binary()),
    ],
)
def test_columns_that_would_change_values(server: Server, declared: str, arrow_type: pa.DataType) -> None:
    server.ask(f"CREATE TABLE people (id BIGINT PRIMARY KEY, v {declared})")
    with (
        contextlib.closing(server.open()) as destination,
        pytest.raises(ConfigurationError, match="can't hold"),
    ):
        destination.check(TARGET, {"id": pa.int64(), "v": arrow_type})


def test_rows_of_others_that_look_alike_are_not_touched(mariadb: Server) -> None:
    mariadb.ask("CREATE TABLE people (id VARCHAR(20) COLLATE utf8mb4_general_ci, v VARCHAR(20), KEY (id))")
    mariadb.ask("INSERT INTO people VALUES ('A', 'mine'), ('a ', 'mine')")
    with contextlib.closing(mariadb.open()) as destination:
        at = deliver(destination, [{"id": "a", "v": "ours"}])
        at = destination.deliver(TARGET, change_batch([{"id": "a", "v": "new"}], "update", first=2), at)
        assert sorted(mariadb.ask("SELECT id, v FROM people")) == [
            ("A", "mine"),
            ("a", "new"),
            ("a ", "mine"),
        ]
        destination.deliver(TARGET, change_batch([{"id": "a", "v": "new"}], "delete", first=3), at)
    assert sorted(mariadb.ask("SELECT id, v FROM people")) == [("A", "mine"), ("a ", "mine")]


def test_a_type_that_passes_over_case_in_postgresql(postgresql: Server) -> None:
    postgresql.ask("CREATE EXTENSION citext")
    postgresql.ask("CREATE TABLE people (id citext, v text)")
    postgresql.ask("INSERT INTO people VALUES ('A', 'mine')")
    with contextlib.closing(postgresql.open()) as destination:
        at = deliver(destination, [{"id": "a", "v": "ours"}])
        destination.deliver(TARGET, change_batch([{"id": "a", "v": "ours"}], "delete", first=2), at)
    assert postgresql.ask("SELECT id, v FROM people") == [("A", "mine")]


def test_trailing_blanks_that_mysql_would_cut_off(mariadb: Server) -> None:
    mariadb.ask("CREATE TABLE people (id BIGINT PRIMARY KEY, v VARCHAR(3))")
    with contextlib.closing(mariadb.open()) as destination, pytest.raises(RecordsRefused, match='"v"'):
        deliver(destination, [{"id": 1, "v": "abc "}])


def test_a_character_that_a_column_lacks(mariadb: Server) -> None:
    mariadb.ask("CREATE TABLE people (id BIGINT PRIMARY KEY, v TEXT CHARACTER SET latin1)")
    with contextlib.closing(mariadb.open()) as destination:
        with pytest.raises(RecordsRefused, match='"v"'):
            deliver(destination, [{"id": 1, "v": "\U0001f600"}])
        deliver(destination, [{"id": 1, "v": "é"}])


def test_a_table_without_transactions(mariadb: Server) -> None:
    mariadb.ask("CREATE TABLE people (id BIGINT PRIMARY KEY) ENGINE=MyISAM")
    with contextlib.closing(mariadb.open()) as destination, pytest.raises(ConfigurationError, match="MyISAM"):
        destination.check(TARGET, {"id": pa.int64()})


def test_nasty_table_names(server: Server) -> None:
    """Each is kept as it is, or refused before anything is read."""
    kept = []
    for name in NASTY:
        into = '"' + name.replace('"', '""') + '"'
        try:
            with contextlib.closing(server.open(into)) as destination:
                deliver(destination, [{"id": 1}])
        except ConfigurationError:
            continue
        kept.append(name)
    listed = {row[0] for row in server.ask("SELECT table_name FROM information_schema.tables")}
    assert len(kept) > 0.8 * len(NASTY)
    assert [name for name in kept if name not in listed] == []


def test_names_that_are_too_long(server: Server) -> None:
    with pytest.raises(ConfigurationError, match="65"):
        server.open("t" * 65)


def test_system_columns_are_refused_before_anything_is_read(postgresql: Server) -> None:
    with contextlib.closing(postgresql.open()) as destination, pytest.raises(DestinationError, match="xmin"):
        destination.check(TARGET, {"id": pa.int64(), "xmin": pa.int64()})
    assert postgresql.ask("SELECT to_regclass('people')") == [(None,)]


def test_a_lost_connection_is_told_and_the_position_stands(server: Server, destination: Destination) -> None:
    at = deliver(destination, [{"id": 1}])
    server.server.drop_connections()
    with pytest.raises(DestinationError, match=r"[Rr]un again") as caught:
        destination.deliver(TARGET, change_batch([{"id": 2}], "insert", first=2), at)
    assert not isinstance(caught.value, RecordsRefused)
    destination.close()
    with contextlib.closing(server.open()) as again:
        assert again.position(TARGET) == at
        again.deliver(TARGET, change_batch([{"id": 2}], "insert", first=2), at)
    assert server.ask("SELECT count(*) FROM people") == [(2,)]


def test_a_user_without_rights_is_told_before_anything_is_read(postgresql: Server) -> None:
    postgresql.ask("CREATE TABLE people (id bigint)")
    postgresql.ask("DROP ROLE IF EXISTS reader")
    postgresql.ask("CREATE ROLE reader LOGIN PASSWORD 'never-show-this'")
    postgresql.ask("GRANT SELECT, INSERT ON people TO reader")
    url = postgresql.url.replace("//rundiff:", "//reader:")
    with (
        contextlib.closing(open_destination(DestinationOptions(url=url, into="people"))) as destination,
        pytest.raises(DestinationError, match="right to UPDATE"),
    ):
        destination.check(TARGET, {"id": pa.int64()})
