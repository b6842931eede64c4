"""Compare what a destination holds with the baseline, row by row.

Each row is read back, signed and looked up. One whose signature is not the baseline's is looked at more
closely: the record as it was delivered goes the same way through the destination's columns, and the row
has drifted only if that differs from what is there. So a column that spells a value in its own way, or
that keeps it in another type, is never taken for a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest
from rundiff.baseline.order import SIGNATURE
from rundiff.baseline.segments import FLAG_UNCERTAIN
from rundiff.destinations.contract import Destination, Readable, Target
from rundiff.engine.previous import PreviousRecords
from rundiff.engine.records import values
from rundiff.engine.spelled import ReadBack, read_back
from rundiff.engine.views import Progress
from rundiff.errors import ConfigurationError, RecordsRefused
from rundiff.model import Match
from rundiff.signing import SigningKey, sign, sign_both
from rundiff.signing.preparing import Preparation

__all__ = ["Compared", "Drift", "Known", "compare_rows", "keys_at", "readable"]

CHUNK = 1 << 17
CHUNK_BYTES = 96 << 20
"""Rows that are looked at more closely are gathered up to these, since the write log is read for them."""

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
NOTHING = b"\0" * 32


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What a destination is compared with."""

    baseline: Baseline
    manifest: Manifest
    signing_key: SigningKey | None
    preparation: Preparation | None
    """The form in which the baseline was signed; None where a function of it is not at hand."""
    previous: PreviousRecords
    destination: Readable
    target: Target

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The fields that identify a record."""
        return self.manifest.primary_key


class Drift(msgspec.Struct, frozen=True):
    """How a row differs from the record that was delivered, as text by field; empty where that is unknown."""

    expected: Mapping[str, str | None]
    found: Mapping[str, str | None]


class Compared(msgspec.Struct):
    """What a comparison found; rows of the baseline by their positions in it."""

    seen: Mask
    """The destination has a row of this key."""
    agreed: Mask
    """The row is what the baseline says."""
    rows: int = 0
    foreign: int = 0
    """Rows whose key the baseline does not hold."""
    foreign_keys: list[Mapping[str, Any]] = msgspec.field(default_factory=list)
    """Some of them."""
    drifted: list[Ints] = msgspec.field(default_factory=list)
    repeated: list[Ints] = msgspec.field(default_factory=list)
    """Keys that have several rows."""
    unverified: list[Ints] = msgspec.field(default_factory=list)
    """Rows that can't be compared: their data is not known here, and a value can't be read back."""
    unread: dict[str, None] = msgspec.field(default_factory=dict)
    """The fields of such values."""
    drifts: dict[int, Drift] = msgspec.field(default_factory=dict)
    """Of the first drifted rows, by position."""
    missing: Ints = msgspec.field(default_factory=lambda: np.empty(0, dtype=np.int64))


class _Suspects(msgspec.Struct):
    """Rows to look at more closely."""

    texts: list[pa.RecordBatch] = msgspec.field(default_factory=list)
    keys: list[pa.Array] = msgspec.field(default_factory=list)
    positions: list[Ints] = msgspec.field(default_factory=list)
    odd: list[Mask] = msgspec.field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether there are enough to read the write log for."""
        rows = sum(batch.num_rows for batch in self.texts)
        size: int = sum(batch.nbytes for batch in self.texts)
        return rows >= CHUNK or size >= CHUNK_BYTES


def readable(destination: Destination, name: str) -> Readable:
    """Give a destination as one that can be read back; raises `ConfigurationError` if it can't."""
    if not destination.capabilities.reads_back:
        raise ConfigurationError(
            f"sync {name}: the destination {destination.identity} can't be read back, so what it holds can't be "
            "compared; this works for tables of SQLite, DuckDB, PostgreSQL and MySQL"
        )
    return cast(Readable, destination)


def compare_rows(known: Known, limit: int, progress: Callable[[Progress], None] | None = None) -> Compared:
    """Read the destination's rows and compare them; `limit` keys of each kind are kept as samples."""
    count = known.baseline.positions
    comparison = _Comparison(known, limit, Compared(np.zeros(count, np.bool_), np.zeros(count, np.bool_)))
    for texts in known.destination.stored(known.target, known.manifest.fields):
        comparison.take(texts)
        if progress is not None:
            progress(Progress(phase="reading", done=comparison.rows, total=known.baseline.live))
    return comparison.end()


