"""Held sets: deletions, or whole runs, that wait for a person."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.order import words
from rundiff.compare.seen import Seen
from rundiff.database.contract import Held
from rundiff.engine.changeset import ChangeSet, changed_findings
from rundiff.engine.log import LogWriter, read_log
from rundiff.engine.session import Session
from rundiff.model import Match

__all__ = ["remaining_held", "still_deletable"]


def still_deletable(
    source: ChangeSet, target: ChangeSet, baseline: Baseline, seen: Seen | None
) -> tuple[int, str]:
    """Copy those held deletions whose keys the baseline holds unchanged and `seen` did not read.

    Gives their number and their digest.
    """
    digest = hashlib.sha256()
    with LogWriter(target.deletes) as writer:
        for batch in read_log(source.deletes):
            match, position = baseline.lookup.probe(batch.column(0), batch.column(1))
            keep = match == Match.SAME
            if source.findings.repeated:
                # Deletions that a full refresh repeats are of keys that the baseline no longer holds.
                keep |= match == Match.NEW
            if seen is not None:
                known = keep & (position >= 0)
                keep[known] = ~seen.read[position[known]]
            kept = batch.filter(pa.array(keep))
            digest.update(words(kept.column(0)).tobytes())
            digest.update(words(kept.column(1)).tobytes())
            writer.write(kept)
    return writer.rows, digest.hexdigest()


def remaining_held(session: Session, baseline: Baseline, seen: Seen | None, run: int) -> Held | None:
    """After an incomplete reading: the held deletions, less the keys that it read after all."""
    held = session.sync.held
    if held is None or held.what != "deletions" or seen is None:
        return None
    backends, sync_id = session.backends, session.sync.sync_id
    before = ChangeSet.load(backends.log.held(sync_id, held.run))
    folder = backends.home.new_spool(sync_id)
    rows, digest = still_deletable(before, ChangeSet(folder, before.findings), baseline, seen)
    if rows == 0:
        return None
    counts = {**before.findings.counts, "deleted": rows}
    after = ChangeSet(folder, changed_findings(before.findings, digest=digest, counts=counts))
    after.save()
    backends.log.hold(sync_id, run, session.token, folder)
    return Held(
        run=run, what="deletions", count=rows, reason=held.reason, digest=digest, manifest=held.manifest
    )
