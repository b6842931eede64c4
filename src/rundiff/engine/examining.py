"""Examine batches: both signatures of each row, and what the baseline says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.lookup import NativeLookup
from rundiff.baseline.order import Positions
from rundiff.compare.seen import NativeSeen, Seen
from rundiff.model import Match
from rundiff.signing import SigningKey, sign, sign_both
from rundiff.signing.contract import Unsignable
from rundiff.signing.signable import names_survive, present_fields

__all__ = ["Kept", "Renewal", "Signing", "Verdicts", "examine"]


class Kept(msgspec.Struct, frozen=True):
    """The rows of a batch that a run keeps, ascending, and what is known of them."""

    rows: npt.NDArray[np.int64]
    meta: tuple[pa.Array, pa.Array, pa.Array, pa.Array]
    """Key signatures, data signatures, match (uint8), position (int64)."""
    dropped: Positions | None = None
    """The positions of the others, in order, where they were asked for."""


class Signing(msgspec.Struct, frozen=True):
    """Rows, and how they are signed."""

    records: pa.RecordBatch
    """In the form that is signed."""
    fields: tuple[Sequence[str], Sequence[str]]
    """Those of the primary key, and those that are compared."""
    key: SigningKey | None
    astray: npt.NDArray[np.bool_] | None = None
    """Rows with values that this rule can't have had: they differ from everything."""


Renewal = tuple[npt.NDArray[np.uint8], Positions, tuple[pa.Array, pa.Array]]
"""What `Renewed.note` takes."""


class Verdicts(Protocol):
    """What is known of each row of a batch."""

    @property
    def renewed(self) -> Renewal | None:
        """Under two rules: what the baseline's entries are signed with from now on."""

    @property
    def lookup(self) -> tuple[npt.NDArray[np.uint8], Positions] | None:
        """What the lookup said of each row, and the position of its entry; None where not asked for `whole`."""

    @property
    def others(self) -> npt.NDArray[np.int64] | None:
        """The rows, ascending, that are kept in any case; None where that is not known before `take`."""

    def take(self, seen: Seen) -> Kept:
        """Mark the rows in `seen`, in order of reading, and give those that must be kept."""


class _Arrays(msgspec.Struct, frozen=True):
    """Verdicts as arrays: what any signer and any lookup give."""

    keys: pa.Array
    data: pa.Array
    match: npt.NDArray[np.uint8]
    position: Positions
    renewed: Renewal | None = None
    others: None = None

    @property
    def lookup(self) -> tuple[npt.NDArray[np.uint8], Positions]:
        """What the lookup said of each row, and the position of its entry."""
        return self.match, self.position

    def take(self, seen: Seen) -> Kept:
        """Mark the rows and give those that must be kept."""
        kept = seen.take(self.match, self.position)
        rows = np.flatnonzero(kept)
        columns = (self.keys, self.data, pa.array(self.match.astype(np.uint8)), pa.array(self.position))
        if len(rows) < len(kept):
            index = pa.array(rows)
            columns = tuple(pc.take(column, index) for column in columns)
        return Kept(rows, columns, self.position[~kept])


class _Native(msgspec.Struct, frozen=True):
    """Verdicts that stay in the native core but for the rows that are kept."""

    examined: Any
    renewed: Renewal | None = None
    lookup: None = None

    @property
    def others(self) -> npt.NDArray[np.int64]:
        """The rows, ascending, that are kept in any case."""
        return self.examined.others().to_numpy()  # type: ignore[no-any-return]

    def take(self, seen: Seen) -> Kept:
        """Mark the rows and give those that must be kept."""
        assert isinstance(seen, NativeSeen)  # noqa: S101 -- both come from the core that this process uses
        rows, *meta = seen.core.take(self.examined)
        keys, data, match, position = meta
        return Kept(rows.to_numpy(), (keys, data, match, position))


def examine(
    asked: Signing,
    baseline: Baseline,
    *,
    former: Signing | None = None,
    whole: bool,
    changed: npt.NDArray[np.bool_] | bool,
) -> tuple[Verdicts, Sequence[Unsignable], npt.NDArray[np.bool_] | None]:
    """Sign rows over the key fields and the compared fields, and look them up: by the `former` rule, if any.

    Also gives what could not be signed and, if there is any, a mask of the rows that could: verdicts
    are about those alone. `whole` asks for verdicts on all rows, not only on those that are kept.
    `changed` rows (all of them, or a mask) count as changed where the baseline has the same data.
    Safe to call from many threads.
    """
    records, lookup = asked.records, baseline.lookup
    if isinstance(lookup, NativeLookup) and not whole and changed is False and former is None:
        names = [present_fields(records.schema, part) for part in asked.fields]
        wanted = list(dict.fromkeys([*names[0], *names[1]]))
        if names_survive(records.schema, wanted):
            examined = lookup.examine(records.select(wanted), names, asked.key)
            if not examined.unsignable:
                return _Native(examined), (), None
    keys, data = sign_both(records, asked.fields, asked.key)
    signatures = [keys, data]
    if former is not None and former.key == asked.key:
        signatures += [keys, sign(former.records, former.fields[1], former.key)]
    elif former is not None:
        signatures += sign_both(former.records, former.fields, former.key)
    problems = {item.row: item for part in reversed(signatures) for item in part.unsignable}
    arrays = [part.signatures for part in signatures]
    signed = None
    if problems:
        signed = np.ones(records.num_rows, dtype=np.bool_)
        signed[list(problems)] = False
        mask = pa.array(signed)
        arrays = [array.filter(mask) for array in arrays]
    match, position = lookup.probe(*arrays[-2:])
    if former is not None and former.astray is not None:
        astray = former.astray if signed is None else former.astray[signed]
        match = np.where(astray & (match == Match.SAME), np.uint8(Match.CHANGED), match)
    renewed = None if former is None else (match, position, (arrays[0], arrays[1]))
    if changed is not False:
        if signed is not None and changed is not True:
            changed = changed[signed]
        # A copy: what a lookup gives may be read-only.
        match = np.where(changed & (match == Match.SAME), np.uint8(Match.CHANGED), match)
    return _Arrays(arrays[0], arrays[1], match, position, renewed), list(problems.values()), signed
