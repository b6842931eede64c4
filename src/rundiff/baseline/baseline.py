"""An opened baseline: base and overlay as one, by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.columns import unify_types
from rundiff.baseline.fields import FIELD_SIGNATURES, with_names
from rundiff.baseline.lookup import Lookup, open_lookup
from rundiff.baseline.manifest import Manifest
from rundiff.baseline.merge import entry_shape, with_shape
from rundiff.baseline.order import Halves, argsort, as_signatures, halves, words
from rundiff.baseline.segments import FLAG_DELETED, Segment, SegmentInfo
from rundiff.errors import BaselineLost

__all__ = ["Baseline"]

Ints = npt.NDArray[np.int64]


class Baseline:
    """What the destination is known to hold. Positions count the base first, then the overlay."""

    def __init__(self, base: Segment, overlay: Segment, manifest: Manifest | None) -> None:
        self.base = base
        self.overlay = overlay
        self.manifest = manifest

    @classmethod
    def empty(cls) -> Baseline:
        """Give the baseline of a sync that never ran."""
        nothing = Segment.empty(pa.struct([]))
        return cls(nothing, nothing, None)

    @classmethod
    def open(cls, manifest: Manifest, find: Callable[[str], Path | None]) -> Baseline:
        """Map and verify all segments; raises `BaselineLost`."""

        def segment(info: SegmentInfo) -> Segment:
            path = find(info.name)
            if path is None:
                raise BaselineLost(f"segment {info.name} of the baseline is missing")
            return Segment.open(path, info)

        base = segment(manifest.base)
        overlay = Segment([], base.schema) if manifest.overlay is None else segment(manifest.overlay)
        return cls(base, overlay, manifest)

    @property
    def live(self) -> int:
        """How many live keys it holds."""
        return 0 if self.manifest is None else self.manifest.live

    @property
    def positions(self) -> int:
        """How many positions there are, superseded and deleted ones included."""
        return self.base.rows + self.overlay.rows

    @cached_property
    def lookup(self) -> Lookup:
        """The lookup over both segments."""
        return open_lookup(self.base, self.overlay)

    @property
    def primary_key_type(self) -> pa.StructType:
        """The type of the key values."""
        return unify_types(
            self.base.schema.field("primary_key").type, self.overlay.schema.field("primary_key").type
        )

    def live_mask(self) -> npt.NDArray[np.bool_]:
        """Mark the positions that are live keys."""
        mask = np.ones(self.positions, dtype=np.bool_)
        mask[self.lookup.superseded()] = False
        mask[self.base.rows :] = (self.overlay.numbers("flags") & FLAG_DELETED) == 0
        return mask

    def take(self, positions: Ints) -> pa.Table:
        """Gather entries by position, sorted by primary key signature."""
        ascending = np.sort(positions)
        table = self.gather(ascending)
        if len(ascending) and ascending[0] < self.base.rows <= ascending[-1]:
            table = table.take(pa.array(argsort(words(table.column("primary_key_signature")))))
        return table.combine_chunks()

    def gather(self, ascending: Ints) -> pa.Table:
        """Gather entries by ascending positions, in that order."""
        split = int(np.searchsorted(ascending, self.base.rows))
        shape = entry_shape(self.base.schema, self.overlay.schema)
        parts = [
            with_shape(self.base.take(ascending[:split]), shape),
            with_shape(self.overlay.take(ascending[split:] - self.base.rows), shape),
        ]
        return pa.concat_tables(parts)

    def key_signatures(self, positions: Ints) -> pa.FixedSizeBinaryArray:
        """Give primary key signatures at positions in any order."""
        matrix = np.empty((len(positions), 4), dtype=">u8")
        above = positions >= self.base.rows
        matrix[~above] = self.base.keys_at(positions[~above])
        matrix[above] = self.overlay.keys_at(positions[above] - self.base.rows)
        return as_signatures(matrix)

    @property
    def signs_fields(self) -> bool:
        """Whether any entry may have field signatures."""
        return self.base.signs_fields or self.overlay.signs_fields

    def field_signatures(self, positions: Ints) -> pa.StructArray:
        """Give field signatures at positions in any order; null where they are not known."""
        ascending, places = np.unique(positions, return_inverse=True)
        table = self.gather(ascending)
        if FIELD_SIGNATURES not in table.schema.names:
            return with_names(None, (), len(positions))
        return table.column(FIELD_SIGNATURES).combine_chunks().take(pa.array(places))

    def fields_signed(self) -> npt.NDArray[np.bool_]:
        """Mark the positions whose field signatures are known."""
        parts = [np.empty(0, dtype=np.bool_)]
        for side in (self.base, self.overlay):
            if side.signs_fields:
                parts += [c.is_valid().to_numpy(zero_copy_only=False) for c in side.column(FIELD_SIGNATURES)]
            else:
                parts.append(np.zeros(side.rows, dtype=np.bool_))
        return np.concatenate(parts)

    def misses(self) -> npt.NDArray[np.uint8]:
        """Give `missed_runs` of all positions."""
        parts = [
            column.to_numpy() for side in (self.base, self.overlay) for column in side.column("missed_runs")
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint8)

    def partitions(self) -> Halves:
        """Give the partitions of all positions; zeros where a segment does not hold them."""
        return np.concatenate([np.zeros((0, 2), dtype=">u8"), *self.partition_blocks()])

    def partition_blocks(self) -> Iterator[Halves]:
        """Give the partitions of all positions in their order, a batch of a segment at a time."""
        for side in (self.base, self.overlay):
            for batch in side.batches:
                parted = halves(batch.column("partition")) if side.parted else None
                yield np.zeros((batch.num_rows, 2), dtype=">u8") if parted is None else parted

    def column_at(self, name: str, positions: Ints) -> Ints:
        """Give a column of numbers at positions in any order."""
        values = np.empty(len(positions), dtype=np.int64)
        above = positions >= self.base.rows
        values[~above] = self.base.numbers_at(name, positions[~above])
        values[above] = self.overlay.numbers_at(name, positions[above] - self.base.rows)
        return values
