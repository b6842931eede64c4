"""Read a source once: sign, look up, and spool what may have changed."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.order import Positions, argsort, first_of_group, words
from rundiff.compare.seen import Seen
from rundiff.engine.examining import Kept, Verdicts, examine
from rundiff.engine.renewing import Renewed
from rundiff.engine.rules import ReadingRules
from rundiff.engine.spool import Spool, spool_batch
from rundiff.engine.views import Progress
from rundiff.engine.watching import MARKED, Noticed, Watched
from rundiff.errors import KeyFieldMissing
from rundiff.signing import sign
from rundiff.sources.contract import ReadBatch, ReadEnd, Reading

__all__ = ["SAMPLES", "Contest", "Read", "key_texts", "read_all"]

log = logging.getLogger("rundiff")

SAMPLES = 5
"""Sentences kept of each kind of odd record."""


class Contest(msgspec.Struct):
    """For `max:FIELD` and `min:FIELD`: the field's value in unchanged records that were not kept."""

    positions: list[Positions] = msgspec.field(default_factory=list)
    values: list[pa.Array] = msgspec.field(default_factory=list)


class Read(msgspec.Struct):
    """What a reading left behind, beside the spool and the marks in `seen`."""

    records: int = 0
    invalid_keys: int = 0
    unreadable: int = 0
    fields: dict[str, None] = msgspec.field(default_factory=dict)
    """All fields met, in order."""
    samples: dict[str, list[str]] = msgspec.field(default_factory=dict)
    contest: Contest = msgspec.field(default_factory=Contest)
    invalid: list[str] = msgspec.field(default_factory=list)
    """For quarantine: the records without a valid key, as JSON."""
    end: ReadEnd = msgspec.field(default_factory=ReadEnd)
    pins: dict[str, str] = msgspec.field(default_factory=dict)
    watched: Watched = msgspec.field(default_factory=Watched)
    misfits: dict[str, None] = msgspec.field(default_factory=dict)
    """Fields of unreadable records, in order."""

    @property
    def valid(self) -> int:
        """Records with a valid key."""
        return self.records - self.invalid_keys - self.unreadable

    def note(self, kind: str, sentences: Sequence[str]) -> None:
        """Keep the first few sentences of a kind."""
        kept = self.samples.setdefault(kind, [])
        kept.extend(sentences[: SAMPLES - len(kept)])


