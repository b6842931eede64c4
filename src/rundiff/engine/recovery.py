"""What the next run does about one that a crash cut off, before anything else."""

from __future__ import annotations

from rundiff.baseline.baseline import Baseline
from rundiff.engine.caller import CALLER
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.lost import Lost, refusal, unknown_run
from rundiff.engine.run import Execution, sweep
from rundiff.engine.session import Session, open_baseline
from rundiff.errors import BaselineLost, DestinationError, Fenced, StorageError
from rundiff.model import RunStatus
from rundiff.settings import SyncSettings

__all__ = ["recover"]


def recover(session: Session, settings: SyncSettings) -> None:
    """Finish the delivery of a run that was being delivered; discard what was not.

    A run that was reading or sealed touched nothing outside. One whose delivery the caller took is
    discarded, too: only the caller knows how far it came, and a run that it did not end is none. A
    full refresh gives a delivery up that can't be finished.
    """
    unfinished = session.backends.database.unfinished(session.sync.sync_id)
    for run in unfinished:
        execution = Execution(session, run, Baseline.empty())
        if run.status is not RunStatus.DELIVERING or session.destination.identity == CALLER:
            execution.discard()
            continue
        try:
            _finish(execution, settings)
        except Fenced:
            raise
        except (DestinationError, StorageError):
            if not settings.full_refresh:
                raise
            execution.discard()
            session.refresh()
    if unfinished:
        sweep(session)


def _finish(execution: Execution, settings: SyncSettings) -> None:
    """Deliver the rest, even if the baseline is lost, and commit."""
    session, run = execution.session, execution.run
    database, name = session.backends.database, session.sync.name
    found = session.destination.position(session.target)
    lost: BaselineLost | None = None
    try:
        if found is not None and found.run > run.run:
            unknown = unknown_run(session.destination, found.run)
            raise BaselineLost(unknown.reason, rebuildable=unknown.rebuildable)
        execution.baseline = open_baseline(session.backends, session.sync, session.sync.manifest)
    except BaselineLost as error:
        if settings.policies.on_lost_baseline == "fail":
            raise refusal(name, Lost.told_by(error), session.destination) from error
        lost = error
    if found is None or found.run <= run.run:
        changes = ChangeSet.load(session.log(run.run))
        execution.deliver(changes, settings)
        refused = [f for f in database.failures(session.sync.sync_id, run.run) if f.sequence > 0]
        if lost is None or not refused:
            execution.commit(changes)
            session.warnings.append(
                f"run {run.run} was cut off while delivering; its delivery was finished first"
            )
            return
    # Which baseline it would leave can't be told; the policy on lost ones makes it anew.
    execution.discard()
    session.refresh()
