"""Changes as CSV (RFC 4180): a row for each, with the record's fields as columns.

Text stands in quotes and null is an empty cell without them, so that null and empty text are told
apart, as the CSV source does. Numbers and booleans stand without quotes.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.kinds import Kind, kind_of
from rundiff.destinations.render import base64_text, json_text
from rundiff.destinations.spelling import hex_text, plain_text
from rundiff.destinations.wholeruns import RunFormat
from rundiff.errors import ConfigurationError

__all__ = ["csv_format"]

_TEXT = pa.large_string()
_HEAD = ("_rundiff_sync", "_rundiff_run", "_rundiff_sequence", "_rundiff_action")
_OWNER = "_rundiff_idempotency_key"
_TAIL = ("_rundiff_changed_fields", "_rundiff_primary_key_signature", "_rundiff_data_signature", _OWNER)
_FORMULA = r"^[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
"""What spreadsheets may take a cell's text for a formula by: https://owasp.org/www-community/attacks/CSV_Injection
(the last four are the full-width forms of = + - @)."""
_ROWS = 16_384
"""Rows that are written at once, which bounds memory."""


def csv_format(*, formula_safe: bool) -> RunFormat:
    """CSV in UTF-8 with a header; `formula_safe` puts an apostrophe before what could be a formula."""
    return RunFormat(
        ending=".csv",
        title="CSV",
        media_type="text/csv; charset=utf-8; header=present",
        check=_check,
        begin=partial(_CsvFile, formula_safe=formula_safe),
        owner=_owner,
    )


class _CsvFile:
    """One file; its columns are those of the type that it was begun with."""

    def __init__(self, stream: BinaryIO, target: Target, kind: pa.StructType, *, formula_safe: bool) -> None:
        import pyarrow.csv as arrow_csv

        self._target = target
        self._formula_safe = formula_safe
        fields = [pa.field(field.name, _cells(pa.nulls(0, field.type))[0].type) for field in kind]
        names = [*_HEAD, *(field.name for field in fields), *_TAIL]
        types = [_TEXT, pa.int64(), pa.int64(), _TEXT, *(f.type for f in fields), *[_TEXT] * len(_TAIL)]
        if formula_safe:
            names = _harmless(pa.array(names, _TEXT)).to_pylist()
        schema = pa.schema(list(zip(names, types, strict=True)))
        options = arrow_csv.WriteOptions(batch_size=_ROWS)
        self._schema = schema
        self._writer: Any = arrow_csv.CSVWriter(stream, schema, write_options=options)

    def write(self, batch: ChangeBatch) -> None:
        """Add a row for each record."""
        for offset in range(0, batch.records.num_rows, _ROWS):
            part = batch.slice(offset, min(_ROWS, batch.records.num_rows - offset))
            self._writer.write_batch(pa.record_batch(self._columns(part), schema=self._schema))

    def end(self) -> None:
        """Write nothing more."""
        self._writer.close()

    def abandon(self) -> None:
        """Do nothing: whole batches are written at once."""

    def _columns(self, batch: ChangeBatch) -> list[pa.Array]:
        records, count = batch.records, batch.records.num_rows
        sequence = pa.array(np.arange(batch.first_sequence, batch.first_sequence + count, dtype=np.int64))
        prefix = pa.scalar(f"{self._target.sync_id}/{batch.run}/", _TEXT)
        found = [
            (pa.repeat(pa.scalar(self._target.sync, _TEXT), count), True),
            (pa.repeat(pa.scalar(batch.run, pa.int64()), count), False),
            (sequence, False),
            (pa.repeat(pa.scalar(str(batch.action), _TEXT), count), True),
            *_fields(records.column("data"), records.column("primary_key")),
            (_text_or_null(records.column("changed_fields")), True),
            (hex_text(records.column("primary_key_signature")), True),
            (hex_text(records.column("data_signature")), True),
            (pc.binary_join_element_wise(prefix, pc.cast(sequence, _TEXT), pa.scalar("", _TEXT)), True),
        ]
        return [_harmless(cells) if self._formula_safe and text else cells for cells, text in found]


def _fields(data: pa.StructArray, key: pa.StructArray) -> list[tuple[pa.Array, bool]]:
    """Give the cells of each field; where a delete's data is not known, those of its key."""
    from rundiff.baseline.columns import conform

    members = dict(zip((field.name for field in data.type), data.flatten(), strict=True))
    for field, values in zip(key.type, key.flatten(), strict=True):
        if data.null_count and field.name in members:
            known = members[field.name]
            # The key's own types are at most as wide as those of the data, which hold the same values.
            members[field.name] = _either(known, conform(values, known.type), data.is_valid())
    return [_cells(values) for values in members.values()]


def _either(first: pa.Array, second: pa.Array, which: pa.BooleanArray) -> pa.Array:
    if isinstance(first.type, pa.BaseExtensionType):
        storage = pc.if_else(which, first.storage, second.storage)
        return first.type.wrap_array(storage)
    return pc.if_else(which, first, second)


def _cells(array: pa.Array) -> tuple[pa.Array, bool]:
    """Bring a field to a type that is written as it is, and say whether its cells may begin with anything."""
    kind = kind_of(array.type)
    if kind in (Kind.BOOLEAN, Kind.INTEGER, Kind.UNSIGNED):
        return array, False
    if kind is Kind.FLOAT:
        # Through double, which keeps the value that was signed; no reader agrees on what is not finite.
        double = pc.cast(array, pa.float64())
        return pc.if_else(pc.is_finite(double), double, pa.scalar(None, pa.float64())), False
    if kind is Kind.BINARY:
        return base64_text(array), True
    if kind in (Kind.NESTED, Kind.MIXED):
        return _text_or_null(array), True
    return plain_text(array), kind is not Kind.DECIMAL


def _text_or_null(array: pa.Array) -> pa.Array:
    return pc.if_else(array.is_valid(), json_text(array), pa.scalar(None, _TEXT))


def _harmless(cells: pa.Array) -> pa.Array:
    """Put an apostrophe before each text that a spreadsheet could take for a formula."""
    risky = pc.fill_null(pc.match_substring_regex(cells, _FORMULA), False)
    if not pc.any(risky).as_py():
        return cells
    guarded = pc.binary_join_element_wise(pa.scalar("'", _TEXT), cells, pa.scalar("", _TEXT))
    return pc.if_else(risky, guarded, cells)


def _check(fields: Mapping[str, pa.DataType]) -> None:
    for name, arrow_type in fields.items():
        kind_of(arrow_type)
        if name in _HEAD or name in _TAIL:
            raise ConfigurationError(
                f'A CSV destination adds a column "{name}", and the source has a field of that name: rename the field.'
            )


def _owner(path: Path) -> str | None:
    with path.open(encoding="utf-8", newline="") as file:
        try:
            first = next(csv.DictReader(file), {})
        except (csv.Error, UnicodeDecodeError):
            return None
    return (first.get(_OWNER) or "").partition("/")[0] or None
