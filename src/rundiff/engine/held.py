"""Held sets: deletions, or whole runs, that wait for a person."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from rundiff.baseline.baseline import Baseline
from rundiff.baseline.columns import conform, unify_types
from rundiff.baseline.order import argsort, words
from rundiff.database.contract import Held
from rundiff.engine.changeset import ChangeSet
from rundiff.engine.deletions import Looked
from rundiff.engine.log import LogWriter, log_schema, read_log
from rundiff.engine.session import Session
from rundiff.model import Match

__all__ = ["held_after", "shown_time", "still_deletable"]


def still_deletable(
    source: ChangeSet, target: Path, baseline: Baseline, looked: Looked | None
) -> tuple[int, str]:
    """Copy those held deletions whose keys the baseline holds unchanged and a run did not look at.

    Gives their number and their digest.
    """
    digest = hashlib.sha256()
    with LogWriter(target) as writer:
        for batch in read_log(source.deletes):
            match, position = baseline.lookup.probe(batch.column(0), batch.column(1))
            keep = match == Match.SAME
            if source.findings.repeated:
                # Deletions that a full refresh repeats are of keys that the baseline no longer holds.
                keep |= match == Match.NEW
            if looked is not None:
                known = keep & (position >= 0)
                keep[known] = ~(looked.read | looked.judged)[position[known]]
            kept = batch.filter(pa.array(keep))
            if looked is not None and looked.renewed is not None and kept.num_rows:
                kept = looked.renewed.signed_anew(kept, position[keep])
            digest.update(words(kept.column(0)).tobytes())
            digest.update(words(kept.column(1)).tobytes())
            writer.write(kept)
    return writer.rows, digest.hexdigest()


def held_after(
    session: Session, changes: ChangeSet, baseline: Baseline, looked: Looked | None, run: int
) -> Held | None:
    """Take a run's held deletions out of its change set; give all that is held from now on.

    Earlier held deletions stay where the run can't tell: of keys that it neither read nor covered.
    """
    findings, before = changes.findings, session.sync.held
    own = findings.hold_deletions is not None
    folder = session.backends.home.new_spool(session.sync.sync_id)
    earlier = folder / "earlier.parquet"
    remaining, digest = 0, findings.digest
    if before is not None and before.what == "deletions" and looked is not None and looked.judged is not True:
        kept = ChangeSet.load(session.backends.log.held(session.sync.sync_id, before.run))
        remaining, digest = still_deletable(kept, earlier, baseline, looked)
        if not own and remaining:
            findings = msgspec.structs.replace(
                kept.findings, digest=digest, counts={**kept.findings.counts, "deleted": remaining}
            )
    held = ChangeSet(folder, findings)
    if own and remaining:
        digest = _together(changes.deletes, earlier, held.deletes)
        changes.deletes.unlink()
    elif own:
        digest = findings.digest
        os.replace(changes.deletes, held.deletes)
    elif remaining:
        os.replace(earlier, held.deletes)
    else:
        return None
    earlier.unlink(missing_ok=True)
    held.save()
    session.backends.log.hold(session.sync.sync_id, run, session.token, folder)
    mine = changes.findings
    known = before if before is not None and not own else None
    return Held(
        run=run,
        what="deletions",
        count=remaining + (mine.counts["deleted"] if own else 0),
        reason=known.reason if known else mine.hold_deletions or "",
        digest=digest,
        manifest=known.manifest if known else mine.manifest,
        expires_at=known.expires_at if known else mine.expires_at,
    )


def _together(one: Path, other: Path, target: Path) -> str:
    """Merge two sets of deletions with different keys; gives their digest."""
    batches = [batch for path in (one, other) for batch in read_log(path)]
    kinds: dict[str, pa.DataType] = {}
    for batch in batches:
        for name in ("primary_key", "data"):
            kinds[name] = unify_types(kinds.get(name, pa.null()), batch.schema.field(name).type)
    schema = log_schema(kinds["primary_key"], kinds["data"])
    alike = [
        pa.RecordBatch.from_arrays(
            [conform(batch.column(field.name), field.type) for field in schema], schema=schema
        )
        for batch in batches
    ]
    table = pa.Table.from_batches(alike, schema)
    order = argsort(words(table.column("primary_key_signature")))
    table = table.take(pa.array(order)).combine_chunks()
    digest = hashlib.sha256()
    with LogWriter(target) as writer:
        for batch in table.to_batches():
            digest.update(words(batch.column(0)).tobytes())
            digest.update(words(batch.column(1)).tobytes())
            writer.write(batch)
    return digest.hexdigest()


def shown_time(moment: datetime) -> str:
    """Write a time for people."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
