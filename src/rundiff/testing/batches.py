"""Batches of changes to try a destination with, ugly ones included."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from rundiff.destinations.contract import ChangeBatch
from rundiff.model import Action

__all__ = ["change_batch", "every_type"]

Row = Mapping[str, Any]


def change_batch(
    rows: Sequence[Row] | pa.Table,
    action: Action | str,
    *,
    key: Sequence[str] = ("id",),
    run: int = 1,
    first: int = 1,
) -> ChangeBatch:
    """Make a batch from mappings or a table; its signatures are stand-ins of the right size."""
    table = pa.Table.from_pylist(list(rows)) if not isinstance(rows, pa.Table) else rows
    [batch] = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    members = [batch.column(name) for name in key]
    digests = [hashlib.sha256(f"{action}{run}{first + n}".encode()).digest() for n in range(batch.num_rows)]
    signatures = pa.array(digests, pa.binary(32))
    records = pa.record_batch(
        {
            "primary_key_signature": signatures,
            "data_signature": signatures,
            "primary_key": pa.StructArray.from_arrays(members, names=list(key)),
            "data": pa.StructArray.from_arrays(batch.columns, fields=list(batch.schema)),
            "changed_fields": pa.nulls(batch.num_rows, pa.list_(pa.string())),
        }
    )
    return ChangeBatch(run=run, first_sequence=first, action=Action(action), records=records)


def every_type() -> pa.Table:
    """Make two rows with a field of every kind that sources hand over; the second row is null but its key."""
    values: dict[str, tuple[pa.DataType, Any]] = {
        "id": (pa.int64(), 1),
        "bool": (pa.bool_(), True),
        "int8": (pa.int8(), -128),
        "uint32": (pa.uint32(), 2**32 - 1),
        "int64": (pa.int64(), -(2**63)),
        "uint64": (pa.uint64(), 2**64 - 1),
        "float16": (pa.float16(), 1.5),
        "float32": (pa.float32(), 0.5),
        "float64": (pa.float64(), 0.1),
        "infinity": (pa.float64(), float("inf")),
        "nan": (pa.float64(), float("nan")),
        "money": (pa.decimal128(12, 2), Decimal("1.10")),
        "long_decimal": (pa.decimal128(38, 20), Decimal("123456789012345678.12345678901234567891")),
        "huge_decimal": (pa.decimal256(60, 2), Decimal("9" * 58 + ".01")),
        "text": (pa.string(), "é \U0001f600"),
        "large_text": (pa.large_string(), "x"),
        "binary": (pa.binary(), b"\x00\xff"),
        "fixed": (pa.binary(3), b"abc"),
        "date": (pa.date32(), date(2024, 2, 29)),
        "date64": (pa.date64(), date(1969, 12, 31)),
        "time_s": (pa.time32("s"), time(23, 59, 59)),
        "time_us": (pa.time64("us"), time(1, 2, 3, 400)),
        "time_ns": (pa.time64("ns"), 3_000_000_001),
        "timestamp_s": (pa.timestamp("s"), datetime(1900, 1, 1)),  # noqa: DTZ001  # naive on purpose
        "timestamp_us": (pa.timestamp("us"), datetime(2024, 1, 1, 1, 1, 1, 1)),  # noqa: DTZ001  # as above
        "timestamp_ns": (pa.timestamp("ns"), 1_700_000_000_000_000_001),
        "zoned": (pa.timestamp("us", "Europe/Berlin"), datetime(2024, 7, 1, 10, tzinfo=UTC)),
        "zoned_ns": (pa.timestamp("ns", "UTC"), 1_700_000_000_000_000_001),
        "duration": (pa.duration("us"), timedelta(seconds=-1, microseconds=5)),
        "duration_ns": (pa.duration("ns"), 1_000_000_001),
        "interval": (pa.month_day_nano_interval(), pa.MonthDayNano([1, 2, 3_000])),
        "list": (pa.list_(pa.int64()), [1, None, 2**60]),
        "texts": (pa.list_(pa.string()), ["a", 'b"', None]),
        "fixed_list": (pa.list_(pa.float64(), 2), [1.5, 2.5]),
        "struct": (pa.struct({"a": pa.int64(), "b": pa.list_(pa.string())}), {"a": 1, "b": ["x"]}),
        "map": (pa.map_(pa.string(), pa.int64()), [("k", 1), ("l", None)]),
        "nulls": (pa.null(), None),
    }
    columns = {
        name: pa.array([value, 2 if name == "id" else None], arrow_type)
        for name, (arrow_type, value) in values.items()
    }
    identifiers = pa.array([uuid.UUID(int=2**64 + 1).bytes, None], pa.binary(16))
    columns["uuid"] = pa.ExtensionArray.from_storage(pa.uuid(), identifiers)
    columns["json"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1.10}', None]))
    return pa.table(columns)
