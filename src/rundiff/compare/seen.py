"""What a run has seen of the baseline: which entries it read, and which rows it must keep."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.model import Match
from rundiff.signing import signer_name

__all__ = ["NativeSeen", "PythonSeen", "Seen", "open_seen"]

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Seen(Protocol):
    """Marks by baseline position. `read` and `implied` are asked for after the last batch only."""

    def take(self, state: npt.NDArray[np.uint8], position: Ints) -> Flags:
        """Note a batch, in order of reading; say which of its rows must be kept.

        Kept are new and changed records, and unchanged ones of a key that was also read with other
        data up to the end of this batch: they take part in the contest. With `keep_all`, all are.
        """

    @property
    def read(self) -> Flags:
        """The key was read in any way."""

    @property
    def implied(self) -> Flags:
        """The key was read with the same data, in a record that was not kept."""

    @property
    def dropped_duplicates(self) -> int:
        """Records that were not kept and repeat another such record of their key."""


class PythonSeen:
    """The marks in NumPy: seven bytes a position, 35 MB for 5 million records."""

    def __init__(self, positions: int, *, keep_all: bool = False) -> None:
        self._keep_all = keep_all
        self.read = np.zeros(positions, dtype=np.bool_)
        self.implied = np.zeros(positions, dtype=np.bool_)
        self._changed = np.zeros(positions, dtype=np.bool_)
        self._writer = np.empty(positions, dtype=np.int32)
        self.dropped_duplicates = 0

    def take(self, state: npt.NDArray[np.uint8], position: Ints) -> Flags:
        """Note a batch, in order of reading; say which of its rows must be kept."""
        changed = state == Match.CHANGED
        known = state != Match.NEW
        self.read[position[known]] = True
        self._changed[position[changed]] = True
        if self._keep_all:
            return np.ones(len(state), dtype=np.bool_)
        same = state == Match.SAME
        contested = np.zeros(len(state), dtype=np.bool_)
        contested[same] = self._changed[position[same]]
        drop = same & ~contested
        dropped = position[drop]
        fresh = dropped[~self.implied[dropped]]
        self.implied[fresh] = True
        self.dropped_duplicates += len(dropped) - self._distinct(fresh)
        kept: Flags = ~drop
        return kept

    def _distinct(self, positions: Ints) -> int:
        """Count different positions without sorting: of equal ones, the last to write its number stays."""
        numbers = np.arange(len(positions), dtype=np.int32)
        self._writer[positions] = numbers
        return int(np.count_nonzero(self._writer[positions] == numbers))


class NativeSeen:
    """The marks of the native core: three bits a position, same answers."""

    def __init__(self, positions: int, *, keep_all: bool = False) -> None:
        from rundiff import _native

        self.core: Any = _native.Seen(positions)
        self.keep_all = keep_all

    def take(self, state: npt.NDArray[np.uint8], position: Ints) -> Flags:
        """Note a batch, in order of reading; say which of its rows must be kept."""
        kept = np.zeros(len(state), dtype=np.bool_)
        kept[self.core.note(pa.array(state), pa.array(position), self.keep_all).to_numpy()] = True
        return kept

    @cached_property
    def read(self) -> Flags:
        """The key was read in any way."""
        return self.core.read().to_numpy().view(np.bool_)  # type: ignore[no-any-return]

    @cached_property
    def implied(self) -> Flags:
        """The key was read with the same data, in a record that was not kept."""
        return self.core.implied().to_numpy().view(np.bool_)  # type: ignore[no-any-return]

    @property
    def dropped_duplicates(self) -> int:
        """Records that were not kept and repeat another such record of their key."""
        return int(self.core.dropped_duplicates)


def open_seen(positions: int, *, keep_all: bool = False) -> Seen:
    """Make the marks for so many positions: native where the native core is used."""
    if signer_name() == "native":
        return NativeSeen(positions, keep_all=keep_all)
    return PythonSeen(positions, keep_all=keep_all)
