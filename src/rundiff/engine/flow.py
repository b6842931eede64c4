"""One run from its start to its end: recovery, reading, sealing, delivery, commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from rundiff.baseline.baseline import Baseline
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.delivery import check_watermark
from rundiff.engine.finding import Finder, Started, refuse_unready, unknown_run, unknown_writers
from rundiff.engine.replay import deleted_since
from rundiff.engine.run import Execution
from rundiff.engine.session import Session, open_baseline
from rundiff.errors import BaselineLost, ConfigurationError, RundiffError, StorageError
from rundiff.model import BaselineState, RunKind, RunResult
from rundiff.settings import SyncSettings
from rundiff.sources.contract import Source

__all__ = ["deliver_changes", "failing", "find_and_seal", "start", "sync_once"]


def start(session: Session, settings: SyncSettings) -> tuple[Started, tuple[str, ...]]:
    """Find out what a run starts from; also which unknown syncs' marks to take over.

    Raises `DestinationLost` and its like before anything is read.
    """
    destination, target, sync = session.destination, session.target, session.sync
    refuse_unready(destination, target)
    forget: tuple[str, ...] = ()
    lost: str | None = None
    baseline = Baseline.empty()
    if sync.acknowledged is None and sync.manifest is None:
        known = {other.sync_id for other in session.backends.database.syncs()}
        lost = unknown_writers(destination, target, known, shared=settings.destination.shared_table)
        if lost is not None:
            forget = tuple(s for s in destination.strangers(target) if s not in known)
    check_watermark(destination, target, sync.acknowledged, full_refresh=settings.full_refresh)
    found = destination.position(target)
    done = sync.acknowledged
    if found is not None and (done is None or (found.run, found.sequence) > (done.run, done.sequence)):
        # Unfinished deliveries were finished before: the mark is of a run that was given up, by a reset
        # or a full refresh, or of one that this database never delivered. This run begins anew.
        forget = (sync.sync_id,)
        marked = session.backends.database.run(sync.sync_id, found.run)
        if found.run and (marked is None or marked.sealed is None):
            lost = unknown_run(destination, found.run)
    if lost is None:
        try:
            baseline = open_baseline(session.backends, sync, sync.manifest)
        except BaselineLost as error:
            lost = str(error)
    state = BaselineState.FOUND
    if lost is not None:
        state = BaselineState.LOST
    elif baseline.manifest is None:
        state = BaselineState.FIRST
    _refuse_other_signing_key(session, baseline)
    stale = None
    if settings.full_refresh and state is BaselineState.FOUND:
        stale = deleted_since(session, found, baseline)
    started = Started(
        sync_id=sync.sync_id,
        baseline=baseline,
        state=state,
        lost_reason=lost,
        manifest=sync.manifest,
        stale=stale,
    )
    return started, forget


def _refuse_other_signing_key(session: Session, baseline: Baseline) -> None:
    key = session.backends.signing_key
    manifest = baseline.manifest
    if manifest is None or manifest.signing_key_id == (key.id if key else None):
        return
    name = session.sync.name
    raise ConfigurationError(
        f"sync {name} was signed {_under(manifest.signing_key_id)}, but now runs {_under(key.id if key else None)}. "
        f"Restore RUNDIFF_SIGNING_KEY as it was, or `rundiff reset {name}` to sign everything anew"
    )


def _under(key_id: str | None) -> str:
    return "without a signing key" if key_id is None else f"under the signing key {key_id}"


@contextmanager
def failing(execution: Execution) -> Iterator[None]:
    """Note in the database that a run failed, with what; errors of the file system get a sentence."""
    name = execution.session.sync.name
    try:
        yield
    except OSError as error:
        wrapped = StorageError(
            f"sync {name}, run {execution.run.run}: {error.strerror or error}"
            + (f" ({error.filename})" if error.filename else "")
            + ". Free disk space or mend the permissions, then run again; nothing is lost"
        )
        _note(execution, wrapped)
        raise wrapped from error
    except BaseException as error:
        _note(execution, error)
        raise


def _note(execution: Execution, error: BaseException) -> None:
    text = str(error) if isinstance(error, RundiffError) else f"{type(error).__name__}: {error}"
    try:
        result = execution.fail(text)
    except (RundiffError, OSError):
        # The first error is the one to tell; a run that could not even be noted as failed is
        # discarded by the next one.
        return
    # Any other exception comes from code that is not ours, such as a source's generator.
    error.__dict__["result"] = result


def find_and_seal(
    session: Session, settings: SyncSettings, source: Source, execution: Execution
) -> ChangeSet | RunResult:
    """Read, compare, judge and seal; a result only if a guard holds the whole run."""
    started, execution.forget = start(session, settings)
    execution.baseline = started.baseline
    folder = session.backends.home.new_spool(session.sync.sync_id)
    finder = Finder(
        backends=session.backends,
        settings=settings,
        source=source,
        destination=session.destination,
        target=session.target,
        started=started,
        folder=folder,
    )
    try:
        changes = finder.find()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if changes.findings.hold_run is not None:
        return execution.hold(changes)
    return execution.seal(changes, finder.seen)


def deliver_changes(execution: Execution, changes: ChangeSet, batch_size: int) -> RunResult:
    """Deliver a sealed change set and commit it."""
    execution.deliver(changes, batch_size)
    return execution.commit(changes)


def sync_once(session: Session, settings: SyncSettings, source: Source) -> RunResult:
    """Do a whole run in a session whose unfinished runs are recovered."""
    execution = Execution.begin(session, RunKind.SYNC, Baseline.empty())
    with failing(execution):
        sealed = find_and_seal(session, settings, source, execution)
        if isinstance(sealed, RunResult):
            return sealed
        return deliver_changes(execution, sealed, settings.batch_size)
