"""`rundiff sql`: write records, runs and syncs as tables."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import click

from rundiff.cli.invocation import Invocation, common_options
from rundiff.cli.values import amount, jsonable, printable, shown

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["sql_command"]

ROWS_SHOWN = 1_000
"""Rows of a table for people; --json and --csv give all."""
SIGNATURE_SUFFIX = "_signature"
BATCH_ROWS = 10_000
GAP = 2
"""Spaces between columns."""


@click.command("sql", short_help="Query write records, runs and syncs with SQL.")
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header.")
@click.option(
    "--sync", "syncs", metavar="NAME", multiple=True, help="Only write records of this sync; may be repeated."
)
@click.option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only write records of each sync's last N runs with any.",
)
@common_options()
@click.pass_obj
def sql_command(
    invocation: Invocation, query: str, *, as_csv: bool, syncs: tuple[str, ...], last: int | None
) -> None:
    """Query the views sync_write_records, runs, syncs and failures with DuckDB's SQL, read only.

    Signatures are given in hex.
    """
    if as_csv and invocation.as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    with invocation.existing_workspace() as workspace:
        table = workspace.sql(query, syncs=syncs, last=last)
    if as_csv:
        _print_csv(table)
    elif invocation.as_json:
        _print_json(table)
    else:
        invocation.show(_table_text(table))


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    """Give JSON values row by row. Each is written by itself: this is output for people and scripts."""
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        columns = [
            [_value(name, value) for value in column.to_pylist()]
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        ]
        yield from map(list, zip(*columns, strict=True))


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bytes) and name.endswith(SIGNATURE_SUFFIX):
        return value.hex()
    return jsonable(value)


def _print_json(table: pa.Table) -> None:
    # An object has each key once, a result may have several columns of one name.
    names: list[str] = []
    for name in table.column_names:
        copies = (f"{name}_{number}" for number in count(2))
        names.append(name if name not in names else next(copy for copy in copies if copy not in names))
    for row in _rows(table):
        sys.stdout.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n")


def _print_csv(table: pa.Table) -> None:
    """Write CSV in which null is an empty field and empty text a quoted one."""
    csv.writer(sys.stdout, lineterminator="\n").writerow(table.column_names)
    for row in _rows(table):
        sys.stdout.write(",".join(map(_csv_field, row)) + "\n")


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    if value == "":
        return '""'
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    field = io.StringIO()
    csv.writer(field, lineterminator="").writerow([text])
    return field.getvalue()


def _table_text(table: pa.Table) -> Iterator[Any]:
    from rich.text import Text

    if not table.num_columns:
        return
    names = [printable(name) for name in table.column_names]
    rows = [[_cell(value) for value in row] for row in _rows(table.slice(0, ROWS_SHOWN))]
    width = sum(max(map(len, column)) + GAP for column in zip(names, *rows, strict=True))
    if sys.stdout.isatty() and width > shutil.get_terminal_size().columns:
        yield from _one_below_the_other(names, rows)
    else:
        yield _side_by_side(table, names, rows)
    if table.num_rows > ROWS_SHOWN:
        more = f"and {amount(table.num_rows - ROWS_SHOWN)} more rows; --json and --csv give all"
        yield Text(more, style="dim")


def _side_by_side(table: pa.Table, names: list[str], rows: list[list[str]]) -> Any:
    from rich.text import Text

    from rundiff.cli.render_runs import grid

    numeric = ("int", "uint", "float", "double", "decimal")
    numbers = [
        name for name, field in zip(names, table.schema, strict=True) if str(field.type).startswith(numeric)
    ]
    drawn = grid(*names, numbers=numbers)
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _one_below_the_other(names: list[str], rows: list[list[str]]) -> Iterator[Any]:
    """Give each row a block of its own, where a terminal is too narrow for a table."""
    from rich.text import Text

    width = max(map(len, names))
    for number, row in enumerate(rows, 1):
        yield Text(f"row {number}", style="bold")
        for name, value in zip(names, row, strict=True):
            yield Text.assemble((f"  {name.ljust(width)}  ", "dim"), value)


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    return printable(value) if isinstance(value, str) else shown(value, longest=200)
