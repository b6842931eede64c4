"""Field signatures in a run: sign single fields, give them to entries, and tell by them which fields changed.

Docs: decisions/0021-field-signatures.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.fields import (
    FIELD_SIGNATURES,
    Numbers,
    as_field_signatures,
    numbers_of,
    with_names,
)
from rundiff.baseline.order import Positions, rows_equal, words
from rundiff.baseline.rewriting import written_anew
from rundiff.baseline.segments import SegmentInfo
from rundiff.engine.examining import Verdicts
from rundiff.engine.previous import named_fields
from rundiff.model import Match
from rundiff.settings import SyncSettings
from rundiff.signing import SigningKey, sign
from rundiff.signing.preparing import Preparation

if TYPE_CHECKING:
    from rundiff.engine.rules import ReadingRules

__all__ = [
    "FieldSignatures",
    "FieldSigner",
    "changed_by_signatures",
    "in_entries",
    "regained",
    "signatures_in_run",
    "without_doubtful",
]

FEW = 0.05
"""Up to this share of a baseline, entries that gain field signatures go into its overlay; past it, into a new base."""
IN_MEMORY = 1 << 21
"""Entries whose field signatures are kept in memory (16 MB a field); those of more are in mapped files."""


class FieldSigner(msgspec.Struct, frozen=True):
    """Signs single fields of records, each together with the record's key."""

    primary_key: tuple[str, ...]
    preparation: Preparation
    key: SigningKey | None

    def sign(self, records: pa.RecordBatch, names: Sequence[str]) -> pa.StructArray:
        """Give the signatures of these fields; null in the rows that have a value without one.

        What a normaliser does not fit is signed as it is: an earlier run may have had it.
        """
        return self.sign_prepared(self.preparation.applied_where_it_fits(records, names), names)

    def sign_prepared(self, records: pa.RecordBatch, names: Sequence[str]) -> pa.StructArray:
        """Do the same for records in the form that is signed."""
        own = list(self.primary_key)
        keys = words(sign(records, own, self.key).signatures)
        known = np.ones(records.num_rows, dtype=np.bool_)
        numbers: dict[str, Numbers] = {}
        for name in names:
            at = records.schema.get_field_index(name)
            if at < 0 or records.column(at).null_count == records.num_rows:
                numbers[name] = np.zeros(records.num_rows, dtype=np.uint64)
                continue
            signed = sign(records, [*own, name], self.key).signatures
            if signed.null_count:
                known &= signed.is_valid().to_numpy(zero_copy_only=False)
            matrix = words(signed)
            column = np.maximum(matrix[:, 0].astype(np.uint64), np.uint64(1))
            # A value that counts as missing leaves the signature of the key alone.
            column[rows_equal(matrix, keys)] = 0
            numbers[name] = column
        return as_field_signatures(numbers, known)


