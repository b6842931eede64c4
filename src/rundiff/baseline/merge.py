"""Merge sorted entries, newer over older, range by range so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.order import argsort, first_of_group, prefixes, words
from rundiff.baseline.segments import BATCH_ROWS, FLAG_DELETED, Segment, entry_schema

__all__ = ["merged", "prefix_ranges", "rows_between", "with_key_type"]


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
    kind = unify_types(newer.schema.field("primary_key").type, older.schema.field("primary_key").type)
    for low, high in prefix_ranges(newer.rows + older.rows):
        table = pa.concat_tables(
            [with_key_type(rows_between(side, low, high), kind) for side in (newer, older)]
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


def with_key_type(table: pa.Table, kind: pa.StructType) -> pa.Table:
    """Bring a table of entries to a key type that holds its keys."""
    schema = entry_schema(kind)
    if table.schema.equals(schema):
        return table
    batches = [
        pa.RecordBatch.from_arrays([*b.columns[:-1], conform(b.columns[-1], kind)], schema=schema)
        for b in table.to_batches()
    ]
    return pa.Table.from_batches(batches, schema)
