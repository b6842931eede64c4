"""The shares of a joined run in the signature store: fetched, counted no more where they are lost, removed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rundiff.database.joined import OPEN, JoinedRun
from rundiff.engine.gathering import SharesSource
from rundiff.engine.session import Backends
from rundiff.errors import StateChanged, StorageError
from rundiff.stores.blob_plans import digest_of_file
from rundiff.stores.contract import LIFETIME

__all__ = ["drop_shares", "shares_source", "withdraw_lost"]

log = logging.getLogger("rundiff")


def drop_shares(backends: Backends, sync: str, joined: JoinedRun, names: Sequence[str]) -> None:
    """Remove shares that are not used; where that fails it is only told."""
    try:
        backends.store.drop(joined.sync_id, names)
    except StorageError as error:
        # The next run of the sync sweeps it.
        log.warning("sync %s: a share that is not used could not be removed (%s)", sync, error)


def withdraw_lost(backends: Backends, sync: str, joined: JoinedRun) -> None:
    """Count batches no more whose shares the store has lost, so that they can be handed in again.

    Raises `StateChanged` if there are any.
    """
    entries = backends.database.joined.shares(joined.sync_id, joined.name)
    lost = set(backends.store.touch(joined.sync_id, [entry.object for entry in entries], LIFETIME))
    if not lost or joined.state != OPEN:
        return
    batches = [entry.batch for entry in entries if entry.object in lost]
    backends.database.joined.withdraw(joined, batches)
    raise StateChanged(
        f"sync {sync}: the signature store has lost what batches {', '.join(batches[:10])} left; "
        "hand them in again, then seal the run. Nothing was written"
    )


def shares_source(backends: Backends, sync: str, joined: JoinedRun) -> SharesSource:
    """Fetch all shares of a run, to be read together; raises `StorageError` if one is lost or damaged."""
    shares = []
    for entry in backends.database.joined.shares(joined.sync_id, joined.name):
        path = backends.store.get(joined.sync_id, entry.object)
        if path is None or digest_of_file(path) != entry.digest:
            raise StorageError(
                f"sync {sync}: what batch {entry.batch} of run {joined.name} left is lost or "
                "damaged in the signature store. Nothing was written. Give the run up and begin it anew"
            )
        shares.append((entry.batch, path))
    roster = joined.roster
    return SharesSource(shares, announced=roster.batches is not None or roster.expected is not None)
