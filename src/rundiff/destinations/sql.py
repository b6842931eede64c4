"""Deliver changes into a table of a database: the contract, once for all dialects.

Each batch is written in the transaction that moves the watermark (design section 6).
"""

# ruff: noqa: ARG002  # the contract fixes the arguments, whether a backend needs them or not
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from rundiff.destinations.contract import Capabilities, ChangeBatch, Position, Target
from rundiff.destinations.fields import check_fields, check_mode, check_name, check_shape
from rundiff.destinations.merging import Writing
from rundiff.destinations.modes import MODE_FIELDS, RUN, Mode, check_clashes
from rundiff.destinations.readback import current_rows, echoed
from rundiff.destinations.renames import refuse_both, refuse_names, renaming, under_names
from rundiff.destinations.tables import Connection, Dialect, TableName, TableShape
from rundiff.destinations.watermarks import TABLE, Watermarks
from rundiff.errors import ConfigurationError, DestinationError
from rundiff.model import Action
from rundiff.sqlnames import quote

__all__ = ["REHEARSAL", "Database", "SqlDestination"]

REHEARSAL = "_rundiff_rehearsal"


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one database; nothing is opened before it is asked for."""

    address: str
    """Its URL without secrets."""
    connect: Callable[[bool], Connection | None]
    """Open it. Given False, an absent database is not created, and None comes back."""
    check: Callable[[], None]
    """Refuse a place that can't be written; creates nothing."""


