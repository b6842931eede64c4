"""All databases against the one suite, and what is the embedded one's own."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.servers.postgresql import PostgresqlServer
from tests.sqlitefiles import opened

from rundiff.database.contract import Database
from rundiff.database.embedded import SCHEMA_VERSION, EmbeddedDatabase
from rundiff.database.postgresql import PostgresqlDatabase
from rundiff.errors import StorageError
from rundiff.testing.databases import NOW, DatabaseSuite, a_sync
from rundiff.testing.write_logs import WriteLogSuite


class TestEmbedded(DatabaseSuite):
    @pytest.fixture
    def open_database(self, tmp_path: Path) -> Callable[[], Database]:
        return lambda: EmbeddedDatabase(tmp_path / "a b" / "rundiff.sqlite")


class TestEmbeddedLog(WriteLogSuite):
    @pytest.fixture
    def open_database(self, home_folder: Path) -> Callable[[], Database]:
        return lambda: EmbeddedDatabase(home_folder / "rundiff.sqlite")


class TestPostgresql(DatabaseSuite):
    @pytest.fixture
    def open_database(self, postgresql_url: str) -> Callable[[], Database]:
        return lambda: PostgresqlDatabase(postgresql_url)


class TestPostgresqlLog(WriteLogSuite):
    @pytest.fixture
    def open_database(self, postgresql_url: str) -> Callable[[], Database]:
        return lambda: PostgresqlDatabase(postgresql_url)

    @pytest.fixture
    def other_home(self, tmp_path: Path) -> Path:
        return tmp_path / "another machine"


class TestPostgresqlInASchema(DatabaseSuite):
    @pytest.fixture
    def open_database(self, postgresql_url: str) -> Callable[[], Database]:
        return lambda: PostgresqlDatabase(f"{postgresql_url}?schema=Two%20words")


@pytest.fixture
def older_url(older_postgresql: PostgresqlServer) -> str:
    """A database of an older server in which the tables are made already, which takes longer than a test."""
    name = "with_tables"
    if not _exists(older_postgresql, name):
        PostgresqlDatabase(older_postgresql.create_database(name)).close()
    return older_postgresql.create_database(like=name)


def _exists(server: PostgresqlServer, name: str) -> bool:
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
        return found.fetchone() is not None


class TestOlderPostgresql(DatabaseSuite):
    @pytest.fixture
    def open_database(self, older_url: str) -> Callable[[], Database]:
        return lambda: PostgresqlDatabase(older_url)


class TestOlderPostgresqlLog(WriteLogSuite):
    @pytest.fixture
    def open_database(self, older_url: str) -> Callable[[], Database]:
        return lambda: PostgresqlDatabase(older_url)

    @pytest.fixture
    def other_home(self, tmp_path: Path) -> Path:
        return tmp_path / "another machine"


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "rundiff.sqlite"
    EmbeddedDatabase(path).close()
    with opened(path) as raw:
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    with pytest.raises(StorageError, match=r"written by a newer Rundiff .*upgrade Rundiff"):
        EmbeddedDatabase(path)


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough for one" * 100, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_database_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rundiff.sqlite"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="can't be opened"):
        EmbeddedDatabase(path)
    assert path.read_bytes() == content


def test_every_commit_is_synced(tmp_path: Path) -> None:
    database = EmbeddedDatabase(tmp_path / "rundiff.sqlite")
    try:
        settings = {
            name: database._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        }
    finally:
        database.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2}


@pytest.mark.parametrize("at", ["COMMIT", "UPDATE"])
def test_a_write_that_fails_leaves_no_transaction_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A full disk while a transaction is written: the next one begins as if nothing had been."""
    connect = sqlite3.connect
    full = []

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
            if full and sql.startswith(at):
                full.clear()
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *arguments)

    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "factory": Connection}))
    database = EmbeddedDatabase(tmp_path / "rundiff.sqlite")
    try:
        sync = database.create(a_sync())
        first = database.acquire(sync.sync_id, "me", NOW, over=True)
        full.append(True)
        with pytest.raises(StorageError, match=r"disk is full.*free disk space"):
            database.acquire(sync.sync_id, "me", NOW, over=True)
        assert database.get(sync.sync_id).token == first
        assert database.acquire(sync.sync_id, "me", NOW, over=True) == first + 1
    finally:
        database.close()
