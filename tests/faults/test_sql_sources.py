"""Servers that fail while they are read: a broken reading is an error, never a short one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import rundiff
from rundiff.errors import SourceError
from rundiff.settings import SourceOptions
from rundiff.sources import open_source
from rundiff.sources.contract import ReadBatch, Reading, ReadRequest, Source
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PASSWORD, PostgresqlServer

ROWS = 40_000


class Troubled:
    """A source that meets trouble when it has given its second batch."""

    may_delete_without_count = True

    def __init__(self, source: Source, trouble: Callable[[], object]) -> None:
        self._source, self._trouble = source, trouble
        self.location = source.location
        self.records = 0

    @contextlib.contextmanager
    def open(self, request: ReadRequest) -> Iterator[Reading]:
        with self._source.open(request) as reading:
            yield _Troubled(reading, self)

    def meet(self, number: int, batch: ReadBatch) -> None:
        self.records += batch.records.num_rows
        if number == 1:
            self._trouble()


class _Troubled:
    def __init__(self, reading: Reading, owner: Troubled) -> None:
        self._reading, self._owner = reading, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reading, name)

    def __iter__(self) -> Iterator[ReadBatch]:
        for number, batch in enumerate(self._reading):
            yield batch
            self._owner.meet(number, batch)


def filled(server: PostgresqlServer | MariadbServer) -> str:
    url = server.create_database()
    row = "'{}'".format("x" * 1_150)
    if isinstance(server, PostgresqlServer):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                f"CREATE TABLE people AS SELECT i AS id, {row} AS name FROM generate_series(1, {ROWS}) AS i".encode()
            )
    else:
        with contextlib.closing(server.connect(url.rpartition("/")[2])) as connection:
            connection.cursor().execute(
                f"CREATE TABLE people AS SELECT seq AS id, {row} AS name FROM seq_1_to_{ROWS}"
            )
    return url


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> PostgresqlServer | MariadbServer:
    found: PostgresqlServer | MariadbServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.mark.parametrize("trouble", ["kill", "stop", "drop_connections"])
def test_a_reading_that_breaks_off_changes_nothing(
    server: PostgresqlServer | MariadbServer, trouble: str, tmp_path: Path
) -> None:
    url = filled(server)
    source = open_source(url, SourceOptions(table="people"))
    given: dict[str, Any] = {
        "primary_key": "id",
        "name": "people",
        "destination": f"sqlite:///{tmp_path}/crm.db",
        "into": "people",
    }
    assert rundiff.sync(source, **given).counts.created == ROWS
    troubled = Troubled(source, getattr(server, trouble))
    try:
        with pytest.raises(SourceError, match=r"broke the reading off.*run again") as caught:
            rundiff.sync(troubled, **given)
    finally:
        server.start()
    assert 0 < troubled.records < ROWS
    assert PASSWORD not in str(caught.value)
    with contextlib.closing(sqlite3.connect(tmp_path / "crm.db")) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (ROWS,)
    result = rundiff.sync(source, **given)
    assert (result.counts.unchanged, result.counts.deleted) == (ROWS, 0)


def test_a_server_that_is_not_there(server: PostgresqlServer | MariadbServer, tmp_path: Path) -> None:
    url = server.create_database()
    server.stop()
    try:
        with pytest.raises(SourceError, match="can't be reached") as caught:
            rundiff.sync(url, table="t", primary_key="id", destination=f"{tmp_path}/c.jsonl")
    finally:
        server.start()
    assert PASSWORD not in str(caught.value)
