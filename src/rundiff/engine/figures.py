"""What guards look at: the figures of a run, and of the partitions that it changes most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from rundiff.baseline.order import Halves
from rundiff.compare.guards import DEFAULT_FROM_RECORDS, Figures, Part, median
from rundiff.compare.scopes import Flags, Tally, tally, tally_together, worst_partition
from rundiff.engine.comparing import Comparing, Found, Parting
from rundiff.engine.judging import Course
from rundiff.engine.log import CREATES, UPDATES, read_log
from rundiff.engine.partitions import partition_name, record_partitions
from rundiff.engine.reading import Read
from rundiff.engine.records import values
from rundiff.model import Scope

__all__ = ["figures_of"]


def figures_of(course: Course, work: Comparing, read: Read, found: Found) -> Figures:
    """Count what guards look at, once the change set is written."""
    baseline, covered = work.baseline, work.covered
    live = None if covered is None else baseline.live_mask()
    marked = sum(len(part) for part in found.marked)
    return Figures(
        baseline=baseline.live if covered is None or live is None else int(np.count_nonzero(live & covered)),
        read=read.valid,
        creates=found.created,
        updates=found.updated,
        # Those that are repeated were judged when they were found.
        deletes=found.deleted - found.repeated,
        absent=found.deleted - found.repeated - marked,
        usual=median(course.memory.recent) if course.reach.scope is Scope.FULL else None,
        parts=() if live is None else tuple(_worst_parts(course, work, found, live)),
    )


def _worst_parts(course: Course, work: Comparing, found: Found, live: Flags) -> Iterator[Part]:
    """Give, for each kind of change that a guard limits, the partition with the largest share of it.

    Only partitions that are large enough to be judged count. Deletions and updates are counted in the
    partition that the baseline knows, creates in their own.
    """
    parting, guards = work.parting, course.settings.guards
    if parting is None or parting.partitions is None:
        return
    entries = parting.partitions
    tallies: dict[str, Callable[[], Tally]] = {}
    if found.deleted:
        tallies["deletes"] = lambda: tally(entries[np.unique(np.concatenate([work.gone, *found.marked]))])
    if found.updated and guards.max_updates_percent is not None:
        tallies["updates"] = lambda: _updated(work, entries)
    if found.created and guards.max_creates_percent is not None:
        tallies["creates"] = lambda: _created(work.folder, parting)
    if not tallies:
        return
    positions = np.flatnonzero(live)
    of_live = entries[positions]
    for what, count in tallies.items():
        worst = worst_partition(of_live, count(), DEFAULT_FROM_RECORDS)
        if worst is not None:
            sample, records, changes = worst
            name = _name_of(work, parting, int(positions[sample]))
            yield Part(name, records, **{what: changes})


def _updated(work: Comparing, entries: Halves) -> Tally:
    """Count updates by the partition that the baseline knows of their keys."""
    parts = []
    for batch in read_log(work.folder / UPDATES, columns=["primary_key_signature", "data_signature"]):
        _, position = work.baseline.lookup.probe(batch.column(0), batch.column(1))
        parts.append(tally(entries[position[position >= 0]]))
    return tally_together(parts)


def _created(folder: Path, parting: Parting) -> Tally:
    """Count creates by their own partition."""
    parts = []
    for batch in read_log(folder / CREATES, columns=[f"data.{name}" for name in parting.fields]):
        if batch.num_columns:
            data = pa.RecordBatch.from_struct_array(batch.column("data"))
            parts.append(tally(record_partitions(data, parting.fields, parting.signing_key)))
    return tally_together(parts)


def _name_of(work: Comparing, parting: Parting, position: int) -> str:
    """Name the partition of one entry of the baseline, by its key or its last known data."""
    entry = work.baseline.take(np.array([position]))
    known = values(entry.column("primary_key").combine_chunks())[0]
    if not all(name in known for name in parting.fields):
        written = entry.column("written_run").to_numpy().astype(np.int64)
        signature = entry.column("primary_key_signature").combine_chunks()
        kind = work.previous.data_type(written)
        known = values(work.previous.fetch(signature, written, kind))[0] or {}
    return partition_name({name: known.get(name) for name in parting.fields})
