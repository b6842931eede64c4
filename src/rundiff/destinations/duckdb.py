"""DuckDB as a destination: its dialect and its connection."""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rundiff.destinations.duckdb_types import holds, told, type_for, wire
from rundiff.destinations.modes import Mode
from rundiff.destinations.places import check_file, database_path
from rundiff.destinations.sql import Database, SqlDestination
from rundiff.destinations.tables import (
    Column,
    Dialect,
    ExistingColumn,
    TableName,
    TableShape,
)
from rundiff.duckdb_file import why_closed
from rundiff.errors import DestinationError, RecordsRefused
from rundiff.sqlnames import quote

if TYPE_CHECKING:
    import duckdb

__all__ = ["DIALECT", "open_table"]

_STAGE = '"temp"."main"."_rundiff_stage"'
_MERGED = '"temp"."main"."_rundiff_merged"'
_ARRIVED = "_rundiff_arrived"
_READ_ROWS = 65_536
_ROW_GROUP = 122_880
"""Rows that DuckDB keeps together. Rows that fill whole ones are written once: in batches of 131,072, loading 1 million
took twice the processor time, and the file was nearly twice as large."""

_IN_PLACE = ("UPDATE {table} AS _rundiff_t SET {sets} FROM {stage} AS _rundiff_s WHERE {join}",)
_REWRITE = (
    (
        f"CREATE TEMP TABLE {_MERGED} AS SELECT {{merged}} "
        "FROM {stage} AS _rundiff_s JOIN {table} AS _rundiff_t ON {join}"
    ),
    "DELETE FROM {table} WHERE ({key}) IN (SELECT {staged_key} FROM {stage} AS _rundiff_s){only}",
    f"INSERT INTO {{table}} ({{all_columns}}) SELECT * FROM {_MERGED}",
    f"DROP TABLE {_MERGED}",
)
"""Rows are written anew with all their columns, those that no source has included: 50,000 scattered
updates in 5 million rows took 0.1 s, and 4 s in place, where DuckDB keeps versions by vector."""


def open_table(url: str, into: str, mode: str = "mirror") -> SqlDestination:
    """Open `duckdb:///PATH` with a table; nothing is touched yet."""
    path = database_path(url, "duckdb")
    database = Database(
        address=f"duckdb:///{path.as_posix()}",
        connect=lambda create: DuckdbConnection(path) if create or path.exists() else None,
        check=lambda: check_file(path),
    )
    return SqlDestination(DIALECT, database, TableName.parse(into), Mode(mode))


def _fold(name: str) -> str:
    """DuckDB compares names without regard to the case of ASCII letters alone."""
    return "".join(char.lower() if char.isascii() else char for char in name)


def _update(shape: TableShape) -> Sequence[str]:
    # Keys and unique indexes are checked before the deletions of the same transaction are seen.
    return _IN_PLACE if shape.constrained else _REWRITE


DIALECT = Dialect(
    scheme="duckdb",
    title="DuckDB",
    default_schema="main",
    other_schemas=True,
    fold=_fold,
    fold_table=_fold,
    name_limit=None,
    column_limit=10_000,
    reserved=(),
    # Without one: its index made loads 1.3 to 1.7 times slower and would forbid rewriting rows (above).
    # The watermark already sees to it that each change lands once.
    primary_key=False,
    batch_records=_ROW_GROUP,
    retype="ALTER TABLE {table} ALTER COLUMN {column} SET DATA TYPE {type}",
    type_for=type_for,
    holds=holds,
    update=_update,
    delete="DELETE FROM {table} WHERE ({key}) IN (SELECT {staged_key} FROM {stage} AS _rundiff_s)",
    told=told,
)


