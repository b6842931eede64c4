"""SQLite as a destination: its dialect, its types and its connection.

Source: https://www.sqlite.org/datatype3.html for affinities, https://www.sqlite.org/stricttables.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller
from pathlib import Path
from typing import Any

import pyarrow as pa

from rundiff.destinations.kinds import Kind, decimal_digits, kind_of
from rundiff.destinations.modes import Mode
from rundiff.destinations.places import check_file, database_path
from rundiff.destinations.sql import Database, SqlDestination
from rundiff.destinations.sqlite_values import affinity, spelled_out, storable
from rundiff.destinations.tables import (
    Column,
    Dialect,
    ExistingColumn,
    TableName,
    TableShape,
)
from rundiff.errors import DestinationError, RecordsRefused
from rundiff.sqlnames import quote

__all__ = ["DIALECT", "open_table"]

_BUSY_SECONDS = 30.0
_READ_ROWS = 10_000
_lenient = methodcaller("decode", "utf-8", "backslashreplace")
_CACHE_KIB = 131_072
_STAGE = 'temp."_rundiff_stage"'
_EXACT_DIGITS = 15
"""Every decimal of so many digits comes back from a double unharmed (IEEE 754, DBL_DIG)."""

_TYPES = {
    # Undeclared: what values will come is not known yet, and such a column keeps any as it is.
    Kind.NULL: "",
    Kind.BOOLEAN: "BOOLEAN",
    # Not INTEGER: a lone INTEGER PRIMARY KEY orders the rows themselves by it, and batches come in
    # random order (measured: 1 million rows took 2.4 times as long).
    Kind.INTEGER: "BIGINT",
    Kind.UNSIGNED: "",
    Kind.FLOAT: "REAL",
    Kind.TEXT: "TEXT",
    Kind.BINARY: "BLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.DURATION: "TEXT",
    Kind.INTERVAL: "TEXT",
    Kind.UUID: "TEXT",
    Kind.JSON: "TEXT",
    Kind.NESTED: "TEXT",
    Kind.MIXED: "",
}
_NUMBERS = {Kind.BOOLEAN, Kind.INTEGER, Kind.UNSIGNED, Kind.FLOAT, Kind.NULL}
_SPELLED = {
    "DATE": {Kind.DATE, Kind.TIMESTAMP},
    "TIME": {Kind.DATE, Kind.TIME, Kind.TIMESTAMP},
    "UUID": {Kind.UUID},
    "JSON": {Kind.JSON, Kind.NESTED},
}
"""Kinds whose text never looks like a number, hence survives numeric affinity, by part of the type's name."""


def open_table(url: str, into: str, mode: str = "mirror") -> SqlDestination:
    """Open `sqlite:///PATH` with a table; nothing is touched yet."""
    path = database_path(url, "sqlite")
    database = Database(
        address=f"sqlite:///{path.as_posix()}",
        connect=lambda create: SqliteConnection(path) if create or path.exists() else None,
        check=lambda: check_file(path),
    )
    return SqlDestination(DIALECT, database, TableName.parse(into), Mode(mode))


