"""Names and shapes of tables, and what differs between databases: data, above which `sql.py` stands once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from rundiff.sqlnames import table_parts

__all__ = ["Column", "Connection", "Dialect", "ExistingColumn", "TableName", "TableShape", "bound"]

_BARE = re.compile(r'"(?:[^"]|"")*"|\?')
"""A delimited identifier, or a placeholder outside of one."""


def bound(sql: str, place: Callable[[int], str]) -> str:
    """Give each placeholder `?` of a statement, from 0 on, another spelling; names may hold any character."""
    count = -1

    def spell(match: re.Match[str]) -> str:
        nonlocal count
        if match[0] != "?":
            return match[0]
        count += 1
        return place(count)

    return _BARE.sub(spell, sql)


class TableName(msgspec.Struct, frozen=True):
    """A table, optionally with its schema."""

    name: str
    schema: str | None = None

    @classmethod
    def parse(cls, into: str) -> TableName:
        """Read `table`, `schema.table`, or either part in double quotes where it holds a dot.

        Raises `ConfigurationError` for anything else.
        """
        *schema, name = table_parts(into, "--into")
        return cls(name, schema[0] if schema else None)


class Column(msgspec.Struct, frozen=True):
    """A column as it is staged: its name in the table and its declared type, empty for none."""

    name: str
    type: str
    exact: bool = True
    """Whether equal means the same: false where case, accents or trailing blanks are passed over."""


class ExistingColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column as the database tells of it."""

    name: str
    type: str
    """As declared; empty where nothing was declared."""
    required: bool = False
    """Not null, and without a default."""
    generated: bool = False
    strict: bool = False
    """The table refuses values of other types (SQLite's STRICT)."""
    exact: bool = True
    """As in `Column`."""
    enumerated: bool = False
    """Takes the texts of a list alone."""


class TableShape(msgspec.Struct, frozen=True, kw_only=True):
    """A table or view as the database tells of it."""

    name: str
    is_table: bool
    columns: Mapping[str, ExistingColumn]
    """By folded name, in the table's order."""
    unique: Sequence[frozenset[str]] = ()
    """The folded columns of each unique index or key."""
    leading: Sequence[Sequence[str]] = ()
    """The folded columns of each index that holds all rows, in its order."""
    constrained: bool = False
    """Has a key, a unique index or a foreign key that rewriting a row could trip over."""
    triggered: bool = False
    """Has triggers, which tell inserts from updates."""
    rights: frozenset[str] | None = None
    """What may be done with it, of `SELECT`, `INSERT`, `UPDATE`, `DELETE`; None where nobody is kept off."""
    refusal: str | None = None
    """Why it can't be a target, as the end of a sentence."""

    def finds(self, key: frozenset[str]) -> bool:
        """Say whether an index leads to the rows of a key."""
        return any(columns <= key for columns in self.unique) or any(
            frozenset(columns[: len(key)]) == key for columns in self.leading
        )


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one database differs from the others."""

    scheme: str
    title: str
    """Its name for people."""
    default_schema: str
    other_schemas: bool
    """Whether tables may stand in schemas besides the default one."""
    fold: Callable[[str], str]
    """Bring a column's name to the form in which the database compares it."""
    fold_table: Callable[[str], str]
    """The same for names of tables and schemas."""
    name_limit: int | None
    """The longest name that is kept, in bytes of UTF-8."""
    column_limit: int
    """The most columns of a table."""
    reserved: Sequence[str]
    """Folded beginnings of table names that the database keeps for itself."""
    primary_key: bool
    """Whether tables that are created declare their primary key."""
    retype: str | None
    """The statement that gives a column its type when its field has its first value (template); None where
    a column may stay without one."""
    type_for: Callable[[pa.DataType], str]
    """The column type to create for a field."""
    holds: Callable[[pa.DataType, ExistingColumn], bool]
    """Whether an existing column keeps every value of a field, or refuses it with an error."""
    update: Callable[[TableShape], Sequence[str]]
    """The statements that write staged values over the rows that have their keys (templates)."""
    delete: str
    """The statement that deletes the rows that have the staged keys (template)."""
    told: Callable[[str], str]
    """How a `column` of a declared type is asked for its values as text (template); see `readback`."""
    key_type_for: Callable[[pa.DataType, int], str] | None = None
    """The column type to create for a field of a key of so many fields, where it is another."""
    name_type: str = "VARCHAR(255)"
    """A text that compares byte by byte, for the watermarks' table names."""
    created: str = ""
    """What follows the columns of a table that is created."""
    key_index: str | None = None
    """The statement that indexes the key where it is not unique (template); None: no index is wanted."""
    misspelled: Callable[[str], str | None] | None = None
    """Says why a name can't be kept as it is, as the end of a sentence; None where it can."""
    same: str = "{staged} = {stored}"
    """The condition that two values of a column that is not `exact` are the same, byte by byte (template)."""
    direct: bool = False
    """Whether new rows are first written straight into a table whose key is unique, under a savepoint."""
    batch_records: int | None = None
    """The most records that are best written at a time; None: as many as come."""
    rehearses: bool = False
    """Whether a temporary table shows what the database thinks of fields, before anything is read."""


class Connection(Protocol):
    """An open database. All its errors are `DestinationError`s: `RecordsRefused` where data is to blame."""

    @property
    def place(self) -> str:
        """The database for people: `The SQLite file …`."""

    def locate(self, table: TableName) -> str:
        """Give the full name of a table, quoted."""

    def shape(self, table: TableName) -> TableShape | None:
        """Look a table up; None if there is none of that name."""

    def has_schema(self, schema: str) -> bool:
        """Say whether a schema exists."""

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement and give the number of rows that it touched."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query."""

    def stream(self, expressions: Sequence[str], tail: str) -> Iterator[list[pa.Array]]:
        """Run `SELECT expressions tail` and give its rows in parts: a text array for each expression.

        Until the last part is taken, the connection is busy with it.
        """

    def transaction(self, *, writes: bool = True) -> AbstractContextManager[None]:
        """Begin; commit when the block ends well, else roll back."""

    def stage(self, columns: Sequence[Column], arrays: Sequence[pa.Array], key_width: int) -> str:
        """Put columns into a temporary table, within a transaction, and give its quoted name.

        Its columns are `n`, counting from 0, then `c0`, `c1`, … with the declared types. With a
        `key_width` above 0, the first so many get an index.
        """

    def unstage(self) -> None:
        """Drop what `stage` made, within the same transaction."""

    def append(self, table: str, columns: Sequence[Column], arrays: Sequence[pa.Array]) -> None:
        """Insert rows into a table, given by its quoted name, within a transaction."""

    def upsert(
        self,
        table: str,
        shape: TableShape,
        columns: Sequence[Column],
        arrays: Sequence[pa.Array],
        key_width: int,
    ) -> bool:
        """Write rows straight into a table, the key columns first, where that is faster than staging.

        `table` is its quoted name, as in `append`.

        Gives False, and has written nothing, where the table or the database does not allow it.
        """

    def close(self) -> None:
        """Let go of the database; may be called again."""
