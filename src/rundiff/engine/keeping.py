"""How long a signature store is asked to keep a baseline, and what is said when it did not.

A store on a server lets go of what nobody touches. A run touches the baseline at its start and at its
commit: for seven days, or three times the longest recent interval between runs where that is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from rundiff.errors import BaselineLost
from rundiff.stores.contract import LIFETIME

if TYPE_CHECKING:
    from rundiff.database.contract import StoredSync
    from rundiff.engine.session import Backends

__all__ = ["keep_alive", "lifetime", "lost_on_the_way", "missing", "store_warnings"]

_RECENT = 20
"""Runs whose intervals count."""
_INTERVALS = 3


def lifetime(ends: Sequence[datetime]) -> float:
    """Give the seconds to keep a baseline after runs that ended at these times, newest first."""
    intervals = [(later - earlier).total_seconds() for later, earlier in pairwise(ends)]
    return max(LIFETIME, _INTERVALS * max(intervals, default=0.0))


def _ends(backends: Backends, sync: StoredSync) -> list[datetime]:
    """When the last runs that left a baseline ended, newest first."""
    runs = backends.database.runs(sync.sync_id, _RECENT)
    return [run.finished_at for run in runs if run.manifest is not None and run.finished_at is not None]


def keep_alive(backends: Backends, sync: StoredSync, manifest: str, segments: Sequence[str]) -> None:
    """Touch a baseline; raises `BaselineLost` if the store lacks a part of it."""
    seconds = lifetime([backends.database.now(), *_ends(backends, sync)])
    lacking = backends.store.touch(sync.sync_id, [manifest, *segments], seconds)
    if lacking:
        raise missing(backends, sync, manifest, lacking[0])


def missing(backends: Backends, sync: StoredSync, manifest: str, name: str) -> BaselineLost:
    """Give the error for an object of a manifest that the store does not have, with the likely reason."""
    what = manifest if name == manifest else f"segment {name} of the baseline"
    ends = _ends(backends, sync)
    why = backends.store.why_missing(sync.sync_id, manifest, ends[0] if ends else None, lifetime(ends))
    return BaselineLost(f"{what} is missing: {why}")


def lost_on_the_way(backends: Backends, sync: StoredSync, names: Sequence[str]) -> list[str]:
    """Touch what a run is about to commit; give warnings if the store lost any of it meanwhile.

    What was delivered is delivered, and the run has to be committed all the same: the next one finds the
    baseline lost.
    """
    seconds = lifetime([backends.database.now(), *_ends(backends, sync)])
    lacking = backends.store.touch(sync.sync_id, names, seconds)
    if not lacking:
        return []
    why = backends.store.why_missing(sync.sync_id, names[0], backends.database.now(), seconds)
    sentence = (
        f"the signature store lost the baseline of sync {sync.name} during this run ({lacking[0]} is missing: "
        f"{why}); what was delivered stays delivered, and `rundiff rebuild {sync.name}` makes the baseline anew"
    )
    return [sentence]


def store_warnings(backends: Backends, sync: StoredSync) -> list[str]:
    """Say what endangers a sync's baseline: the server's settings, and runs that are too far apart."""
    report = backends.store.report()
    warnings = list(report.warnings)
    ends = _ends(backends, sync) if report.expires else []
    if ends:
        kept = lifetime(ends)
        passed = (backends.database.now() - ends[0]).total_seconds()
        if passed > kept / 2:
            warnings.append(
                f"sync {sync.name} last ran {_days(passed)} ago, and the signature store keeps its baseline for only "
                f"{_days(kept)} after a run: run it more often, or keep signatures where nothing expires"
            )
    return warnings


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days"
