"""A connection to a PostgreSQL server: opened late, opened again when it broke, its errors translated.

A transaction is tried again when its connection broke. Where nobody heard whether it was committed, it says
itself how to find that out: PostgreSQL's own `pg_xact_status` can't be asked, since a server that crashed may
give the numbers of transactions that it lost to others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import msgspec

from rundiff.errors import ConfigurationError, MissingDriver, StorageError
from rundiff.sqlnames import quote as quote_name

if TYPE_CHECKING:
    import psycopg

__all__ = ["Address", "Server", "clean"]

T = TypeVar("T")

PATIENCE_SECONDS = 20.0
"""How long a broken connection is tried to be had again before the run fails."""
CONNECT_SECONDS = 10
_AGAIN = ("40001", "40P01")
"""Serialization failure and deadlock: the server has undone the transaction, to be tried again."""
_ENDED = ("57P01", "57P02", "57P05", "25P03", "25P04")
"""The server ended the session: shut down, crashed, or a time-out."""
_OWN = ("schema", "lease_seconds")
_LEASE_SECONDS = 60.0


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a database is: a URL of libpq, and what Rundiff adds to it."""

    conninfo: Mapping[str, str]
    schema: str | None
    """The schema of all tables; None: the first of the role's search path."""
    lease_seconds: float
    place: str
    """For messages: without any password."""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `postgresql://USER:PASSWORD@HOST:PORT/NAME?schema=…&lease_seconds=…`.

        All other parameters are libpq's (PostgreSQL documentation, section 32.1.2). Raises
        `ConfigurationError`, which never repeats the URL: it may hold a password.
        """
        library = driver()
        try:
            split = urlsplit(url)
            pairs = parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query))
        except ValueError:
            raise _malformed() from None
        own = {name: value for name, value in pairs if name in _OWN}
        # Only what libpq reads as spaces: it knows no plus signs.
        rest = urlencode([pair for pair in pairs if pair[0] not in _OWN], quote_via=quote)
        try:
            conninfo = library.conninfo.conninfo_to_dict(urlunsplit(split._replace(query=rest)))
        except library.Error:
            raise _malformed() from None
        try:
            lease = float(own.get("lease_seconds", _LEASE_SECONDS))
        except ValueError:
            lease = 0.0
        if not 1 <= lease <= 86_400:
            raise ConfigurationError(
                "lease_seconds of the database's URL must be a number of seconds from 1 to 86400"
            )
        known = {name: str(value) for name, value in conninfo.items() if value is not None}
        schema = own.get("schema") or None
        return cls(conninfo=known, schema=schema, lease_seconds=lease, place=_place(known, schema))

    def table(self, name: str) -> str:
        """Quote a table's name for statements."""
        return name if self.schema is None else f"{quote_name(self.schema)}.{name}"

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        """Open a connection; transactions are begun and ended by statements."""
        library = driver()
        given = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "rundiff", **self.conninfo}
        given["client_encoding"] = "utf8"
        connection: psycopg.Connection[dict[str, Any]] = library.connect(
            **given,
            autocommit=True,
            row_factory=library.rows.dict_row,
            # Poolers between us and the server may give each transaction another session.
            prepare_threshold=None,
        )
        return connection


def driver() -> Any:
    """Import psycopg, or say how to install it."""
    try:
        import psycopg
        import psycopg.conninfo
        import psycopg.rows
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise MissingDriver(
            "a PostgreSQL database needs the package psycopg: pip install 'rundiff[postgresql]'"
        ) from None
    return psycopg


