"""Read a table back: its current rows, and what values would come back if they were delivered.

Every value comes as the text by which its database spells it, so that two values of one column are the
same exactly if their texts are; binary as `\\x` and hexadecimal digits, lists and structs as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from rundiff.destinations.modes import ACTION, CURRENT, DELETED_AT, RUN, SEQUENCE, Mode
from rundiff.destinations.tables import Column, Connection, Dialect, TableShape
from rundiff.errors import ConfigurationError
from rundiff.model import Action
from rundiff.sqlnames import quote

__all__ = ["current_rows", "echoed"]

_NEEDED = {Mode.HISTORY: (CURRENT,), Mode.APPEND: (ACTION, RUN, SEQUENCE)}
_PLACE = "_rundiff_place"


def current_rows(
    connection: Connection,
    dialect: Dialect,
    table: tuple[str, TableShape],
    mode: Mode,
    names: tuple[Sequence[str], Sequence[str]],
) -> Iterator[pa.RecordBatch]:
    """Give the rows that stand for records: not deleted ones, and of several versions the last.

    `table` is its quoted name and its shape, `names` are the key and all fields that are asked for. The
    batches have those fields that the table has, as text. Raises `ConfigurationError` if the table lacks
    a column that the mode needs.
    """
    located, shape = table
    key, wanted = names
    fields = [name for name in wanted if dialect.fold(name) in shape.columns]
    for name in _NEEDED.get(mode, ()):
        if dialect.fold(name) not in shape.columns:
            raise ConfigurationError(
                f'The table "{shape.name}" has no column "{name}", which the mode {mode} needs to tell its current '
                "rows: name another table with --into, or choose another --mode."
            )
    columns = [shape.columns[dialect.fold(name)] for name in fields]
    told = [dialect.told(column.type).format(column=f"_rundiff_t.{quote(column.name)}") for column in columns]
    keys = [quote(shape.columns[dialect.fold(name)].name) for name in key]
    tail = _tail(located, mode, keys, soft=dialect.fold(DELETED_AT) in shape.columns)
    for arrays in connection.stream(told, tail):
        yield pa.RecordBatch.from_arrays(arrays, fields)


def _tail(located: str, mode: Mode, keys: Sequence[str], *, soft: bool) -> str:
    if mode is Mode.SOFT_DELETE and soft:
        return f"FROM {located} AS _rundiff_t WHERE _rundiff_t.{quote(DELETED_AT)} IS NULL"
    if mode is Mode.HISTORY:
        return f"FROM {located} AS _rundiff_t WHERE _rundiff_t.{quote(CURRENT)}"
    if mode is Mode.APPEND:
        # Rows that others put there have no place among the runs: they count as the oldest.
        order = ", ".join(f"coalesce(_rundiff_v.{quote(name)}, 0) DESC" for name in (RUN, SEQUENCE))
        parted = ", ".join(f"_rundiff_v.{key}" for key in keys)
        return (
            f"FROM (SELECT _rundiff_v.*, row_number() OVER (PARTITION BY {parted} ORDER BY {order}) AS {_PLACE} "
            f"FROM {located} AS _rundiff_v) AS _rundiff_t WHERE _rundiff_t.{_PLACE} = 1 "
            f"AND coalesce(_rundiff_t.{quote(ACTION)}, '') <> '{Action.DELETE}'"
        )
    return f"FROM {located} AS _rundiff_t"


def echoed(
    connection: Connection, dialect: Dialect, columns: Sequence[Column], records: pa.RecordBatch
) -> pa.RecordBatch:
    """Say how records would come back, by way of a temporary table with the columns' types.

    Works within a transaction, and leaves nothing. Raises `RecordsRefused` if a column can't take a value.
    """
    stage = connection.stage(columns, records.columns, 0)
    told = [dialect.told(column.type).format(column=f"_rundiff_s.c{n}") for n, column in enumerate(columns)]
    parts = list(connection.stream(told, f"FROM {stage} AS _rundiff_s ORDER BY _rundiff_s.n"))
    connection.unstage()
    arrays = [pa.concat_arrays([part[n] for part in parts]) for n in range(len(columns))]
    return pa.RecordBatch.from_arrays(arrays, records.schema.names)
