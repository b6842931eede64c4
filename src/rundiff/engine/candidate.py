"""The baseline that a run leaves, built before its commit and named by it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.manifest import Manifest
from rundiff.baseline.merge import merged
from rundiff.baseline.order import argsort, words
from rundiff.baseline.segments import (
    FLAG_DELETED,
    FLAG_UNCERTAIN,
    Segment,
    SegmentInfo,
    entries,
    entry_schema,
    write_segment,
)
from rundiff.durable import write_file
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.log import log_type, read_log
from rundiff.model import Match
from rundiff.signing.contract import FORMAT_VERSION
from rundiff.stores.contract import SignatureStore

__all__ = [
    "OVERLAY_SHARE",
    "Unwritten",
    "build_candidate",
    "compact",
    "digest_of",
    "logged_keys",
    "newer_entries",
    "publish",
]

OVERLAY_SHARE = 0.2
"""An overlay past this share of the base is merged into a new base."""

_COLUMNS = ["primary_key_signature", "data_signature", "primary_key"]


def build_candidate(
    store: SignatureStore,
    baseline: Baseline,
    changes: ChangeSet,
    run: tuple[str, int, int],
    unwritten: Unwritten | None = None,
) -> Manifest:
    """Write the segments of the baseline after (sync_id, run, generation), and its manifest."""
    unwritten = unwritten or Unwritten()
    sync_id, number, generation = run
    folder = store.workspace(sync_id)
    first = baseline.positions == 0
    base: SegmentInfo | None = None if baseline.manifest is None else baseline.manifest.base
    overlay = None if baseline.manifest is None else baseline.manifest.overlay
    if first and not changes.entries.exists() and not unwritten:
        base, live = _first_base(folder, changes, number)
    else:
        newer, added = newer_entries(changes, number, unwritten, baseline)
        live = baseline.live + added + _unknown_deletions(changes, baseline)
        if first:
            base = _write(folder, "base", newer.schema, iter(newer.batches))
        elif newer.rows:
            schema = entry_schema(
                unify_types(
                    newer.schema.field("primary_key").type, baseline.overlay.schema.field("primary_key").type
                )
            )
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
        pins=findings.pins,
        signature_format=FORMAT_VERSION,
        signing_key_id=findings.signing_key_id,
        invalid_keys=_last_complete(
            findings.complete, findings.counts["invalid_keys"], before and before.invalid_keys
        )
        or 0,
        ends_with_newline=_last_complete(
            findings.complete, findings.ends_with_newline, before and before.ends_with_newline
        ),
        newlines=_last_complete(findings.complete, findings.newlines, before and before.newlines),
    )
    publish(store, manifest)
    return manifest


def _last_complete(complete: bool, now: Any, before: Any) -> Any:
    return now if complete or before is None else before


def publish(store: SignatureStore, manifest: Manifest) -> None:
    """Put a manifest into the store; nothing points to it yet."""
    path = store.workspace(manifest.sync_id) / manifest.name
    write_file(path, manifest.encode())
    store.put(manifest.sync_id, path)


def _write(folder: Path, kind: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> SegmentInfo:
    return write_segment(folder / f"{kind}-{uuid.uuid4().hex}.arrow", schema, batches)


def _first_base(folder: Path, changes: ChangeSet, run: int) -> tuple[SegmentInfo, int]:
    """Stream the creates, which are sorted, straight into a base."""
    if not changes.creates.exists():
        empty = Segment.empty(pa.struct([]))
        return _write(folder, "base", empty.schema, iter([])), 0
    schema = entry_schema(log_type(changes.creates, "primary_key"))
    batches = (
        entries((batch.column(0), batch.column(1)), batch.column(2), run)
        for batch in read_log(changes.creates, columns=_COLUMNS)
    )
    info = _write(folder, "base", schema, batches)
    return info, info.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwritten:
    """The primary key signatures of write records that were not written, or may not have been."""

    refused: Collection[bytes] = ()
    """Their entries stay as they were."""
    unknown: Collection[bytes] = ()
    """Their entries become uncertain: they differ from everything and count as present."""

    def __bool__(self) -> bool:
        return bool(self.refused or self.unknown)


def newer_entries(
    changes: ChangeSet, run: int, unwritten: Unwritten, baseline: Baseline
) -> tuple[Segment, int]:
    """Gather a run's entries in memory, sorted; also by how much the live keys grow.

    `baseline` is the one before the run.
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
        for batch in read_log(path, columns=_COLUMNS):
            kept = _select(batch, (*unwritten.refused, *unwritten.unknown), members=False)
            added += growth * kept.num_rows
            parts.append(entries((kept.column(0), kept.column(1)), kept.column(2), run, flags))
            unknown = _select(batch, unwritten.unknown, members=True)
            if unknown.num_rows and flags == FLAG_DELETED:
                parts.append(_perhaps_deleted(unknown, baseline))
            elif unknown.num_rows:
                added += growth * unknown.num_rows
                parts.append(
                    entries((unknown.column(0), unknown.column(1)), unknown.column(2), run, FLAG_UNCERTAIN)
                )
    if changes.entries.exists():
        with pa.memory_map(str(changes.entries)) as source:
            for batch in pa.ipc.open_file(source).read_all().to_batches():
                parts.append(batch)
                added += batch.num_rows
    kind: pa.DataType = pa.null()
    for part in parts:
        kind = unify_types(kind, part.schema.field("primary_key").type)
    if pa.types.is_null(kind):
        kind = pa.struct([])
    schema = entry_schema(kind)
    alike = [
        pa.RecordBatch.from_arrays([*p.columns[:-1], conform(p.columns[-1], kind)], schema=schema)
        for p in parts
    ]
    table = pa.Table.from_batches(alike, schema)
    order = argsort(words(table.column("primary_key_signature")))
    return Segment(table.take(pa.array(order)).combine_chunks().to_batches(), schema), added


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


def compact(store: SignatureStore, baseline: Baseline, generation: int) -> Manifest | None:
    """Merge an overlay that has grown past its share into a new base; None if it has not."""
    manifest = baseline.manifest
    if manifest is None or baseline.overlay.rows <= OVERLAY_SHARE * baseline.base.rows:
        return None
    folder = store.workspace(manifest.sync_id)
    schema = entry_schema(baseline.primary_key_type)
    base = _write(folder, "base", schema, merged(baseline.overlay, baseline.base, keep_deleted=False))
    store.put(manifest.sync_id, folder / base.name)
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    compacted = Manifest(**{**fields, "base": base, "overlay": None, "generation": generation})
    publish(store, compacted)
    return compacted


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
