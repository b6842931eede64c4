"""The baseline that a run leaves, built before its commit and named by it."""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest, Memory, Rename
from rundiff.baseline.merge import entry_shape, merged, with_shape
from rundiff.baseline.order import argsort, words
from rundiff.baseline.segments import (
    FLAG_DELETED,
    FLAG_UNCERTAIN,
    Segment,
    SegmentInfo,
    entries,
    write_segment,
)
from rundiff.durable import write_file
from rundiff.engine.anew import Anew
from rundiff.engine.changeset import ChangeSet, Findings
from rundiff.engine.log import log_type, read_log
from rundiff.engine.making import Making, signer_of
from rundiff.errors import BaselineLost
from rundiff.model import Match
from rundiff.signing.contract import FORMAT_VERSION, SigningKey
from rundiff.signing.preparing import Preparation
from rundiff.stores.contract import SignatureStore

__all__ = [
    "OVERLAY_SHARE",
    "Unwritten",
    "build_candidate",
    "compact",
    "digest_of",
    "keep_renewed",
    "logged_keys",
    "memory_of",
    "newer_entries",
    "outgrown",
    "publish",
    "reflag",
    "renames_of",
    "renewed_baseline",
]

OVERLAY_SHARE = 0.2
"""An overlay past this share of the base is merged into a new base."""


def build_candidate(
    store: SignatureStore,
    baseline: Baseline,
    changes: ChangeSet,
    run: tuple[str, int, int],
    unwritten: Unwritten | None = None,
    signing: tuple[SigningKey | None, Preparation | None] = (None, None),
) -> Manifest:
    """Write the segments of the baseline after (sync_id, run, generation), and its manifest.

    `signing` are the key, and the form of values that the findings name in words, where it is at hand.
    """
    unwritten = unwritten or Unwritten()
    sync_id, number, generation = run
    folder = store.workspace(sync_id)
    baseline = renewed_baseline(store, baseline, changes)
    first = baseline.positions == 0
    memory = memory_of(changes, baseline.manifest)
    making = Making(memory.partition_by, signing[0], signer_of(changes.findings, *signing))
    base: SegmentInfo | None = None if baseline.manifest is None else baseline.manifest.base
    rekeyed_run = 0 if baseline.manifest is None else baseline.manifest.rekeyed_run
    overlay = None if baseline.manifest is None else baseline.manifest.overlay
    if first and not changes.entries.exists() and not unwritten:
        base, live = _first_base(folder, changes, number, making)
    elif first and not any(path.exists() for path in (changes.deletes, changes.updates, changes.creates)):
        base = _taken_over(folder, changes)
        live = base.rows
    else:
        newer, added = newer_entries(changes, number, unwritten, baseline, making)
        live = baseline.live + added + _unknown_deletions(changes, baseline)
        if first:
            base = _write(folder, "base", newer.schema, iter(newer.batches))
        elif newer.rows:
            schema = entry_shape(newer.schema, baseline.overlay.schema)
            overlay = _write(folder, "overlay", schema, merged(newer, baseline.overlay, keep_deleted=True))
    assert base is not None  # noqa: S101 -- a baseline without a manifest has no positions
    for info in (base, overlay):
        if info is not None and (path := folder / info.name).exists():
            store.put(sync_id, path)
    findings, before = changes.findings, baseline.manifest
    manifest = Manifest(
        sync_id=sync_id,
        run=number,
        generation=generation,
        live=live,
        base=base,
        overlay=overlay,
        primary_key=findings.primary_key,
        fields=findings.fields,
        form=findings.form,
        left_out=findings.left_out,
        accepted=_accepted(findings.accepted, baseline.manifest),
        renamed={}
        if before is None
        else {o: n for o, n in before.renamed.items() if o not in findings.renamed},
        renames=(() if before is None else before.renames) + renames_of(findings, number),
        rekeyed_run=number if findings.rekeyed else rekeyed_run,
        pins=findings.pins,
        signature_format=FORMAT_VERSION,
        signing_key_id=findings.signing_key_id,
        invalid_keys=_last_complete(
            findings.whole, findings.counts["invalid_keys"], before and before.invalid_keys
        )
        or 0,
        ends_with_newline=_last_complete(
            findings.whole, findings.ends_with_newline, before and before.ends_with_newline
        ),
        newlines=_newlines(changes, {} if before is None else before.newlines),
        # What was not written may still have the misses of before: the number is an upper bound.
        memory=msgspec.structs.replace(memory, pending=memory.pending + len(unwritten)),
    )
    publish(store, manifest)
    return manifest


def renames_of(findings: Findings, run: int) -> tuple[Rename, ...]:
    """Give the other names of fields that a run went over to."""
    return tuple(Rename(run, old, new) for old, new in findings.renamed.items())


def _accepted(after: dict[str, str | None] | None, before: Manifest | None) -> dict[str, str | None]:
    return after if after is not None else {} if before is None else before.accepted


