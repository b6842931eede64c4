"""Tables that keep every version, in the order of the runs that wrote them: a new run has to be the last.

Run numbers begin at 1 where a home directory is new. Rows of a run with a higher number would stand for
the current ones for ever, whatever this sync writes.
"""

from __future__ import annotations

from typing import cast

from rundiff.database.contract import Database
from rundiff.destinations.contract import Destination, Readable, Target
from rundiff.errors import ConfigurationError
from rundiff.model import RunStatus

__all__ = ["refuse_later_runs"]


def refuse_later_runs(database: Database, destination: Destination, target: Target) -> None:
    """Raise `ConfigurationError` if the target holds rows of a run that is not before this sync's next one."""
    if not destination.capabilities.reads_back:
        return
    newest = cast(Readable, destination).newest_run(target)
    if newest is None:
        return
    last = next(iter(database.runs(target.sync_id, limit=1)), None) if target.sync_id else None
    coming = 1 if last is None else last.run + (last.status is not RunStatus.READING)
    if newest >= coming:
        raise ConfigurationError(
            f"sync {target.sync}: {destination.identity} holds rows of run {newest}, and the next run of this sync is "
            f"run {coming}: its rows would count as older than those, and its changes be lost. Nothing was written. "
            "Name another table with --into, or make all rows that are there older first: UPDATE the table, SET "
            f'"_rundiff_run" = "_rundiff_run" - {newest - coming + 1}'
        )
