"""The signature store on PostgreSQL, for teams without Redis.

Three tables in the database that the URL names, made at the first use: `rundiff_signature_objects` with one row an
object, `rundiff_signature_chunks` with its bytes in pieces of 256 kB, and `rundiff_signature_pointers`. Nothing
expires. Every method is one transaction, and is done again when its connection was lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import TupleRow

from rundiff.errors import BaselineLost, Fenced, StorageError
from rundiff.servers import server_version
from rundiff.settings import without_secrets
from rundiff.stores.blob_plans import digest_of_file
from rundiff.stores.cache import LocalCopies
from rundiff.stores.contract import StoreReport, is_manifest

__all__ = ["PostgresqlStore", "open_postgresql"]

CHUNK_BYTES = 1 << 18
DELAYS = (0.1, 0.3, 1.0, 2.0, 4.0)
"""Seconds between attempts: long enough for a server that is started again."""
_VERSION = 1
_LOCK = 0x72756E6469666673
"""The advisory lock under which tables are made; any number that others don't take."""
_TABLES = f"""
CREATE TABLE IF NOT EXISTS rundiff_signature_format (version integer PRIMARY KEY);
CREATE TABLE IF NOT EXISTS rundiff_signature_objects (
    sync_id text NOT NULL, name text NOT NULL, size bigint NOT NULL, digest text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (sync_id, name));
CREATE TABLE IF NOT EXISTS rundiff_signature_chunks (
    sync_id text NOT NULL, name text NOT NULL, number integer NOT NULL, content bytea NOT NULL,
    PRIMARY KEY (sync_id, name, number),
    FOREIGN KEY (sync_id, name) REFERENCES rundiff_signature_objects ON DELETE CASCADE);
-- Signatures don't compress; trying costs more than storing.
ALTER TABLE rundiff_signature_chunks ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS rundiff_signature_pointers (
    sync_id text PRIMARY KEY, manifest text, token bigint NOT NULL);
INSERT INTO rundiff_signature_format VALUES ({_VERSION}) ON CONFLICT DO NOTHING;
"""

Result = TypeVar("Result")
Connection = psycopg.Connection[TupleRow]


def open_postgresql(url: str, cache: Path) -> PostgresqlStore:
    """Open the store of a URL as libpq takes it; connects at the first use."""
    return PostgresqlStore(url, cache)


