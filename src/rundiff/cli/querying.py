"""`rundiff sql`: write records, runs and syncs as tables."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
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


@click.command("sql", short_help="Query write records, runs and syncs with SQL.")
@click.argument("query")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header.")
@common_options()
@click.pass_obj
def sql_command(invocation: Invocation, query: str, *, as_csv: bool) -> None:
    """Query the views sync_write_records, runs and syncs with DuckDB's SQL, read only.

    Signatures are given in hex.
    """
    if as_csv and invocation.as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    with invocation.existing_workspace() as workspace:
        table = workspace.sql(query)
    if as_csv:
        _print_csv(table)
    elif invocation.as_json:
        for row in _rows(table):
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        invocation.show(_table_text(table))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Give JSON rows. Values of any type are written one by one; this is output for people and scripts."""
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        for row in batch.to_pylist():
            yield {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, bytes) and name.endswith(SIGNATURE_SUFFIX):
        return value.hex()
    return jsonable(value)


def _print_csv(table: pa.Table) -> None:
    """Write CSV in which null is an empty field and empty text a quoted one."""
    csv.writer(sys.stdout, lineterminator="\n").writerow(table.column_names)
    for row in _rows(table):
        sys.stdout.write(",".join(map(_csv_field, row.values())) + "\n")


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

    from rundiff.cli.render_runs import grid

    if not table.num_columns:
        return
    numbers = [
        field.name
        for field in table.schema
        if str(field.type).startswith(("int", "uint", "double", "decimal"))
    ]
    drawn = grid(*map(printable, table.column_names), numbers=numbers)
    for row in _rows(table.slice(0, ROWS_SHOWN)):
        drawn.add_row(*(Text("null", style="dim") if v is None else Text(_cell(v)) for v in row.values()))
    yield drawn
    if table.num_rows > ROWS_SHOWN:
        yield Text(
            f"and {amount(table.num_rows - ROWS_SHOWN)} more rows; --json and --csv give all", style="dim"
        )


def _cell(value: Any) -> str:
    return printable(value) if isinstance(value, str) else shown(value, longest=200)
