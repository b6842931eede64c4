"""MySQL and MariaDB as a destination: their dialect and their connection (PyMySQL).

Rows arrive by INSERTs of many rows, whose text Arrow writes. LOAD DATA LOCAL is not used: it turns
errors of the data into warnings and changed values, and lets a server ask for any file of the client.
Source: https://dev.mysql.com/doc/refman/8.4/en/, https://mariadb.com/kb/en/documentation/.
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from rundiff.destinations.modes import Mode
from rundiff.destinations.mysql_reading import streamed
from rundiff.destinations.mysql_types import holds, key_type_for, literals, told, type_for
from rundiff.destinations.sql import REHEARSAL, Database, SqlDestination
from rundiff.destinations.tables import (
    Column,
    Dialect,
    ExistingColumn,
    TableName,
    TableShape,
    bound,
)
from rundiff.errors import ConfigurationError, DestinationError, RecordsRefused
from rundiff.mysql_login import OPTIONS, connect
from rundiff.servers import Server, parse_server
from rundiff.sqlnames import quote

__all__ = ["DIALECT", "open_table"]

_STAGE = '"_rundiff_stage"'
_STATEMENT_BYTES = 4 * 2**20
_NAME_CHARACTERS = 64
_FILE_BYTES = 250
_MODES = (
    "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,"
    "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES"
)
_EXACT_COLLATIONS = ("_nopad_bin", "_0900_bin")
_UNINDEXED = ("text", "blob", "json")


def _misspelled(name: str) -> str | None:
    if len(name) > _NAME_CHARACTERS:
        return f"has {len(name)} characters, and MySQL takes {_NAME_CHARACTERS}"
    if name != name.rstrip(" \t\n\r\v\f"):
        return "ends with a blank, which MySQL does not take"
    if any(char > "\uffff" for char in name):
        return "holds a character beyond U+FFFF, which MySQL would change"
    return None


DIALECT = Dialect(
    scheme="mysql",
    title="MySQL",
    default_schema="",
    other_schemas=True,
    # Names of columns compare without regard to case; those of tables are files where case counts, and
    # servers where it doesn't are told by the connection.
    fold=str.lower,
    fold_table=lambda name: name,
    name_limit=None,
    column_limit=1_017,
    reserved=(),
    primary_key=True,
    retype="ALTER TABLE {table} MODIFY COLUMN {column} {type}",
    type_for=type_for,
    holds=holds,
    update=lambda _: ("UPDATE {table} AS _rundiff_t JOIN {stage} AS _rundiff_s ON {join} SET {table_sets}",),
    delete="DELETE _rundiff_t FROM {table} AS _rundiff_t JOIN {stage} AS _rundiff_s ON {join}",
    told=told,
    key_type_for=key_type_for,
    name_type="VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    created=" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4",
    key_index="ALTER TABLE {table} ADD INDEX ({key})",
    misspelled=_misspelled,
    same="CAST({staged} AS BINARY) = CAST({stored} AS BINARY)",
    direct=True,
    rehearses=True,
)


def open_table(url: str, into: str, mode: str = "mirror") -> SqlDestination:
    """Open `mysql://user:password@host:port/database?option=value` with a table; nothing is touched yet.

    A table without a schema stands in the URL's database; `database.table` names another one.
    """
    server = parse_server("mysql://" + url.partition("://")[2], "mysql", 3306, "destination", OPTIONS)
    table = TableName.parse(into)
    # On disk other characters than these are written with five each.
    length = sum(1 if re.match(r"[A-Za-z0-9_]", char) else 5 for char in table.name)
    if length > _FILE_BYTES:
        raise ConfigurationError(
            f'The name of the table "{table.name}" becomes a file name of {length} bytes in MySQL: shorten it.'
        )
    database = Database(address=server.address, connect=lambda _: MysqlConnection(server), check=lambda: None)
    return SqlDestination(replace(DIALECT, default_schema=server.database), database, table, Mode(mode))


class MysqlConnection:
    """One session of a MySQL or MariaDB server: strict, in UTC, with standard quotes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._raw = connect(server, DestinationError, count_met_rows=True)
        import pymysql  # type: ignore[import-untyped]  # it ships no type information

        self._errors: Any = pymysql.err
        self.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self.execute(f"SET SESSION sql_mode = '{_MODES}', time_zone = '+00:00', wait_timeout = 28800")
        [(packet, self._folds)] = self.rows("SELECT @@max_allowed_packet, @@lower_case_table_names")
        self._statement_bytes = min(int(packet) - 1_024, _STATEMENT_BYTES)
        self._packet = int(packet) - 1_024

    @property
    def place(self) -> str:
        """The database, for people."""
        return f"The MySQL database {self._server.address}"

    def locate(self, table: TableName) -> str:
        """Give the table's name with its database."""
        return f"{quote(table.schema or self._server.database)}.{quote(table.name)}"

    def has_schema(self, schema: str) -> bool:
        """Look a database up."""
        found = self.rows(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name = ?", (schema,)
        )
        return (schema,) in found

    def shape(self, table: TableName) -> TableShape | None:
        """Read the table from the catalogue."""
        if self._folds and table.name != table.name.lower():
            raise ConfigurationError(
                f'The server would write the name of the table "{table.name}" in lower case: write it so.'
            )
        place = (table.schema or self._server.database, table.name)
        found = self.rows(
            "SELECT t.table_name, t.table_type, t.engine, e.transactions FROM information_schema.tables AS t "
            "LEFT JOIN information_schema.engines AS e ON e.engine = t.engine "
            "WHERE t.table_schema = ? AND t.table_name = ?",
            place,
        )
        found = [row for row in found if row[0] == table.name]
        if not found:
            return None
        _, kind, engine, transactions = found[0]
        unique, leading = self._indexes(place)
        return TableShape(
            name=table.name,
            is_table=kind != "VIEW",
            columns=self._table_columns(place),
            unique=unique,
            leading=leading,
            refusal=None
            if kind == "VIEW" or transactions == "YES"
            else f"is kept by {engine}, which has no transactions: ALTER TABLE … ENGINE=InnoDB first.",
        )

    def _table_columns(self, place: tuple[str, str]) -> dict[str, ExistingColumn]:
        rows = self.rows(
            "SELECT column_name, column_type, character_set_name, collation_name, is_nullable, column_default, "
            "extra, generation_expression FROM information_schema.columns "
            "WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position",
            place,
        )
        columns = {}
        for name, declared, charset, collation, nullable, default, extra, expression in rows:
            text = "" if collation is None else f" CHARACTER SET {charset} COLLATE {collation}"
            generated = bool(expression)
            columns[name.lower()] = ExistingColumn(
                name=name,
                type=declared + text,
                required=nullable == "NO"
                and default is None
                and not generated
                and "auto_increment" not in extra,
                generated=generated,
                exact=collation is None or collation.endswith(_EXACT_COLLATIONS) or declared == "char(36)",
            )
        return columns

    def _indexes(self, place: tuple[str, str]) -> tuple[list[frozenset[str]], list[tuple[str, ...]]]:
        """Read the indexes over whole, plain columns."""
        rows = self.rows(
            "SELECT index_name, non_unique, column_name, sub_part FROM information_schema.statistics "
            "WHERE table_schema = ? AND table_name = ? ORDER BY index_name, seq_in_index",
            place,
        )
        found: dict[str, list[tuple[bool, str | None]]] = {}
        for index, non_unique, column, part in rows:
            whole = None if column is None or part is not None else column.lower()
            found.setdefault(index, []).append((not int(non_unique), whole))
        unique, leading = [], []
        for parts in found.values():
            columns = tuple(column for _, column in parts if column is not None)
            if len(columns) == len(parts):
                leading.append(columns)
                if parts[0][0]:
                    unique.append(frozenset(columns))
        return unique, leading

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement."""
        return self._run(self._filled(sql, parameters).encode())[0]

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query."""
        return self._run(self._filled(sql, parameters).encode())[1]

    def _filled(self, sql: str, parameters: Sequence[Any]) -> str:
        return bound(sql, lambda number: _literal(parameters[number])) if parameters else sql

    def _run(self, sql: bytes, staged: Sequence[Column] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        with self._translated(staged), self._raw.cursor() as cursor:
            cursor.execute(sql)
            return cursor.rowcount, list(cursor.fetchall())

    def stream(self, expressions: Sequence[str], tail: str) -> Iterator[list[pa.Array]]:
        """Read rows as CSV that the server joins; see `mysql_reading`."""
        with self._translated():
            yield from streamed(self._raw, (expressions, tail), self.place)

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[None]:
        """Begin a transaction; a server that is read-only refuses one that may write."""
        self.execute("START TRANSACTION" + (" READ WRITE" if writes else ""))
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(DestinationError):  # a lost connection has ended the transaction already
                self.execute("ROLLBACK")
                # Temporary tables outlive it here.
                self.execute(f"DROP TEMPORARY TABLE IF EXISTS {_STAGE}, {quote(REHEARSAL)}")
            raise

    def stage(self, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int) -> str:
        """Insert the rows into a temporary table with the columns' own types."""
        declared = [f"c{n} {column.type}" for n, column in enumerate(columns)]
        keys = columns[:key_width]
        if keys and not any(part in column.type.lower() for column in keys for part in _UNINDEXED):
            declared.append(f"KEY ({', '.join(f'c{n}' for n in range(key_width))})")
        self.execute(f"CREATE TEMPORARY TABLE {_STAGE} (n BIGINT, {', '.join(declared)}) ENGINE=InnoDB")
        numbers = pa.array(np.arange(len(arrays[0]), dtype=np.int64))
        self._insert(_STAGE, [Column("n", "bigint"), *columns], [numbers, *arrays])
        return _STAGE

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.execute(f"DROP TEMPORARY TABLE {_STAGE}")

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert the rows straight into a table."""
        self._insert(f"{table} ({', '.join(quote(column.name) for column in columns)})", columns, arrays)

    def upsert(
        self,
        table: str,
        shape: TableShape,
        columns: Sequence[Column],
        arrays: Sequence[pa.Array],
        key_width: int,
    ) -> bool:
        """Give False: ON DUPLICATE KEY heeds any unique index, and would write over the rows of others."""
        return False

    def _insert(self, into: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert many rows by statements that the server takes, each of some megabytes at most."""
        comma, opening, closing, empty = (pa.scalar(text, pa.large_string()) for text in (",", "(", ")", ""))
        spelled = [literals(array, column) for array, column in zip(arrays, columns, strict=True)]
        rows = pc.binary_join_element_wise(
            opening, pc.binary_join_element_wise(*spelled, comma), closing, empty
        )
        head = f"INSERT INTO {into} VALUES ".encode()
        ends = np.cumsum(pc.binary_length(rows).to_numpy(zero_copy_only=False) + 1)
        start, sent = 0, 0
        while start < len(rows):
            stop = max(
                int(np.searchsorted(ends, sent + self._statement_bytes - len(head), "right")), start + 1
            )
            if int(ends[stop - 1]) - sent + len(head) > self._packet:
                raise RecordsRefused(
                    f"{self.place} refuses the data: a record is longer than max_allowed_packet allows."
                )
            chunk = pa.LargeListArray.from_arrays(pa.array([0, stop - start], pa.int64()), rows[start:stop])
            [text] = pc.binary_join(chunk, comma)
            self._run(head + text.as_buffer().to_pybytes(), columns if into == _STAGE else ())
            start, sent = stop, int(ends[stop - 1])

    def close(self) -> None:
        """End the session."""
        with suppress(self._errors.Error, OSError):  # closed already, or by the other side
            self._raw.close()

    @contextmanager
    def _translated(self, staged: Sequence[Column] = ()) -> Iterator[None]:
        try:
            yield
        except self._errors.Error as error:
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            message = str(error.args[1]) if len(error.args) > 1 else str(error)
            if code in _REASONS:
                where = _column(message, staged) if code != 1062 else ""
                raise RecordsRefused(f"{self.place} refuses the data: {_REASONS[code]}{where}.") from error
            raise DestinationError(f"{self.place} {_reason(code, message)}") from error


def _literal(value: str | int) -> str:
    """Spell a parameter for a session without backslash escapes."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _column(message: str, staged: Sequence[Column]) -> str:
    """Name the column that a message names; those of the stage by what they stand for."""
    found = re.search(r"column (?:[^ ]*\.)?['`\"](.*?)['`\"]", message, re.IGNORECASE)
    if found is None:
        return ""
    name = found[1]
    if staged and re.fullmatch(r"c\d+", name) and int(name[1:]) + 1 < len(staged):
        name = staged[int(name[1:]) + 1].name
    return f' in the column "{name}"'


_REASONS = {
    1048: "a value is missing",
    1062: "it violates a unique index",
    1169: "it violates a unique index",
    1216: "it violates a foreign key",
    1217: "it violates a foreign key",
    1264: "a number is out of range",
    1265: "a value does not fit",
    1292: "a date, time or number can't be read",
    1364: "a value is missing",
    1366: "a text holds a character that its column does not have, or no number",
    1406: "a value is too long",
    1411: "a date or time can't be read",
    1416: "a value does not fit",
    1451: "it violates a foreign key",
    1452: "it violates a foreign key",
    1461: "a value does not fit",
    1644: "a trigger refuses it",
    1690: "a number is out of range",
    3140: "a text is not JSON",
    3156: "a value does not fit",
    3819: "it violates a check constraint",
    4025: "it violates a check constraint",
}
"""Errors that a record is to blame for, in words that repeat no value, as most of the server's do."""
_BROKEN = (0, 1053, 1927, 2002, 2003, 2006, 2013, 2014, 2055, 4031)
_BUSY = (1205, 1213, 1412, 3572)


def _reason(code: int, message: str) -> str:
    text = " ".join(message.split()).removesuffix(".")
    if code in _BROKEN:
        return f"broke the connection off: {text or 'it was closed'}. Run again: delivery goes on where it stopped."
    if code in _BUSY:
        return f"was too busy with others: {text}. Run again: delivery goes on where it stopped."
    return f"can't be used: {text}. Mend it, then run again."
