"""Write records one by one, as Python objects, for functions that take them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa

from rundiff.destinations.contract import ChangeBatch
from rundiff.model import Action, SyncWriteRecord

__all__ = ["values", "write_records"]


def values(array: pa.Array) -> list[Any]:
    """Give a column as Python values; `rundiff.cbor` becomes the values that were signed."""
    from rundiff.signing.mixed import MixedType, decode

    if isinstance(array.type, MixedType):
        return decode(array)
    if pa.types.is_struct(array.type) and any(isinstance(f.type, MixedType) for f in array.type):
        fields = {f.name: values(array.field(i)) for i, f in enumerate(array.type)}
        valid = array.is_valid().to_pylist()
        return [
            {name: column[row] for name, column in fields.items()} if valid[row] else None
            for row in range(len(array))
        ]
    return array.to_pylist()  # type: ignore[no-any-return]


def write_records(batch: ChangeBatch, sync_id: str, at: datetime) -> Iterator[SyncWriteRecord]:
    """Turn a batch into write records."""
    columns = {name: values(batch.records.column(name)) for name in batch.records.schema.names}
    for index in range(batch.records.num_rows):
        fields = columns["changed_fields"][index]
        yield SyncWriteRecord(
            sync_id=sync_id,
            run_id=batch.run,
            sequence=batch.first_sequence + index,
            primary_key_signature=columns["primary_key_signature"][index],
            data_signature=columns["data_signature"][index],
            destination_action=Action(batch.action),
            data=columns["data"][index],
            primary_key=columns["primary_key"][index],
            changed_fields=None if fields is None else tuple(fields),
            created_at=at,
            updated_at=at,
        )
