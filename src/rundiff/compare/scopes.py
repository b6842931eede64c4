"""Which keys of the baseline a run may miss: coverage by partition, and grace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "Flags",
    "Halves",
    "Tally",
    "among",
    "counts_of",
    "judge_misses",
    "tally",
    "tally_together",
]

Flags = npt.NDArray[np.bool_]
Halves = npt.NDArray[Any]
"""Partitions as an (n, 2) matrix of 64-bit words; two zeros where the partition is not known."""


def among(partitions: Halves, covered: Halves) -> Flags:
    """Mark the entries whose partition is one of those covered; unknown ones never are."""
    covered = covered[covered.any(axis=1)]
    if len(covered) == 0 or len(partitions) == 0:
        return np.zeros(len(partitions), dtype=np.bool_)
    order = np.lexsort((covered[:, 1], covered[:, 0]))
    first = covered[order, 0].astype(np.uint64)
    second = covered[order, 1].astype(np.uint64)
    wanted, rest = partitions[:, 0].astype(np.uint64), partitions[:, 1].astype(np.uint64)
    at = np.searchsorted(first, wanted)
    found = np.zeros(len(wanted), dtype=np.bool_)
    rows = np.flatnonzero(at < len(first))
    # Two partitions that share 64 bits stand side by side: as many steps as such neighbours, never in practice.
    while len(rows):
        rows = rows[first[at[rows]] == wanted[rows]]
        found[rows] |= second[at[rows]] == rest[rows]
        at[rows] += 1
        rows = rows[at[rows] < len(first)]
    return found


class Tally(msgspec.Struct, frozen=True):
    """How many changes there are in each known partition; ascending, each partition once.

    Partitions are told apart by their first 64 bits, which is exact enough to count.
    """

    names: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]


def tally(partitions: Halves) -> Tally:
    """Count the changes of each known partition, from the partition of each change."""
    first = np.ascontiguousarray(partitions[:, 0], dtype=np.uint64)
    known = first if first.all() else first[partitions.any(axis=1)]
    # Arrow hashes: many entries of few partitions are counted some ten times as fast as by sorting them.
    found = pc.value_counts(pa.array(known))
    names, counts = (found.field(at).to_numpy() for at in (0, 1))
    order = np.argsort(names)
    return Tally(names[order], counts[order])


def tally_together(parts: Sequence[Tally]) -> Tally:
    """Add tallies up."""
    if not parts:
        return Tally(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
    names, place = np.unique(np.concatenate([part.names for part in parts]), return_inverse=True)
    counts = np.zeros(len(names), dtype=np.int64)
    np.add.at(counts, place, np.concatenate([part.counts for part in parts]))
    return Tally(names, counts)


def counts_of(tally: Tally, names: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Give the counts of some partitions (ascending); 0 where the tally does not have them."""
    counts = np.zeros(len(names), dtype=np.int64)
    if len(names):
        at = np.minimum(np.searchsorted(names, tally.names), len(names) - 1)
        known = names[at] == tally.names
        counts[at[known]] = tally.counts[known]
    return counts


def judge_misses(before: npt.NDArray[np.uint8], delete_after: int) -> tuple[Flags, npt.NDArray[np.uint8]]:
    """Judge keys that a complete run covered and did not read, by the misses before it.

    Gives which are due to be deleted, and the misses of all after this run.
    """
    after = np.minimum(before.astype(np.int64) + 1, delete_after)
    return after >= delete_after, after.astype(np.uint8)