class _Signed(msgspec.Struct, frozen=True):
    """A batch after signing and look-up: only records with valid keys and signatures."""

    read: int
    records: pa.RecordBatch
    order: npt.NDArray[np.int64]
    verdicts: Verdicts
    invalid: int
    invalid_samples: list[str]
    invalid_records: list[str]
    unsignable: list[str]
    marked: npt.NDArray[np.bool_] | None = None
    """Which records the source calls deleted; None: none of them."""
    noticed: Noticed | None = None
    gained: tuple[Positions, pa.StructArray] | None = None
    """Field signatures of entries."""
    others: pa.RecordBatch | None = None
    """The records that are kept in any case, gathered while they are in the worker's cache; None if not known."""

    def kept(self, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """Give the records of rows that a run keeps."""
        if len(rows) == self.records.num_rows:
            return self.records
        if self.others is not None and len(rows) == self.others.num_rows:
            return self.others
        return self.records.take(pa.array(rows))


def _sign(batch: ReadBatch, first: int, rules: ReadingRules, baseline: Baseline) -> _Signed:
    """Sign a batch and look it up; runs on a worker thread and touches nothing shared."""
    records = batch.records
    names = records.schema.names
    total = records.num_rows
    order = np.arange(first, first + total, dtype=np.int64)
    bad_key = np.zeros(total, dtype=np.bool_)
    invalid_samples: list[str] = []
    for name in rules.primary_key:
        if name in names:
            column = records.column(name)
            null = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
            why = "is null"
        else:
            null, why = np.ones(total, dtype=np.bool_), "is missing"
        if null is not None:
            fresh = np.flatnonzero(null & ~bad_key)
            invalid_samples += [
                f"record {int(order[row]) + 1:,}: key field {name} {why}" for row in fresh[:SAMPLES].tolist()
            ]
            bad_key |= null
    invalid = int(bad_key.sum())
    invalid_records = []
    if invalid and rules.keep_invalid:
        rejected = records.filter(pa.array(bad_key)).to_pylist()
        invalid_records = [json.dumps(record, default=str) for record in rejected]
    if invalid:
        records = records.filter(pa.array(~bad_key))
        order = order[~bad_key]

    compared, before = rules.compared(names), rules.before(records)
    marked = None if rules.watch is None else rules.watch.marked(records)
    signing, gaining = rules.signing(records, compared), rules.gaining
    verdicts, problems, signed = examine(
        signing,
        baseline,
        former=None if before is None else rules.former_signing(records, before),
        whole=rules.wants_all or gaining is not None,
        # Else a marked record that differs only in fields that are not compared would pass for unchanged.
        changed=rules.full_refresh or (False if marked is None else marked),
    )
    unsignable = [
        f"record {int(order[item.row]) + 1:,}: field {item.field}: {item.reason}" for item in problems
    ]
    if signed is not None:
        records, order = records.filter(pa.array(signed)), order[signed]
        marked = None if marked is None else marked[signed]
    gained = None
    if gaining is not None:
        prepared = signing.records if signed is None else signing.records.filter(pa.array(signed))
        gained = gaining.told_by(verdicts, prepared, [n for n in compared if n not in rules.primary_key])
    return _Signed(
        read=total,
        records=records,
        order=order,
        verdicts=verdicts,
        invalid=invalid,
        invalid_samples=invalid_samples,
        invalid_records=invalid_records,
        unsignable=unsignable,
        marked=marked,
        noticed=None if rules.watch is None else rules.watch.notice(records, rules.signing_key),
        gained=gained,
        others=_gathered(records, verdicts.others),
    )


def _gathered(records: pa.RecordBatch, rows: npt.NDArray[np.int64] | None) -> pa.RecordBatch | None:
    if rows is None or len(rows) == 0 or len(rows) == records.num_rows:
        return None
    return records.take(pa.array(rows))


def _signed(
    reading: Reading, rules: ReadingRules, baseline: Baseline, result: Read
) -> Iterator[tuple[ReadBatch, _Signed]]:
    """Sign batches on all cores, and yield them in order."""
    workers = os.cpu_count() or 1
    baseline.lookup  # noqa: B018 -- opened here once, not by several workers at the same time
    with ThreadPoolExecutor(workers, thread_name_prefix="rundiff-sign") as pool:
        waiting: deque[tuple[ReadBatch, Future[_Signed]]] = deque()
        first = 0
        try:
            for batch in reading:
                for name in batch.records.schema.names:
                    result.fields.setdefault(name)
                waiting.append((batch, pool.submit(_sign, batch, first, rules, baseline)))
                first += batch.records.num_rows
                if len(waiting) > workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


def read_all(
    reading: Reading,
    rules: ReadingRules,
    baseline: Baseline,
    sinks: tuple[Seen, Spool],
    progress: Callable[[Progress], None] | None = None,
    renewed: Renewed | None = None,
) -> Read:
    """Read to the end; marks `seen`, fills the spool and, under two rules, `renewed`.

    Raises `SourceError` and its like.
    """
    seen, spool = sinks
    result = Read()
    ranked = rules.strategy.field if rules.strategy.kind in ("max", "min") else None
    for batch, signed in _signed(reading, rules, baseline, result):
        unreadable = [f"{item.location}: {_reason(item.field, item.reason)}" for item in batch.unreadable]
        result.unreadable += len(unreadable) + len(signed.unsignable)
        result.records += signed.read + len(unreadable)
        result.invalid_keys += signed.invalid
        result.note("unreadable", [*unreadable, *signed.unsignable])
        result.misfits.update(
            dict.fromkeys(item.field for item in batch.unreadable if item.field is not None)
        )
        result.invalid += signed.invalid_records
        result.note("invalid_keys", signed.invalid_samples)
        result.watched.add(signed.noticed)
        before = seen.dropped_duplicates
        kept = signed.verdicts.take(seen)
        if renewed is not None and signed.verdicts.renewed is not None:
            renewed.note(*signed.verdicts.renewed)
        if rules.gaining is not None and signed.gained is not None:
            rules.gaining.note(*signed.gained)
        if seen.dropped_duplicates > before:
            result.note("duplicates", _repeated(signed.records, rules, result.samples))
        if ranked is not None and kept.dropped is not None and len(kept.dropped):
            others = np.delete(np.arange(signed.records.num_rows), kept.rows)
            result.contest.positions.append(kept.dropped)
            result.contest.values.append(_field(signed.records, ranked).take(pa.array(others)))
        _spool(spool, signed, kept)
        if progress is not None:
            progress(
                Progress(
                    phase="reading",
                    done=result.records,
                    bytes_done=reading.bytes_read,
                    bytes_total=reading.total_bytes,
                )
            )
    result.end = reading.end
    result.pins = dict(reading.pins)
    missing = [name for name in rules.primary_key if name not in result.fields]
    if missing and (result.fields or result.valid):
        have = ", ".join(list(result.fields)[:20])
        raise KeyFieldMissing(
            f"the source has no field {', '.join(missing)}, which the primary key names; it has {have}. "
            "Choose another --key, or mend the source"
        )
    if result.invalid_keys:
        log.warning(
            "%d record%s without a valid key skipped, such as: %s",
            result.invalid_keys,
            "s" * (result.invalid_keys > 1),
            "; ".join(result.samples["invalid_keys"]),
        )
    return result


def _reason(name: str | None, reason: str) -> str:
    return reason if name is None else f"field {name}: {reason}"


def _repeated(
    records: pa.RecordBatch, rules: ReadingRules, samples: Mapping[str, Sequence[str]]
) -> list[str]:
    """Name keys that this batch repeats, as long as samples are wanted.

    Only asked for batches with unchanged records that were read before; those whose first reading was
    in another batch are counted, but have no sample.
    """
    wanted = SAMPLES - len(samples.get("duplicates", ()))
    if wanted <= 0:
        return []
    keys = records.select(list(rules.primary_key))
    matrix = words(sign(keys, rules.primary_key, rules.signing_key).signatures)
    order = argsort(matrix)
    again = order[~first_of_group(matrix[order])][:wanted]
    return [f"key {text}: identical records" for text in key_texts(keys.take(pa.array(again)).to_pylist())]


def key_texts(keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Write keys as JSON, for samples."""
    return [json.dumps(key, default=str) for key in keys]


def _field(records: pa.RecordBatch, name: str) -> pa.Array:
    if name in records.schema.names:
        return records.column(name)
    return pa.nulls(records.num_rows)


def _spool(spool: Spool, signed: _Signed, kept: Kept) -> None:
    rows = kept.rows
    if len(rows) == 0:
        return
    keys, data, match, position = kept.meta
    if signed.marked is not None:
        match = pa.array(match.to_numpy() | np.where(signed.marked[rows], np.uint8(MARKED), np.uint8(0)))
    meta = [keys, data, pa.array(signed.order[rows]), match, position]
    spool.add(spool_batch(meta, signed.kept(rows)))
