"""Look at syncs, runs, write records and schemas, without changing anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec.structs import replace

from rundiff.baseline.manifest import Manifest
from rundiff.baseline.order import SIGNATURE
from rundiff.database.contract import StoredRun, StoredSync
from rundiff.database.logs import LogPart
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.former import key_with_id
from rundiff.engine.forming import form_words
from rundiff.engine.log import CREATES, DELETES, FILES, UPDATES, read_log
from rundiff.engine.previous import LogKeys, PreviousRecords, logs_of, rekeyed
from rundiff.engine.reading import SAMPLES
from rundiff.engine.records import values
from rundiff.engine.renaming import renames_now
from rundiff.engine.report import failed_result, result_from_json
from rundiff.engine.session import Backends, StoredDestination
from rundiff.engine.views import Change, FieldSchema, HeldSet, HistoryEntry, RunView, SyncView
from rundiff.errors import BaselineLost, ConfigurationError, RundiffError, StorageError
from rundiff.model import Action, RecordStatus, RunStatus
from rundiff.signing import SigningKey, signature

__all__ = ["find_sync", "history", "plan_sample", "run_view", "schema", "sync_view"]


def find_sync(backends: Backends, name: str) -> StoredSync:
    """Find a sync, or raise with the names that exist."""
    sync = backends.database.find(name)
    if sync is None:
        names = ", ".join(s.name for s in backends.database.syncs()) or "none yet"
        raise ConfigurationError(
            f"there is no sync {name} in {backends.database.place} (there: {names}); check the name and "
            f"{'--home' if backends.database.lease_seconds is None else '--database'}"
        )
    return sync


def current_manifest(backends: Backends, sync: StoredSync) -> Manifest | None:
    """Read a sync's manifest; None if there is none, or it is lost or damaged."""
    path = None if sync.manifest is None else backends.store.get(sync.sync_id, sync.manifest)
    if sync.manifest is None or path is None:
        return None
    try:
        return Manifest.decode(sync.manifest, path.read_bytes())
    except BaselineLost:
        return None


def sync_view(backends: Backends, sync: StoredSync, running: str | None) -> SyncView:
    """Describe a sync."""
    runs = backends.database.runs(sync.sync_id, limit=1)
    last = runs[0] if runs else None
    manifest = current_manifest(backends, sync)
    counts = None
    if last is not None and last.result:
        counts = result_from_json(last.result).counts
    return SyncView(
        name=sync.name,
        sync_id=sync.sync_id,
        primary_key=sync.primary_key,
        source=sync.source,
        destination=StoredDestination.decode(sync.destination).identity,
        records=0 if manifest is None else manifest.live,
        last_run=None if last is None else last.run,
        last_status=None if last is None else str(last.status),
        last_finished=None if last is None else last.finished_at,
        last_counts=counts,
        held=held_view(backends, sync),
        quarantined=len(backends.database.failures(sync.sync_id)),
        signing_key_id=None if manifest is None else manifest.signing_key_id,
        running=running,
    )


def held_view(backends: Backends, sync: StoredSync) -> HeldSet | None:
    """Describe what is held, with a sample of its keys."""
    held = sync.held
    if held is None:
        return None
    sample: list[dict[str, Any]] = []
    folder = backends.log.held(sync.sync_id, held.run)
    # Damaged files are told when they are approved; they must not stand in the way of looking.
    with suppress(StorageError):
        for name in FILES:
            if (folder / name).exists() and len(sample) < SAMPLES:
                batch = next(read_log(folder / name, SAMPLES, ["primary_key"]))
                sample += values(batch.column(0))
    return HeldSet(
        run=held.run,
        what=held.what,
        count=held.count,
        reason=held.reason,
        digest=held.digest,
        sample=sample[:SAMPLES],
        expires_at=held.expires_at,
    )


def run_view(sync: StoredSync, run: StoredRun) -> RunView:
    """Describe a run."""
    details = run.details
    held_reason = details.get("held_reason")
    known = bool(run.result) and not details.get("cut_off")
    if known:
        result = result_from_json(run.result, held_reason)
    else:
        ended = run.status == RunStatus.DISCARDED
        why = "the run was cut off" if ended else "the run is under way, or was cut off"
        why += " before it noted what it found; nothing was delivered"
        result = replace(
            failed_result(sync.name, (run.run, run.kind), why, 0.0), status=RunStatus(run.status)
        )
    samples = {**details.get("samples", {})}
    if details.get("failed"):
        samples["failed"] = details["failed"]
    return RunView(
        result=result,
        started_at=run.started_at,
        finished_at=run.finished_at,
        complete_reasons=details.get("reasons", []),
        samples=samples,
        signer=details.get("signer", "python"),
        pending=details.get("pending", 0),
        known=known,
    )


