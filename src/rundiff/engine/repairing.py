"""`rundiff verify`: compare baseline and destination, confirm assumed entries, and repair on request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from msgspec.structs import replace

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.segments import FLAG_ASSUMED, FLAG_UNCERTAIN
from rundiff.compare.guards import Figures, judge
from rundiff.destinations.contract import Readable
from rundiff.engine.candidate import reflag
from rundiff.engine.changeset import ChangeSet, Findings
from rundiff.engine.flow import deliver_changes, failing
from rundiff.engine.former import key_with_id
from rundiff.engine.forming import preparation_of, preparation_of_form
from rundiff.engine.log import UPDATES, LogWriter, log_schema
from rundiff.engine.lost import refusal
from rundiff.engine.planning import refuse_unfinished
from rundiff.engine.previous import LogKeys, PreviousRecords, logs_of
from rundiff.engine.run import Execution
from rundiff.engine.session import Session, StoredDestination
from rundiff.engine.starting import start
from rundiff.engine.verifying import CHUNK, Compared, Drift, Known, compare_rows, keys_at, readable
from rundiff.engine.views import Difference, Verification
from rundiff.errors import ConfigurationError, StateChanged, SyncMismatch
from rundiff.model import BaselineState, Counts, RunKind, RunResult
from rundiff.options import parse_duration
from rundiff.settings import SyncSettings
from rundiff.signing import signer_name
from rundiff.signing.preparing import Preparation
from rundiff.signing.rule import Form

__all__ = ["verify"]

Ints = npt.NDArray[np.int64]


def verify(session: Session, settings: SyncSettings, *, repair: bool, limit: int) -> Verification:
    """Compare what the destination holds with the baseline; with `repair`, write what differs again.

    Entries that were assumed and proved right are assumed no more. `limit` is the number of keys that are
    given as samples of each kind. Raises `BaselineLost` and `DestinationLost` like a run.
    """
    began = time.monotonic()
    name, held = session.sync.name, session.sync.held
    destination = readable(session.destination, name)
    refuse_unfinished(session.backends, session.sync)
    whole_run_held = held is not None and held.what == "run"
    if repair and whole_run_held:
        raise StateChanged(
            f"sync {name}: a whole run is held, which was judged against this baseline; `rundiff approve {name}` or "
            f"`rundiff discard {name}` first"
        )
    _refuse_other(session)
    known = _known(session, settings, destination)
    found = compare_rows(known, limit, session.backends.progress)
    warnings = _warnings(session, known, found)
    confirmed = _marked(known.baseline, np.flatnonzero(found.agreed))
    wrong = np.sort(np.concatenate([*found.drifted, found.missing]))
    folder = session.backends.home.new_spool(session.sync.sync_id)
    changes, unknown = _changes(known, wrong, folder) if repair else (0, wrong[:0])
    if not whole_run_held and len(confirmed) + len(unknown):
        # Another baseline would make a held run void.
        _reflag(session, known.baseline, [(confirmed, 0), (unknown, FLAG_UNCERTAIN)])
    made = (
        _repair(session, settings, ChangeSet(folder, _findings(session, known, changes))) if changes else None
    )
    return replace(
        _told(known, found, name, limit),
        confirmed=0 if whole_run_held else len(confirmed),
        assumed=_assumed(known.baseline) - (0 if whole_run_held else len(confirmed)),
        unrepaired=len(unknown),
        repair=made,
        warnings=warnings,
        seconds=time.monotonic() - began,
    )


def _refuse_other(session: Session) -> None:
    stored = StoredDestination.decode(session.sync.destination).identity
    given = session.destination.identity
    if given != stored:
        raise SyncMismatch(
            f"sync {session.sync.name} delivers to {stored}, not to {given}: name the destination that it has"
        )


def _known(session: Session, settings: SyncSettings, destination: Readable) -> Known:
    name = session.sync.name
    started = start(session.backends, settings, (session.destination, session.target), session.sync)
    if started.state is BaselineState.LOST:
        raise refusal(name, started.lost, session.destination)
    manifest = started.baseline.manifest
    if manifest is None:
        raise ConfigurationError(
            f"sync {name} has no baseline yet, so there is nothing to compare with; run `rundiff sync` first"
        )
    key = key_with_id(session.backends, manifest.signing_key_id)
    return Known(
        baseline=started.baseline,
        manifest=manifest,
        signing_key=key,
        preparation=_preparation(manifest.form, settings),
        previous=PreviousRecords(
            logs_of(session.backends.log, session.sync.sync_id),
            LogKeys(key, manifest.rekeyed_run, manifest.renames),
        ),
        destination=destination,
        target=session.target,
    )


def _preparation(form: Form, settings: SyncSettings) -> Preparation | None:
    try:
        return preparation_of_form(form, preparation_of(settings))
    except ConfigurationError:
        # A function that only the program knows which runs the sync: rows are compared as they are spelled.
        return None


def _marked(baseline: Baseline, positions: Ints) -> Ints:
    """Pick the entries that are assumed, or of unknown outcome."""
    flags = baseline.column_at("flags", positions)
    marked: Ints = positions[(flags & (FLAG_ASSUMED | FLAG_UNCERTAIN)) != 0]
    return marked


def _assumed(baseline: Baseline) -> int:
    live = np.flatnonzero(baseline.live_mask())
    return len(_marked(baseline, live))


def _reflag(session: Session, baseline: Baseline, changed: Sequence[tuple[Ints, int]]) -> None:
    """Give entries other flags, by a new manifest that is current at once."""
    backends, sync = session.backends, session.sync
    manifest = reflag(backends.store, baseline, changed, sync.generation + 1)
    sync = msgspec.structs.replace(sync, manifest=manifest.name, generation=manifest.generation)
    backends.database.set_sync(sync, session.token)
    session.sync = sync
    backends.store.swap_manifest(sync.sync_id, manifest.name, session.token)


def _changes(known: Known, wrong: Ints, folder: Path) -> tuple[int, Ints]:
    """Write write records for rows that differ; gives their number, and the positions of unknown records.

    All of them are updates, for the baseline has their keys; an update of a row that is not there
    inserts it (duty 8 of a destination).
    """
    baseline = known.baseline
    table = baseline.take(wrong)
    kind = known.previous.data_type(table.column("written_run").to_numpy())
    if table.num_rows == 0 or pa.types.is_null(kind):
        return 0, wrong
    schema = log_schema(table.schema.field("primary_key").type, kind)
    unknown: list[Ints] = [wrong[:0]]
    with LogWriter(folder / UPDATES) as writer:
        for start_row in range(0, table.num_rows, CHUNK):
            batch = table.slice(start_row, CHUNK).combine_chunks().to_batches()[0]
            keys, signatures = batch.column("primary_key_signature"), batch.column("data_signature")
            written = batch.column("written_run").to_numpy().astype(np.int64)
            data = known.previous.fetch(keys, written, kind)
            records = pa.RecordBatch.from_arrays(
                [
                    *(keys, signatures, batch.column("primary_key"), data),
                    pa.nulls(batch.num_rows, pa.list_(pa.string())),
                ],
                schema=schema,
            )
            writer.write(records.filter(data.is_valid()))
            without = data.is_null()
            if pc.any(without).as_py():
                _, position = baseline.lookup.probe(keys.filter(without), signatures.filter(without))
                unknown.append(position)
    return writer.rows, np.sort(np.concatenate(unknown))


def _findings(session: Session, known: Known, updates: int) -> Findings:
    manifest = known.manifest
    counts = dict.fromkeys(Counts.__struct_fields__, 0) | {"updated": updates}
    for name in ("deletes_held", "written", "failed"):
        del counts[name]
    return Findings(
        sync_id=session.sync.sync_id,
        name=session.sync.name,
        source=session.sync.source,
        primary_key=manifest.primary_key,
        destination=session.destination.identity,
        new_action=str(session.destination.capabilities.new_action),
        manifest=session.sync.manifest,
        baseline=str(BaselineState.FOUND),
        baseline_records=known.baseline.live,
        fields=manifest.fields,
        form=manifest.form,
        left_out=manifest.left_out,
        pins=manifest.pins,
        # What earlier readings found stays as it is: a repair reads no source.
        complete=False,
        reasons=(),
        ends_with_newline=manifest.ends_with_newline,
        newlines=manifest.newlines,
        signing_key_id=manifest.signing_key_id,
        counts=counts,
        samples={},
        warnings=(),
        signer=signer_name(),
    )


def _repair(session: Session, settings: SyncSettings, changes: ChangeSet) -> RunResult:
    """Deliver write records in a run of their own; a guard may hold it."""
    execution = Execution.begin(session, RunKind.REPAIR, Baseline.empty())
    with failing(execution):
        where = (session.destination, session.target)
        execution.begin_from(start(session.backends, settings, where, session.sync))
        findings = msgspec.structs.replace(changes.findings, manifest=session.sync.manifest)
        updates = findings.counts["updated"]
        figures = Figures(baseline=findings.baseline_records, read=0, creates=0, updates=updates, deletes=0)
        verdict = judge(figures, settings.guards)
        if verdict.hold_run is not None:
            expires = parse_duration(settings.guards.approval_expires, "approval_expires")
            findings = msgspec.structs.replace(
                findings, hold_run=verdict.hold_run, expires_at=session.backends.database.now() + expires
            )
        changes = ChangeSet(changes.folder, findings)
        changes.save()
        if verdict.hold_run is not None:
            return execution.hold(changes)
        return deliver_changes(execution, execution.seal(changes), settings)


def _told(known: Known, found: Compared, name: str, limit: int) -> Verification:
    drifted, [repeated] = found.drifted[0], found.repeated
    chosen = {
        "drifted": [*list(found.drifts), *(p for p in drifted[:limit].tolist() if p not in found.drifts)][
            :limit
        ],
        "missing": found.missing[:limit].tolist(),
        "repeated": repeated[:limit].tolist(),
    }
    keys = keys_at(known.baseline, {position for positions in chosen.values() for position in positions})
    nothing = Drift({}, {})
    sample = [
        Difference(
            kind=kind,
            primary_key=keys[position],
            expected=found.drifts.get(position, nothing).expected if kind == "drifted" else {},
            found=found.drifts.get(position, nothing).found if kind == "drifted" else {},
        )
        for kind, positions in chosen.items()
        for position in positions
    ]
    sample += [Difference(kind="foreign", primary_key=key) for key in found.foreign_keys]
    return Verification(
        sync=name,
        records=known.baseline.live,
        rows=found.rows,
        agreed=int(np.count_nonzero(found.agreed)),
        drifted=len(drifted),
        missing=len(found.missing),
        repeated=len(repeated),
        foreign=found.foreign,
        unverified=len(found.unverified[0]),
        unread=tuple(found.unread),
        sample=sample,
    )


def _warnings(session: Session, known: Known, found: Compared) -> tuple[str, ...]:
    warnings = list(session.warnings)
    if found.rows == 0 and known.baseline.live:
        done = session.sync.acknowledged
        stands = "" if done is None else f", though its watermark says that run {done.run} was delivered"
        warnings.append(f"the destination holds no rows at all{stands}: it was emptied")
    return tuple(warnings)
