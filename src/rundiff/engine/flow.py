"""One run from its start to its end: recovery, reading, sealing, delivery, commit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from rundiff.baseline.baseline import Baseline
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.finding import Finder
from rundiff.engine.forming import preparation_of
from rundiff.engine.run import Execution
from rundiff.engine.session import Session
from rundiff.engine.starting import start
from rundiff.errors import BaselineLost, PolicyViolation, RundiffError, StorageError
from rundiff.model import RunKind, RunResult
from rundiff.settings import SyncSettings
from rundiff.sources.contract import Source

__all__ = ["deliver_changes", "failing", "find_and_seal", "sync_once"]


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
        drift = error.fields if isinstance(error, PolicyViolation) else ()
        result = execution.fail(text, lost=isinstance(error, BaselineLost), drift=drift)
    except (RundiffError, OSError):
        # The first error is the one to tell; a run that could not even be noted as failed is
        # discarded by the next one.
        return
    # Any other exception comes from code that is not ours, such as a source's generator.
    error.__dict__["result"] = result


def find_and_seal(
    session: Session,
    settings: SyncSettings,
    source: Source,
    execution: Execution,
    kind: type[Finder] = Finder,
) -> ChangeSet | RunResult:
    """Read, compare, judge and seal; a result only if a guard holds the whole run."""
    where = (session.destination, session.target)
    started = start(session.backends, settings, where, session.sync)
    execution.begin_from(started)
    if settings.comparison.field_signatures:
        execution.preparation = preparation_of(settings)
    folder = session.backends.home.new_spool(session.sync.sync_id)
    finder = kind(
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
    return execution.seal(changes, finder.looked)


def deliver_changes(execution: Execution, changes: ChangeSet, settings: SyncSettings) -> RunResult:
    """Deliver a sealed change set and commit it."""
    execution.deliver(changes, settings)
    return execution.commit(changes)


def sync_once(session: Session, settings: SyncSettings, source: Source) -> RunResult:
    """Do a whole run in a session whose unfinished runs are recovered."""
    execution = Execution.begin(session, RunKind.SYNC, Baseline.empty())
    with failing(execution):
        sealed = find_and_seal(session, settings, source, execution)
        if isinstance(sealed, RunResult):
            return sealed
        return deliver_changes(execution, sealed, settings)
