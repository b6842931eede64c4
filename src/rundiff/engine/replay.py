"""What the write log of committed runs says, run after run: for `rebuild` and for full refreshes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import unify_types
from rundiff.baseline.manifest import Manifest, Memory
from rundiff.baseline.merge import entry_shape, merged, with_key_type
from rundiff.baseline.order import argsort, first_of_group, words
from rundiff.baseline.segments import Segment, entries, write_segment
from rundiff.database.contract import StoredRun
from rundiff.destinations.contract import Position
from rundiff.engine.anew import Anew
from rundiff.engine.candidate import newer_entries, publish, renames_of
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.former import key_with_id
from rundiff.engine.log import DELETES, read_log
from rundiff.engine.making import Making, signer_of
from rundiff.engine.previous import log_key_id, rekeyed
from rundiff.engine.run import sweep
from rundiff.engine.session import Backends, Session, generation_of
from rundiff.engine.settling import unwritten
from rundiff.errors import StateChanged
from rundiff.model import Match
from rundiff.signing.contract import FORMAT_VERSION

__all__ = ["deleted_since", "rebuild"]


def _committed(backends: Backends, sync_id: str) -> Iterator[StoredRun]:
    """Give the runs whose write log counts, oldest first: not those before a reset or rolled back."""
    for run in reversed(backends.database.runs(sync_id)):
        if run.sealed is not None and run.manifest is not None and "void" not in run.details:
            yield run


def rebuild(session: Session) -> Manifest:
    """Make the baseline anew from the write log; the destination is not touched."""
    backends, sync = session.backends, session.sync
    base: Segment | None = None
    overlay: Segment | None = None
    number = rekeyed_run = 0
    memory = Memory()
    runs = list(_committed(backends, sync.sync_id))
    for run in runs:
        if not session.log(run.run).exists():
            raise StateChanged(
                f"sync {sync.name}: the write log of run {run.run} is missing, so the baseline can't be made anew. "
                f"Run with --on-lost-baseline rebaseline or resend instead"
            )
    changes = [ChangeSet.load(session.log(run.run)) for run in runs]
    renames = tuple(
        one for run, last in zip(runs, changes, strict=True) for one in renames_of(last.findings, run.run)
    )
    for run, last in zip(runs, changes, strict=True):
        number, anew = run.run, Anew(backends, last.findings, changes[-1].findings, run.run, renames)
        if last.findings.rekeyed:
            rekeyed_run = number
        memory = last.findings.memory or memory
        making = Making(memory.partition_by, anew.key, signer_of(changes[-1].findings, anew.key))
        failures = backends.database.failures(sync.sync_id, run.run)
        before = Baseline.empty() if base is None or overlay is None else Baseline(base, overlay, None)
        newer, _ = newer_entries(last, run.run, unwritten(failures), before, making, anew)
        if base is None:
            base, overlay = newer, Segment([], newer.schema)
        elif overlay is not None and newer.rows:
            shape = entry_shape(newer.schema, overlay.schema)
            overlay = Segment(list(merged(newer, overlay, keep_deleted=True)), shape)
    if base is None or overlay is None:
        raise StateChanged(f"sync {sync.name} has no committed run whose write log could be replayed")
    folder = backends.store.workspace(sync.sync_id)
    info = write_segment(
        folder / f"base-{uuid.uuid4().hex}.arrow",
        entry_shape(overlay.schema, base.schema),
        merged(overlay, base, keep_deleted=False),
    )
    backends.store.put(sync.sync_id, folder / info.name)
    known = generation_of(backends.store.current_manifest(sync.sync_id))
    findings = changes[-1].findings
    manifest = Manifest(
        sync_id=sync.sync_id,
        run=number,
        generation=max(sync.generation, known) + 1,
        live=info.rows,
        base=info,
        overlay=None,
        primary_key=findings.primary_key,
        fields=findings.fields,
        form=findings.form,
        left_out=findings.left_out,
        rekeyed_run=rekeyed_run,
        renames=renames,
        pins=findings.pins,
        signature_format=FORMAT_VERSION,
        signing_key_id=findings.signing_key_id,
        invalid_keys=findings.counts["invalid_keys"],
        ends_with_newline=findings.ends_with_newline,
        # Partitions that an earlier choice of fields left count as unknown, so the next run signs all anew;
        # the cursor is forgotten, so the next incremental run reads everything.
        memory=Memory(recent=memory.recent),
    )
    publish(backends.store, manifest)
    sync = msgspec.structs.replace(sync, manifest=manifest.name, generation=manifest.generation)
    backends.database.set_sync(sync, session.token)
    session.sync = sync
    backends.store.swap_manifest(sync.sync_id, manifest.name, session.token)
    sweep(session)
    return manifest


def deleted_since(
    backends: Backends, sync_id: str, found: Position | None, baseline: Baseline
) -> pa.Table | None:
    """Give entries of keys that were deleted after `found` and that the baseline does not hold.

    A destination that was restored to an older state holds them again. `written_run` names the run
    whose log has their data: the one that deleted them.
    """
    parts: list[pa.Table] = []
    for run in _committed(backends, sync_id):
        path = backends.log.folder(sync_id, run.run) / DELETES
        last = Position(run=run.run, sequence=0 if run.sealed is None else run.sealed.deletes)
        if not path.exists() or (found is not None and found.reaches(last)):
            continue
        held = None if baseline.manifest is None else baseline.manifest.signing_key_id
        other = log_key_id(path.parent) != held
        key = key_with_id(backends, held) if other else None
        for logged in read_log(path, columns=["primary_key_signature", "data_signature", "primary_key"]):
            signatures = rekeyed(logged.column(2), key) if other else logged.column(0)
            batch = logged.set_column(0, logged.schema.field(0), signatures)
            match, _ = baseline.lookup.probe(batch.column(0), batch.column(1))
            gone = batch.filter(pa.array(match == Match.NEW))
            if gone.num_rows:
                made = entries((gone.column(0), gone.column(1)), gone.column(2), run.run)
                parts.append(pa.Table.from_batches([made]))
    if not parts:
        return None
    kind: pa.DataType = pa.null()
    for part in parts:
        kind = unify_types(kind, part.schema.field("primary_key").type)
    # The newest first, so that the first of a key is its last deletion.
    table = pa.concat_tables([with_key_type(part, kind) for part in reversed(parts)])
    keys = words(table.column("primary_key_signature"))
    order = argsort(keys)
    return table.take(pa.array(order[first_of_group(keys[order])]))