def keep_renewed(store: SignatureStore, changes: ChangeSet, sync_id: str) -> None:
    """Put the base that a run under two rules made into the store; the write log does not need it."""
    info = changes.findings.renewed
    if info is not None and (made := changes.folder / info.name).exists():
        path = store.workspace(sync_id) / info.name
        shutil.move(made, path)
        store.put(sync_id, path)


def renewed_baseline(store: SignatureStore, baseline: Baseline, changes: ChangeSet) -> Baseline:
    """Give the baseline before a run, signed by the rule that the run left: what it is built on."""
    info, before = changes.findings.renewed, baseline.manifest
    if info is None or before is None:
        return baseline
    path = store.get(before.sync_id, info.name)
    if path is None:
        raise BaselineLost(f"segment {info.name} of the baseline is missing")
    base = Segment.open(path, info)
    return Baseline(base, Segment([], base.schema), msgspec.structs.replace(before, base=info, overlay=None))


def memory_of(changes: ChangeSet, before: Manifest | None) -> Memory:
    """Say what the baseline keeps of a change set's run and those before it."""
    if changes.findings.memory is not None:
        return changes.findings.memory
    return Memory() if before is None else before.memory


def _newlines(changes: ChangeSet, before: dict[str, bool]) -> dict[str, bool]:
    findings = changes.findings
    if not findings.complete or findings.whole:
        return findings.newlines if findings.whole or not before else before
    # A run that covered a part may have read other files.
    return {**before, **findings.newlines}


def _last_complete(complete: bool, now: Any, before: Any) -> Any:
    return now if complete or before is None else before


def publish(store: SignatureStore, manifest: Manifest) -> None:
    """Put a manifest into the store; nothing points to it yet."""
    path = store.workspace(manifest.sync_id) / manifest.name
    write_file(path, manifest.encode())
    store.put(manifest.sync_id, path)


