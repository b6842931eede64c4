"""What a table can't take: judged before anything is read (duty 1 of the contract)."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from rundiff.destinations.contract import Target
from rundiff.destinations.modes import Mode
from rundiff.destinations.tables import Dialect, TableShape
from rundiff.errors import ConfigurationError, DestinationError

__all__ = ["check_fields", "check_mode", "check_name", "check_shape"]

_NEEDED = {
    Mode.MIRROR: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    Mode.SOFT_DELETE: ("SELECT", "INSERT", "UPDATE"),
    Mode.APPEND: ("INSERT",),
    Mode.HISTORY: ("SELECT", "INSERT", "UPDATE"),
}


def check_name(dialect: Dialect, name: str, what: str) -> None:
    """Refuse a name that the database would change or not take."""
    if not name:
        raise ConfigurationError(f"A {what} without a name can't be written to {dialect.title}: name it.")
    if "\0" in name:
        raise ConfigurationError(
            f"The {what} {name!r} holds a NUL character, which no database takes: rename it."
        )
    length = len(name.encode("utf-8", "replace"))
    if dialect.name_limit is not None and length > dialect.name_limit:
        raise ConfigurationError(
            f'The name of the {what} "{name}" has {length} bytes, and {dialect.title} would cut it to '
            f"{dialect.name_limit}: shorten it."
        )
    reason = None if dialect.misspelled is None else dialect.misspelled(name)
    if reason is not None:
        raise ConfigurationError(f'The name of the {what} "{name}" {reason}: rename it.')


def check_fields(dialect: Dialect, target: Target, fields: Mapping[str, pa.DataType]) -> None:
    """Refuse field names that can't be columns side by side, and types without a column type."""
    seen: dict[str, str] = {}
    for name, arrow_type in fields.items():
        check_name(dialect, name, "field")
        other = seen.setdefault(dialect.fold(name), name)
        if other != name:
            raise ConfigurationError(
                f'{dialect.title} takes the fields "{other}" and "{name}" for one column: rename one of them.'
            )
        dialect.type_for(arrow_type)
    if len(fields) > dialect.column_limit:
        raise ConfigurationError(
            f"The source has {len(fields)} fields, and a table of {dialect.title} takes {dialect.column_limit}: "
            "leave some out."
        )
    missing = [name for name in target.primary_key if name not in fields]
    if missing:
        raise ConfigurationError(f'The source has no field "{missing[0]}", which the primary key names.')


def check_shape(
    dialect: Dialect, target: Target, shape: TableShape, fields: Mapping[str, pa.DataType] | None
) -> None:
    """Refuse an existing table or view that can't take the fields."""
    if not shape.is_table:
        raise ConfigurationError(
            f'"{shape.name}" is a view, which can\'t be written: name a table with --into.'
        )
    if shape.refusal is not None:
        raise ConfigurationError(f'The table "{shape.name}" {shape.refusal}')
    for name in target.primary_key:
        if dialect.fold(name) not in shape.columns:
            raise ConfigurationError(
                f'The table "{shape.name}" has no column "{name}", which the primary key names: '
                "add it, or name another table with --into."
            )
    if fields is None:
        return
    for name, arrow_type in fields.items():
        column = shape.columns.get(dialect.fold(name))
        if column is None:
            continue
        if column.generated:
            raise ConfigurationError(
                f'The table "{shape.name}" computes its column "{column.name}" itself, so the field of that name '
                "can't be written: rename one of them."
            )
        if not dialect.holds(arrow_type, column):
            raise ConfigurationError(
                f'The column "{column.name}" of the table "{shape.name}" is of the type '
                f'{column.type or "(none)"}, which can\'t hold the field "{name}" of the type {arrow_type} '
                "without changing values: change the column, or pin the field's type with --types."
            )
    given = {dialect.fold(name) for name in fields}
    for folded, column in shape.columns.items():
        if column.required and folded not in given:
            raise ConfigurationError(
                f'The column "{column.name}" of the table "{shape.name}" demands a value, and the source has no such '
                "field: give the column a default, or let it be null."
            )


def check_mode(dialect: Dialect, target: Target, shape: TableShape, mode: Mode) -> None:
    """Refuse an existing table that can't be written as a mode has to."""
    key = frozenset(map(dialect.fold, target.primary_key))
    if not mode.one_row and any(unique <= key for unique in shape.unique):
        raise ConfigurationError(
            f'The mode {mode} keeps several rows of one key, and the table "{shape.name}" has a unique index on the '
            "key: drop the index, name another table with --into, or choose another --mode."
        )
    missing = [] if shape.rights is None else [r for r in _NEEDED[mode] if r not in shape.rights]
    if missing:
        raise DestinationError(
            f'The table "{shape.name}" of {dialect.title} can\'t be written, for the user lacks the right to '
            f"{missing[0]}: grant it, then run again."
        )
