"""Partitions: half signatures over the fields that part a sync's records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.order import Halves, words
from rundiff.baseline.segments import PARTITION
from rundiff.engine.previous import PreviousRecords
from rundiff.engine.retyping import retyped_struct
from rundiff.errors import ConfigurationError
from rundiff.signing import SigningKey, sign

__all__ = [
    "as_partitions",
    "baseline_partitions",
    "combinations",
    "named_partitions",
    "partition_name",
    "record_partitions",
]

CHUNK = 1 << 17


def as_partitions(matrix: Halves) -> pa.FixedSizeBinaryArray:
    """Turn an (n, 2) matrix of big-endian words into partitions."""
    contiguous = np.ascontiguousarray(matrix, dtype=">u8")
    return pa.FixedSizeBinaryArray.from_buffers(PARTITION, len(contiguous), [None, pa.py_buffer(contiguous)])


def partitions_of(
    columns: Mapping[str, pa.Array], rows: int, fields: Sequence[str], key: SigningKey | None
) -> Halves:
    """Give the partition of each row: zeros where one of the fields is null or missing."""
    result = np.zeros((rows, 2), dtype=">u8")
    if not all(name in columns for name in fields):
        return result
    known = np.ones(rows, dtype=np.bool_)
    for name in fields:
        known &= columns[name].is_valid().to_numpy(zero_copy_only=False)
    chosen = pa.RecordBatch.from_arrays([columns[name] for name in fields], names=list(fields))
    signed = sign(chosen, fields, key).signatures
    if signed.null_count:
        known &= signed.is_valid().to_numpy(zero_copy_only=False)
    rows_known = np.flatnonzero(known)
    if len(rows_known) < rows:
        signed = signed.take(pa.array(rows_known))
    result[rows_known] = words(signed)[:, :2]
    return result


def record_partitions(records: pa.RecordBatch, fields: Sequence[str], key: SigningKey | None) -> Halves:
    """Give the partition of each record of a batch."""
    names = records.schema.names
    return partitions_of(
        {name: records.column(name) for name in fields if name in names}, records.num_rows, fields, key
    )


def baseline_partitions(
    baseline: Baseline,
    fields: Sequence[str],
    previous: PreviousRecords,
    key: SigningKey | None,
    retypes: Mapping[str, str],
) -> Halves:
    """Give the partitions of all live positions of a baseline that holds other ones, or none.

    They come from the key values where these hold the fields, else from the write log; zeros where no
    log knows the record any more. `retypes` are the types of now of fields that had other ones.
    """
    result = np.zeros((baseline.positions, 2), dtype=">u8")
    live = np.flatnonzero(baseline.live_mask())
    for positions in _by_segment(live, baseline.base.rows):
        for start in range(0, len(positions), CHUNK):
            part = positions[start : start + CHUNK]
            known = baseline.take(part)
            struct = known.column("primary_key").combine_chunks()
            if not all(struct.type.get_field_index(name) >= 0 for name in fields):
                written = known.column("written_run").to_numpy().astype(np.int64)
                kind = previous.data_type(written)
                if pa.types.is_null(kind):
                    continue
                struct = previous.fetch(known.column("primary_key_signature").combine_chunks(), written, kind)
            columns = {
                name: child for name, child in _children(retyped_struct(struct, retypes)) if name in fields
            }
            result[part] = partitions_of(columns, len(part), fields, key)
    return result


def _by_segment(positions: Any, base_rows: int) -> tuple[Any, Any]:
    # `take` sorts by signature: within one segment that is the order of positions.
    split = int(np.searchsorted(positions, base_rows))
    return positions[:split], positions[split:]


def _children(struct: pa.StructArray) -> Iterable[tuple[str, pa.Array]]:
    # `flatten` takes the nulls of the struct over to its fields.
    return zip((field.name for field in struct.type), struct.flatten(), strict=True)


def named_partitions(
    named: Sequence[Mapping[str, Any]], pins: Mapping[str, str], key: SigningKey | None
) -> Halves:
    """Give the partitions that a person named, each by values of the same fields.

    Texts are brought to the fields' pinned types.
    """
    parts = []
    for values in named:
        columns = {name: _typed(name, value, pins.get(name)) for name, value in values.items()}
        parts.append(partitions_of(columns, 1, sorted(columns), key))
    return np.concatenate(parts) if parts else np.zeros((0, 2), dtype=">u8")


def partition_name(values: Mapping[str, Any]) -> str:
    """Name a partition for people: `region=EU`."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def combinations(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give every combination of the values that `partition` names for its fields."""
    lists = [value if isinstance(value, list | tuple) else [value] for value in fields.values()]
    return [dict(zip(fields, values, strict=True)) for values in product(*lists)]


def _typed(name: str, value: Any, pin: str | None) -> pa.Array:
    from rundiff.sources.pins import arrow_type_of
    from rundiff.sources.pythontypes import arrow_column

    plain, _ = arrow_column([value])
    if not isinstance(value, str) or pin is None or pin in ("text", "json", "mixed"):
        return plain
    try:
        return plain.cast(arrow_type_of(pin))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigurationError(
            f"the partition {name}={value} can't be one: the field {name} holds values of the type {pin}"
        ) from error
