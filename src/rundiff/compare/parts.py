"""Guards of single partitions: which of them change more than they may."""

from __future__ import annotations

from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from rundiff.compare.scopes import Flags
from rundiff.settings import Guards, PartitionGuards

__all__ = ["DEFAULT_DELETE_PERCENT", "DEFAULT_FROM_RECORDS", "Breach", "Changed", "PartLimits", "breaches"]

DEFAULT_DELETE_PERCENT = 10.0
DEFAULT_FROM_RECORDS = 100
Ints = npt.NDArray[np.int64]


class Limit(msgspec.Struct, frozen=True):
    """One guard of partitions."""

    value: float
    own: bool
    """It stands in `partition_guards`, so that partitions of any size are judged by it."""

    @property
    def least(self) -> int:
        """How many records a partition has at least that is judged by it."""
        # A share says little of a small partition: its parent may just have lost its only child.
        return 1 if self.own else DEFAULT_FROM_RECORDS


class PartLimits(msgspec.Struct, frozen=True, dict=True):
    """The limits of single partitions: those of `partition_guards`, else the shares that hold for the whole."""

    guards: Guards
    empty: bool = False
    """Nothing was read at all."""

    @cached_property
    def _own(self) -> PartitionGuards:
        return msgspec.convert(self.guards.partition_guards, PartitionGuards, strict=False)

    @property
    def vanished(self) -> Limit | None:
        """Whether a partition of which nothing was read is held: its value means nothing."""
        own = self._own.allow_empty
        if own is None:
            return None if self.guards.allow_empty else Limit(0, own=False)
        return None if own else Limit(0, own=True)

    @property
    def min_records(self) -> Limit | None:
        """Hold where fewer were read."""
        own = self._own.min_records
        return None if own is None else Limit(own, own=True)

    @property
    def max_deletes(self) -> Limit | None:
        """Hold where more go."""
        own = self._own.max_deletes
        return None if own is None else Limit(own, own=True)

    @property
    def max_delete_percent(self) -> Limit | None:
        """Hold where this share is reached."""
        own, whole = self._own.max_delete_percent, self.guards.max_delete_percent
        if own is None and whole is None and self.empty and self.guards.allow_empty:
            return None
        limit = _first(own, whole) or Limit(DEFAULT_DELETE_PERCENT, own=False)
        return None if limit.value >= 100 else limit

    @property
    def max_updates_percent(self) -> Limit | None:
        """Hold the run where this share is passed."""
        return _first(self._own.max_updates_percent, self.guards.max_updates_percent)

    @property
    def max_creates_percent(self) -> Limit | None:
        """Hold the run where this share is passed."""
        return _first(self._own.max_creates_percent, self.guards.max_creates_percent)


def _first(own: float | None, whole: float | None) -> Limit | None:
    if own is not None:
        return Limit(own, own=True)
    return None if whole is None else Limit(whole, own=False)


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """The partitions that a run changes, one row each; arrays of one length."""

    names: npt.NDArray[np.uint64]
    """What tells them apart; ascending."""
    records: Ints
    """Live keys before the run."""
    deletes: Ints
    absent: Ints
    """How many of the deletions rest on not having been read."""
    updates: Ints
    """By the partition that the baseline knows."""
    creates: Ints
    """By their own partition."""
    read: Ints
    """Records that were read; right at least where keys are absent and a guard asks for it."""


class Breach(msgspec.Struct, frozen=True):
    """A guard of partitions that holds, by the partition that is worst."""

    guard: str
    place: int
    """Its row."""
    count: int
    """Of the changes, or of the records read, that the guard limits."""
    limit: Limit
    others: int
    """How many more partitions it holds."""


def breaches(changed: Changed, limits: PartLimits) -> list[Breach]:
    """Judge all partitions at once; those of deletions come first, the clearest of them before others."""
    records, absent = changed.records, changed.absent
    # Records that are created are none of the baseline: one partition in place of another has none.
    share = np.maximum(records, 1)
    deletes, updates, creates = (
        100.0 * part / share for part in (changed.deletes, changed.updates, changed.creates)
    )
    found = []
    if (limit := limits.vanished) is not None:
        gone = (absent > 0) & (absent == records) & (changed.read == 0)
        found.append(_worst("vanished", limit, (gone, records, records), records))
    if (limit := limits.min_records) is not None:
        few = (absent > 0) & (changed.read < limit.value)
        found.append(_worst("min_records", limit, (few, -changed.read, changed.read), records))
    if (limit := limits.max_deletes) is not None:
        many = changed.deletes > limit.value
        found.append(_worst("max_deletes", limit, (many, changed.deletes, changed.deletes), records))
    if (limit := limits.max_delete_percent) is not None:
        over = (changed.deletes > 0) & (deletes >= limit.value)
        found.append(_worst("max_delete_percent", limit, (over, deletes, changed.deletes), records))
    if (limit := limits.max_updates_percent) is not None:
        over = updates > limit.value
        found.append(_worst("max_updates_percent", limit, (over, updates, changed.updates), records))
    if (limit := limits.max_creates_percent) is not None:
        over = creates > limit.value
        found.append(_worst("max_creates_percent", limit, (over, creates, changed.creates), records))
    return [breach for breach in found if breach is not None]


def _worst(
    guard: str, limit: Limit, judged: tuple[Flags, npt.NDArray[np.float64] | Ints, Ints], records: Ints
) -> Breach | None:
    holds, badness, counts = judged
    places = np.flatnonzero(holds & (records >= limit.least))
    if len(places) == 0:
        return None
    worst = int(places[np.argmax(badness[places])])
    return Breach(guard, worst, int(counts[worst]), limit, len(places) - 1)
