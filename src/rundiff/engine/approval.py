"""Approve or discard what a guard holds; apply a plan: change sets that get a run of their own."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from rundiff.baseline.baseline import Baseline
from rundiff.database.contract import Held
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.finding import Started
from rundiff.engine.flow import deliver_changes, failing
from rundiff.engine.held import shown_time, still_deletable
from rundiff.engine.lost import refusal
from rundiff.engine.run import Execution, sweep
from rundiff.engine.session import Session
from rundiff.engine.starting import start
from rundiff.errors import StateChanged
from rundiff.model import BaselineState, RunKind, RunResult
from rundiff.settings import SyncSettings

__all__ = ["apply_changes", "approve", "discard"]


def _held(session: Session) -> Held:
    held = session.sync.held
    if held is None:
        raise StateChanged(
            f"sync {session.sync.name}: nothing is held; `rundiff show {session.sync.name}` tells more"
        )
    return held


def approve(session: Session, settings: SyncSettings, digest: str | None) -> RunResult:
    """Deliver what is held, once, in a run of its own."""
    name, held = session.sync.name, _held(session)
    if digest is not None and not held.digest.startswith(digest.lower()):
        raise StateChanged(
            f"sync {name}: what is held now is not what {digest} names: {held.count:,} {held.what} of run "
            f"{held.run} with digest {held.digest[:12]}. Look at `rundiff show {name}`, then approve that"
        )
    if held.expires_at is not None and session.backends.database.now() > held.expires_at:
        raise StateChanged(
            f"sync {name}: what run {held.run} holds could be approved until {shown_time(held.expires_at)} only "
            "(approval_expires). Run the sync again, which judges anew what the source holds now"
        )
    execution = Execution.begin(session, RunKind.APPROVE, Baseline.empty())
    with failing(execution):
        started = _start(session, settings)
        if started.state is BaselineState.LOST:
            raise refusal(name, started.lost, session.destination)
        execution.begin_from(started)
        kept = ChangeSet.load(session.backends.log.held(session.sync.sync_id, held.run))
        folder = session.backends.home.new_spool(session.sync.sync_id)
        changes = ChangeSet(folder, kept.findings)
        if held.what == "deletions":
            changes = _deletions(kept, changes, execution.baseline)
        else:
            _refuse_moved(session, held.manifest, "the held run")
            for path in kept.folder.iterdir():
                shutil.copyfile(path, folder / path.name)
            memory = kept.findings.memory and replace(kept.findings.memory, recent=())
            changes = ChangeSet(
                folder,
                msgspec.structs.replace(kept.findings, hold_run=None, hold_deletions=None, memory=memory),
            )
        changes.save()
        sealed = execution.seal(changes)
        return deliver_changes(execution, sealed, settings)


def _start(session: Session, settings: SyncSettings) -> Started:
    return start(session.backends, settings, (session.destination, session.target), session.sync)


def _deletions(kept: ChangeSet, changes: ChangeSet, baseline: Baseline) -> ChangeSet:
    rows, digest = still_deletable(kept, changes.deletes, baseline, None)
    before = kept.findings
    manifest = baseline.manifest
    counts = dict.fromkeys(before.counts, 0)
    return ChangeSet(
        changes.folder,
        msgspec.structs.replace(
            before,
            counts={**counts, "deleted": rows},
            hold_deletions=None,
            digest=digest,
            # What earlier readings found stays as it is: an approval reads nothing. But it says that there
            # are fewer records from now on, so the usual number of them is not known any more.
            complete=False,
            memory=None if manifest is None else replace(manifest.memory, recent=()),
            reasons=(),
            samples={},
            warnings=(),
            aside=(),
            fields=before.fields if manifest is None else manifest.fields,
            form=before.form if manifest is None else manifest.form,
            left_out=before.left_out if manifest is None else manifest.left_out,
            signing_key_id=before.signing_key_id if manifest is None else manifest.signing_key_id,
            renewed=None,
            rekeyed=False,
            # The held run has gone over to them; what was accepted since is for the next full run.
            renamed={},
            accepted=None,
            pins=before.pins if manifest is None else manifest.pins,
            ends_with_newline=before.ends_with_newline if manifest is None else manifest.ends_with_newline,
        ),
    )


def _refuse_moved(session: Session, manifest: str | None, what: str) -> None:
    if session.sync.manifest != manifest:
        name = session.sync.name
        raise StateChanged(
            f"sync {name}: {what} was judged against an earlier baseline, which has moved since. Nothing was "
            f"written. Run `rundiff plan` or `rundiff sync` again"
        )


def discard(session: Session) -> Held:
    """Drop what is held."""
    held = _held(session)
    sync = msgspec.structs.replace(session.sync, held=None)
    session.backends.database.set_sync(sync, session.token)
    session.sync = sync
    sweep(session)
    return held


def apply_changes(session: Session, settings: SyncSettings, changes: ChangeSet) -> RunResult:
    """Deliver a plan's change set under a number of its own."""
    execution = Execution.begin(session, RunKind.SYNC, Baseline.empty())
    with failing(execution):
        started = _start(session, settings)
        execution.begin_from(started)
        _refuse_moved(session, changes.findings.manifest, "the plan")
        if str(started.state) != changes.findings.baseline:
            _refuse_moved(session, "", "the plan")
        target = session.backends.home.new_spool(session.sync.sync_id)
        for path in changes.folder.iterdir():
            os.replace(path, target / path.name)
        findings = changes.findings
        if findings.expires_at is not None:
            until = session.backends.database.now() + timedelta(hours=findings.approvable_hours)
            findings = replace(findings, expires_at=until)
        moved = ChangeSet(target, findings)
        if moved.findings.hold_run is not None:
            return execution.hold(moved)
        return deliver_changes(execution, execution.seal(moved), settings)
