"""What a run or a plan starts from: the baseline, the destination's mark, and whether either is lost."""

from __future__ import annotations

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.manifest import Manifest
from rundiff.database.contract import StoredSync
from rundiff.destinations.contract import Destination, Target
from rundiff.engine.appending import refuse_later_runs
from rundiff.engine.delivery import check_watermark
from rundiff.engine.finding import Started
from rundiff.engine.former import refuse_other_key
from rundiff.engine.lost import Lost, unknown_run, unknown_writers
from rundiff.engine.refusing import refuse_unready
from rundiff.engine.replay import deleted_since
from rundiff.engine.session import Backends, open_baseline
from rundiff.errors import BaselineLost
from rundiff.model import BaselineState
from rundiff.settings import SyncSettings

__all__ = ["start"]


def start(
    backends: Backends,
    settings: SyncSettings,
    where: tuple[Destination, Target],
    sync: StoredSync | None,
) -> Started:
    """Find out what a run or a plan starts from; `sync` is None where there was none yet.

    Raises `DestinationLost` and its like before anything is read, and `ConfigurationError` where a first run
    would not be the latest in the table.
    """
    destination, target = where
    refuse_unready(destination, target)
    forget: tuple[str, ...] = ()
    lost: Lost | None = None
    baseline = Baseline.empty()
    done = None if sync is None else sync.acknowledged
    if sync is None or (done is None and sync.manifest is None):
        known = {other.sync_id for other in backends.database.syncs()}
        lost = unknown_writers(destination, target, known, shared=settings.destination.shared_table)
        if lost is None:
            lost = _unknown_baseline(backends, settings, known)
        else:
            forget = tuple(s for s in destination.strangers(target) if s not in known)
    if sync is None:
        state = BaselineState.FIRST if lost is None else BaselineState.LOST
        _refuse_later_runs(backends, settings, where, state)
        return Started(sync_id=None, baseline=baseline, state=state, lost=lost, forget=forget)
    check_watermark(destination, target, done, full_refresh=settings.full_refresh)
    found = destination.position(target)
    if found is not None and (done is None or (found.run, found.sequence) > (done.run, done.sequence)):
        # Unfinished deliveries were finished before: the mark is of a run that was given up, by a reset
        # or a full refresh, or of one that this database never delivered. This run begins anew.
        forget = (sync.sync_id,)
        marked = backends.database.run(sync.sync_id, found.run)
        if found.run and (marked is None or marked.sealed is None):
            lost = unknown_run(destination, found.run)
    if lost is None:
        try:
            baseline = open_baseline(backends, sync, sync.manifest)
        except BaselineLost as error:
            lost = Lost.told_by(error)
    state = BaselineState.FOUND
    if lost is not None:
        state = BaselineState.LOST
    elif baseline.manifest is None:
        state = BaselineState.FIRST
    _refuse_later_runs(backends, settings, where, state)
    if baseline.manifest is not None:
        refuse_other_key(backends, sync.name, baseline.manifest.signing_key_id)
    stale = None
    if settings.full_refresh and state is BaselineState.FOUND:
        stale = deleted_since(backends, sync.sync_id, found, baseline)
    return Started(
        sync_id=sync.sync_id,
        baseline=baseline,
        state=state,
        lost=lost,
        manifest=sync.manifest,
        stale=stale,
        forget=forget,
    )


def _refuse_later_runs(
    backends: Backends, settings: SyncSettings, where: tuple[Destination, Target], state: BaselineState
) -> None:
    # A lost baseline is refused for itself, unless its policy makes a new one; in tables of several syncs
    # each has its own keys, and numbers of its own.
    lost = state is BaselineState.LOST and settings.policies.on_lost_baseline != "rebaseline"
    if state is not BaselineState.FOUND and not lost and not settings.destination.shared_table:
        refuse_later_runs(backends.database, *where)


def _unknown_baseline(backends: Backends, settings: SyncSettings, known: set[str]) -> Lost | None:
    """Say why a first run is not first: the store has a baseline, with this key, that nobody knows."""
    store = backends.store
    for sync_id in store.sync_ids():
        name = None if sync_id in known else store.current_manifest(sync_id)
        path = None if name is None else store.get(sync_id, name)
        if name is None or path is None:
            continue
        try:
            manifest = Manifest.decode(name, path.read_bytes())
        except BaselineLost:
            continue
        if manifest.primary_key == settings.primary_key:
            return Lost(
                reason=f"the signature store holds a baseline with this primary key under the sync {sync_id}, which "
                "the database does not know: the database was lost or replaced. If that baseline belongs to another "
                "database, keep the two apart, by another --home or another prefix (redis://…?prefix=NAME)",
                rebuildable=False,
            )
    return None
