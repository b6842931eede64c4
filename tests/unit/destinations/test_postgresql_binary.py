"""Rows in COPY's binary format say the same as the CSV of the same arrays, and what has no such form goes as CSV."""

from __future__ import annotations

import datetime as dt
import random
import sys
import uuid
from decimal import Decimal

import psycopg
import pyarrow as pa
import pytest

from rundiff.destinations.postgresql import PostgresqlConnection
from rundiff.destinations.postgresql_binary import binary_rows
from rundiff.destinations.postgresql_types import type_for
from rundiff.destinations.tables import Column
from rundiff.errors import RecordsRefused
from rundiff.servers import parse_server
from tests.servers.postgresql import PostgresqlServer

ROWS = 20_001
"""More than one piece, and no multiple of eight."""
UTC = dt.UTC


def values() -> dict[str, pa.Array]:
    """Columns of every type with a binary form, with nulls and the ends of their ranges."""
    chance = random.Random(7)  # noqa: S311 -- the same rows each time

    def filled(kind: pa.DataType, *some: object) -> pa.Array:
        return pa.array(
            [None, *some, *(chance.choice([None, *some]) for _ in range(ROWS - len(some))), some[0]], kind
        )

    digits = [
        "0",
        "1",
        "-1",
        "0.01",
        "-0.01",
        "12345.67",
        "-9999.99",
        "10000",
        "100000000",
        "9999999999.99",
        "-0.10",
    ]
    wide = [
        "0",
        "1E-9",
        "-1E-9",
        "99999999999999999999999999999.999999999",
        "-10000.0001",
        "123456789.000000001",
    ]
    return {
        "n": pa.array(range(ROWS + 2)),
        "small": filled(pa.int8(), -128, 127, 0),
        "short": filled(pa.int16(), -(2**15), 2**15 - 1),
        "medium": filled(pa.uint16(), 0, 65_535),
        "long": filled(pa.int64(), -(2**63), 2**63 - 1, 0),
        "half": filled(pa.float16(), 1.5, -0.0),
        "single": filled(pa.float32(), 0.1, float("inf"), float("nan")),
        "double": filled(pa.float64(), 0.1, -0.0, float("-inf"), float("nan"), 5e-324),
        "yes": filled(pa.bool_(), True, False),
        "money": filled(pa.decimal128(12, 2), *map(Decimal, digits)),
        "wide": filled(pa.decimal128(38, 9), *map(Decimal, wide)),
        "whole": filled(pa.decimal128(20, 0), Decimal(10**19), Decimal(-1), Decimal(0)),
        "text": filled(pa.string(), "", 'a"b', "\\N", "é,\n\t", "\U0001f600"),
        "large": filled(pa.large_string(), "x" * 300, ""),
        "bytes": filled(pa.binary(), b"", b"\x00\xff"),
        "fixed": filled(pa.binary(3), b"abc", b"\x00\x01\x02"),
        "day": filled(
            pa.date32(), dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2000, 1, 1), dt.date(1999, 12, 31)
        ),
        "clock": filled(pa.time64("us"), dt.time(0), dt.time(23, 59, 59, 999_999)),
        "naive": filled(
            pa.timestamp("us"),
            dt.datetime(1, 1, 1, tzinfo=UTC),
            dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        ),
        "nano": filled(
            pa.timestamp("ns"),
            dt.datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
            dt.datetime(2024, 5, 1, tzinfo=UTC),
        ),
        "zoned": filled(pa.timestamp("ms", "Europe/Berlin"), dt.datetime(2024, 3, 31, 1, 30, tzinfo=UTC)),
        "id": pa.ExtensionArray.from_storage(
            pa.uuid(), filled(pa.binary(16), uuid.UUID(int=1).bytes, uuid.UUID(int=2**128 - 1).bytes)
        ),
        "json": pa.ExtensionArray.from_storage(
            pa.json_(), filled(pa.string(), '{"b": 1, "a": [null]}', "1.50")
        ),
        "nested": filled(
            pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}), {"a": 1, "b": ["x", None]}
        ),
        "nothing": pa.nulls(ROWS + 2),
    }


