"""Find signatures in a baseline: the seam behind which the native core sits.

`probe` answers for whole batches. Per row it gives a state (`NEW`, `SAME`, `CHANGED`) and the
position of the entry: 0 to base.rows-1 in the base, then on in the overlay, which overrides the
base; -1 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.order import Positions, Words, prefixes, rows_equal, words
from rundiff.baseline.segments import FLAG_DELETED, FLAG_UNCERTAIN, Segment
from rundiff.errors import BaselineLost
from rundiff.model import Match
from rundiff.signing import SigningKey

__all__ = ["Lookup", "NativeLookup", "PythonLookup", "open_lookup"]


States = npt.NDArray[np.uint8]


class Lookup(Protocol):
    """What a lookup owes a run; thread-safe."""

    def probe(self, keys: pa.Array, data: pa.Array) -> tuple[States, Positions]:
        """Look up primary key signatures (no nulls) and compare their data signatures."""

    def superseded(self) -> Positions:
        """Give the ascending positions of the base that the overlay overrides."""


class _Sorted:
    """One segment's signatures, searchable by binary search over their first words."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.keys = [words(column) for column in segment.column("primary_key_signature")]
        self.data = [words(column) for column in segment.column("data_signature")]
        self.prefixes = (
            np.concatenate([prefixes(matrix) for matrix in self.keys])
            if self.keys
            else np.empty(0, dtype=np.uint64)
        )

    def gather(self, matrices: list[Words], positions: Positions) -> Words:
        """Collect rows at ascending positions."""
        if len(matrices) == 1:
            return matrices[0][positions]
        bounds = np.searchsorted(positions, self.segment.starts)
        parts = [
            matrix[positions[bounds[i] : bounds[i + 1]] - self.segment.starts[i]]
            for i, matrix in enumerate(matrices)
        ]
        return np.concatenate(parts) if parts else np.empty((0, 4), dtype=">u8")

    def find(self, wanted: Words, wanted_prefixes: npt.NDArray[np.uint64]) -> Positions:
        """Find sorted signatures; -1 where there is none."""
        total = len(self.prefixes)
        found = np.full(len(wanted), -1, dtype=np.int64)
        candidate = np.searchsorted(self.prefixes, wanted_prefixes).astype(np.int64)
        open_rows = np.arange(len(wanted))
        while len(open_rows):
            at = candidate[open_rows]
            inside = at < total
            open_rows, at = open_rows[inside], at[inside]
            alike = self.prefixes[at] == wanted_prefixes[open_rows]
            open_rows, at = open_rows[alike], at[alike]
            equal = rows_equal(self.gather(self.keys, at), wanted[open_rows])
            found[open_rows[equal]] = at[equal]
            # The same 64 bits but another signature: look at the next entry.
            open_rows = open_rows[~equal]
            candidate[open_rows] += 1
        return found


class PythonLookup:
    """The lookup in NumPy: same answers as the native one, bit for bit."""

    def __init__(self, base: Segment, overlay: Segment) -> None:
        self.base = _Sorted(base)
        self.overlay = _Sorted(overlay)
        self._overlay_flags = overlay.numbers("flags")
        self._base_flags = base.numbers("flags") if base.rows else np.empty(0, dtype=np.int64)
        self._base_uncertain = bool((self._base_flags & FLAG_UNCERTAIN).any())

    def probe(self, keys: pa.Array, data: pa.Array) -> tuple[States, Positions]:
        """Look up primary key signatures and compare their data signatures."""
        unsorted = words(keys)
        order = np.argsort(prefixes(unsorted), kind="stable")
        wanted, wanted_data = unsorted[order], words(data)[order]
        wanted_prefixes = prefixes(wanted)
        state = np.zeros(len(wanted), dtype=np.uint8)
        position = np.full(len(wanted), -1, dtype=np.int64)

        over = self.overlay.find(wanted, wanted_prefixes)
        hit = over >= 0
        flags = self._overlay_flags[over[hit]]
        rows = np.flatnonzero(hit)
        live = (flags & FLAG_DELETED) == 0
        self._judge(self.overlay, rows[live], over[rows[live]], wanted_data, state)
        state[rows[live][(flags[live] & FLAG_UNCERTAIN) != 0]] = Match.CHANGED
        position[rows[live]] = over[rows[live]] + self.base.segment.rows

        rest = np.flatnonzero(~hit)
        below = self.base.find(wanted[rest], wanted_prefixes[rest])
        known = below >= 0
        rows, at = rest[known], below[known]
        self._judge(self.base, rows, at, wanted_data, state)
        if self._base_uncertain:
            state[rows[(self._base_flags[at] & FLAG_UNCERTAIN) != 0]] = Match.CHANGED
        position[rows] = at

        back_state, back_position = np.empty_like(state), np.empty_like(position)
        back_state[order], back_position[order] = state, position
        return back_state, back_position

    @staticmethod
    def _judge(side: _Sorted, rows: Positions, at: Positions, data: Words, state: States) -> None:
        # `find` was asked in sorted order, so `at` ascends, as `gather` needs it.
        same = rows_equal(side.gather(side.data, at), data[rows])
        state[rows] = np.where(same, Match.SAME, Match.CHANGED)

    def superseded(self) -> Positions:
        """Give the ascending positions of the base that the overlay overrides."""
        parts = [self.base.find(matrix, prefixes(matrix)) for matrix in self.overlay.keys]
        found = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        return found[found >= 0]


class NativeLookup:
    """The native core's lookup behind the same seam."""

    def __init__(self, base: Segment, overlay: Segment) -> None:
        from rundiff import _native

        columns = ["primary_key_signature", "data_signature", "flags"]
        self._examine = _native.examine
        self._lookup = _native.Lookup(
            [batch.select(columns) for batch in base.batches],
            [batch.select(columns) for batch in overlay.batches],
        )

    def probe(self, keys: pa.Array, data: pa.Array) -> tuple[States, Positions]:
        """Look up primary key signatures and compare their data signatures."""
        try:
            state, position = self._lookup.probe(keys, data)
        except ValueError as error:
            raise BaselineLost(f"a segment of the baseline is damaged: {error}") from error
        return state.to_numpy(zero_copy_only=False), position.to_numpy(zero_copy_only=False)

    def examine(
        self, records: pa.RecordBatch, fields: Sequence[Sequence[str]], key: SigningKey | None
    ) -> Any:
        """Sign records over the key fields and the compared fields, and look them up, in one pass.

        Gives the native core's answer, which `compare.seen.NativeSeen` takes.
        """
        try:
            self._lookup.prepare(records.num_rows)
        except ValueError as error:
            raise BaselineLost(f"a segment of the baseline is damaged: {error}") from error
        return self._examine(self._lookup, records, fields[0], fields[1], None if key is None else key.secret)

    def superseded(self) -> Positions:
        """Give the ascending positions of the base that the overlay overrides."""
        positions: Positions = self._lookup.superseded().to_numpy(zero_copy_only=False)
        return positions


def open_lookup(base: Segment, overlay: Segment) -> Lookup:
    """Choose the lookup: native where it is built and not switched off, else Python's."""
    from rundiff.signing import signer_name

    if signer_name() == "native":
        return NativeLookup(base, overlay)
    return PythonLookup(base, overlay)
