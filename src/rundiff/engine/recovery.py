"""What the next run does about one that a crash cut off, before anything else."""

from __future__ import annotations

from rundiff.engine.caller import CALLER
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.run import Execution, sweep
from rundiff.engine.session import Session, open_baseline
from rundiff.model import RunStatus
from rundiff.settings import SyncSettings

__all__ = ["recover"]


def recover(session: Session, settings: SyncSettings) -> None:
    """Finish the delivery of a run that was being delivered; discard what was not.

    A run that was reading or sealed touched nothing outside. One whose delivery the caller took is
    discarded, too: only the caller knows how far it came, and a run that it did not end is none.
    """
    unfinished = session.backends.database.unfinished(session.sync.sync_id)
    for run in unfinished:
        baseline = open_baseline(session.backends, session.sync, session.sync.manifest)
        execution = Execution(session, run, baseline)
        if (
            run.status is not RunStatus.DELIVERING
            or session.destination.identity == CALLER
            or settings.full_refresh
        ):
            execution.discard()
            continue
        changes = ChangeSet.load(session.log(run.run))
        execution.deliver(changes, settings.batch_size)
        execution.commit(changes)
        session.warnings.append(
            f"run {run.run} was cut off while delivering; its delivery was finished first"
        )
    if unfinished:
        sweep(session)
