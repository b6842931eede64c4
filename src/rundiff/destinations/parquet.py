"""Changes as Parquet: the columns of the change stream, with values in their own types."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.columns import repeating_fields
from rundiff.destinations.contract import ChangeBatch, Target
from rundiff.destinations.kinds import Kind, check_kinds, decimal_digits, kind_of
from rundiff.destinations.render import json_text
from rundiff.destinations.spelling import plain_text
from rundiff.destinations.wholeruns import RunFormat
from rundiff.rowgroups import RowGroups

__all__ = ["PARQUET"]

_OWNER = b"rundiff_sync_id"
_MOST_DIGITS = 38
_ROW_GROUP = 1 << 20
_LONG = 512
"""Bytes of a change that count as long."""
_TOLD = ["run", "sequence", "action", "primary_key_signature"]
"""Columns of long changes with statistics. Changes are in the order of their keys' signatures, so that of a field all
row groups have about the same least and greatest value; and without those of floats, all cores encode."""
_PLAIN = {
    Kind.BOOLEAN,
    Kind.INTEGER,
    Kind.UNSIGNED,
    Kind.FLOAT,
    Kind.TEXT,
    Kind.BINARY,
    Kind.DATE,
    Kind.TIME,
    Kind.TIMESTAMP,
}
"""Kinds that stand nested in a file as they are; anything else makes the whole value JSON text."""
_TEXT = pa.large_string()


class _ParquetFile:
    """One file; its schema is that of the first batch."""

    def __init__(self, stream: BinaryIO, target: Target, kind: pa.StructType) -> None:  # noqa: ARG002 -- a batch tells
        self._stream = stream
        self._target = target
        self._schema = pa.schema([])
        self._groups: RowGroups | None = None

    def write(self, batch: ChangeBatch) -> None:
        """Add a batch as a row group or several."""
        rows = _rows(self._target, batch)
        if self._groups is None:
            self._schema = rows.schema.with_metadata({_OWNER: self._target.sync_id.encode()})
            repeating = ["sync", "run", "action", *_repeating(rows)]
            options = {
                "compression": "zstd",
                "use_dictionary": repeating,
                "write_statistics": _TOLD if rows.nbytes >= _LONG * rows.num_rows else True,
            }
            self._groups = RowGroups(self._stream, self._schema, options)
        self._groups.write(rows.cast(self._schema), _ROW_GROUP)

    def end(self) -> None:
        """Write the footer."""
        assert self._groups is not None  # noqa: S101 -- a file is begun for a batch
        self._groups.end()

    def abandon(self) -> None:
        """Stop encoding."""
        if self._groups is not None:
            self._groups.abandon()


def _owner(path: Path) -> str | None:
    import pyarrow.parquet as pq

    try:
        owner: bytes | None = (pq.read_schema(path).metadata or {}).get(_OWNER)
    except pa.ArrowException:
        return None
    return None if owner is None else owner.decode()


def _rows(target: Target, batch: ChangeBatch) -> pa.Table:
    """Give the columns of the change stream (design section 7), signatures as 32 bytes."""
    records = batch.records
    count = records.num_rows
    sequence = pa.array(np.arange(batch.first_sequence, batch.first_sequence + count, dtype=np.int64))
    prefix = pa.scalar(f"{target.sync_id}/{batch.run}/", pa.string())
    key = pc.binary_join_element_wise(prefix, pc.cast(sequence, pa.string()), pa.scalar("", pa.string()))
    columns: dict[str, pa.Array] = {
        "sync": pa.repeat(pa.scalar(target.sync), count),
        "run": pa.repeat(pa.scalar(batch.run, pa.int64()), count),
        "sequence": sequence,
        "action": pa.repeat(pa.scalar(str(batch.action)), count),
        "primary_key": _plain_struct(records.column("primary_key")),
        "data": _plain_struct(records.column("data")),
        "changed_fields": pc.cast(records.column("changed_fields"), pa.list_(pa.string())),
        "primary_key_signature": records.column("primary_key_signature"),
        "data_signature": records.column("data_signature"),
        "idempotency_key": key,
    }
    return pa.table(columns)


def _repeating(rows: pa.Table) -> list[str]:
    data = rows.column("data").chunk(0)
    return [f"data.{name}" for name in repeating_fields(data)] if pa.types.is_struct(data.type) else []


def _plain_struct(array: pa.Array) -> pa.Array:
    """Bring the members of a struct to types that all readers of Parquet know."""
    if not array.type.num_fields:
        return pa.nulls(len(array), pa.string())
    members = [_plain(member) for member in array.flatten()]
    fields = [pa.field(field.name, member.type) for field, member in zip(array.type, members, strict=True)]
    return pa.StructArray.from_arrays(members, fields=fields, mask=array.is_null())


def _plain(array: pa.Array) -> pa.Array:
    kind = kind_of(array.type)
    if kind in (Kind.NULL, Kind.INTERVAL, Kind.DURATION):
        return plain_text(array)
    if kind is Kind.MIXED or (kind is Kind.NESTED and not _is_plain(array.type)):
        return pc.if_else(array.is_valid(), json_text(array), pa.scalar(None, _TEXT))
    if kind is Kind.DECIMAL:
        precision, scale = decimal_digits(array.type)
        return (
            pc.cast(array, pa.decimal128(precision, scale))
            if precision <= _MOST_DIGITS
            else plain_text(array)
        )
    if kind is Kind.FLOAT and array.type != pa.float64():
        return pc.cast(array, pa.float32())
    return pc.cast(array, pa.date32()) if kind is Kind.DATE else array


def _is_plain(arrow_type: pa.DataType) -> bool:
    """Say whether a type can stand in a file as it is, with all that is nested in it."""
    if kind_of(arrow_type) is not Kind.NESTED:
        return kind_of(arrow_type) in _PLAIN and arrow_type != pa.float16()
    children = [arrow_type.field(n).type for n in range(arrow_type.num_fields)]
    if pa.types.is_map(arrow_type):
        children = [arrow_type.key_type, arrow_type.item_type]
    return bool(children) and all(map(_is_plain, children))


PARQUET = RunFormat(
    ending=".parquet",
    title="Parquet",
    media_type="application/vnd.apache.parquet",
    check=check_kinds,
    begin=_ParquetFile,
    owner=_owner,
)
"""Parquet, compressed by zstd."""