def _fold(name: str) -> str:
    """SQLite compares names without regard to the case of ASCII letters alone."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def _type_for(arrow_type: pa.DataType) -> str:
    kind = kind_of(arrow_type)
    if kind is not Kind.DECIMAL:
        return _TYPES[kind]
    precision, scale = decimal_digits(arrow_type)
    return f"DECIMAL({precision},{scale})" if precision <= _EXACT_DIGITS else "TEXT"


def _holds(arrow_type: pa.DataType, column: ExistingColumn) -> bool:
    kind, stored_as = kind_of(arrow_type), affinity(column.type, strict=column.strict)
    if stored_as == "BLOB":
        return not column.strict or column.type.upper() == "ANY" or kind is Kind.BINARY
    if stored_as == "TEXT":
        return kind not in (Kind.BINARY, Kind.MIXED)
    if kind is Kind.FLOAT or kind is Kind.DECIMAL:
        exact = kind is Kind.FLOAT or decimal_digits(arrow_type)[0] <= _EXACT_DIGITS
        return exact and not (column.strict and stored_as == "INTEGER")
    if kind in _NUMBERS:
        return True
    declared = column.type.upper()
    return not column.strict and any(kind in kinds for part, kinds in _SPELLED.items() if part in declared)


DIALECT = Dialect(
    scheme="sqlite",
    title="SQLite",
    default_schema="main",
    other_schemas=False,
    fold=_fold,
    fold_table=_fold,
    name_limit=None,
    column_limit=2_000,
    reserved=("sqlite_",),
    primary_key=True,
    retype=None,
    type_for=_type_for,
    holds=_holds,
    update=lambda _: ("UPDATE {table} AS _rundiff_t SET {sets} FROM {stage} AS _rundiff_s WHERE {join}",),
    delete="DELETE FROM {table} WHERE ({key}) IN (SELECT {staged_key} FROM {stage} AS _rundiff_s)",
    # Each value has a type of its own: they are spelled here, not by SQLite.
    told=lambda _: "{column}",
    # Names of indexes are shared by the whole file.
    key_index="CREATE INDEX {index} ON {name} ({key})",
)


class SqliteConnection:
    """One SQLite file; the user's journal mode stays as it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._translated():
            # Autocommit, for transactions are begun here; the engine may close from another thread.
            self._raw = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            # A file that is no database says so at the first look.
            self._raw.execute("SELECT count(*) FROM sqlite_schema")

    @property
    def place(self) -> str:
        """The file, for people."""
        return f"The SQLite file {self._path}"

    def locate(self, table: TableName) -> str:
        """Give the table's name in the one schema that there is."""
        return f"main.{quote(table.name)}"

    def has_schema(self, schema: str) -> bool:
        """Know the schema `main` alone."""
        return _fold(schema) == "main"

    def shape(self, table: TableName) -> TableShape | None:
        """Read the table from the catalogue."""
        found = self.rows(
            "SELECT name, type, strict FROM pragma_table_list WHERE schema = 'main' AND lower(name) = lower(?)",
            (table.name,),
        )
        if not found:
            return None
        name, kind, strict = found[0]
        columns: dict[str, ExistingColumn] = {}
        primary: list[tuple[int, str]] = []
        for column, declared, notnull, default, key, hidden in self.rows(
            'SELECT name, type, "notnull", dflt_value, pk, hidden FROM pragma_table_xinfo(?)', (name,)
        ):
            folded = _fold(column)
            if key:
                primary.append((key, folded))
            columns[folded] = ExistingColumn(
                name=column,
                type=declared,
                # An INTEGER PRIMARY KEY fills itself.
                required=bool(notnull) and default is None and not (key and declared.upper() == "INTEGER"),
                generated=hidden in (2, 3),
                strict=bool(strict),
            )
        triggers = self.rows(
            "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)", (name,)
        )
        unique, leading = self._indexes(name)
        if [columns[column].type.upper() for _, column in primary] == ["INTEGER"]:
            unique.append(frozenset(column for _, column in primary))  # the rows themselves are its index
        return TableShape(
            name=name,
            is_table=kind in ("table", "virtual"),
            columns=columns,
            unique=unique,
            leading=leading,
            triggered=bool(triggers),
        )

    def _indexes(self, name: str) -> tuple[list[frozenset[str]], list[tuple[str, ...]]]:
        """Read the indexes over whole rows that compare exactly; others don't find a key."""
        unique: list[frozenset[str]] = []
        leading: list[tuple[str, ...]] = []
        listed = self.rows('SELECT name, "unique" FROM pragma_index_list(?) WHERE partial = 0', (name,))
        for index, is_unique in listed:
            parts = self.rows(
                "SELECT name, coll FROM pragma_index_xinfo(?) WHERE key = 1 ORDER BY seqno", (index,)
            )
            if any(column is None or collation != "BINARY" for column, collation in parts):
                continue
            columns = tuple(_fold(column) for column, _ in parts)
            leading.append(columns)
            if is_unique:
                unique.append(frozenset(columns))
        return unique, leading

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement."""
        with self._translated():
            return self._raw.execute(sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query."""
        with self._translated():
            return self._raw.execute(sql, parameters).fetchall()

    def stream(self, expressions: Sequence[str], tail: str) -> Iterator[list[pa.Array]]:
        """Read rows; bytes that are no UTF-8 are shown, and so differ from any text that was written."""
        with self._translated():
            cursor = self._raw.cursor()
            before, self._raw.text_factory = self._raw.text_factory, _lenient
            try:
                cursor.execute(f"SELECT {', '.join(expressions)} {tail}")
                # Python's driver gives values one by one; they are spelled by columns.
                while rows := cursor.fetchmany(_READ_ROWS):
                    yield [spelled_out(values) for values in zip(*rows, strict=True)]
            finally:
                self._raw.text_factory = before

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[None]:
        """Begin, taking the write lock at once so that it can't be lost half-way."""
        self.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._raw.in_transaction:
                self._raw.execute("ROLLBACK")
            raise

    def stage(self, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int) -> str:
        """Insert the rows into a temporary table whose columns have the affinities of the real ones."""
        names = [f"c{n}" for n in range(len(columns))]
        declared = [f"{name} {affinity(column.type)}" for name, column in zip(names, columns, strict=True)]
        self.execute(f"CREATE TABLE {_STAGE} (n INTEGER PRIMARY KEY, {', '.join(declared)})")
        values = [storable(array, column) for array, column in zip(arrays, columns, strict=True)]
        places = ", ".join("?" * (len(columns) + 1))
        self._insert(f"INSERT INTO {_STAGE} VALUES ({places})", [range(len(arrays[0])), *values])
        if key_width:
            self.execute(
                f'CREATE INDEX temp."_rundiff_stage_key" ON "_rundiff_stage" ({", ".join(names[:key_width])})'
            )
        return _STAGE

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.execute(f"DROP TABLE {_STAGE}")

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert rows one by one."""
        names = ", ".join(quote(column.name) for column in columns)
        self._insert(
            f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})",
            [storable(array, column) for array, column in zip(arrays, columns, strict=True)],
        )

    def upsert(
        self,
        table: str,
        shape: TableShape,
        columns: Sequence[Column],
        arrays: Sequence[pa.Array],
        key_width: int,
    ) -> bool:
        """Upsert row by row (https://www.sqlite.org/lang_upsert.html), which spares the stage.

        The table needs a unique index on exactly the key. An upsert begins as an insert, so columns
        that demand a value, and triggers, would take an update for one: then it gives False.
        """
        key, given = columns[:key_width], {_fold(column.name) for column in columns}
        if (
            frozenset(_fold(column.name) for column in key) not in shape.unique
            or shape.triggered
            or any(column.required and folded not in given for folded, column in shape.columns.items())
        ):
            return False
        names = [quote(column.name) for column in columns]
        sets = ", ".join(f"{name} = excluded.{name}" for name in names[key_width:])
        action = f"UPDATE SET {sets}" if sets else "NOTHING"
        self._insert(
            f"INSERT INTO {table} ({', '.join(names)}) "
            f"VALUES ({', '.join('?' * len(names))}) "
            f"ON CONFLICT ({', '.join(names[:key_width])}) DO {action}",
            [storable(array, column) for array, column in zip(arrays, columns, strict=True)],
        )
        return True

    def _insert(self, sql: str, values: Sequence[Sequence[Any]]) -> None:
        # Unavoidably by rows: SQLite takes nothing else. The tuples are made by columns.
        with self._translated():
            self._raw.executemany(sql, zip(*values, strict=True))

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
            raise RecordsRefused(f"{self.place} refuses the data: {error}.") from error
        except sqlite3.Error as error:
            raise DestinationError(f"{self.place} {_reason(error)}") from error


def _reason(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorname", None) or ""
    for beginning, sentence in _REASONS.items():
        if code.startswith(beginning):
            return sentence
    return f"can't be used: {error}. Mend it, then run again."


_REASONS = {
    "SQLITE_BUSY": f"stayed locked by another program for {_BUSY_SECONDS:.0f} s: wait for it, then run again.",
    "SQLITE_LOCKED": "is locked by another connection: wait for it, then run again.",
    "SQLITE_READONLY": "is read-only: let it be written, then run again.",
    "SQLITE_CANTOPEN": "can't be opened: check the path and its permissions, then run again.",
    "SQLITE_FULL": "can't grow, for the disk is full: make room, then run again.",
    "SQLITE_NOTADB": "is not a SQLite database: name another file.",
    "SQLITE_CORRUPT": "is damaged: restore it from a backup, then run again.",
}
