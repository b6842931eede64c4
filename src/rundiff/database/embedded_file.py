"""The file of the embedded database: opened, brought to this version's schema, and its transactions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from rundiff.errors import StorageError

__all__ = ["SCHEMA_VERSION", "open_file", "transaction"]

SCHEMA_VERSION = 2
_SINCE = {1: "-- Since version 2"}
"""Where the schema's later parts begin, by the version that lacks them."""
_LOCK_SECONDS = 30.0


def open_file(path: Path) -> sqlite3.Connection:
    """Open the file, made where there is none; raises `StorageError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One connection for all threads of a process, which take turns by sqlite3's own lock.
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_LOCK_SECONDS)
        db.row_factory = sqlite3.Row
        _use_wal(db)
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        _migrate(db, path)
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"the database {path} can't be opened ({error}); check that its folder is writable and on "
            "a local disk"
        ) from error
    return db


@contextmanager
def transaction(db: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One transaction that sees no other's; raises `StorageError` where it can't be written."""
    try:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            # SQLite may have ended the transaction itself, as it does when the disk is full.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    except sqlite3.Error as error:
        raise StorageError(
            f"the database {path} can't be written ({error}); free disk space or mend its "
            "permissions, then run again"
        ) from error


def _use_wal(db: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The switch needs the file alone, and of all statements it does not wait for that.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found == SCHEMA_VERSION:
        return
    if found > SCHEMA_VERSION:
        db.close()
        raise StorageError(
            f"{path} was written by a newer Rundiff (schema {found}, this one knows "
            f"{SCHEMA_VERSION}); upgrade Rundiff"
        )
    with transaction(db, path):
        # Another process may have made the tables since.
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found < SCHEMA_VERSION:
            schema = files("rundiff.database").joinpath("schema.sql").read_text()
            for statement in schema[schema.index(_SINCE[found]) if found else 0 :].split(";\n"):
                if statement.strip():
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