class SqlDestination:
    """One table of one database."""

    def __init__(
        self, dialect: Dialect, database: Database, table: TableName, mode: Mode = Mode.MIRROR
    ) -> None:
        self._dialect = dialect
        self._database = database
        self._table = _normal(dialect, table)
        self._mode = mode
        self._connection: Connection | None = None
        self._writing: Writing | None = None
        self._watermarks: Watermarks | None = None

    @property
    def capabilities(self) -> Capabilities:
        """Tables take inserts, batch by batch, together with their watermark."""
        return Capabilities(
            new_action=Action.INSERT,
            transactional=True,
            # A record that is sent again would be one more version of it.
            upserts=self._mode.one_row,
            wants_previous=self._mode is Mode.APPEND,
            batch_records=self._dialect.batch_records,
            reads_back=True,
            renames=True,
        )

    @property
    def identity(self) -> str:
        """The database's address, the table, folded as the database compares names, and the mode."""
        parts = (self._table.schema, self._table.name)
        name = ".".join(self._dialect.fold_table(part) for part in parts if part)
        mode = "" if self._mode is Mode.MIRROR else f"?mode={self._mode}"
        return f"{self._database.address}#{name}{mode}"

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse names, columns and places that can't work; creates nothing."""
        self._check(target, fields, {})

    def _check(
        self, target: Target, fields: Mapping[str, pa.DataType] | None, names: Mapping[str, str]
    ) -> None:
        if fields is not None:
            check_clashes(self._dialect, self._mode, fields)
            fields = {**fields, **MODE_FIELDS[self._mode]}
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
            shape = under_names(self._dialect, shape, names)
            check_shape(self._dialect, target, shape, fields)
            check_mode(self._dialect, target, shape, self._mode)
        if fields is not None and self._dialect.rehearses:
            self._rehearse(connection, target, fields, shape)

    def _rehearse(
        self,
        connection: Connection,
        target: Target,
        fields: Mapping[str, pa.DataType],
        shape: TableShape | None,
    ) -> None:
        """Let the database itself judge names, types and widths side by side, by a temporary table."""
        fold = self._dialect.fold
        if shape is not None and all(fold(name) in shape.columns for name in fields):
            return
        columns = self._column_list(target, pa.schema(list(fields.items())), new=True)
        table, names = quote(REHEARSAL), ", ".join(map(quote, fields))
        with connection.transaction():
            connection.execute(f"CREATE TEMPORARY TABLE {table} ({columns}){self._dialect.created}")
            # MySQL lets columns be created side by side that it then can't tell apart.
            nothing = ", ".join(["NULL"] * len(fields))
            connection.execute(
                f"INSERT INTO {table} ({names}) SELECT {nothing} FROM (SELECT 1) AS x WHERE 1 = 0"
            )
            connection.execute(f"DROP TABLE {table}")

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
        if self._mode is Mode.APPEND:  # whatever it holds, nothing is written over
            return pa.array([False] * keys.num_rows)
        writing = self._open_writing(connection, target, shape)
        with connection.transaction(writes=False):
            found = writing.find(dict(zip(keys.schema.names, keys.columns, strict=True)))
        held = np.zeros(keys.num_rows, np.bool_)
        held[found] = True
        return pa.array(held)

    def stored(self, target: Target, fields: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Read the current rows, on a connection of their own: `echo` may be asked meanwhile."""
        connection = self._database.connect(False)
        try:
            shape = None if connection is None else connection.shape(self._table)
            if connection is None or shape is None:
                raise DestinationError(
                    f'There is no table "{self._table.name}" in {self._database.address}: check --to and --into.'
                )
            table, names = (self._located(connection), shape), (target.primary_key, fields)
            yield from current_rows(connection, self._dialect, table, self._mode, names)
        finally:
            if connection is not None:
                connection.close()

    def newest_run(self, target: Target) -> int | None:
        """Read the highest run number of the rows, deletions included, in the mode that keeps it."""
        connection = self._open(create=False) if self._mode is Mode.APPEND else None
        shape = None if connection is None else connection.shape(self._table)
        column = None if shape is None else shape.columns.get(self._dialect.fold(RUN))
        if connection is None or column is None:
            return None
        with connection.transaction(writes=False):
            [(newest,)] = connection.rows(
                f"SELECT max({quote(column.name)}) FROM {self._located(connection)}"
            )
        return None if newest is None else int(newest)

    def echo(self, target: Target, records: pa.RecordBatch) -> pa.RecordBatch:
        """Send records through a temporary table with the columns of this one."""
        connection = self._writable()
        writing = self._open_writing(connection, target)
        names = [n for n in records.schema.names if self._dialect.fold(n) in writing.shape.columns]
        with connection.transaction(writes=False):
            return echoed(connection, self._dialect, writing.columns(names), records.select(names))

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Create the table, or add the columns that it lacks."""
        connection = self._writable()
        wanted = pa.schema([*schema, *MODE_FIELDS[self._mode].items()])
        with connection.transaction():
            shape = connection.shape(self._table)
            if shape is None:
                for statement in self._create_table(connection, target, wanted):
                    connection.execute(statement)
            else:
                for field in wanted:
                    self._fit_column(connection, shape, field)
        self._writing = None

    def _fit_column(self, connection: Connection, shape: TableShape, field: pa.Field) -> None:
        """Add a field's column, or give it its type if it was made before there was any value."""
        dialect, table = self._dialect, self._located(connection)
        column, wanted = shape.columns.get(dialect.fold(field.name)), dialect.type_for(field.type)
        untyped = dialect.type_for(pa.null()).lower()
        if column is None:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quote(field.name)} {wanted}")
        elif (
            dialect.retype is not None
            and column.type.lower().partition(" ")[0] == untyped != wanted.lower()
            and not pa.types.is_null(field.type)
            and not connection.rows(f"SELECT 1 FROM {table} WHERE {quote(column.name)} IS NOT NULL LIMIT 1")
        ):
            connection.execute(dialect.retype.format(table=table, column=quote(column.name), type=wanted))

    def check_renames(
        self, target: Target, names: Mapping[str, str], fields: Mapping[str, pa.DataType] | None
    ) -> None:
        """Refuse names that the columns can't get, and fields that the table can't take then."""
        connection = self._open(create=False)
        shape = None if connection is None else connection.shape(self._table)
        if shape is not None:
            refuse_names(self._dialect, self._mode, shape, names, self.strangers(target))
        self._check(target, fields, names)

    def rename(self, target: Target, names: Mapping[str, str]) -> None:
        """Rename columns of the table, if there is one."""
        connection = self._writable()
        with connection.transaction():
            shape = connection.shape(self._table)
            if shape is not None:
                refuse_both(self._dialect, shape, names)
            for column, new in [] if shape is None else renaming(self._dialect, shape, names):
                table, name = self._located(connection), quote(column.name)
                try:
                    connection.execute(f"ALTER TABLE {table} RENAME COLUMN {name} TO {quote(new)}")
                except DestinationError as error:
                    raise type(error)(
                        f"The column {column.name} can't get the name {new} that its field has by now; you may rename "
                        f"it yourself. {error}"
                    ) from error
        self._writing = None

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
                self._open_writing(connection, target).write(batch)
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
        self._connection = self._writing = self._watermarks = None

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
            self._watermarks = Watermarks(
                connection, self._dialect, marks, self._dialect.fold_table(self._table.name)
            )
        return self._watermarks

    def _check_schema(self, connection: Connection | None) -> None:
        schema = self._table.schema
        if schema is not None and (connection is None or not connection.has_schema(schema)):
            raise ConfigurationError(
                f'There is no schema "{schema}" in {self._database.address}: create it, or name another with --into.'
            )

    def _open_writing(
        self, connection: Connection, target: Target, shape: TableShape | None = None
    ) -> Writing:
        if self._writing is None:
            shape = shape or connection.shape(self._table)
            if shape is None:
                raise DestinationError(
                    f'The table "{self._table.name}" is gone from {self._database.address}: '
                    "run again with --full-refresh."
                )
            self._writing = Writing(
                connection=connection,
                dialect=self._dialect,
                located=self._located(connection),
                shape=shape,
                key=target.primary_key,
                mode=self._mode,
            )
        return self._writing

    def _create_table(self, connection: Connection, target: Target, schema: pa.Schema) -> list[str]:
        dialect, table = self._dialect, self._located(connection)
        columns = self._column_list(target, schema, new=True)
        statements = [f"CREATE TABLE {table} ({columns}){dialect.created}"]
        if self._mode is Mode.HISTORY and dialect.key_index is not None:
            statements.append(
                dialect.key_index.format(
                    table=table,
                    name=quote(self._table.name),
                    index=quote(f"_rundiff_key_{self._table.name}"),
                    key=", ".join(map(quote, target.primary_key)),
                )
            )
        return statements

    def _column_list(self, target: Target, schema: pa.Schema, *, new: bool) -> str:
        """Give the columns of a table, with its key if it is a new one."""
        dialect, keys = self._dialect, target.primary_key if new else ()
        columns = []
        for field in schema:
            wanted = dialect.type_for(field.type)
            if field.name in keys:
                if dialect.key_type_for is not None:
                    wanted = dialect.key_type_for(field.type, len(keys))
                wanted += " NOT NULL"
            columns.append(f"{quote(field.name)} {wanted}")
        if keys and dialect.primary_key and self._mode.one_row:
            columns.append(f"PRIMARY KEY ({', '.join(map(quote, keys))})")
        return ", ".join(columns)


def _normal(dialect: Dialect, table: TableName) -> TableName:
    """Drop the default schema's name, so that a table has one identity; refuse names that are taken."""
    schema = table.schema
    if schema is not None and dialect.fold_table(schema) == dialect.fold_table(dialect.default_schema):
        schema = None
    if schema is not None and not dialect.other_schemas:
        raise ConfigurationError(
            f'{dialect.title} has no schemas, so --into "{schema}.{table.name}" names no table: '
            'write a name that holds a dot in double quotes ("my.table").'
        )
    folded = dialect.fold_table(table.name)
    if any(folded.startswith(beginning) for beginning in (*dialect.reserved, TABLE)):
        raise ConfigurationError(
            f'{dialect.title} or Rundiff keeps the name "{table.name}" for itself: choose another.'
        )
    check_name(dialect, table.name, "table")
    if schema is not None:
        check_name(dialect, schema, "schema")
    return TableName(table.name, schema)
