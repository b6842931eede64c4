"""Merge sorted entries, newer over older, range by range so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.fields import FIELD_SIGNATURES, with_names
from rundiff.baseline.order import argsort, first_of_group, prefixes, words
from rundiff.baseline.segments import BATCH_ROWS, FLAG_DELETED, PARTITION, Segment, entry_schema

__all__ = [
    "entry_shape",
    "merged",
    "no_partitions",
    "prefix_ranges",
    "rows_between",
    "with_key_type",
    "with_shape",
]


def prefix_ranges(rows: int, rows_per_range: int = BATCH_ROWS) -> list[tuple[int, int]]:
    """Cut the space of first words into equal ranges [low, high) of about that many rows each."""
    count = max(1, -(-rows // rows_per_range))
    bounds = [(i << 64) // count for i in range(count + 1)]
    return list(pairwise(bounds))


def rows_between(segment: Segment, low: int, high: int) -> pa.Table:
    """Give a segment's entries whose first word lies in [low, high), without copying."""
    parts = []
    for batch in segment.batches:
        first = prefixes(words(batch.column("primary_key_signature")))
        start = int(np.searchsorted(first, np.uint64(low)))
        stop = len(first) if high >= 1 << 64 else int(np.searchsorted(first, np.uint64(high)))
        if start < stop:
            parts.append(batch.slice(start, stop - start))
    return pa.Table.from_batches(parts, segment.schema)


def merged(newer: Segment, older: Segment, *, keep_deleted: bool) -> Iterator[pa.RecordBatch]:
    """Yield the sorted union; an entry of `newer` replaces that of `older` with the same key.

    Entries flagged deleted are kept for an overlay and dropped for a new base.
    """
    shape = entry_shape(newer.schema, older.schema)
    for low, high in prefix_ranges(newer.rows + older.rows):
        table = pa.concat_tables(
            [with_shape(rows_between(side, low, high), shape) for side in (newer, older)]
        )
        if table.num_rows == 0:
            continue
        keys = words(table.column("primary_key_signature"))
        # The sort is stable and `newer` stands first, so the first of a group is the newer one.
        order = argsort(keys)
        keep = first_of_group(keys[order])
        if not keep_deleted:
            flags = table.column("flags").to_numpy()[order]
            keep &= (flags & FLAG_DELETED) == 0
        yield from table.take(pa.array(order[keep])).combine_chunks().to_batches()


def entry_shape(*schemas: pa.Schema) -> pa.Schema:
    """Give the schema that holds the entries of all: keys, partitions and field signatures where one has them."""
    kind: pa.DataType = pa.null()
    for schema in schemas:
        kind = unify_types(kind, schema.field("primary_key").type)
    parted = any("partition" in schema.names for schema in schemas)
    signed = [schema.field(FIELD_SIGNATURES).type for schema in schemas if FIELD_SIGNATURES in schema.names]
    names = list(dict.fromkeys(field.name for one in signed for field in one))
    return entry_schema(
        pa.struct([]) if pa.types.is_null(kind) else kind, parted=parted, signed=names if signed else None
    )


def with_shape(table: pa.Table, shape: pa.Schema) -> pa.Table:
    """Bring a table of entries to a schema of `entry_shape`; what it lacks is not known."""
    if table.schema.equals(shape):
        return table
    batches = []
    for batch in table.to_batches():
        columns = {name: batch.column(name) for name in batch.schema.names}
        if "partition" in shape.names:
            columns.setdefault("partition", no_partitions(batch.num_rows))
        if FIELD_SIGNATURES in shape.names:
            names = [field.name for field in shape.field(FIELD_SIGNATURES).type]
            columns[FIELD_SIGNATURES] = with_names(columns.get(FIELD_SIGNATURES), names, batch.num_rows)
        columns["primary_key"] = conform(columns["primary_key"], shape.field("primary_key").type)
        batches.append(pa.RecordBatch.from_arrays([columns[name] for name in shape.names], schema=shape))
    return pa.Table.from_batches(batches, shape)


def with_key_type(table: pa.Table, kind: pa.StructType) -> pa.Table:
    """Bring a table of entries to a key type that holds its keys."""
    return with_shape(table, entry_schema(kind, parted="partition" in table.schema.names))


def no_partitions(rows: int) -> pa.FixedSizeBinaryArray:
    """Give the partitions of entries whose partition is not known."""
    return pa.FixedSizeBinaryArray.from_buffers(PARTITION, rows, [None, pa.py_buffer(bytes(16 * rows))])
