"""The life of a run: reading, sealed, delivering, committed; or held, failed, discarded.

The only commit point is the database's transaction in `commit`. Everything that it names is durable
before; everything that no run names is garbage, which the next run sweeps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest
from rundiff.database.contract import Acknowledged, Failure, Held, Sealed, StoredRun, StoredSync
from rundiff.destinations.contract import Position, Renaming
from rundiff.engine.candidate import build_candidate, compact, digest_of, keep_renewed, outgrown
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.deletions import Looked
from rundiff.engine.delivery import Delivery, resume_position
from rundiff.engine.finding import Started
from rundiff.engine.former import key_with_id
from rundiff.engine.held import held_after
from rundiff.engine.keeping import lost_on_the_way
from rundiff.engine.report import details_of, failed_result, result_from_json, result_of
from rundiff.engine.session import Session, generation_of, open_baseline
from rundiff.engine.settling import looked_at, superseded, unwritten
from rundiff.errors import RundiffError
from rundiff.model import BaselineState, RunKind, RunResult, RunStatus
from rundiff.settings import SyncSettings
from rundiff.signing.preparing import Preparation

__all__ = ["Execution", "sweep"]

log = logging.getLogger("rundiff")

_WITHOUT_LOG = (RunStatus.DISCARDED, RunStatus.FAILED, RunStatus.READING)


class Execution:
    """One numbered run of a session."""

    def __init__(self, session: Session, run: StoredRun, baseline: Baseline) -> None:
        self.session = session
        self.run = run
        self.baseline = baseline
        self._began = time.monotonic()
        self.forget: tuple[str, ...] = ()
        self.preparation: Preparation | None = None
        """The form of values that the run signs, where it is at hand; else it is readied from its words."""
        self.settled: set[tuple[int, int]] = set()
        """Failures of earlier runs, as (run, sequence), that this run settles whatever it delivers."""

    @classmethod
    def begin(cls, session: Session, kind: RunKind, baseline: Baseline) -> Execution:
        """Number a run; it is reading from now on."""
        database, sync = session.backends.database, session.sync
        number = database.begin_run(sync.sync_id, session.token, kind, database.now())
        run = database.run(sync.sync_id, number)
        assert run is not None  # noqa: S101 -- just begun
        return cls(session, run, baseline)

    def begin_from(self, started: Started) -> None:
        """Take over what was found at the start."""
        self.baseline, self.forget = started.baseline, started.forget

    @property
    def _sync(self) -> StoredSync:
        return self.session.sync

    def _store(self, **values: Any) -> None:
        self.run = msgspec.structs.replace(self.run, token=self.session.token, **values)
        self.session.backends.database.update_run(self.run)

    def _now(self) -> datetime:
        return self.session.backends.database.now()

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    # Sealing

    def seal(self, changes: ChangeSet, looked: Looked | None = None) -> ChangeSet:
        """Make the write log and the candidate baseline durable under this run's number."""
        findings, number = changes.findings, self.run.run
        held = held_after(self.session, changes, self.baseline, looked, number)
        counts = findings.counts
        log, sync_id = self.session.backends.log, self._sync.sync_id
        action = findings.new_action
        keep_renewed(self.session.backends.store, changes, sync_id)
        folder = log.seal(sync_id, number, self.session.token, changes.folder, new_action=action)
        changes = ChangeSet(folder, findings)
        if looked is not None and not findings.whole:
            self.settled |= looked_at(self._before(), self.baseline, looked)
        if self.run.kind in (RunKind.RETRY, RunKind.REPAIR):
            # They read nothing, and so judge nothing that is held.
            held = self._sync.held
        store = self.session.backends.store
        # Past the store's, too, which is ahead where the database was restored from an older copy.
        generation = max(self._sync.generation, generation_of(store.current_manifest(sync_id))) + 1
        manifest = build_candidate(
            store,
            self.baseline,
            changes,
            (sync_id, number, generation),
            signing=(key_with_id(self.session.backends, findings.signing_key_id), self.preparation),
        )
        done = self._sync.acknowledged or Acknowledged(0, 0)
        sealed = Sealed(
            deletes=0 if findings.hold_deletions else counts["deleted"],
            updates=counts["updated"],
            creates=counts["created"],
            new_action=findings.new_action,
            manifest=manifest.name,
            generation=generation,
            start_run=done.run,
            start_sequence=done.sequence,
            start_marker=done.marker,
            held=held,
            complete=findings.complete,
            forget=self.forget,
            at=self._now(),
        )
        result = self._result(findings, RunStatus.SEALED)
        self._store(
            status=RunStatus.SEALED, sealed=sealed, result=result.as_json(), details=details_of(findings)
        )
        return changes

    def hold(self, changes: ChangeSet) -> RunResult:
        """Hold the whole run: keep its change set for an approval, deliver nothing."""
        findings, number = changes.findings, self.run.run
        log = self.session.backends.log
        folder = log.hold(self._sync.sync_id, number, self.session.token, changes.folder)
        counts = findings.counts
        held = Held(
            run=number,
            what="run",
            count=counts["created"] + counts["updated"] + counts["deleted"],
            reason=findings.hold_run or "",
            digest=digest_of(ChangeSet(folder, findings)),
            manifest=findings.manifest,
            expires_at=findings.expires_at,
        )
        result = self._result(findings, RunStatus.HELD)
        run = msgspec.structs.replace(
            self.run,
            token=self.session.token,
            status=RunStatus.HELD,
            finished_at=self._now(),
            result=result.as_json(),
            details=details_of(findings),
        )
        sync = msgspec.structs.replace(self._sync, held=held)
        self.session.backends.database.commit(run, sync, ())
        self.run = run
        return result

    # Delivering

    def deliver(self, changes: ChangeSet, settings: SyncSettings) -> Delivery | None:
        """Send the write records out, from wherever an earlier try came to."""
        sealed = self.run.sealed
        assert sealed is not None  # noqa: S101 -- only sealed runs are delivered
        session = self.session
        resumed = self.run.status is RunStatus.DELIVERING
        if not resumed and not self._sync.established:
            # From here on the destination holds something: key and destination are fixed.
            session.sync = msgspec.structs.replace(self._sync, established=True)
            session.backends.database.set_sync(session.sync, session.token)
        if changes.findings.renamed and session.destination.capabilities.renames:
            # Before the run counts as delivering: who may not rename, or has an index in the way, is not bound to it.
            cast("Renaming", session.destination).rename(session.target, changes.findings.renamed)
        if not resumed:
            self._store(status=RunStatus.DELIVERING)
        if sealed.total == 0 and not sealed.forget:
            return None
        delivery = Delivery(
            database=session.backends.database,
            destination=session.destination,
            target=session.target,
            run=self.run.run,
            sealed=sealed,
            folder=changes.folder,
            batch_size=settings.batch_size,
            max_failures=settings.max_failures,
            progress=session.backends.progress,
        )
        done = self._sync.acknowledged
        begun = resumed and (not sealed.forget or (done is not None and done.run == self.run.run))
        if sealed.forget and not begun:
            session.destination.forget(session.target, sealed.forget)
        delivery.prepare()
        start = Position(run=sealed.start_run, sequence=sealed.start_sequence)
        if begun:
            start = resume_position(
                session.destination, session.target, self.run.run, sealed, self._sync.acknowledged
            )
        delivery.go(start)
        session.refresh()
        return delivery

    # Committing

    def commit(self, changes: ChangeSet, *, position: Acknowledged | None = None) -> RunResult:
        """Make this run's baseline the current one; raises `Fenced` if another run took over."""
        sealed, findings = self.run.sealed, changes.findings
        assert sealed is not None  # noqa: S101 -- only sealed runs are committed
        session, database = self.session, self.session.backends.database
        sync_id, number = self._sync.sync_id, self.run.run
        now = self._now()
        failures = [f for f in database.failures(sync_id, number) if f.sequence > 0 and f.state == "open"]
        without = unwritten(failures)
        manifest, generation = sealed.manifest, sealed.generation
        if without:
            generation += 1
            manifest = build_candidate(
                session.backends.store,
                self.baseline,
                changes,
                (sync_id, number, generation),
                without,
                (key_with_id(session.backends, findings.signing_key_id), self.preparation),
            ).name
        aside = self._quarantine(changes, now)
        status = RunStatus.COMMITTED if sealed.held is None or not findings.hold_deletions else RunStatus.HELD
        left = self._manifest(manifest)
        objects = [manifest, *(() if left is None else left.objects)]
        session.warnings.extend(lost_on_the_way(session.backends, self._sync, objects))
        result = self._result(findings, status, (sealed.total - len(failures), len(failures)))
        acknowledged = position or self._sync.acknowledged
        run = msgspec.structs.replace(
            self.run,
            token=session.token,
            status=status,
            finished_at=now,
            result=result.as_json(),
            details=details_of(
                findings,
                failed=[f"{f.primary_key}: {f.error}" for f in failures[:5]],
                objects=objects,
                acknowledged=acknowledged and [acknowledged.run, acknowledged.sequence, acknowledged.marker],
            ),
            manifest=manifest,
        )
        sync = msgspec.structs.replace(
            self._sync,
            established=True,
            manifest=manifest,
            generation=generation,
            acknowledged=acknowledged,
            held=sealed.held,
        )
        again = {*without.refused, *without.unknown, *aside}
        database.commit(run, sync, superseded(self._before(), changes, again, self.settled))
        # Only now: until the database has it, a failure is one of a run that is being delivered.
        self.run = run
        session.sync = sync
        self._tidy(manifest, left)
        return result

    def _before(self) -> list[Failure]:
        """Give the open failures of earlier runs."""
        failures = self.session.backends.database.failures(self._sync.sync_id)
        return [failure for failure in failures if failure.run < self.run.run]

    def _quarantine(self, changes: ChangeSet, now: datetime) -> set[bytes]:
        """Set aside what never became a write record: conflicts, records without a valid key."""
        aside = changes.findings.aside
        self.session.backends.database.add_failures(
            self._sync.sync_id,
            self.session.token,
            [
                Failure(
                    run=self.run.run,
                    sequence=-index,
                    primary_key_signature=item.primary_key_signature,
                    destination_action=None,
                    primary_key=item.primary_key,
                    error=item.error,
                    created_at=now,
                    updated_at=now,
                )
                for index, item in enumerate(aside, 1)
            ],
        )
        return {item.primary_key_signature for item in aside if item.primary_key_signature is not None}

    def _manifest(self, name: str) -> Manifest | None:
        path = self.session.backends.store.get(self._sync.sync_id, name)
        return None if path is None else Manifest.decode(name, path.read_bytes())

    def _tidy(self, manifest: str, left: Manifest | None) -> None:
        """After the commit: point to the manifest, compact, remove what retention no longer keeps.

        The run is done, so nothing of this can make it fail; what fails here, the next run does.
        """
        session = self.session
        backends, sync = session.backends, session.sync
        try:
            backends.store.swap_manifest(sync.sync_id, manifest, session.token)
            compacted = None
            # Opening a baseline reads all of it; one that the store has lost again is told of so, too.
            if left is None or outgrown(left):
                baseline = open_baseline(backends, sync, manifest, touch=False)
                compacted = compact(backends.store, baseline, sync.generation + 1)
            if compacted is not None:
                sync = msgspec.structs.replace(sync, manifest=compacted.name, generation=compacted.generation)
                backends.database.set_sync(sync, session.token)
                session.sync = sync
                backends.store.swap_manifest(sync.sync_id, compacted.name, session.token)
            sweep(session)
        except (RundiffError, OSError) as error:
            log.warning(
                "sync %s: run %d is committed, but tidying up after it failed (%s); the next run does it",
                sync.name,
                self.run.run,
                error,
            )

    # Ending otherwise

    def discard(self) -> None:
        """Give the run up before it is delivered; nothing outside was touched."""
        self.session.backends.log.drop(self._sync.sync_id, self.run.run, self.session.token)
        result, details = dict(self.run.result), self.run.details
        if not result:
            result = failed_result(self._sync.name, (self.run.run, self.run.kind), "", 0).as_json()
            details = {**details, "cut_off": True}
        result.update(status=str(RunStatus.DISCARDED), run=self.run.run)
        self._store(status=RunStatus.DISCARDED, finished_at=self._now(), result=result, details=details)

    def fail(self, error: str, *, lost: bool = False, drift: Sequence[str] = ()) -> RunResult:
        """Note that the run failed; one that is being delivered stays so, for the next run to finish."""
        if self.run.status in (RunStatus.COMMITTED, RunStatus.HELD):
            # Interrupted after its commit.
            return result_from_json(self.run.result)
        found = BaselineState.FIRST if self._sync.manifest is None else BaselineState.FOUND
        result = replace(
            failed_result(self._sync.name, (self.run.run, self.run.kind), error, self._seconds()),
            baseline=BaselineState.LOST if lost else found,
        )
        if self.run.status is RunStatus.DELIVERING and self.run.sealed is not None:
            self.session.refresh()
            done = self._sync.acknowledged
            written = done.sequence if done is not None and done.run == self.run.run else 0
            stored = {**self.run.result, "status": "failed", "error": error, "written": written}
            self._store(result=stored)
            left = self.run.sealed.total - written
            then = f"run {self.run.run} stopped while delivering; the next run first delivers the {left:,} others"
            return replace(result, counts=replace(result.counts, written=written), warnings=(then,))
        details = {**self.run.details, "drift": list(drift)}
        self._store(
            status=RunStatus.FAILED, finished_at=self._now(), result=result.as_json(), details=details
        )
        if self.run.sealed is not None:
            self.session.backends.log.drop(self._sync.sync_id, self.run.run, self.session.token)
        return result

    def _result(self, findings: Any, status: RunStatus, delivered: tuple[int, int] = (0, 0)) -> RunResult:
        return result_of(
            findings,
            (self.run.run, self.run.kind, status),
            delivered=delivered,
            seconds=self._seconds(),
            warnings=tuple(self.session.warnings),
        )


def sweep(session: Session) -> None:
    """Remove files and objects that neither the current state nor retention names."""
    backends, sync = session.backends, session.sync
    # Listed before the token is checked: what a successor puts there later is none of these.
    names = backends.store.names(sync.sync_id)
    runs = backends.database.runs(sync.sync_id)
    logs = {run.run for run in runs if run.sealed is not None and run.status not in _WITHOUT_LOG}
    held = None if sync.held is None else sync.held.run
    backends.log.retain(sync.sync_id, session.token, logs, held)
    backends.home.drop_spools(sync.sync_id)
    oldest = backends.database.now() - timedelta(days=backends.retention_days)
    keep = set(backends.database.joined.objects(sync.sync_id))
    for run in runs:
        if run.finished_at is not None and run.finished_at >= oldest:
            keep.update(run.details.get("objects", ()))
    if sync.manifest is not None:
        path = backends.store.get(sync.sync_id, sync.manifest)
        keep.add(sync.manifest)
        if path is not None:
            keep.update(Manifest.decode(sync.manifest, path.read_bytes()).objects)
    backends.store.drop(sync.sync_id, [name for name in names if name not in keep])