class DuckdbConnection:
    """One DuckDB file, which its process holds alone."""

    def __init__(self, path: Path) -> None:
        import duckdb

        self._path = path
        self._duckdb = duckdb
        with self._translated():
            self._raw: duckdb.DuckDBPyConnection = duckdb.connect(str(path))
            self._raw.execute("SET TimeZone = 'UTC'")
            [(self._catalog,)] = self._raw.execute("SELECT current_database()").fetchall()

    @property
    def place(self) -> str:
        """The file, for people."""
        return f"The DuckDB file {self._path}"

    def locate(self, table: TableName) -> str:
        """Give the table's name with catalogue and schema: a file `main.db` makes shorter ones ambiguous."""
        return f"{quote(self._catalog)}.{quote(table.schema or 'main')}.{quote(table.name)}"

    def has_schema(self, schema: str) -> bool:
        """Look a schema up."""
        return bool(
            self.rows(
                "SELECT 1 FROM duckdb_schemas() WHERE database_name = ? AND lower(schema_name) = lower(?)",
                (self._catalog, schema),
            )
        )

    def shape(self, table: TableName) -> TableShape | None:
        """Read the table from the catalogue."""
        place = (self._catalog, table.schema or "main", table.name)
        found = self.rows(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_catalog = ? "
            "AND lower(table_schema) = lower(?) AND lower(table_name) = lower(?)",
            place,
        )
        if not found:
            return None
        name, kind = found[0]
        where = "WHERE database_name = ? AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
        columns = {
            _fold(column): ExistingColumn(
                name=column,
                type=declared,
                required=not nullable and default is None,
                generated=generated,
            )
            for column, declared, nullable, default, generated in self.rows(
                "SELECT column_name, data_type, is_nullable, column_default, "
                f"coalesce(generation_expression, '') <> '' FROM duckdb_columns() {where} ORDER BY column_index",
                place,
            )
        }
        constraints = self.rows(
            f"SELECT constraint_type, constraint_column_names FROM duckdb_constraints() {where}", place
        )
        indexes = self.rows(f"SELECT is_unique, expressions::VARCHAR[] FROM duckdb_indexes() {where}", place)
        keys = [
            frozenset(map(_fold, names)) for kind, names in constraints if kind in ("PRIMARY KEY", "UNIQUE")
        ]
        keys += [frozenset(map(_indexed, parts)) for is_unique, parts in indexes if is_unique]
        return TableShape(
            name=name,
            is_table=kind == "BASE TABLE",
            columns=columns,
            unique=keys,
            constrained=bool(keys or indexes) or any(kind == "FOREIGN KEY" for kind, _ in constraints),
        )

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement."""
        rows = self.rows(sql, parameters)
        return int(rows[0][0]) if rows else 0

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query."""
        with self._translated():
            return self._raw.execute(sql, list(parameters)).fetchall()

    def stream(self, expressions: Sequence[str], tail: str) -> Iterator[list[pa.Array]]:
        """Read rows as Arrow."""
        # Names, for expressions alike would be one column.
        asked = ", ".join(f"{expression} AS c{n}" for n, expression in enumerate(expressions))
        with self._translated():
            for batch in self._raw.sql(f"SELECT {asked} {tail}").to_arrow_reader(_READ_ROWS):
                yield [column.cast(pa.string()) for column in batch.columns]

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[None]:
        """Begin a transaction; DuckDB takes no locks before it writes."""
        self.execute("BEGIN TRANSACTION")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(self._duckdb.Error):  # a failed COMMIT has ended the transaction already
                self._raw.execute("ROLLBACK")
            raise

    def stage(self, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int) -> str:
        """Copy Arrow columns into a temporary table of the real columns' types; joins need no index."""
        names = [f"c{n}" for n in range(len(columns))]
        declared = [f"{name} {column.type}" for name, column in zip(names, columns, strict=True)]
        rows = pa.array(np.arange(len(arrays[0]), dtype=np.int64))
        arrived = pa.table(
            [rows, *(wire(array, column) for array, column in zip(arrays, columns, strict=True))],
            names=["n", *names],
        )
        self.execute(f"CREATE TEMP TABLE {_STAGE} (n BIGINT, {', '.join(declared)})")
        self._insert(_STAGE, arrived)
        return _STAGE

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert Arrow columns."""
        arrived = pa.table(
            [wire(array, column) for array, column in zip(arrays, columns, strict=True)],
            names=[str(n) for n in range(len(columns))],
        )
        self._insert(f"{table} ({', '.join(quote(column.name) for column in columns)})", arrived)

    def _insert(self, into: str, arrived: pa.Table) -> None:
        with self._translated():
            self._raw.register(_ARRIVED, arrived)
            try:
                self._raw.execute(f'INSERT INTO {into} SELECT * FROM "{_ARRIVED}"')
            finally:
                with suppress(self._duckdb.Error):  # gone with the transaction that a bad value aborted
                    self._raw.unregister(_ARRIVED)

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.execute(f"DROP TABLE {_STAGE}")

    def upsert(
        self, shape: TableShape, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int
    ) -> bool:
        """Give False: whole columns go through the stage faster than rows."""
        return False

    def close(self) -> None:
        """Close the file and free its lock."""
        self._raw.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (self._duckdb.IntegrityError, self._duckdb.DataError) as error:
            raise RecordsRefused(f"{self.place} refuses the data: {_without_values(str(error))}.") from error
        except self._duckdb.Error as error:
            raise DestinationError(f"{self.place} {why_closed(str(error)) or _reason(str(error))}") from error


def _indexed(expression: str) -> str:
    """Give the folded column that a part of an index is; other expressions are no column's name."""
    quoted = len(expression) > 1 and expression[0] == expression[-1] == '"'
    return _fold(expression[1:-1].replace('""', '"') if quoted else expression)


def _reason(message: str) -> str:
    first = message.split("\n", 1)[0].removesuffix(".")
    return f"can't be used: {first}. Mend it, then run again."


def _without_values(message: str) -> str:
    """Say why data was refused in words that can't hold a record's values, which DuckDB's messages do."""
    kept = re.match(r"Constraint Error: ((?:NOT NULL|CHECK) constraint failed.*)", message)
    if kept is not None:
        return kept[1].removesuffix(".")
    for pattern, reason in _REASONS.items():
        if re.search(pattern, message, re.IGNORECASE):
            return reason
    wanted = re.search(r"(?: to |destination type )([A-Z][A-Z0-9_]+)", message)
    return f"a value can't become {wanted[1]}" if wanted else "a value does not fit its column's type"


_REASONS = {
    "foreign key": "it violates a foreign key constraint",
    "unique|primary key": "it violates a unique constraint",
    "^Constraint Error": "it violates a constraint",
    "Malformed JSON": "a text is not JSON",
}
