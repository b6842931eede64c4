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
_PLACE = "WHERE database_name = ? AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"
_VIEW_PLACE = _PLACE.replace("table_name", "view_name")
_READ_ROWS = 65_536
_ROW_GROUP = 122_880
"""Rows that DuckDB keeps together. Rows that fill whole ones are written once: in batches of 131,072, loading 1 million
took twice the processor time, and the file was nearly twice as large."""

_DELETE = "DELETE FROM {table} AS _rundiff_t WHERE EXISTS (SELECT 1 FROM {stage} AS _rundiff_s WHERE {join})"
_IN_PLACE = ("UPDATE {table} AS _rundiff_t SET {sets} FROM {stage} AS _rundiff_s WHERE {join}",)
_REWRITE = (
    (
        f"CREATE TEMP TABLE {_MERGED} AS SELECT {{merged}} "
        "FROM {stage} AS _rundiff_s JOIN {table} AS _rundiff_t ON {join}"
    ),
    _DELETE,
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
    delete=_DELETE,
    same="encode({staged}) = encode({stored})",
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
            self._shapes: dict[TableName, tuple[list[tuple[Any, ...]], TableShape]] = {}
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
        """Read the table from the catalogue, whole only if it is another than when it was last read."""
        place = (self._catalog, table.schema or "main", table.name)
        found = self.rows(
            f"SELECT table_name, table_oid, sql, index_count FROM duckdb_tables() {_PLACE}", place
        ) or self.rows(f"SELECT view_name, view_oid, sql, NULL FROM duckdb_views() {_VIEW_PLACE}", place)
        if not found:
            return None
        known = self._shapes.get(table)
        if known is None or known[0] != found:
            known = self._shapes[table] = (
                found,
                self._read_shape(found[0], place),
            )
        return known[1]

    def _read_shape(self, found: tuple[Any, ...], place: tuple[str, ...]) -> TableShape:
        name, _, sql, indexed = found
        [(collation,)] = self.rows("SELECT current_setting('default_collation')")
        # The catalogue names no column's collation. At worst a column without one is taken for one with it.
        collated = bool(collation) or "COLLATE" in (sql or "").upper()
        columns = {
            _fold(column): ExistingColumn(
                name=column,
                type=declared,
                required=not nullable and default is None,
                generated=generated,
                exact=not (collated and declared == "VARCHAR"),
            )
            for column, declared, nullable, default, generated in self.rows(
                "SELECT column_name, data_type, is_nullable, column_default, "
                f"coalesce(generation_expression, '') <> '' FROM duckdb_columns() {_PLACE} ORDER BY column_index",
                place,
            )
        }
        constraints = self.rows(
            f"SELECT constraint_type, constraint_column_names FROM duckdb_constraints() {_PLACE}", place
        )
        indexes = self.rows(f"SELECT is_unique, expressions::VARCHAR[] FROM duckdb_indexes() {_PLACE}", place)
        keys = [
            frozenset(map(_fold, names)) for kind, names in constraints if kind in ("PRIMARY KEY", "UNIQUE")
        ]
        keys += [frozenset(map(_indexed, parts)) for is_unique, parts in indexes if is_unique]
        return TableShape(
            name=name,
            is_table=indexed is not None,
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
        declared = [f"c{n} {column.type}" for n, column in enumerate(columns)]
        self.execute(f"CREATE TEMP TABLE {_STAGE} (n BIGINT, {', '.join(declared)})")
        arrived = _arrived(columns, arrays)
        numbers = pa.array(np.arange(len(arrived), dtype=np.int64))
        with self._registered(arrived.add_column(0, "n", numbers)) as name:
            self.execute(f"INSERT INTO {_STAGE} SELECT * FROM {name}")
        return _STAGE

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert Arrow columns."""
        with self._registered(_arrived(columns, arrays)) as name:
            self.execute(f"INSERT INTO {table} ({_names(columns)}) SELECT * FROM {name}")

    @contextmanager
    def _registered(self, arrived: pa.Table) -> Iterator[str]:
        """Let statements read an Arrow table, by the name that is given."""
        with self._translated():
            self._raw.register(_ARRIVED, arrived)
        try:
            yield quote(_ARRIVED)
        finally:
            with suppress(self._duckdb.Error):  # gone with the transaction that a bad value aborted
                self._raw.unregister(_ARRIVED)

    def unstage(self) -> None:
        """Drop the temporary table."""
        self.execute(f"DROP TABLE {_STAGE}")

    def upsert(
        self,
        table: str,
        shape: TableShape,
        columns: Sequence[Column],
        arrays: Sequence[pa.Array],
        key_width: int,
    ) -> bool:
        """Delete the rows of the keys, and insert all: two passes instead of four, and no stage.

        Not where a column is the table's own, whose values stay, and not where a unique index would
        still see the deleted rows.
        """
        ours, key = {_fold(column.name) for column in columns}, columns[:key_width]
        kept = any(not column.generated and name not in ours for name, column in shape.columns.items())
        if kept or shape.constrained or not all(column.exact for column in key):
            return False
        keys = ", ".join(f"CAST(c{n} AS {column.type})" for n, column in enumerate(key))
        with self._registered(_arrived(columns, arrays)) as name:
            self.execute(f"DELETE FROM {table} WHERE ({_names(key)}) IN (SELECT {keys} FROM {name})")
            self.execute(f"INSERT INTO {table} ({_names(columns)}) SELECT * FROM {name}")
        return True

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


def _arrived(columns: Sequence[Column], arrays: Sequence[pa.Array]) -> pa.Table:
    values = [wire(array, column) for array, column in zip(arrays, columns, strict=True)]
    return pa.table(values, names=[f"c{n}" for n in range(len(columns))])


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(quote(column.name) for column in columns)


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