@pytest.mark.parametrize("start", [0, 3])
def test_binary_rows_and_csv_give_the_same_table(
    postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    arrays = {name: array.slice(start) for name, array in values().items()}
    columns = [Column(name, type_for(array.type)) for name, array in arrays.items()]
    assert binary_rows(list(arrays.values()), columns) is not None
    url = postgresql_server.create_database()
    destination = PostgresqlConnection(parse_server(url, "postgresql", 5432, "destination"))
    try:
        for table in ("as_binary", "as_csv"):
            if table == "as_csv":
                monkeypatch.setitem(sys.modules, "pgpq", None)  # as where it is not installed
                assert binary_rows(list(arrays.values()), columns) is None
            declared = ", ".join(f'"{column.name}" {column.type}' for column in columns)
            destination.execute(f"CREATE TABLE {table} ({declared})")
            with destination.transaction():
                destination.append(table, columns, list(arrays.values()))
    finally:
        destination.close()
    # The text of a row is exact for all of these types.
    ordered = "SELECT t::text FROM {} AS t ORDER BY n"
    with psycopg.connect(url) as connection:
        rows = [connection.execute(ordered.format(t).encode()).fetchall() for t in ("as_binary", "as_csv")]
    assert len(rows[0]) == len(arrays["long"])
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("array", "declared"),
    [
        (pa.array([2**31]), "integer"),  # the server is to refuse it by its own words
        (pa.array([0.5]), "real"),
        (pa.array([1.5]), "numeric(5,1)"),
        (pa.array([True]), "integer"),
        (pa.array([Decimal("1.5")], pa.decimal256(40, 3)), "numeric(40,3)"),
        (pa.array([Decimal("1.25")], pa.decimal128(5, 2)), "numeric(5,1)"),
        (pa.array([-719_163], pa.int32()).cast(pa.date32()), "date"),  # before Christ
        (pa.array([2**62]).cast(pa.timestamp("us")), "timestamp without time zone"),
        (pa.array([86_400_000_000]).cast(pa.time64("us")), "time without time zone"),  # 24:00
        (pa.array(["a"]), "citext"),
        (pa.array(["a"]), "mood"),
        (pa.array([["a"]]), "text[]"),
        (pa.array([1], pa.duration("s")), "interval"),
        (pa.array([1], pa.timestamp("us")), "timestamp(3) without time zone"),
    ],
)
def test_what_has_no_plain_binary_form_goes_as_text(array: pa.Array, declared: str) -> None:
    assert binary_rows([array], [Column("v", declared)]) is None


@pytest.mark.parametrize(
    ("array", "declared", "why"),
    [
        (pa.array(["a\0b"]), "text", "NUL character"),
        (pa.array(["abc"]), "character varying(2)", "too long"),
        (pa.array([Decimal("1000.00")], pa.decimal128(6, 2)), "numeric(4,2)", "out of the range"),
    ],
)
def test_refusals_name_the_column(
    postgresql_server: PostgresqlServer, array: pa.Array, declared: str, why: str
) -> None:
    column = Column("v", declared)
    assert binary_rows([array], [column]) is not None
    url = postgresql_server.create_database()
    destination = PostgresqlConnection(parse_server(url, "postgresql", 5432, "destination"))
    try:
        destination.execute(f"CREATE TABLE t (v {declared})")
        with pytest.raises(RecordsRefused, match=f'{why}.*, in the column "v"'), destination.transaction():
            destination.append("t", [column], [array])
        with pytest.raises(RecordsRefused, match=f'{why}.*, in the column "v"'), destination.transaction():
            destination.stage([column], [array], 0)
    finally:
        destination.close()