class FieldSignatures:
    """Field signatures of a baseline's entries, by position, and those that they gain in a run."""

    def __init__(self, baseline: Baseline, folder: Path, signer: FieldSigner, *, valid: bool) -> None:
        """`valid`: those that the entries have were made by the rule that the run leaves behind."""
        self._baseline = baseline
        self._folder = folder
        self._room: dict[str, Numbers] = {}
        self.signer = signer
        self.valid = valid
        self._had = baseline.fields_signed() if valid else np.zeros(baseline.positions, dtype=np.bool_)
        self._gained = np.zeros(baseline.positions, dtype=np.bool_)

    @property
    def lacking(self) -> bool:
        """Whether any live entry had none when the run began."""
        return bool((self._baseline.live_mask() & ~self._had).any())

    @property
    def gained(self) -> npt.NDArray[np.bool_]:
        """Mark the positions that this run gave others."""
        return self._gained

    # While reading: by several threads

    def told_by(
        self, verdicts: Verdicts, prepared: pa.RecordBatch, names: Sequence[str]
    ) -> tuple[Positions, pa.StructArray] | None:
        """Sign the fields of records that tell of entries: those that hold the same data, and lack signatures.

        Under two rules, all of those with the same data, since their signatures change.
        """
        looked = verdicts.renewed or verdicts.lookup
        if looked is None:
            return None
        match, position = looked[0], looked[1]
        rows = np.flatnonzero(match == Match.SAME)
        if verdicts.renewed is None:
            rows = rows[~self._had[position[rows]]]
        if len(rows) == 0:
            return None
        part = prepared if len(rows) == prepared.num_rows else prepared.take(pa.array(rows))
        return position[rows], self.signer.sign_prepared(part, names)

    # By one thread

    def note(self, positions: Positions, signed: pa.StructArray) -> None:
        """Give entries at positions, in order of reading, their field signatures."""
        known = signed.is_valid().to_numpy(zero_copy_only=False)
        if not known.all():
            positions, signed = positions[known], signed.filter(pa.array(known))
        if not self._room and not self._gained.any() and self.valid and self._baseline.signs_fields:
            self._fill()
        for name in dict.fromkeys([*(field.name for field in signed.type), *self._room]):
            numbers = numbers_of(signed, name)
            if name not in self._room:
                if not numbers.any():
                    continue
                self._room[name] = self._space()
            self._room[name][positions] = numbers
        self._gained[positions] = True

    def _space(self) -> Numbers:
        rows = self._baseline.positions
        if rows <= IN_MEMORY:
            return np.zeros(rows, dtype=np.uint64)
        path = self._folder / f"spool-field-{len(self._room)}.arrow"
        # A new file reads as zeros.
        return np.memmap(path, dtype=np.uint64, mode="w+", shape=(rows,))

    def _fill(self) -> None:
        """Take over what the entries have."""
        start = 0
        for side in (self._baseline.base, self._baseline.overlay):
            for part in side.column(FIELD_SIGNATURES) if side.signs_fields else ():
                for field in part.type:
                    if field.name not in self._room:
                        self._room[field.name] = self._space()
                    self._room[field.name][start : start + len(part)] = numbers_of(part, field.name)
                start += len(part)
            start = side.rows

    def known(self, positions: Positions) -> npt.NDArray[np.bool_]:
        """Mark the positions whose field signatures are known."""
        known: npt.NDArray[np.bool_] = self._had[positions] | self._gained[positions]
        return known

    @property
    def names(self) -> tuple[str, ...]:
        """The fields that any entry may have signatures of."""
        if self._gained.any():
            return tuple(self._room)
        if not self.valid:
            return ()
        sides = [side for side in (self._baseline.base, self._baseline.overlay) if side.signs_fields]
        types = [side.schema.field(FIELD_SIGNATURES).type for side in sides]
        return tuple(dict.fromkeys(field.name for kind in types for field in kind))

    def at(self, positions: Positions) -> pa.StructArray:
        """Give the field signatures of entries at positions in any order; null where they are not known."""
        known = self.known(positions)
        if self._gained.any():
            return as_field_signatures({n: numbers[positions] for n, numbers in self._room.items()}, known)
        if not known.any():
            return with_names(None, (), len(positions))
        return self._baseline.field_signatures(positions)

    def renew(self, entries: pa.Table | pa.RecordBatch, positions: Positions) -> pa.Table | pa.RecordBatch:
        """Give entries the field signatures that they have after the run."""
        return in_entries(entries, with_names(self.at(positions), self.names, len(positions)))


def signatures_in_run(
    settings: SyncSettings, baseline: Baseline, folder: Path, rules: ReadingRules
) -> FieldSignatures | None:
    """Open the field signatures of a baseline for a run; None where the sync does not ask for them."""
    if not settings.comparison.field_signatures:
        return None
    former = rules.former
    valid = former is None or not (former.twice and former.whole)
    return FieldSignatures(baseline, folder, rules.field_signer, valid=valid)


def regained(signed: FieldSignatures | None, baseline: Baseline, folder: Path) -> SegmentInfo | None:
    """Write a base where many entries gained field signatures, or are to have none any more; else None."""
    if signed is None:
        return written_anew(baseline, folder, _without) if baseline.signs_fields else None
    if int(np.count_nonzero(signed.gained)) <= FEW * baseline.positions:
        return None
    return written_anew(baseline, folder, signed.renew)


def _without(entries: pa.RecordBatch, _: Positions) -> pa.RecordBatch:
    return in_entries(entries, None)


def in_entries(
    entries: pa.Table | pa.RecordBatch, fields: pa.StructArray | None
) -> pa.Table | pa.RecordBatch:
    """Put field signatures in the place of those that entries have; None takes them away."""
    if FIELD_SIGNATURES in entries.schema.names:
        entries = entries.drop_columns([FIELD_SIGNATURES])
    if fields is None:
        return entries
    at = entries.schema.get_field_index("primary_key")
    return entries.add_column(at, pa.field(FIELD_SIGNATURES, fields.type), fields)


def without_doubtful(entries: pa.RecordBatch, doubtful: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Take field signatures away from entries whose data are not sure."""
    if FIELD_SIGNATURES not in entries.schema.names or not doubtful.any():
        return entries
    column = entries.column(FIELD_SIGNATURES)
    numbers = {field.name: numbers_of(column, field.name) for field in column.type}
    known = column.is_valid().to_numpy(zero_copy_only=False) & ~doubtful
    return in_entries(entries, as_field_signatures(numbers, known))


def changed_by_signatures(before: pa.StructArray, after: pa.StructArray) -> pa.Array:
    """Name the fields of `after` whose signatures differ, as a list of text; null where one side is."""
    n = len(after)
    names = [field.name for field in after.type]
    differs = np.zeros((n, len(names)), dtype=np.bool_)
    for column, name in enumerate(names):
        differs[:, column] = numbers_of(before, name) != numbers_of(after, name)
    known = before.is_valid().to_numpy(zero_copy_only=False) & after.is_valid().to_numpy(zero_copy_only=False)
    return named_fields(names, differs, known)
