"""What the tests of sources share: read everything, and tell what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rundiff.settings import SourceOptions
from rundiff.signing.mixed import decode
from rundiff.sources import open_source
from rundiff.sources.contract import ReadRequest


@dataclass(frozen=True, slots=True)
class Outcome:
    records: list[dict[str, Any]]
    unreadable: list[tuple[str, str | None]]
    """Location and field."""
    reasons: list[str]
    pins: Mapping[str, str]
    incomplete: tuple[str, ...]
    ends_with_newline: bool | None
    batches: list[pa.RecordBatch]


FIRST = ReadRequest()


def read_all(source: Any, request: ReadRequest = FIRST, **options: Any) -> Outcome:
    if options:
        request = ReadRequest(
            options=SourceOptions(**options),
            pins=request.pins,
            primary_key=request.primary_key,
            ended_with_newline=request.ended_with_newline,
        )
    records: list[dict[str, Any]] = []
    unreadable = []
    batches = []
    with open_source(source).open(request) as reading:
        for batch in reading:
            batch.records.validate(full=True)
            batches.append(batch.records)
            records += plain_records(batch.records)
            unreadable += batch.unreadable
        return Outcome(
            records,
            [(one.location, one.field) for one in unreadable],
            [one.reason for one in unreadable],
            reading.pins,
            tuple(reading.end.incomplete),
            reading.end.ends_with_newline,
            batches,
        )


def plain_records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        mixed = isinstance(column.type, pa.BaseExtensionType) and column.type.extension_name == "rundiff.cbor"
        columns[name] = decode(column) if mixed else column.to_pylist()
    return [{name: values[row] for name, values in columns.items()} for row in range(batch.num_rows)]