class _Comparison:
    """One comparison under way."""

    def __init__(self, known: Known, limit: int, found: Compared) -> None:
        self._known, self._limit, self._found = known, limit, found
        self._suspects = _Suspects()
        self._unnamed: list[pa.RecordBatch] = []
        """Rows whose key can't be read as its fields' types."""

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return self._found.rows

    def take(self, texts: pa.RecordBatch) -> None:
        """Sign rows, look them up, and keep those that are not as the baseline says."""
        known, found = self._known, self._found
        found.rows += texts.num_rows
        back = read_back(texts, known.manifest.pins)
        found.unread.update(dict.fromkeys(back.fields))
        named = self._named(back)
        if not named.all():
            self._unnamed.append(texts.filter(pa.array(~named)))
            texts, back = texts.filter(pa.array(named)), _only(back, named)
        fields, odd, records = known.manifest.fields, back.odd, back.records
        if known.preparation is None:
            odd = np.ones(len(odd), dtype=np.bool_)
        else:
            records = known.preparation.applied(records, fields)
        keys, data = sign_both(records, (known.primary_key, fields), known.signing_key)
        signatures = data.signatures
        if signatures.null_count:
            signatures = pc.if_else(signatures.is_valid(), signatures, pa.scalar(NOTHING, SIGNATURE))
        match, position = known.baseline.lookup.probe(keys.signatures, signatures)
        self._foreign(back.records, match == Match.NEW)
        rows = np.flatnonzero(match != Match.NEW)
        rows = rows[self._first(position[rows])]
        doubtful = (match[rows] != Match.SAME) | odd[rows]
        found.agreed[position[rows[~doubtful]]] = True
        suspects = rows[doubtful]
        if len(suspects):
            at = pa.array(suspects)
            self._suspect(texts.take(at), keys.signatures.take(at), position[suspects], odd[suspects])

    def _named(self, back: ReadBack) -> Mask:
        named = np.ones(back.records.num_rows, dtype=np.bool_)
        for name in self._known.primary_key:
            named &= back.records.column(name).is_valid().to_numpy(zero_copy_only=False)
        return named

    def _foreign(self, records: pa.RecordBatch, foreign: Mask) -> None:
        rows = np.flatnonzero(foreign)
        self._found.foreign += len(rows)
        wanted = rows[: max(0, self._limit - len(self._found.foreign_keys))]
        if len(wanted):
            keys = records.select(list(self._known.primary_key)).take(pa.array(wanted))
            self._found.foreign_keys += values(keys.to_struct_array())

    def _first(self, position: Ints) -> Mask:
        """Mark the first row of each key; note those that have several."""
        found = self._found
        first = np.zeros(len(position), dtype=np.bool_)
        first[np.unique(position, return_index=True)[1]] = True
        first &= ~found.seen[position]
        found.seen[position] = True
        if not first.all():
            found.repeated.append(position[~first])
        return first

    def _suspect(self, texts: pa.RecordBatch, keys: pa.Array, position: Ints, odd: Mask) -> None:
        suspects = self._suspects
        suspects.texts.append(texts)
        suspects.keys.append(keys)
        suspects.positions.append(position)
        suspects.odd.append(odd)
        if suspects.full:
            self._judge()

    def end(self) -> Compared:
        """Judge what is left, and find what the destination does not have."""
        found, baseline = self._found, self._known.baseline
        missing = np.flatnonzero(baseline.live_mask() & ~found.seen)
        if self._unnamed:
            self._match_by_text(missing)
            missing = missing[~found.seen[missing]]
        self._judge()
        found.missing = missing
        again = np.concatenate(found.repeated) if found.repeated else np.empty(0, dtype=np.int64)
        again = np.unique(again)
        found.repeated = [again]
        found.agreed[again] = False
        found.drifted = [_without(found.drifted, again)]
        found.unverified = [_without(found.unverified, again)]
        return found

    def _match_by_text(self, missing: Ints) -> None:
        """Find the rows whose keys can't be read among the missing ones: by how those would be spelled."""
        key = list(self._known.primary_key)
        texts = pa.Table.from_batches(self._unnamed).combine_chunks().to_batches()[0]
        waiting = {tuple(row.values()): number for number, row in enumerate(texts.select(key).to_pylist())}
        for entries in _entries(self._known.baseline, missing):
            keys = pa.RecordBatch.from_struct_array(entries.batch.column("primary_key"))
            told = self._echoed(keys.select(key))
            for row, spelled in enumerate([] if told is None else told.select(key).to_pylist()):
                number = waiting.pop(tuple(spelled.values()), None)
                if number is not None:
                    position = entries.positions[row : row + 1]
                    self._found.seen[position] = True
                    signature = entries.batch.column("primary_key_signature").slice(row, 1)
                    self._suspect(texts.slice(number, 1), signature, position, np.ones(1, np.bool_))
        self._found.foreign += len(waiting)
        left = [dict(zip(key, spelled, strict=True)) for spelled in waiting]
        self._found.foreign_keys += left[: max(0, self._limit - len(self._found.foreign_keys))]

    def _judge(self) -> None:
        """Look at the suspects, run by run of those that wrote their records."""
        suspects, self._suspects = self._suspects, _Suspects()
        if not suspects.texts:
            return
        texts = pa.Table.from_batches(suspects.texts).combine_chunks().to_batches()[0]
        keys, position = pa.concat_arrays(suspects.keys), np.concatenate(suspects.positions)
        odd = np.concatenate(suspects.odd)
        written = self._known.baseline.column_at("written_run", position)
        for run in np.unique(written).tolist():
            rows = np.flatnonzero(written == run)
            at = pa.array(rows)
            kind = self._known.previous.data_type(written[rows]) if run else pa.null()
            if pa.types.is_null(kind):
                self._unknown(position[rows], odd[rows])
                continue
            data = self._known.previous.fetch(keys.take(at), written[rows], kind)
            valid = data.is_valid().to_numpy(zero_copy_only=False)
            self._unknown(position[rows[~valid]], odd[rows[~valid]])
            if valid.any():
                known = pa.RecordBatch.from_struct_array(data.filter(pa.array(valid)))
                self._compare(known, texts.take(pa.array(rows[valid])), position[rows[valid]])

    def _unknown(self, position: Ints, odd: Mask) -> None:
        """Judge rows whose record is not known here: by their signature alone, if every value was read."""
        flags = self._known.baseline.column_at("flags", position)
        doubtful = odd | ((flags & FLAG_UNCERTAIN) != 0)
        self._found.unverified.append(position[doubtful])
        self._found.drifted.append(position[~doubtful])

    def _compare(self, known: pa.RecordBatch, texts: pa.RecordBatch, position: Ints) -> None:
        """Compare rows with how their records would come back."""
        fields = [name for name in self._known.manifest.fields if name in known.schema.names]
        told = self._echoed(known.select(fields))
        if told is None:
            self._compare_halves(known, texts, position)
            return
        differs = {}
        for name in self._known.manifest.fields:
            there = _column(texts, name)
            if name in fields and name not in told.schema.names:
                # The table has lost the column: whatever stood there is gone.
                differs[name] = known.column(name).is_valid().to_numpy(zero_copy_only=False)
            else:
                differs[name] = self._differ(name, _column(told, name), there)
        drifted = np.zeros(len(position), dtype=np.bool_)
        for mask in differs.values():
            drifted |= mask
        self._found.agreed[position[~drifted]] = True
        self._found.drifted.append(position[drifted])
        for row in np.flatnonzero(drifted)[: max(0, self._limit - len(self._found.drifts))].tolist():
            names = [name for name, mask in differs.items() if mask[row]]
            self._found.drifts[int(position[row])] = Drift(
                {name: _column(told, name)[row].as_py() for name in names},
                {name: _column(texts, name)[row].as_py() for name in names},
            )

    def _differ(self, name: str, expected: pa.Array, found: pa.Array) -> Mask:
        """Compare texts of a field; where it is signed in another form than its own, the values in that form."""
        mask = _differ(expected, found)
        preparation, manifest = self._known.preparation, self._known.manifest
        if not mask.any() or preparation is None or not preparation.touches(name):
            return mask
        signed = []
        for texts in (expected, found):
            back = read_back(pa.RecordBatch.from_arrays([texts], [name]), manifest.pins)
            if back.odd.any():
                return mask
            signed.append(sign(preparation.applied(back.records, [name]), [name]).signatures)
        other: Mask = mask & ~pc.equal(*signed).to_numpy(zero_copy_only=False)
        return other

    def _compare_halves(self, known: pa.RecordBatch, texts: pa.RecordBatch, position: Ints) -> None:
        """Find the record that the columns no longer take: its row can't hold it."""
        count = len(position)
        if count == 1:
            self._found.drifted.append(position)
            return
        for part in (slice(0, count // 2), slice(count // 2, count)):
            length = part.stop - part.start
            self._compare(known.slice(part.start, length), texts.slice(part.start, length), position[part])

    def _echoed(self, records: pa.RecordBatch) -> pa.RecordBatch | None:
        try:
            return self._known.destination.echo(self._known.target, records)
        except RecordsRefused:
            return None


class _Entries(msgspec.Struct, frozen=True):
    positions: Ints
    batch: pa.RecordBatch


def _entries(baseline: Baseline, positions: Ints) -> Iterator[_Entries]:
    """Give entries in the order of their ascending positions."""
    split = int(np.searchsorted(positions, baseline.base.rows))
    # Within one segment `take` keeps the order of positions.
    for part in (positions[:split], positions[split:]):
        for start in range(0, len(part), CHUNK):
            at = part[start : start + CHUNK]
            yield _Entries(at, baseline.take(at).combine_chunks().to_batches()[0])


def keys_at(baseline: Baseline, positions: Iterable[int]) -> dict[int, Mapping[str, Any]]:
    """Give the key values of a few positions."""
    ascending = np.array(sorted(positions), dtype=np.int64)
    return {
        int(position): key
        for entries in _entries(baseline, ascending)
        for position, key in zip(entries.positions, values(entries.batch.column("primary_key")), strict=True)
    }


def _only(back: ReadBack, rows: Mask) -> ReadBack:
    return ReadBack(back.records.filter(pa.array(rows)), back.odd[rows], back.fields)


def _column(texts: pa.RecordBatch, name: str) -> pa.Array:
    if name in texts.schema.names:
        return texts.column(name)
    return pa.nulls(texts.num_rows, pa.string())


def _differ(left: pa.Array, right: pa.Array) -> Mask:
    same = pc.or_(pc.fill_null(pc.equal(left, right), False), pc.and_(left.is_null(), right.is_null()))
    mask: Mask = pc.invert(same).to_numpy(zero_copy_only=False)
    return mask


def _without(parts: Sequence[Ints], others: Ints) -> Ints:
    whole = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    return np.sort(whole[~np.isin(whole, others)])
