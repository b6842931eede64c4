"""PostgreSQL as a destination: its dialect and its connection (psycopg 3).

Rows arrive by COPY: in its binary format where all types have one, else as CSV, which Arrow writes.
Source: https://www.postgresql.org/docs/current/, SQLSTATE codes from its appendix A.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rundiff.destinations.modes import Mode
from rundiff.destinations.postgresql_binary import binary_rows
from rundiff.destinations.postgresql_types import holds, told, type_for, wire
from rundiff.destinations.sql import Database, SqlDestination
from rundiff.destinations.tables import (
    Column,
    Dialect,
    ExistingColumn,
    TableName,
    TableShape,
    bound,
)
from rundiff.destinations.texts import gathered, text_columns
from rundiff.errors import DestinationError, MissingDriver, RecordsRefused
from rundiff.servers import Server, parse_server
from rundiff.sqlnames import quote

if TYPE_CHECKING:
    import psycopg

__all__ = ["DIALECT", "open_table"]

_STAGE = "_rundiff_stage"
_CONNECT_SECONDS = 15
_PIECE_ROWS = 8_192
_SETTINGS = (
    # For each transaction anew: a pooler may give each of them another session.
    "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = 'postgres'; "
    "SET LOCAL extra_float_digits = 3; SET LOCAL bytea_output = 'hex'; "
    # What was acknowledged must still be there after the server was killed.
    "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
)
_RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")

DIALECT = Dialect(
    scheme="postgresql",
    title="PostgreSQL",
    default_schema="public",
    other_schemas=True,
    fold=lambda name: name,
    fold_table=lambda name: name,
    name_limit=63,
    column_limit=1_600,
    reserved=(),
    primary_key=True,
    retype="ALTER TABLE {table} ALTER COLUMN {column} TYPE {type} USING NULL::{type}",
    type_for=type_for,
    holds=holds,
    update=lambda _: ("UPDATE {table} AS _rundiff_t SET {sets} FROM {stage} AS _rundiff_s WHERE {join}",),
    delete="DELETE FROM {table} AS _rundiff_t USING {stage} AS _rundiff_s WHERE {join}",
    told=told,
    key_index="CREATE INDEX ON {table} ({key})",
    same='{staged}::text COLLATE "C" = {stored}::text COLLATE "C"',
    direct=True,
    rehearses=True,
)


def open_table(url: str, into: str, mode: str = "mirror") -> SqlDestination:
    """Open `postgresql://user:password@host:port/database?option=value` with a table; nothing is touched yet.

    Options are libpq's (`sslmode`, `sslrootcert`, `connect_timeout`, …). A table without a schema stands
    in `public`.
    """
    server = parse_server(url, "postgresql", 5432, "destination")
    database = Database(
        address=server.address, connect=lambda _: PostgresqlConnection(server), check=lambda: None
    )
    return SqlDestination(DIALECT, database, TableName.parse(into), Mode(mode))


class PostgresqlConnection:
    """One connection to a PostgreSQL server; its transactions are in UTC and commit durably."""

    def __init__(self, server: Server) -> None:
        try:
            import psycopg
        except ImportError:
            raise MissingDriver(
                "PostgreSQL needs the package psycopg: install it with `pip install 'rundiff[postgresql]'`."
            ) from None
        self._address = server.address
        self._psycopg = psycopg
        self._raw = self._connect(server)
        with self._translated():
            # A source may take long to read meanwhile; older servers have no such setting.
            self._raw.execute(
                "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
            )

    def _connect(self, server: Server) -> psycopg.Connection[Any]:
        options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, **server.options}
        known = {
            "port": server.port,
            "dbname": server.database,
            "user": server.user,
            "password": server.password,
        }
        if server.host is not None:
            known["host"] = server.host
        given: dict[str, Any] = {**{k: v for k, v in known.items() if v is not None}, **options}
        given |= {"application_name": given.get("application_name", "rundiff"), "client_encoding": "UTF8"}
        try:
            # Without prepared statements, which poolers of transactions don't keep.
            return self._psycopg.connect(autocommit=True, prepare_threshold=None, **given)
        except self._psycopg.Error as error:
            reason = " ".join(str(error).split())
            if server.password:
                reason = reason.replace(server.password, "…")
            raise DestinationError(
                f"{self.place} can't be reached: {reason.removesuffix('.')}. Mend it, then run again."
            ) from None

    @property
    def place(self) -> str:
        """The database, for people."""
        return f"The PostgreSQL database {self._address}"

    def locate(self, table: TableName) -> str:
        """Give the table's name with its schema."""
        return f"{quote(table.schema or 'public')}.{quote(table.name)}"

    def has_schema(self, schema: str) -> bool:
        """Look a schema up."""
        return bool(self.rows("SELECT 1 FROM pg_namespace WHERE nspname = ?", (schema,)))

    def shape(self, table: TableName) -> TableShape | None:
        """Read the table from the catalogue."""
        rights = ", ".join(f"has_table_privilege(c.oid, '{right}')" for right in _RIGHTS)
        found = self.rows(
            f"SELECT c.oid::bigint, c.relkind::text, {rights} FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ? AND c.relname = ? AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            (table.schema or "public", table.name),
        )
        if not found:
            return None
        number, kind, *allowed = found[0]
        unique, leading = self._indexes(number)
        return TableShape(
            name=table.name,
            is_table=kind not in ("v", "m"),
            columns=self._table_columns(number),
            unique=unique,
            leading=leading,
            rights=frozenset(right for right, granted in zip(_RIGHTS, allowed, strict=True) if granted),
            refusal="is a foreign table, which has no transactions of this database: name another with --into."
            if kind == "f"
            else None,
        )

    def _table_columns(self, table: int) -> dict[str, ExistingColumn]:
        rows = self.rows(
            # A domain travels as what it is made of; the table itself holds it to its rules.
            "SELECT a.attname, CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) "
            "ELSE format_type(a.atttypid, a.atttypmod) END, "
            "a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', "
            "a.attgenerated <> '' OR a.attidentity = 'a', t.typtype = 'e', "
            "CASE WHEN a.attcollation <> t.typcollation THEN l.collname END, n.nspname, "
            "coalesce(l.collisdeterministic, true) AND t.typname <> 'citext' "
            "FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid "
            "LEFT JOIN pg_collation AS l ON l.oid = a.attcollation "
            "LEFT JOIN pg_namespace AS n ON n.oid = l.collnamespace "
            "WHERE a.attrelid = ? AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            (table,),
        )
        columns = {}
        for name, declared, required, generated, enumerated, collation, schema, exact in rows:
            collated = "" if collation is None else f" COLLATE {quote(schema)}.{quote(collation)}"
            columns[name] = ExistingColumn(
                name=name,
                type=declared + collated,
                required=required and not generated,
                generated=generated,
                enumerated=enumerated,
                exact=exact,
            )
        return columns

    def _indexes(self, table: int) -> tuple[list[frozenset[str]], list[tuple[str, ...]]]:
        """Read the valid indexes over whole rows and plain columns."""
        rows = self.rows(
            "SELECT i.indisunique AND i.indimmediate, (SELECT array_agg(a.attname::text ORDER BY k.place) "
            "FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (number, place) "
            "JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.number "
            "WHERE k.place <= i.indnkeyatts) FROM pg_index AS i "
            "WHERE i.indrelid = ? AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL",
            (table,),
        )
        return [frozenset(columns) for unique, columns in rows if unique], [
            tuple(columns) for _, columns in rows
        ]

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement."""
        with self._translated():
            return self._run(sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query."""
        with self._translated():
            return self._run(sql, parameters).fetchall()

    def _run(self, sql: str, parameters: Sequence[Any]) -> psycopg.Cursor[Any]:
        cursor = self._psycopg.RawCursor(self._raw)
        if not parameters:
            return cursor.execute(sql)
        return cursor.execute(bound(sql, lambda number: f"${number + 1}"), list(parameters))

    def stream(self, expressions: Sequence[str], tail: str) -> Iterator[list[pa.Array]]:
        """Copy rows out as CSV."""
        asked = f"COPY (SELECT {', '.join(expressions)} {tail}) TO STDOUT (FORMAT csv)"
        with (
            nullcontext() if self._in_transaction else self.transaction(writes=False),
            self._translated(),
            self._raw.cursor() as cursor,
            cursor.copy(asked.encode()) as copy,
        ):
            # By messages, each a row (PostgreSQL documentation, 55.2.7).
            for chunk in gathered(map(bytes, copy)):
                yield text_columns(chunk, len(expressions), self.place)

    @property
    def _in_transaction(self) -> bool:
        return self._raw.info.transaction_status is not self._psycopg.pq.TransactionStatus.IDLE

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[None]:
        """Begin a transaction; a standby refuses one that may write."""
        self.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED{' READ WRITE' if writes else ''}; {_SETTINGS}")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(self._psycopg.Error):  # a lost connection has ended the transaction already
                self._raw.execute("ROLLBACK")
            raise

    def stage(self, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int) -> str:
        """Copy the rows into a temporary table with the columns' own types."""
        names = [f"c{n}" for n in range(len(columns))]
        declared = [f"{name} {column.type}" for name, column in zip(names, columns, strict=True)]
        self.execute(f"CREATE TEMPORARY TABLE {_STAGE} (n bigint, {', '.join(declared)}) ON COMMIT DROP")
        numbers = pa.array(np.arange(len(arrays[0]), dtype=np.int64))
        counted = [Column("n", "bigint"), *columns]
        self._copy(f"{_STAGE} (n, {', '.join(names)})", counted, [numbers, *arrays])
        if key_width:
            self.execute(f"ANALYZE {_STAGE}")
        else:
            # The stage is sorted by key and the table has an index for it. Left to itself the planner reads
            # the whole table for each batch (measured: 50,000 updates in 1 million rows 0.9 s for 0.27 s).
            self.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        return f"pg_temp.{_STAGE}"

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.execute(f"DROP TABLE pg_temp.{_STAGE}")

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Copy the rows straight into a table."""
        self._copy(f"{table} ({', '.join(quote(column.name) for column in columns)})", columns, arrays)

    def upsert(
        self,
        table: str,
        shape: TableShape,
        columns: Sequence[Column],
        arrays: Sequence[pa.Array],
        key_width: int,
    ) -> bool:
        """Give False: rows go by COPY, straight or through the stage."""
        return False

    def _copy(self, into: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        rows = binary_rows(arrays, columns)
        form = "csv" if rows is None else "binary"
        pieces = _csv(arrays, columns) if rows is None else rows
        with (
            self._translated(columns),
            self._raw.cursor() as cursor,
            cursor.copy(f"COPY {into} FROM STDIN (FORMAT {form})") as copy,
        ):
            # In pieces, so that the server reads one while the next is written.
            for piece in pieces:
                copy.write(piece)

    def close(self) -> None:
        """End the session."""
        self._raw.close()

    @contextmanager
    def _translated(self, columns: Sequence[Column] = ()) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            state = error.sqlstate or ""
            if state[:2] in _DATA or state in _DATA:
                raise RecordsRefused(f"{self.place} refuses the data: {_why(error, columns)}.") from error
            raise DestinationError(f"{self.place} {_reason(error)}") from error


def _csv(arrays: Sequence[pa.Array], columns: Sequence[Column]) -> Iterator[memoryview]:
    from pyarrow import csv

    values = [wire(array, column) for array, column in zip(arrays, columns, strict=True)]
    rows = pa.table(values, names=[str(n) for n in range(len(values))])
    # Texts stand in quotes, the empty one, too, and nulls are empty: what COPY reads by default.
    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    for piece in rows.to_batches(max_chunksize=_PIECE_ROWS):
        sink = pa.BufferOutputStream()
        csv.write_csv(piece, sink, options)
        yield memoryview(sink.getvalue())


_DATA = ("22", "23", "44", "54000", "P0001")
"""SQLSTATEs that a record is to blame for: data exceptions, constraints, a row that is too wide for an
index, and what a trigger raises."""


def _why(error: psycopg.Error, columns: Sequence[Column]) -> str:
    """Say why data was refused, without repeating a value, which most of PostgreSQL's messages do."""
    state, diagnosis = error.sqlstate or "", error.diag
    if state[:2] == "23":
        # Names the constraint or the column; values stand in the detail, which is left out.
        return " ".join((diagnosis.message_primary or "a constraint is violated").split()).removesuffix(".")
    reason = _REASONS.get(state, f"a value does not fit its column (SQLSTATE {state})")
    where = re.match(rf"COPY ({_STAGE})?.*, column (\S+?)(: |$)", diagnosis.context or "", re.DOTALL)
    if where is None:
        return reason
    name = where[2]
    if where[1] and re.fullmatch(r"c\d+", name) and int(name[1:]) + 1 < len(columns):
        name = columns[int(name[1:]) + 1].name
    return f'{reason}, in the column "{name}"'


_REASONS = {
    "22001": "a text is too long for its column",
    "22003": "a number is out of the range of its column",
    "22008": "a date or time is out of range",
    "22021": "a text holds a NUL character, which PostgreSQL does not take, or one that is no UTF-8",
    "22P02": "a text can't be read as the type of its column",
    "22P05": "a text holds a character that the database's encoding does not have, or a NUL in JSON",
    "22007": "a date or time can't be read",
    "54000": "a value is too long for an index",
    "P0001": "a trigger refuses it",
}


def _reason(error: psycopg.Error) -> str:
    state = error.sqlstate or ""
    message = " ".join((error.diag.message_primary or str(error)).split()).removesuffix(".")
    if not state or state[:2] in ("08", "57"):
        return f"broke the connection off: {message}. Run again: delivery goes on where it stopped."
    if state in ("40001", "40P01", "55P03"):
        return f"was too busy with others: {message}. Run again: delivery goes on where it stopped."
    if state in ("25006", "42501"):
        return f"can't be written: {message}. Mend it, then run again."
    return f"can't be used: {message}. Mend it, then run again."
