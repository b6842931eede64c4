"""Columns of a table that get other names, since fields of the source have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
from msgspec.structs import replace

from rundiff.destinations.fields import check_name
from rundiff.destinations.modes import Mode, check_clashes
from rundiff.destinations.tables import Dialect, ExistingColumn, TableShape
from rundiff.errors import DestinationError

__all__ = ["refuse_both", "refuse_names", "renaming", "under_names"]


def refuse_names(
    dialect: Dialect, mode: Mode, shape: TableShape, names: Mapping[str, str], others: Sequence[str]
) -> None:
    """Refuse names that the database would change, that a mode needs, or that other columns have.

    `others` are the syncs that write to the table besides: their fields have the former names, perhaps.
    """
    found = renaming(dialect, shape, names)
    check_clashes(dialect, mode, dict.fromkeys(names.values(), pa.null()))
    for new in names.values():
        check_name(dialect, new, "field")
    refuse_both(dialect, shape, names)
    if found and others:
        column, new = found[0]
        raise DestinationError(
            f'The table "{shape.name}" is written by {len(others)} other sync{"s" * (len(others) > 1)}, too, which '
            f"would not find the column {column.name} any more, so it does not get the name {new} by itself. Accept "
            "the name for each of them, rename the column yourself, then run again."
        )


def refuse_both(dialect: Dialect, shape: TableShape, names: Mapping[str, str]) -> None:
    """Refuse a name that another column has."""
    fold = dialect.fold
    for old, new in names.items():
        if fold(old) != fold(new) and {fold(old), fold(new)} <= shape.columns.keys():
            raise DestinationError(
                f'The table "{shape.name}" has both a column {old} and a column {new}, so the field {old} can\'t get '
                "that name there. Drop or rename one of them, then run again."
            )


def renaming(
    dialect: Dialect, shape: TableShape, names: Mapping[str, str]
) -> list[tuple[ExistingColumn, str]]:
    """Give the columns that are there, and the names that they don't have yet."""
    found = [(shape.columns.get(dialect.fold(old)), new) for old, new in names.items()]
    return [(column, new) for column, new in found if column is not None and column.name != new]


def under_names(dialect: Dialect, shape: TableShape, names: Mapping[str, str]) -> TableShape:
    """Give the table as it will be."""
    new = {column.name: name for column, name in renaming(dialect, shape, names)}
    columns = [replace(column, name=new.get(column.name, column.name)) for column in shape.columns.values()]
    return replace(shape, columns={dialect.fold(column.name): column for column in columns})