def schema(backends: Backends, sync: StoredSync) -> Sequence[FieldSchema]:
    """List the fields with their pinned types and roles."""
    manifest = current_manifest(backends, sync)
    if manifest is None:
        raise ConfigurationError(f"sync {sync.name} has no committed run yet, and so no schema")
    names = [*manifest.fields, *(n for n in manifest.pins if n not in manifest.fields)]
    order = list(manifest.pins)
    names.sort(key=lambda name: order.index(name) if name in manifest.pins else len(order))

    def role(name: str) -> str:
        if name in sync.primary_key:
            return "key"
        if name in manifest.fields:
            return "compared"
        return "excluded" if name in manifest.excluded else "dropped"

    return [
        FieldSchema(
            name=name,
            type=manifest.pins.get(name, "null"),
            role=role(name),
            form=form_words(manifest.form, name, names) if role(name) != "key" else (),
        )
        for name in names
    ]


def _status(run: StoredRun, sequence: int, sync: StoredSync, failed: Mapping[int, str]) -> RecordStatus:
    if sequence in failed:
        return RecordStatus.FAILED
    done = sync.acknowledged
    if done is not None and (run.run, sequence) <= (done.run, done.sequence):
        return RecordStatus.WRITTEN
    return RecordStatus.WRITTEN if run.manifest is not None else RecordStatus.PENDING


def history(backends: Backends, sync: StoredSync, key: Mapping[str, Any]) -> Sequence[HistoryEntry]:
    """Find every write record of one key, oldest first."""
    manifest = current_manifest(backends, sync)
    wanted = _Wanted(
        key_signature(backends, sync, key),
        LogKeys(key_of(backends, manifest), 0 if manifest is None else manifest.rekeyed_run),
    )
    entries: list[HistoryEntry] = []
    before: Mapping[str, Any] | None = None
    runs = backends.log.runs_of(sync.sync_id, [wanted.signature])
    for run in reversed(backends.database.runs(sync.sync_id)):
        if run.sealed is None or (runs is not None and run.run not in runs and run.run >= wanted.keys.since):
            continue
        found = _record(backends, sync, run, wanted)
        if found is None:
            continue
        sequence, action, record = found
        failed = {f.sequence: f.error for f in backends.database.failures(sync.sync_id, run.run)}
        after = None if action is Action.DELETE else record["data"]
        change = Change(
            action=action,
            primary_key=record["primary_key"],
            before=before if before is not None or action is not Action.DELETE else record["data"],
            after=after,
            changed_fields=None if record["changed_fields"] is None else tuple(record["changed_fields"]),
        )
        entries.append(
            HistoryEntry(
                run=run.run,
                sequence=sequence,
                at=run.finished_at or run.started_at,
                change=change,
                status=str(_status(run, sequence, sync, failed)),
            )
        )
        if entries[-1].status != RecordStatus.FAILED:
            before = after
    return entries


def key_signature(backends: Backends, sync: StoredSync, key: Mapping[str, Any]) -> bytes:
    """Sign the key of one record; text is matched to the key's pinned types."""
    missing = [name for name in sync.primary_key if name not in key]
    if missing:
        raise ConfigurationError(
            f"sync {sync.name} has the primary key {', '.join(sync.primary_key)}; {', '.join(missing)} is not given"
        )
    manifest = current_manifest(backends, sync)
    values = {}
    for name in sync.primary_key:
        value = key[name]
        pin = None if manifest is None else manifest.pins.get(name)
        if isinstance(value, str) and pin is not None:
            value = _as_pinned(value, pin, sync.name, name)
        values[name] = value
    signing_key = key_of(backends, manifest)
    return signature(values, key=None if signing_key is None else signing_key.secret)


def _as_pinned(value: str, pin: str, sync: str, name: str) -> Any:
    from rundiff.sources.pins import arrow_type_of

    if pin in ("text", "json", "mixed"):
        return value
    try:
        kind = arrow_type_of(pin)
        return pa.array([value]).cast(kind)[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, RundiffError) as error:
        raise ConfigurationError(
            f"sync {sync}: {value!r} is no {pin}, the type of key field {name}"
        ) from error


def key_of(backends: Backends, manifest: Manifest | None) -> SigningKey | None:
    """Give the signing key of a baseline; the one that runs use where there is none."""
    return backends.signing_key if manifest is None else key_with_id(backends, manifest.signing_key_id)


class _Wanted(msgspec.Struct, frozen=True):
    """The key of one record."""

    signature: bytes
    keys: LogKeys


