"""Examine batches: both signatures of each row, and what the baseline says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.lookup import NativeLookup
from rundiff.baseline.order import Positions
from rundiff.compare.seen import NativeSeen, Seen
from rundiff.model import Match
from rundiff.signing import SigningKey, sign_both
from rundiff.signing.contract import Unsignable
from rundiff.signing.signable import present_fields

__all__ = ["Kept", "Verdicts", "examine"]


@dataclass(frozen=True, slots=True)
class Kept:
    """The rows of a batch that a run keeps, ascending, and what is known of them."""

    rows: npt.NDArray[np.int64]
    meta: tuple[pa.Array, pa.Array, pa.Array, pa.Array]
    """Key signatures, data signatures, match (uint8), position (int64)."""
    dropped: Positions | None = None
    """The positions of the others, in order, where they were asked for."""


class Verdicts(Protocol):
    """What is known of each row of a batch."""

    def take(self, seen: Seen) -> Kept:
        """Mark the rows in `seen`, in order of reading, and give those that must be kept."""


@dataclass(frozen=True, slots=True)
class _Arrays:
    """Verdicts as arrays: what any signer and any lookup give."""

    keys: pa.Array
    data: pa.Array
    match: npt.NDArray[np.uint8]
    position: Positions

    def take(self, seen: Seen) -> Kept:
        """Mark the rows and give those that must be kept."""
        kept = seen.take(self.match, self.position)
        rows = np.flatnonzero(kept)
        columns = (self.keys, self.data, pa.array(self.match.astype(np.uint8)), pa.array(self.position))
        if len(rows) < len(kept):
            index = pa.array(rows)
            columns = tuple(pc.take(column, index) for column in columns)
        return Kept(rows, columns, self.position[~kept])


@dataclass(frozen=True, slots=True)
class _Native:
    """Verdicts that stay in the native core but for the rows that are kept."""

    examined: Any

    def take(self, seen: Seen) -> Kept:
        """Mark the rows and give those that must be kept."""
        assert isinstance(seen, NativeSeen)  # noqa: S101 -- both come from the core that this process uses
        rows, *meta = seen.core.take(self.examined)
        keys, data, match, position = meta
        return Kept(rows.to_numpy(), (keys, data, match, position))


def examine(
    records: pa.RecordBatch,
    fields: tuple[Sequence[str], Sequence[str]],
    key: SigningKey | None,
    baseline: Baseline,
    *,
    whole: bool,
    changed: npt.NDArray[np.bool_] | bool,
) -> tuple[Verdicts, Sequence[Unsignable], npt.NDArray[np.bool_] | None]:
    """Sign rows over the key fields and the compared fields, and look them up.

    Also gives what could not be signed and, if there is any, a mask of the rows that could: verdicts
    are about those alone. `whole` asks for verdicts on all rows, not only on those that are kept.
    `changed` rows (all of them, or a mask) count as changed where the baseline has the same data.
    Safe to call from many threads.
    """
    lookup = baseline.lookup
    if isinstance(lookup, NativeLookup) and not whole and changed is False:
        names = [present_fields(records.schema, part) for part in fields]
        examined = lookup.examine(records.select(list(dict.fromkeys([*names[0], *names[1]]))), names, key)
        if not examined.unsignable:
            return _Native(examined), (), None
    keys, data = sign_both(records, fields, key)
    problems = {item.row: item for item in (*data.unsignable, *keys.unsignable)}
    signatures = (keys.signatures, data.signatures)
    signed = None
    if problems:
        signed = np.ones(records.num_rows, dtype=np.bool_)
        signed[list(problems)] = False
        mask = pa.array(signed)
        signatures = (signatures[0].filter(mask), signatures[1].filter(mask))
    match, position = lookup.probe(*signatures)
    if changed is not False:
        if signed is not None and changed is not True:
            changed = changed[signed]
        # A copy: what a lookup gives may be read-only.
        match = np.where(changed & (match == Match.SAME), np.uint8(Match.CHANGED), match)
    return _Arrays(*signatures, match, position), list(problems.values()), signed
