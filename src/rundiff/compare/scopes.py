"""Which keys of the baseline a run may miss: coverage by partition, and grace."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Flags", "Halves", "among", "count_by_partition", "judge_misses"]

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


def count_by_partition(partitions: Halves, deleted: Flags) -> tuple[npt.NDArray[np.int64], Any, Any]:
    """Count entries and deletions in each known partition that has deletions.

    Gives, for each: the index of one of its deleted entries, all its entries, its deletions. Partitions
    are told apart by their first 64 bits, which is exact enough to count.
    """
    known = partitions.any(axis=1)
    rows = np.flatnonzero(deleted & known)
    names, sample, gone = np.unique(
        partitions[rows, 0].astype(np.uint64), return_index=True, return_counts=True
    )
    if len(names) == 0:
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing, nothing
    every = partitions[known, 0].astype(np.uint64)
    at = np.minimum(np.searchsorted(names, every), len(names) - 1)
    whole = np.bincount(at[names[at] == every], minlength=len(names))
    return rows[sample], whole, gone


def judge_misses(before: npt.NDArray[np.uint8], delete_after: int) -> tuple[Flags, npt.NDArray[np.uint8]]:
    """Judge keys that a complete run covered and did not read, by the misses before it.

    Gives which are due to be deleted, and the misses of all after this run.
    """
    after = np.minimum(before.astype(np.int64) + 1, delete_after)
    return after >= delete_after, after.astype(np.uint8)