class PostgresqlStore:
    """Objects as rows; see the module."""

    def __init__(self, url: str, cache: Path) -> None:
        self._url = url
        self._shown = without_secrets(url)
        self._copies = LocalCopies(cache)
        self._connection: Connection | None = None
        self._ready = False

    # Objects

    def workspace(self, sync_id: str) -> Path:
        """Give the local folder of half-written files."""
        return self._copies.workspace(sync_id)

    def put(self, sync_id: str, path: Path) -> None:
        """Send a file in pieces, in one transaction; it becomes the local copy."""
        size, digest = path.stat().st_size, digest_of_file(path)

        def send(connection: Connection) -> None:
            new = connection.execute(
                "INSERT INTO rundiff_signature_objects (sync_id, name, size, digest) VALUES (%s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING RETURNING name",
                (sync_id, path.name, size, digest),
            ).fetchone()
            if new is None:
                return
            with (
                connection.cursor() as cursor,
                cursor.copy(
                    "COPY rundiff_signature_chunks (sync_id, name, number, content) FROM STDIN (FORMAT binary)"
                ) as copy,
            ):
                copy.set_types(["text", "text", "int4", "bytea"])
                for number, piece in enumerate(_pieces(path)):
                    copy.write_row((sync_id, path.name, number, piece))

        self._do(send)
        self._copies.keep(sync_id, path)

    def get(self, sync_id: str, name: str) -> Path | None:
        """Give the local copy, fetched if need be. Raises `BaselineLost` if what the server has is damaged."""
        found = self._do(
            lambda connection: connection.execute(
                "SELECT size, digest FROM rundiff_signature_objects WHERE sync_id = %s AND name = %s",
                (sync_id, name),
            ).fetchone()
        )
        if found is None:
            return None
        size, digest = found
        copy = self._copies.find(sync_id, name, size, digest)
        if copy is not None:
            return copy

        def fetch(path: Path) -> None:
            self._do(lambda connection: _fetch(connection, (sync_id, name), path))
            if path.stat().st_size != size or digest_of_file(path) != digest:
                raise BaselineLost(f"{name} is damaged in the signature store: its pieces don't make it up")

        return self._copies.make(sync_id, name, fetch)

    def touch(self, sync_id: str, names: Iterable[str], seconds: float) -> Sequence[str]:  # noqa: ARG002 -- nothing expires
        """Say which objects are missing, or lack a piece."""
        wanted = list(names)
        there = self._do(
            lambda connection: connection.execute(
                "SELECT name FROM rundiff_signature_objects AS o WHERE sync_id = %s AND name = ANY(%s)"
                " AND (size + %s - 1) / %s = (SELECT count(*) FROM rundiff_signature_chunks AS c"
                " WHERE c.sync_id = o.sync_id AND c.name = o.name)",
                (sync_id, wanted, CHUNK_BYTES, CHUNK_BYTES),
            ).fetchall()
        )
        found = {row[0] for row in there}
        return [name for name in wanted if name not in found]

    def drop(self, sync_id: str, names: Iterable[str]) -> None:
        """Remove objects; their pieces go with them."""
        gone = list(names)
        self._copies.drop(sync_id, gone)
        stored = [name for name in gone if "/" not in name]
        if stored:
            self._do(
                lambda connection: connection.execute(
                    "DELETE FROM rundiff_signature_objects WHERE sync_id = %s AND name = ANY(%s)",
                    (sync_id, stored),
                )
            )

    def sync_ids(self) -> Sequence[str]:
        """List the syncs."""
        rows = self._do(
            lambda connection: connection.execute(
                "SELECT DISTINCT sync_id FROM rundiff_signature_objects ORDER BY sync_id"
            ).fetchall()
        )
        return [row[0] for row in rows]

    def names(self, sync_id: str) -> Sequence[str]:
        """List the objects, and half-written local files as `new/…`."""
        return self._stored(sync_id) + list(self._copies.unfinished(sync_id))

    def _stored(self, sync_id: str) -> list[str]:
        rows = self._do(
            lambda connection: connection.execute(
                "SELECT name FROM rundiff_signature_objects WHERE sync_id = %s", (sync_id,)
            ).fetchall()
        )
        return sorted(row[0] for row in rows)

    # The pointer

    def swap_manifest(self, sync_id: str, manifest: str | None, token: int) -> None:
        """Set the pointer, unless it was set under a higher token."""
        set_now = self._do(
            lambda connection: connection.execute(
                "INSERT INTO rundiff_signature_pointers AS p VALUES (%s, %s, %s) ON CONFLICT (sync_id) DO UPDATE"
                " SET manifest = excluded.manifest, token = excluded.token WHERE p.token <= excluded.token"
                " RETURNING p.token",
                (sync_id, manifest, token),
            ).fetchone()
        )
        if set_now is None:
            raise Fenced(
                "another run has taken this sync over and committed since; this run's result is not used"
            )

    def current_manifest(self, sync_id: str) -> str | None:
        """Read the pointer."""
        row = self._do(
            lambda connection: connection.execute(
                "SELECT manifest FROM rundiff_signature_pointers WHERE sync_id = %s", (sync_id,)
            ).fetchone()
        )
        return None if row is None else row[0]

    # About itself

    def report(self) -> StoreReport:
        """Ask for the version; makes no tables."""
        version = self._do(server_version, ready=True)
        return StoreReport(place=self._shown, version=version, expires=False)

    def why_missing(self, sync_id: str, manifest: str, since: datetime | None, seconds: float) -> str:  # noqa: ARG002 -- nothing expires
        """Judge by what else is there."""
        names = self._stored(sync_id)
        newest = max((name for name in names if is_manifest(name)), default=None)
        if newest is not None and newest < manifest:
            return (
                f"the signature store is older than it should be: it ends with {newest[:17]}, and the last run left "
                f"{manifest[:17]}; it was restored from an older copy, or failed over to a replica that was behind"
            )
        if not names:
            return "the signature store holds nothing of this sync: it was emptied, or is another one"
        return "someone removed it from the signature store"

    def close(self) -> None:
        """Let go of the connection and of the local copies."""
        self._disconnect()
        self._copies.release()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # Talking

    def _do(self, work: Callable[[Connection], Result], *, ready: bool = False) -> Result:
        """Do something in one transaction, again if the connection was lost: all that is done may be repeated."""
        for delay in (*DELAYS, None):
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(
                        self._url,
                        connect_timeout=10,
                        application_name="rundiff",
                        # Poolers between us and the server may give each transaction another session.
                        prepare_threshold=None,
                    )
                if not (ready or self._ready):
                    self._make_ready(self._connection)
                with self._connection.transaction():
                    return work(self._connection)
            except psycopg.OperationalError as error:
                if delay is None or not _passing(error):
                    raise self._told(error) from error
                self._disconnect()
                time.sleep(delay)
            except psycopg.Error as error:
                raise self._told(error) from error
        raise AssertionError  # the last attempt returns or raises

    def _make_ready(self, connection: Connection) -> None:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            there = connection.execute("SELECT to_regclass('rundiff_signature_format')").fetchone()
            if there is None or there[0] is None:
                connection.execute(_TABLES.encode())
            newest = connection.execute("SELECT max(version) FROM rundiff_signature_format").fetchone()
        if newest is not None and newest[0] > _VERSION:
            raise StorageError(
                f"the signature store {self._shown} was made by a newer Rundiff (format {newest[0]}); upgrade this one"
            )
        self._ready = True

    def _told(self, error: psycopg.Error) -> StorageError:
        text = " ".join(str(error).split())
        return StorageError(
            f"the signature store {self._shown} can't be used ({text or type(error).__name__}); check its address, its "
            "login and that it runs, then run again. Nothing is lost"
        )


def _passing(error: psycopg.Error) -> bool:
    """Say whether another attempt may go well: not with a wrong login or a full disk."""
    text = str(error)
    final = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "certificate")
    return (error.sqlstate or "")[:2] not in ("28", "3D", "53") and not any(each in text for each in final)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _fetch(connection: Connection, which: tuple[str, str], path: Path) -> None:
    """Write an object's pieces to a file, some megabytes at a time."""
    with path.open("wb") as file, connection.cursor("rundiff_pieces", binary=True) as cursor:
        cursor.itersize = 16
        cursor.execute(
            "SELECT content FROM rundiff_signature_chunks WHERE sync_id = %s AND name = %s ORDER BY number",
            which,
        )
        for row in cursor:
            content: Any = row[0]
            file.write(content)
