"""The baseline's entries under another rule: new signatures by position, and the base that they make.

A run under two rules signs each record twice. One that is the same under the former rule gives its entry
the signature of the rule asked for. Of every other entry the write log says what the destination holds, and
that is signed; where no log knows it, the entry becomes uncertain, which differs from everything. So all entries
that a run leaves are signed under one rule, and each says what the destination holds.
Docs: decisions/0017-two-rules.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.merge import prefix_ranges
from rundiff.baseline.order import Words, argsort, as_signatures, prefixes, rows_equal, words
from rundiff.baseline.rewriting import shape_of, written_anew
from rundiff.baseline.segments import FLAG_UNCERTAIN, SegmentInfo, write_segment
from rundiff.engine.fieldsignatures import FieldSignatures, in_entries
from rundiff.engine.former import Former
from rundiff.engine.previous import PreviousRecords
from rundiff.engine.retyping import retyped
from rundiff.errors import StateChanged
from rundiff.model import Match
from rundiff.signing import SigningKey, sign

if TYPE_CHECKING:
    from rundiff.engine.rules import ReadingRules

__all__ = ["Renewed"]

CHUNK = 1 << 17
IN_MEMORY = 1 << 21
"""Entries whose signatures are kept in memory (64 MB); those of more are in a mapped file."""

Ints = npt.NDArray[np.int64]


class Renewed:
    """Signatures of a baseline's entries under the rule asked for, by position."""

    def __init__(
        self,
        baseline: Baseline,
        folder: Path,
        rules: tuple[Former, SigningKey | None],
        fields: FieldSignatures | None = None,
    ) -> None:
        """`rules` are the one of before, and the signing key of now; `fields` have signatures of their own."""
        self._baseline = baseline
        self._folder = folder
        former, self._key = rules
        self._former = former.key
        self.rekeyed = self._former != self._key
        self._fields = fields
        self._data = self._space("data_signature")
        self._noted = np.zeros(baseline.positions, dtype=np.bool_)
        self._unknown = np.zeros(baseline.positions, dtype=np.bool_)
        self._keys: Words | None = None
        if self.rekeyed:
            self._keys = self._space("primary_key_signature")
            self._keyed = np.zeros(baseline.positions, dtype=np.bool_)
        self.changed = False
        """Whether any entry may have another signature than before."""

    @property
    def unknown(self) -> int:
        """How many entries differ from everything from now on, since no log knows them."""
        return int(np.count_nonzero(self._unknown))

    def _space(self, column: str) -> Words:
        """Give room for a signature of each position, filled with those of before."""
        rows = self._baseline.positions
        room: Words
        if rows <= IN_MEMORY:
            room = np.empty((rows, 4), dtype=">u8")
        else:
            room = np.memmap(self._folder / f"spool-{column}.arrow", dtype=">u8", mode="w+", shape=(rows, 4))
        start = 0
        for side in (self._baseline.base, self._baseline.overlay):
            for part in side.column(column):
                room[start : start + len(part)] = words(part)
                start += len(part)
        return room

    # While reading

    def note(
        self, match: npt.NDArray[np.uint8], position: Ints, signatures: tuple[pa.Array, pa.Array]
    ) -> None:
        """Take the records of a batch, in order of reading.

        `match` and `position` are what the lookup by the former rule said of them, `signatures` those of primary key
        and data under the rule asked for.
        """
        same = np.flatnonzero(match == Match.SAME)
        whole = len(same) == len(match)
        at = position if whole else position[same]
        data = words(signatures[1]) if whole else words(signatures[1])[same]
        self.changed = self.changed or not rows_equal(data, self._data[at]).all()
        self._data[at] = data
        self._noted[at] = True
        if self._keys is not None:
            known = np.flatnonzero(match != Match.NEW)
            self._keys[position[known]] = words(signatures[0])[known]
            self._keyed[position[known]] = True

    # After reading

    def open_entries(self) -> Ints:
        """Give the positions of which no record told: keys that were not read, or read with other data."""
        return np.flatnonzero(self._baseline.live_mask() & ~self._noted)

    def complete(
        self,
        previous: PreviousRecords,
        open_entries: Ints,
        rules: ReadingRules,
        pins: Mapping[str, str],
    ) -> None:
        """Sign those entries by what the write log says that the destination holds.

        `pins` are the types of now, which may be other ones than then.
        """
        self.changed = True
        if self._keys is not None:
            for part in self._parts(np.flatnonzero(self._baseline.live_mask() & ~self._keyed)):
                self._sign_keys(part)
        for part in self._parts(open_entries):
            entries = self._baseline.gather(part)
            written = entries.column("written_run").to_numpy().astype(np.int64)
            kind = previous.data_type(written)
            if pa.types.is_null(kind) or kind.num_fields == 0:
                self._unknown[part] = True
                continue
            data = previous.fetch(entries.column("primary_key_signature").combine_chunks(), written, kind)
            known = data.is_valid().to_numpy(zero_copy_only=False).copy()
            records = pa.RecordBatch.from_arrays(data.flatten(), [field.name for field in kind])
            records = retyped(records, pins)
            signed = rules.sign_data(records)
            known &= signed.is_valid().to_numpy(zero_copy_only=False)
            self._data[part[known]] = words(signed)[known]
            self._unknown[part[~known]] = True
            if self._fields is not None and known.any():
                self._fields.note(part[known], rules.sign_fields(records.filter(pa.array(known))))

    def _sign_keys(self, positions: Ints) -> None:
        assert self._keys is not None  # noqa: S101 -- only asked for where the key is another
        key = self._baseline.gather(positions).column("primary_key").combine_chunks()
        names = [field.name for field in key.type]
        records = pa.RecordBatch.from_arrays(key.flatten(), names)
        if not bool(
            rows_equal(words(sign(records, names, self._former).signatures), self._keys[positions]).all()
        ):
            raise StateChanged(
                "a key of the baseline does not have the signature that its values give under the former signing "
                "key, so it can't be signed anew. Nothing was written. Run with the former key as "
                "RUNDIFF_SIGNING_KEY, or `rundiff rebuild` the baseline first"
            )
        self._keys[positions] = words(sign(records, names, self._key).signatures)

    def _parts(self, positions: Ints) -> Iterator[Ints]:
        for start in range(0, len(positions), CHUNK):
            yield positions[start : start + CHUNK]

    def judge(self, match: npt.NDArray[np.uint8], position: Ints, data: pa.Array) -> npt.NDArray[np.uint8]:
        """Take records that differ under the former rule alone for unchanged.

        `data` are their signatures under the rule asked for.
        """
        rows = np.flatnonzero(match == Match.CHANGED)
        at = position[rows]
        alike = rows_equal(words(data)[rows], self._data[at]) & ~self._unknown[at]
        alike &= (self._baseline.column_at("flags", at) & FLAG_UNCERTAIN) == 0
        if not alike.any():
            return match
        judged = match.copy()
        judged[rows[alike]] = Match.SAME
        return judged

    def signed_anew(self, records: pa.Table | pa.RecordBatch, positions: Ints) -> pa.Table | pa.RecordBatch:
        """Give rows of entries, or of write records, the signatures that the entries at positions have now."""
        columns = {"data_signature": as_signatures(self._data[positions])}
        if self._keys is not None:
            columns["primary_key_signature"] = as_signatures(self._keys[positions])
        for name, column in columns.items():
            at = records.schema.get_field_index(name)
            records = records.set_column(at, records.schema.field(at), column)
        return records

    def renew(self, entries: pa.Table | pa.RecordBatch, positions: Ints) -> pa.Table | pa.RecordBatch:
        """Give entries all that is new of them; `positions` says which they are, row by row."""
        entries = self.signed_anew(entries, positions)
        unknown = self._unknown[positions]
        if unknown.any():
            at = entries.schema.get_field_index("flags")
            flags = entries.column("flags").to_numpy() | np.where(unknown, FLAG_UNCERTAIN, 0).astype(np.uint8)
            entries = entries.set_column(at, entries.schema.field(at), pa.array(flags.astype(np.uint8)))
        return in_entries(entries, None) if self._fields is None else self._fields.renew(entries, positions)

    def rekey(self, entries: pa.Table) -> pa.Table:
        """Give entries that the baseline does not hold the primary key signatures of now."""
        if not self.rekeyed:
            return entries
        key = entries.column("primary_key").combine_chunks()
        names = [field.name for field in key.type]
        signed = sign(pa.RecordBatch.from_arrays(key.flatten(), names), names, self._key).signatures
        at = entries.schema.get_field_index("primary_key_signature")
        return entries.set_column(at, entries.schema.field(at), signed)

    def former_keys(self, keys: pa.StructArray, now: pa.Array) -> pa.Array:
        """Give the primary key signatures that the baseline knows; `now` are those of this run."""
        if not self.rekeyed:
            return now
        names = [field.name for field in keys.type]
        return sign(pa.RecordBatch.from_arrays(keys.flatten(), names), names, self._former).signatures

    def write_base(self, folder: Path) -> SegmentInfo:
        """Write all live entries as one segment."""
        if self._keys is None:
            return written_anew(self._baseline, folder, self.renew)
        shape = shape_of(self._baseline, self.renew)
        return write_segment(folder / f"base-{uuid.uuid4().hex}.arrow", shape, self._by_new_keys(shape))

    def _by_new_keys(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        assert self._keys is not None  # noqa: S101 -- only asked for where the key is another
        live = self._baseline.live_mask()
        first = prefixes(self._keys)
        for low, high in prefix_ranges(len(first)):
            inside = live & (first >= np.uint64(low))
            if high < 1 << 64:
                inside &= first < np.uint64(high)
            positions = np.flatnonzero(inside)
            order = argsort(self._keys[positions])
            table = self.renew(self._baseline.gather(positions), positions)
            yield from table.take(pa.array(order)).cast(schema).combine_chunks().to_batches()
