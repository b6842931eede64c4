"""Tables of the four kinds of databases, as tests write into them behind Rundiff's back."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rundiff

__all__ = ["KINDS", "Tampered", "flow", "open_tampered"]

KINDS = ("sqlite", "duckdb", "postgresql", "mariadb")


@dataclass(frozen=True)
class Tampered:
    """A database that somebody else writes to, too."""

    kind: str
    url: str
    server: Any = None

    def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements on one connection, and give the rows of the last; names stand in double quotes."""
        rows: list[tuple[Any, ...]] = []
        with contextlib.closing(self._connect()) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
        return rows

    def _connect(self) -> Any:
        path = self.url.partition(":///")[2]
        if self.kind == "sqlite":
            return sqlite3.connect(path)
        if self.kind == "duckdb":
            import duckdb

            connection = duckdb.connect(path)
            connection.begin()
            return connection
        if self.kind == "postgresql":
            import psycopg

            return psycopg.connect(self.url)
        return self.server.connect(self.url.rpartition("/")[2])


def open_tampered(kind: str, request: pytest.FixtureRequest, folder: Path) -> Tampered:
    """Make an empty database of a kind."""
    if kind in ("sqlite", "duckdb"):
        return Tampered(kind, f"{kind}:///{folder / 'there.db'}")
    if kind == "postgresql":
        return Tampered(kind, request.getfixturevalue("postgresql_url"))
    return Tampered(kind, request.getfixturevalue("mariadb_url"), request.getfixturevalue("mariadb_server"))


def flow(there: Tampered, rows: Any, **options: Any) -> rundiff.Sync:
    """Give the sync of a table `people`, by `id`."""
    return rundiff.Sync(rows, "id", name="people", destination=there.url, into="people", **options)
