"""Deliver changes into a table: the algorithm, once for all databases.

A batch is staged in a temporary table and merged from there by one statement for the rows that are
there and one for those that are not, in the transaction that moves the watermark (design section 6).
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.destinations.fields import check_fields, check_name, check_shape
from rundiff.destinations.kinds import Kind, kind_of
from rundiff.destinations.tables import Column, Connection, Dialect, TableName, TableShape, quote
from rundiff.destinations.watermarks import TABLE, Watermarks
from rundiff.errors import ConfigurationError, DestinationError
from rundiff.model import Action

__all__ = ["Database", "SqlDestination"]

_UNSORTED = (Kind.NESTED, Kind.MIXED, Kind.NULL, Kind.INTERVAL)

_CAPABILITIES = Capabilities(
    new_action=Action.INSERT, transactional=True, upserts=True, wants_previous=False, whole_runs=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """How to reach one database; nothing is opened before it is asked for."""

    address: str
    """Its URL without secrets."""
    connect: Callable[[bool], Connection | None]
    """Open it. Given False, an absent database is not created, and None comes back."""
    check: Callable[[], None]
    """Refuse a place that can't be written; creates nothing."""


class SqlDestination:
    """One table of one database."""

    def __init__(self, dialect: Dialect, database: Database, table: TableName) -> None:
        self._dialect = dialect
        self._database = database
        self._table = _normal(dialect, table)
        self._connection: Connection | None = None
        self._shape: TableShape | None = None
        self._watermarks: Watermarks | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Tables take inserts, batch by batch, together with their watermark."""
        return _CAPABILITIES

    @property
    def identity(self) -> str:
        """The database's address and the table, folded as the database compares names."""
        parts = (self._table.schema, self._table.name)
        return f"{self._database.address}#{'.'.join(self._dialect.fold(part) for part in parts if part)}"

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse names, columns and places that can't work; creates nothing."""
        if fields is not None:
            check_fields(self._dialect, target, fields)
        self._database.check()
        connection = self._open(create=False)
        if connection is None:
            self._check_schema(None)
            return
        with connection.transaction():  # finds out whether the database can be written
            pass
        shape = connection.shape(self._table)
        if shape is None:
            self._check_schema(connection)
        else:
            check_shape(self._dialect, target, shape, fields)

    def position(self, target: Target) -> Position | None:
        """Read the watermark of this sync on this table; None where the table itself is gone."""
        connection = self._open(create=False)
        found = None if connection is None else self._marks(connection).position(target)
        if connection is None or found is None or found.sequence == 0:
            return found
        # Something was delivered, so there was a table: a mark that outlived it proves nothing.
        return None if connection.shape(self._table) is None else found

    def strangers(self, target: Target) -> Sequence[str]:
        """Read who else left a watermark on this table."""
        connection = self._open(create=False)
        return () if connection is None else self._marks(connection).strangers(target)

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Drop the watermarks of some syncs on this table."""
        connection = self._open(create=False)
        if connection is not None:
            self._marks(connection).forget(sync_ids)

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Look keys up in the table; all false while there is none."""
        connection = self._open(create=False)
        shape = None if connection is None else connection.shape(self._table)
        if connection is None or shape is None or keys.num_rows == 0:
            return pa.array([False] * keys.num_rows)
        columns = self._columns(shape, keys.schema.names)
        with connection.transaction(writes=False):
            stage = connection.stage(columns, keys.columns, self._indexed_width(shape, target))
            found = connection.rows(
                f"SELECT DISTINCT s.n FROM {stage} AS s JOIN {self._located(connection)} AS t ON {_join(columns)}"
            )
            connection.unstage()
        rows = pa.array([row[0] for row in found], pa.int64())
        return pc.is_in(pa.array(range(keys.num_rows), pa.int64()), value_set=rows)

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Create the table, or add the columns that it lacks."""
        connection = self._writable()
        with connection.transaction():
            shape = connection.shape(self._table)
            if shape is None:
                connection.execute(self._create_table(connection, target, schema))
            else:
                for field in schema:
                    self._fit_column(connection, shape, field)
        self._shape = connection.shape(self._table)

    def _fit_column(self, connection: Connection, shape: TableShape, field: pa.Field) -> None:
        """Add a field's column, or give it its type if it was made before there was any value."""
        dialect, table = self._dialect, self._located(connection)
        column, wanted = shape.columns.get(dialect.fold(field.name)), dialect.type_for(field.type)
        if column is None:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quote(field.name)} {wanted}")
        elif (
            dialect.retype is not None
            and column.type == dialect.type_for(pa.null())
            and column.type != wanted
            and not pa.types.is_null(field.type)
            and not connection.rows(f"SELECT 1 FROM {table} WHERE {quote(column.name)} IS NOT NULL LIMIT 1")
        ):
            connection.execute(dialect.retype.format(table=table, column=quote(column.name), type=wanted))

    def claim(self, target: Target, start: Position) -> None:
        """Set this sync's watermark on the table under `target.token`."""
        self._marks(self._writable()).claim(target, start)

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Merge one batch and move the watermark, in one transaction."""
        connection = self._writable()
        reached = Position(run=batch.run, sequence=batch.last_sequence)
        with connection.transaction():
            # First, so that a worker that was succeeded is told so before it does any work.
            self._marks(connection).move(target, expected, reached)
            if batch.records.num_rows:
                self._merge(connection, target, batch)
        return reached

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Move the watermark alone."""
        connection = self._writable()
        with connection.transaction():
            self._marks(connection).move(target, expected, reached)
        return Position(run=reached.run, sequence=reached.sequence)

    def finish(self, target: Target, reached: Position) -> None:
        """Do nothing: every batch is visible once it is delivered."""

    def close(self) -> None:
        """Close the database, if it is open."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._shape = self._watermarks = None

    def _open(self, *, create: bool) -> Connection | None:
        if self._connection is None:
            self._connection = self._database.connect(create)
        return self._connection

    def _writable(self) -> Connection:
        connection = self._open(create=True)
        if connection is None:
            raise DestinationError(
                f"{self._database.address} can't be created: check the path, then run again."
            )
        return connection

    def _located(self, connection: Connection) -> str:
        return connection.locate(self._table)

    def _marks(self, connection: Connection) -> Watermarks:
        if self._watermarks is None:
            marks = TableName(TABLE, self._table.schema)
            self._watermarks = Watermarks(connection, marks, self._dialect.fold(self._table.name))
        return self._watermarks

    def _check_schema(self, connection: Connection | None) -> None:
        schema = self._table.schema
        if schema is not None and (connection is None or not connection.has_schema(schema)):
            raise ConfigurationError(
                f'There is no schema "{schema}" in {self._database.address}: create it, or name another with --into.'
            )

    def _create_table(self, connection: Connection, target: Target, schema: pa.Schema) -> str:
        keys = set(target.primary_key)
        columns = [
            f"{quote(field.name)} {self._dialect.type_for(field.type)}{' NOT NULL' if field.name in keys else ''}"
            for field in schema
        ]
        if self._dialect.primary_key:
            columns.append(f"PRIMARY KEY ({', '.join(map(quote, target.primary_key))})")
        return f"CREATE TABLE {self._located(connection)} ({', '.join(columns)})"

    def _columns(self, shape: TableShape, names: Sequence[str]) -> list[Column]:
        columns = []
        for name in names:
            existing = shape.columns.get(self._dialect.fold(name))
            if existing is None:
                raise DestinationError(
                    f'The table "{shape.name}" has lost its column "{name}": run again, which adds it anew.'
                )
            columns.append(Column(existing.name, existing.type))
        return columns

    def _indexed_width(self, shape: TableShape, target: Target) -> int:
        """How many staged columns need an index: where the table has none for the key, the stage gets it."""
        key = frozenset(map(self._dialect.fold, target.primary_key))
        return 0 if shape.finds(key) else len(key)

    def _merge(self, connection: Connection, target: Target, batch: ChangeBatch) -> None:
        shape = self._shape = self._shape or connection.shape(self._table)
        if shape is None:
            raise DestinationError(
                f'The table "{self._table.name}" is gone from {self._database.address}: run again with --full-refresh.'
            )
        names, arrays = _split(batch, target)
        columns = self._columns(shape, names)
        width = len(target.primary_key)
        if batch.action is not Action.DELETE and connection.upsert(shape, columns, arrays, width):
            return
        stage = connection.stage(columns, arrays, self._indexed_width(shape, target))
        parts = _Statements(self._located(connection), stage, columns, width, shape)
        if batch.action is Action.DELETE:
            connection.execute(parts.fill(self._dialect.delete))
        else:
            self._upsert(connection, parts, batch.records.num_rows)
        connection.unstage()

    def _upsert(self, connection: Connection, parts: _Statements, count: int) -> None:
        [(matched,)] = connection.rows(parts.fill("SELECT count(DISTINCT s.n) FROM {stage} AS s {there}"))
        if matched and parts.has_values:
            for template in self._dialect.update(parts.shape):
                connection.execute(parts.fill(template))
        if matched < count:
            absent = " WHERE s.n NOT IN (SELECT s.n FROM {stage} AS s {there})" if matched else ""
            connection.execute(
                parts.fill(
                    f"INSERT INTO {{table}} ({{columns}}) SELECT {{staged}} FROM {{stage}} AS s{absent}"
                )
            )


@dataclass(frozen=True, slots=True)
class _Statements:
    """What the templates of a dialect are filled with."""

    table: str
    stage: str
    columns: Sequence[Column]
    """The key columns first."""
    width: int
    """How many of them are the key."""
    shape: TableShape

    @property
    def has_values(self) -> bool:
        """Say whether there is anything but the key to update."""
        return len(self.columns) > self.width

    def fill(self, template: str) -> str:
        """Fill a template in; placeholders are the names below."""
        ours = [column.name for column in self.columns]
        others = [
            column.name
            for column in self.shape.columns.values()
            if column.name not in ours and not column.generated
        ]
        join = _join(self.columns[: self.width])
        return template.format(
            table=self.table,
            stage=self.stage,
            join=join,
            there=f"JOIN {self.table} AS t ON {join}",
            sets=", ".join(f"{quote(name)} = s.c{n}" for n, name in enumerate(ours) if n >= self.width),
            columns=", ".join(map(quote, ours)),
            staged=", ".join(f"s.c{n}" for n in range(len(ours))),
            all_columns=", ".join(map(quote, [*ours, *others])),
            merged=", ".join([f"s.c{n}" for n in range(len(ours))] + [f"t.{quote(name)}" for name in others]),
            key=", ".join(map(quote, ours[: self.width])),
            staged_key=", ".join(f"s.c{n}" for n in range(self.width)),
        )


def _join(columns: Sequence[Column]) -> str:
    # The stage stands on the left: SQLite compares by the left side's collation, which is exact there.
    return " AND ".join(f"s.c{n} = t.{quote(column.name)}" for n, column in enumerate(columns))


def _split(batch: ChangeBatch, target: Target) -> tuple[list[str], list[pa.Array]]:
    """Give the key columns, then the others, sorted by key.

    Batches come in the order of signatures, which is random order to an index; sorted by key, each
    batch walks the index once (measured: 1.4 times as fast at 1 million rows in SQLite).
    """
    key = batch.records.column("primary_key")
    members = dict(zip((field.name for field in key.type), key.flatten(), strict=True))
    names = list(target.primary_key)
    arrays = [members[name] for name in names]
    if batch.action is not Action.DELETE:
        data = batch.records.column("data")
        for field, array in zip(data.type, data.flatten(), strict=True):
            if field.name not in members:
                names.append(field.name)
                arrays.append(array)
    order = _key_order(arrays[: len(members)])
    return names, arrays if order is None else [array.take(order) for array in arrays]


def _key_order(keys: Sequence[pa.Array]) -> pa.Array | None:
    """Give the rows in the order of their key; None where Arrow can't sort a key's type."""
    if any(kind_of(key.type) in _UNSORTED for key in keys):
        return None
    plain = [key.storage if isinstance(key, pa.ExtensionArray) else key for key in keys]
    table = pa.table(plain, names=[str(n) for n in range(len(plain))])
    return pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names])


def _normal(dialect: Dialect, table: TableName) -> TableName:
    """Drop the default schema's name, so that a table has one identity; refuse names that are taken."""
    schema = table.schema
    if schema is not None and dialect.fold(schema) == dialect.fold(dialect.default_schema):
        schema = None
    if schema is not None and not dialect.other_schemas:
        raise ConfigurationError(
            f'{dialect.title} has no schemas, so --into "{schema}.{table.name}" names no table: '
            'write a name that holds a dot in double quotes ("my.table").'
        )
    folded = dialect.fold(table.name)
    if any(folded.startswith(beginning) for beginning in (*dialect.reserved, TABLE)):
        raise ConfigurationError(
            f'{dialect.title} or Rundiff keeps the name "{table.name}" for itself: choose another.'
        )
    check_name(dialect, table.name, "table")
    return TableName(table.name, schema)
