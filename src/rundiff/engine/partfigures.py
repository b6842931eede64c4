"""The figures of single partitions, for guards: in runs of some partitions, and in full ones.

Partitions are counted block by block: memory follows how many of them a run changes, not the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.order import Halves
from rundiff.compare.guards import Part
from rundiff.compare.parts import Changed, PartLimits, breaches
from rundiff.compare.scopes import Flags, Tally, counts_of, tally, tally_together
from rundiff.engine.comparing import Comparing, Found, Parting
from rundiff.engine.judging import Course
from rundiff.engine.log import CREATES, UPDATES, read_log
from rundiff.engine.partitions import partition_name, record_partitions
from rundiff.engine.reading import Read
from rundiff.engine.records import values

__all__ = ["parts_of"]

BLOCK = 1 << 20
Ints = npt.NDArray[np.int64]


def parts_of(course: Course, work: Comparing, read: Read, found: Found) -> tuple[Part, ...]:
    """Give the partitions that break a guard, the worst for each guard.

    Deletions and updates are counted in the partition that the baseline knows, creates in their own.
    """
    parting = work.parting
    if parting is None or work.baseline.manifest is None:
        return ()
    entries = _Entries(work, parting, found)
    limits = PartLimits(course.settings.guards, empty=read.valid == 0)
    changed = entries.changed(limits)
    if len(changed.names) == 0:
        return ()
    return tuple(
        Part(entries.name_of(int(changed.names[breach.place])), int(changed.records[breach.place]), breach)
        for breach in breaches(changed, limits)
    )


class _Entries(msgspec.Struct, dict=True):
    """The baseline's entries by partition, and what becomes of them."""

    work: Comparing
    parting: Parting
    found: Found

    def blocks(self) -> Iterator[tuple[int, Halves]]:
        """Give the partitions of all positions in their order, each block with its first position."""
        known, start = self.parting.partitions, 0
        if known is not None:
            for start in range(0, len(known), BLOCK):
                yield start, known[start : start + BLOCK]
            return
        for block in self.work.baseline.partition_blocks():
            yield start, block
            start += len(block)

    def changed(self, limits: PartLimits) -> Changed:
        """Count what the guards that are set ask for."""
        work, found = self.work, self.found
        marked = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *found.marked]))
        absent = self._at(work.gone)
        deletes = tally_together([absent, self._at(np.setdiff1d(marked, work.gone))])
        updates = creates = tally_together([])
        if found.updated and limits.max_updates_percent is not None:
            updates = self._at(self._updated)
        if found.created and limits.max_creates_percent is not None:
            creates = self._created
        names = np.unique(np.concatenate([part.names for part in (deletes, updates, creates)]))
        records = self._counted(names, work.baseline.live_mask()) if len(names) else np.zeros(0, np.int64)
        gone = counts_of(absent, names)
        read = np.zeros(len(names), dtype=np.int64)
        if limits.min_records is not None and len(work.gone):
            read = self._counted(names, work.baseline.live_mask() & work.seen.read) + self._moved(names)
        elif limits.vanished is not None and bool(((gone > 0) & (gone == records)).any()):
            # Of a partition that lost all of its keys others may have been read.
            read = np.maximum(self._moved(names), 0)
        return Changed(
            names=names,
            records=records,
            deletes=counts_of(deletes, names),
            absent=gone,
            updates=counts_of(updates, names),
            creates=counts_of(creates, names),
            read=read,
        )

    def name_of(self, name: int) -> str:
        """Name a partition of the baseline for people, by the key or the last known data of one of its entries."""
        position = next(
            start + int(at[0])
            for start, block in self.blocks()
            if len(at := np.flatnonzero(block[:, 0] == name))
        )
        work, fields = self.work, self.parting.fields
        entry = work.baseline.take(np.array([position]))
        known = values(entry.column("primary_key").combine_chunks())[0]
        if not all(field in known for field in fields):
            written = entry.column("written_run").to_numpy().astype(np.int64)
            signature = entry.column("primary_key_signature").combine_chunks()
            kind = work.previous.data_type(written)
            known = values(work.previous.fetch(signature, written, kind))[0] or {}
        return partition_name({field: known.get(field) for field in fields})

    def _at(self, ascending: Ints) -> Tally:
        """Count positions by their partition."""
        parts = []
        for start, block in self.blocks():
            low, high = np.searchsorted(ascending, (start, start + len(block)))
            if low < high:
                parts.append(tally(block[ascending[low:high] - start]))
        return tally_together(parts)

    def _counted(self, names: npt.NDArray[np.uint64], wanted: Flags) -> Ints:
        """Count the positions that are wanted, of some partitions."""
        counts = np.zeros(len(names), dtype=np.int64)
        for start, block in self.blocks():
            inside = wanted[start : start + len(block)]
            counts += counts_of(tally(block if inside.all() else block[inside]), names)
        return counts

    def _moved(self, names: npt.NDArray[np.uint64]) -> Ints:
        """Count what was read in these partitions beside the keys that the baseline has there, less those that left."""
        counts = np.zeros(len(names), dtype=np.int64)
        if self.found.created:
            counts += counts_of(self._created, names)
        if self.found.updated:
            counts += counts_of(self._own(self.work.folder / UPDATES), names)
            counts -= counts_of(self._at(self._updated), names)
        return counts

    @cached_property
    def _created(self) -> Tally:
        return self._own(self.work.folder / CREATES)

    @cached_property
    def _updated(self) -> Ints:
        """The positions of the updated records."""
        renewed, parts = self.work.renewed, [np.empty(0, dtype=np.int64)]
        columns = ["primary_key_signature", "data_signature", "primary_key"]
        for batch in read_log(self.work.folder / UPDATES, columns=columns):
            keys = batch.column(0)
            if renewed is not None:
                keys = renewed.former_keys(batch.column("primary_key"), keys)
            _, position = self.work.baseline.lookup.probe(keys, batch.column(1))
            parts.append(position[position >= 0])
        return np.sort(np.concatenate(parts))

    def _own(self, path: Path) -> Tally:
        """Count records of the write log by their own partition."""
        fields, key = self.parting.fields, self.parting.signing_key
        parts = []
        for batch in read_log(path, columns=[f"data.{name}" for name in fields]):
            if batch.num_columns:
                data = pa.RecordBatch.from_struct_array(batch.column("data"))
                parts.append(tally(record_partitions(data, fields, key)))
        return tally_together(parts)
