"""Go back to an earlier baseline, when the destination was restored to its state after that run."""

from __future__ import annotations

import msgspec

from rundiff.database.contract import Acknowledged
from rundiff.destinations.contract import Position
from rundiff.engine.session import Session, open_baseline
from rundiff.errors import StateChanged

__all__ = ["roll_back"]


def roll_back(session: Session, to_run: int) -> None:
    """Make run `to_run`'s manifest the current one; the destination's watermark must agree."""
    sync, database = session.sync, session.backends.database
    name = sync.name
    run = database.run(sync.sync_id, to_run)
    if run is None or run.manifest is None or "void" in run.details:
        raise StateChanged(f"sync {name} has no committed run {to_run}; `rundiff runs {name}` lists its runs")
    unfinished = database.unfinished(sync.sync_id)
    if unfinished:
        raise StateChanged(
            f"sync {name}: run {unfinished[0].run} is not finished; `rundiff sync` finishes it first"
        )
    noted = run.details.get("acknowledged")
    acknowledged = Acknowledged(*noted) if noted else None
    found = session.destination.position(session.target)
    expected = (
        None if acknowledged is None else Position(run=acknowledged.run, sequence=acknowledged.sequence)
    )
    if session.destination.capabilities.transactional and (found and (found.run, found.sequence)) != (
        expected and (expected.run, expected.sequence)
    ):
        stands = (
            "has no watermark" if found is None else f"stands at run {found.run}, record {found.sequence:,}"
        )
        raise StateChanged(
            f"sync {name}: the destination {stands}, not at its state after run {to_run}. Restore it to that "
            "state first; the baseline was not changed"
        )
    open_baseline(session.backends, sync, run.manifest)
    back = msgspec.structs.replace(sync, manifest=run.manifest, acknowledged=acknowledged, held=None)
    database.set_sync(back, session.token, void=(to_run, f"rolled back to {to_run}"))
    session.backends.store.swap_manifest(sync.sync_id, run.manifest, session.token)