def _record(
    backends: Backends, sync: StoredSync, run: StoredRun, wanted: _Wanted
) -> tuple[int, Action, dict[str, Any]] | None:
    sealed = run.sealed
    if sealed is None:
        return None
    part = (
        LogPart(folder=backends.log.folder(sync.sync_id, run.run))
        if run.run < wanted.keys.since
        else backends.log.part(sync.sync_id, run.run, pa.array([wanted.signature], SIGNATURE))
    )
    anew = run.run < wanted.keys.since and wanted.keys.other(part.folder)
    offset = 0
    for name, rows, action in (
        (DELETES, sealed.deletes, Action.DELETE),
        (UPDATES, sealed.updates, Action.UPDATE),
        (CREATES, sealed.creates, Action(sealed.new_action)),
    ):
        if rows and (part.folder / name).exists():
            at = _find(part.folder / name, wanted, anew=anew)
            if at is not None:
                return offset + part.row_in_log(name, at[0]) + 1, action, at[1]
        offset += rows
    return None


def _find(path: Path, wanted: _Wanted, *, anew: bool) -> tuple[int, dict[str, Any]] | None:
    """Find one signature in a sorted log file by its row groups' bounds; or in one that is to be signed anew."""
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            meta = file.metadata.row_group(group)
            bounds = meta.column(0).statistics
            if anew or bounds.min <= wanted.signature <= bounds.max:
                column = "primary_key" if anew else "primary_key_signature"
                keys = file.read_row_group(group, columns=[column]).column(0)
                if anew:
                    keys = rekeyed(keys.combine_chunks(), wanted.keys.key)
                row = pc.index(keys.cast(pa.binary()), wanted.signature).as_py()
                if row >= 0:
                    found = file.read_row_group(group).slice(row, 1).combine_chunks().to_batches()[0]
                    record = {name: values(found.column(name))[0] for name in found.schema.names}
                    return start + row, record
            start += meta.num_rows
    return None


def plan_sample(backends: Backends, changes: ChangeSet, sync: StoredSync | None) -> list[Change]:
    """Give the first few changes of each action, with what was there before."""
    sample: list[Change] = []
    manifest, findings = None if sync is None else current_manifest(backends, sync), changes.findings
    # Those of a run under another key know no record by the signatures of the plan.
    since = sys.maxsize if findings.rekeyed else 0 if manifest is None else manifest.rekeyed_run
    key = key_with_id(backends, findings.signing_key_id)
    keys = LogKeys(key, since, renames_now(manifest, findings.renamed))
    previous = PreviousRecords(logs_of(backends.log, sync.sync_id if sync else ""), keys)
    for path, action in (
        (changes.creates, Action(changes.findings.new_action)),
        (changes.updates, Action.UPDATE),
        (changes.deletes, Action.DELETE),
    ):
        if not path.exists():
            continue
        with pq.ParquetFile(path) as file:
            batch = next(file.iter_batches(batch_size=SAMPLES))
        before: list[Any] = [None] * batch.num_rows
        if action is Action.UPDATE:
            before = _last_data(
                backends,
                sync,
                previous,
                batch.column("primary_key_signature"),
                keys,
            )
        columns = {name: values(batch.column(name)) for name in batch.schema.names}
        records = [{name: column[row] for name, column in columns.items()} for row in range(batch.num_rows)]
        for record, old in zip(records, before, strict=True):
            deleted = action is Action.DELETE
            sample.append(
                Change(
                    action=action,
                    primary_key=record["primary_key"],
                    before=record["data"] if deleted else old,
                    after=None if deleted else record["data"],
                    changed_fields=record["changed_fields"] and tuple(record["changed_fields"]),
                )
            )
    return sample


def _last_data(
    backends: Backends,
    sync: StoredSync | None,
    previous: PreviousRecords,
    signatures: pa.Array,
    keys: LogKeys,
) -> list[Any]:
    """Find the newest data of a few records, run by run, newest first."""
    import numpy as np

    found: list[Any] = [None] * len(signatures)
    runs = [] if sync is None else [run.run for run in backends.database.runs(sync.sync_id)]
    # An index knows nothing of logs under another key.
    same_key = keys.since == 0
    named = (
        None if sync is None or not same_key else backends.log.runs_of(sync.sync_id, signatures.to_pylist())
    )
    for run in runs:
        if named is not None and run not in named:
            continue
        written = np.full(len(signatures), run, dtype=np.int64)
        kind = previous.prefetch(signatures, written)
        if pa.types.is_null(kind):
            continue
        for row, data in enumerate(values(previous.fetch(signatures, written, kind))):
            if found[row] is None:
                found[row] = data
        if all(data is not None for data in found):
            break
    return found
