"""A signature store on PostgreSQL that is cut off, started again, emptied or older: nothing wrong is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import rundiff
from rundiff.engine.workspace import Workspace
from rundiff.errors import BaselineLost, StorageError
from rundiff.settings import Storage
from rundiff.stores import postgresql
from tests.faults.worlds import World, rows
from tests.servers.postgresql import PASSWORD, PostgresqlServer


class OnPostgresql(World):
    """A world whose baselines are in a database."""

    url: str

    def sync(self, source: Any, **options: Any) -> rundiff.Sync:
        return super().sync(source, signatures=self.url, **options)

    def workspace(self) -> Workspace:
        return Workspace(Storage(home=str(self.home), signatures=self.url))

    def statement(self, text: str) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def on_postgresql(tmp_path: Path, postgresql_url: str) -> OnPostgresql:
    made = OnPostgresql(tmp_path)
    made.url = postgresql_url
    return made


def during(source: list[Any], act: Callable[[], Any]) -> Iterator[Any]:
    """Give rows, and do something after the second."""
    for number, row in enumerate(source):
        if number == 2:
            act()
        yield row


def test_connections_that_are_ended_during_a_run(
    on_postgresql: OnPostgresql, postgresql_server: PostgresqlServer
) -> None:
    on_postgresql.run(rows(1, 2, 3))
    result = on_postgresql.run(during(rows(1, 2, 4), postgresql_server.drop_connections))
    assert (result.warnings, result.counts.created, result.counts.deleted) == ((), 1, 1)
    assert on_postgresql.run(rows(1, 2, 4)).counts.unchanged == 3


def test_a_server_killed_and_started_during_a_run(
    on_postgresql: OnPostgresql, postgresql_server: PostgresqlServer
) -> None:
    on_postgresql.run(rows(1, 2, 3))

    def restart() -> None:
        postgresql_server.kill()
        postgresql_server.start()

    result = on_postgresql.run(during(rows(1, 2, 4), restart))
    assert (result.counts.created, result.counts.deleted) == (1, 1)
    assert on_postgresql.table() == {1: "a", 2: "a", 4: "a"}


def test_a_server_that_is_gone_is_not_lost(
    on_postgresql: OnPostgresql, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_postgresql.run(rows(1, 2, 3))
    monkeypatch.setattr(postgresql, "DELAYS", (0.01,))
    postgresql_server.kill()
    try:
        with pytest.raises(StorageError, match="can't be used") as caught:
            on_postgresql.run(rows(1))
    finally:
        postgresql_server.start()
    assert PASSWORD not in str(caught.value)
    assert on_postgresql.table() == {1: "a", 2: "a", 3: "a"}
    assert on_postgresql.run(rows(1, 2)).counts.deleted == 1


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("TRUNCATE rundiff_signature_objects CASCADE", "holds nothing of this sync"),
        ("DELETE FROM rundiff_signature_objects WHERE name LIKE 'base-%'", "is missing: someone removed it"),
        (
            "DELETE FROM rundiff_signature_objects WHERE name LIKE 'manifest-%' AND name > 'manifest-00000002'",
            "is older than it should be: it ends with manifest-0000000",
        ),
        ("DELETE FROM rundiff_signature_chunks WHERE name LIKE 'base-%'", "is missing: someone removed it"),
        ("UPDATE rundiff_signature_chunks SET content = '\\x00' WHERE name LIKE 'base-%'", "damaged"),
    ],
)
def test_what_is_lost_is_told_and_made_anew(on_postgresql: OnPostgresql, statement: str, says: str) -> None:
    on_postgresql.run(rows(*range(1, 51)))
    on_postgresql.run(rows(*range(2, 51)))
    on_postgresql.run(rows(*range(3, 51)))
    on_postgresql.statement(statement)
    if says == "damaged":
        for path in (on_postgresql.home / "cache").rglob("*.arrow"):
            path.unlink()
    before = on_postgresql.table()
    with pytest.raises(BaselineLost, match=says):
        on_postgresql.run(rows(3))
    assert on_postgresql.table() == before
    with on_postgresql.workspace() as workspace:
        assert workspace.rebuild("s") == 48
    assert on_postgresql.run(rows(*range(4, 51))).counts.deleted == 1


def test_a_store_of_a_newer_version_is_refused(on_postgresql: OnPostgresql) -> None:
    on_postgresql.run(rows(1))
    on_postgresql.statement("INSERT INTO rundiff_signature_format VALUES (2)")
    with pytest.raises(StorageError, match="newer Rundiff"):
        on_postgresql.run(rows(1))