def _write(folder: Path, kind: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> SegmentInfo:
    return write_segment(folder / f"{kind}-{uuid.uuid4().hex}.arrow", schema, batches)


def _first_base(folder: Path, changes: ChangeSet, run: int, making: Making) -> tuple[SegmentInfo, int]:
    """Stream the creates, which are sorted, straight into a base."""
    if not changes.creates.exists():
        empty = Segment.empty(pa.struct([]))
        return _write(folder, "base", empty.schema, iter([])), 0
    schema = making.schema(log_type(changes.creates, "primary_key"))
    batches = (making.entries(batch, run) for batch in read_log(changes.creates, columns=making.columns))
    info = _write(folder, "base", schema, batches)
    return info, info.rows


def _taken_over(folder: Path, changes: ChangeSet) -> SegmentInfo:
    """Stream entries that come without any write record, and are sorted, straight into a base."""
    with pa.memory_map(str(changes.entries)) as source, pa.ipc.open_file(source) as file:
        batches = (file.get_batch(number) for number in range(file.num_record_batches))
        return _write(folder, "base", file.schema, batches)


class Unwritten(msgspec.Struct, frozen=True, kw_only=True):
    """The primary key signatures of write records that were not written, or may not have been."""

    refused: Collection[bytes] = ()
    """Their entries stay as they were."""
    unknown: Collection[bytes] = ()
    """Their entries become uncertain: they differ from everything and count as present."""

    def __len__(self) -> int:
        return len(self.refused) + len(self.unknown)


def newer_entries(
    changes: ChangeSet,
    run: int,
    unwritten: Unwritten,
    baseline: Baseline,
    making: Making,
    replayed: Anew | None = None,
) -> tuple[Segment, int]:
    """Gather a run's entries in memory, sorted; also by how much the live keys grow.

    `baseline` is the one before the run. When it is replayed, its records are signed anew where the rule is
    another by now, and entries of keys that were held already and have no write record are left out: their
    misses and partitions.
    """
    parts: list[pa.RecordBatch] = []
    added = 0
    for path, flags, growth in (
        (changes.deletes, FLAG_DELETED, -1),
        (changes.updates, 0, 0),
        (changes.creates, 0, 1),
    ):
        if not path.exists():
            continue
        for batch in read_log(path, columns=making.columns if replayed is None else None):
            written = _select(batch, (*unwritten.refused, *unwritten.unknown), members=False)
            added += growth * written.num_rows
            unknown = _select(batch, unwritten.unknown, members=True)
            if replayed is not None:
                written, unknown = replayed.logged(written), replayed.logged(unknown)
            parts.append(making.entries(written, run, flags))
            if unknown.num_rows and flags == FLAG_DELETED:
                parts.append(_perhaps_deleted(unknown, baseline))
            elif unknown.num_rows:
                added += growth * unknown.num_rows
                parts.append(making.entries(unknown, run, FLAG_UNCERTAIN))
    if changes.entries.exists():
        with pa.memory_map(str(changes.entries)) as source:
            table = pa.ipc.open_file(source).read_all()
            if replayed is not None:
                # Those of new keys stand first.
                table = replayed.entries(table.slice(0, changes.findings.extra_entries))
            parts += table.to_batches()
        added += changes.findings.extra_entries
    return segment_of(parts), added


def segment_of(parts: Sequence[pa.RecordBatch]) -> Segment:
    """Gather entries in any order in memory, sorted."""
    schema = entry_shape(*(part.schema for part in parts))
    alike = [with_shape(pa.Table.from_batches([part]), schema) for part in parts]
    table = pa.concat_tables(alike) if alike else schema.empty_table()
    order = argsort(words(table.column("primary_key_signature")))
    return Segment(table.take(pa.array(order)).combine_chunks().to_batches(), schema)


def _unknown_deletions(changes: ChangeSet, baseline: Baseline) -> int:
    """Count deletions of keys that the baseline does not hold: those that a full refresh repeats."""
    if not changes.findings.repeated or not changes.deletes.exists():
        return 0
    unknown = 0
    for batch in read_log(changes.deletes):
        match, _ = baseline.lookup.probe(batch.column(0), batch.column(1))
        unknown += int((match == Match.NEW).sum())
    return unknown


def digest_of(changes: ChangeSet) -> str:
    """SHA-256 over all signatures of a change set, in hex."""
    digest = hashlib.sha256()
    for path in (changes.deletes, changes.updates, changes.creates):
        digest.update(path.name.encode())
        for batch in read_log(path) if path.exists() else ():
            digest.update(words(batch.column(0)).tobytes())
            digest.update(words(batch.column(1)).tobytes())
    return digest.hexdigest()


def _select(batch: pa.RecordBatch, keys: Collection[bytes], *, members: bool) -> pa.RecordBatch:
    """Give the rows whose primary key signatures are, or are not, among a few."""
    if not keys:
        return batch.slice(0, 0) if members else batch
    found = pc.is_in(batch.column(0).cast(pa.binary()), value_set=pa.array(list(keys), pa.binary()))
    return batch.filter(found if members else pc.invert(found))


def _perhaps_deleted(batch: pa.RecordBatch, baseline: Baseline) -> pa.RecordBatch:
    """Give the entries that deletions of unknown outcome leave: those of before, now uncertain.

    Those that the baseline does not hold, since a full refresh repeats their deletion, stay deleted.
    """
    _, position = baseline.lookup.probe(batch.column(0), batch.column(1))
    [before] = baseline.take(np.sort(position[position >= 0])).combine_chunks().to_batches() or [None]
    if before is None:
        return entries((batch.column(0), batch.column(1)), batch.column(2), 0, FLAG_DELETED).slice(0, 0)
    at = before.schema.get_field_index("flags")
    flags = pa.array(before.column(at).to_numpy() | FLAG_UNCERTAIN, pa.uint8())
    return before.set_column(at, before.schema.field(at), flags)


def outgrown(manifest: Manifest) -> bool:
    """Say whether a baseline's overlay has grown past its share of the base."""
    overlay = manifest.overlay
    return overlay is not None and overlay.rows > OVERLAY_SHARE * manifest.base.rows


def compact(store: SignatureStore, baseline: Baseline, generation: int) -> Manifest | None:
    """Merge an overlay that has grown past its share into a new base; None if it has not."""
    manifest = baseline.manifest
    if manifest is None or not outgrown(manifest):
        return None
    folder = store.workspace(manifest.sync_id)
    schema = entry_shape(baseline.overlay.schema, baseline.base.schema)
    base = _write(folder, "base", schema, merged(baseline.overlay, baseline.base, keep_deleted=False))
    store.put(manifest.sync_id, folder / base.name)
    compacted = msgspec.structs.replace(manifest, base=base, overlay=None, generation=generation)
    publish(store, compacted)
    return compacted


def reflag(
    store: SignatureStore, baseline: Baseline, changed: Sequence[tuple[np.ndarray, int]], generation: int
) -> Manifest:
    """Give live entries, by their positions, other flags: a baseline that is otherwise the same."""
    manifest = baseline.manifest
    assert manifest is not None  # noqa: S101 -- there are entries
    parts = []
    for positions, flags in changed:
        for batch in baseline.take(positions).to_batches():
            at = batch.schema.get_field_index("flags")
            column = pa.array(np.full(batch.num_rows, flags, dtype=np.uint8))
            parts.append(batch.set_column(at, batch.schema.field(at), column))
    newer = segment_of(parts)
    folder = store.workspace(manifest.sync_id)
    schema = entry_shape(newer.schema, baseline.overlay.schema)
    overlay = _write(folder, "overlay", schema, merged(newer, baseline.overlay, keep_deleted=True))
    store.put(manifest.sync_id, folder / overlay.name)
    flagged = msgspec.structs.replace(manifest, overlay=overlay, generation=generation)
    publish(store, flagged)
    return flagged


def logged_keys(changes: ChangeSet, keys: Collection[bytes]) -> set[bytes]:
    """Say which of a few primary key signatures a change set has write records for."""
    wanted = pa.array(list(keys), pa.binary())
    found: set[bytes] = set()
    for path in (changes.deletes, changes.updates, changes.creates):
        if path.exists():
            for batch in read_log(path, columns=["primary_key_signature"]):
                column = batch.column(0).cast(pa.binary())
                found.update(column.filter(pc.is_in(column, value_set=wanted)).to_pylist())
    return found