def clean(text: str) -> str:
    """Make text storable: PostgreSQL's text holds neither U+0000 nor lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _malformed() -> ConfigurationError:
    return ConfigurationError(
        "the database's URL can't be read; write it as postgresql://USER:PASSWORD@HOST:PORT/NAME, with "
        "characters such as @ : / % of the password percent-encoded"
    )


def _place(conninfo: Mapping[str, str], schema: str | None) -> str:
    user = f"{conninfo['user']}@" if "user" in conninfo else ""
    host = conninfo.get("host") or conninfo.get("hostaddr") or conninfo.get("service") or "local socket"
    port = f":{conninfo['port']}" if "port" in conninfo else ""
    name = f"/{conninfo['dbname']}" if "dbname" in conninfo else ""
    return f"postgresql://{user}{host}{port}{name}" + (f" (schema {schema})" if schema else "")


class Server:
    """One connection for all threads of a process, which take turns by a lock."""

    def __init__(self, address: Address, *, patience: float | None = None) -> None:
        self._address = address
        self._patience = PATIENCE_SECONDS if patience is None else patience
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._known = False
        """Whether to wait for the server: one that was never reached is more likely misspelt than restarting,
        and patience that has ended is not begun anew by each statement that follows."""

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def rows(self, query: str, values: Sequence[Any] = (), *, binary: bool = False) -> list[dict[str, Any]]:
        """Read, in a transaction of its own; tried again when the connection broke."""

        def read(connection: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
            with connection.cursor() as cursor:
                return cursor.execute(query, values, binary=binary).fetchall()

        return self.ask(read)

    def ask(self, work: Callable[[psycopg.Connection[dict[str, Any]]], T]) -> T:
        """Do something that reads; tried again when the connection broke."""
        with self._lock:
            return self._patiently(lambda: work(self._open()))

    def transact(
        self,
        work: Callable[[psycopg.Cursor[dict[str, Any]]], T],
        committed: Callable[[psycopg.Cursor[dict[str, Any]]], bool] | None = None,
    ) -> T:
        """Do everything that `work` does in one transaction, durable when this returns.

        `work` is called again when the connection broke, also in its COMMIT. Then `committed`, where it is
        given, looks first whether the earlier try was committed; without it, `work` must be idempotent.
        """
        sent: list[T] = []

        def attempt() -> T:
            connection = self._open()
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                try:
                    if sent and committed is not None and committed(cursor):
                        self._undo(connection)
                        return sent[-1]
                    result = work(cursor)
                except BaseException:
                    self._undo(connection)
                    raise
                sent.append(result)
                cursor.execute("COMMIT")
            return result

        with self._lock:
            return self._patiently(attempt)

    def _open(self) -> psycopg.Connection[dict[str, Any]]:
        if self._connection is None or self._connection.closed:
            self._connection = self._address.connect()
            self._known = True
        return self._connection

    def _undo(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        """Undo a transaction; a connection that can't is given up, which undoes it, too."""
        try:
            if connection.pgconn.transaction_status in (2, 3):  # INTRANS, INERROR
                connection.execute("ROLLBACK")
                return
        except driver().Error:
            pass
        connection.close()

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try until the connection holds, for as long as patience lasts."""
        library = driver()
        deadline = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                return attempt()
            except library.Error as error:
                if error.sqlstate in _ENDED and self._connection is not None:
                    self._connection.close()
                if not (self._lost() or error.sqlstate in _AGAIN) or time.monotonic() > deadline:
                    raise self._translated(error) from error
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _lost(self) -> bool:
        """Say whether the connection broke, or could not be had again."""
        return self._known and (self._connection is None or self._connection.closed)

    def _translated(self, error: psycopg.Error) -> StorageError:
        self._known = self._connection is not None and not self._connection.closed
        # Without details and context, which may be whole records.
        why = " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__
        for name in ("password", "sslpassword"):
            secret = self._address.conninfo.get(name)
            why = why.replace(secret, "***") if secret else why
        if not self._known:
            return StorageError(
                f"the database {self._address.place} can't be reached ({why}); check its URL and that the server "
                "runs, then run again"
            )
        return StorageError(
            f"the database {self._address.place} refused a statement ({why}); mend what it names, then run again"
        )
