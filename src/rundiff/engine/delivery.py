"""Deliver a sealed run's write records, and set aside those that were not, or perhaps not, written.

Each write record ends as written, refused or unknown (design section 6). What a run sets aside is noted
in the database before its position moves on: a crash between the two repeats a record, and never takes
it for written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from msgspec.structs import replace

from rundiff.ahead import ahead
from rundiff.database.contract import Acknowledged, Database, Failure, Sealed
from rundiff.destinations.contract import ChangeBatch, Delivered, Destination, NotWritten, Position, Target
from rundiff.engine.log import BATCH_BYTES, CREATES, UPDATES, change_batches, log_type
from rundiff.engine.records import values
from rundiff.engine.views import Progress
from rundiff.errors import DestinationError, DestinationLost, RecordsRefused

__all__ = ["Delivery", "check_watermark", "resume_position"]


def check_watermark(
    destination: Destination, target: Target, acknowledged: Acknowledged | None, *, full_refresh: bool
) -> None:
    """Compare the destination's watermark with what was acknowledged; raises `DestinationLost`."""
    if not destination.capabilities.transactional or acknowledged is None or full_refresh:
        return
    found = destination.position(target)
    known = Position(run=acknowledged.run, sequence=acknowledged.sequence)
    if found is None:
        what = "has no watermark of this sync: it was dropped, emptied or replaced"
    elif not found.reaches(known):
        what = (
            f"stands at run {found.run}, record {found.sequence:,}, but run {known.run}, record "
            f"{known.sequence:,} was delivered: it was restored from an older copy"
        )
    else:
        return
    raise DestinationLost(
        f"sync {target.sync}: the destination {destination.identity} {what}. Nothing was written. Use "
        "--full-refresh to write all records again, or `rundiff rollback` if it was restored to the state "
        "after an earlier run"
    )


def resume_position(
    destination: Destination, target: Target, run: int, sealed: Sealed, acknowledged: Acknowledged | None
) -> Position:
    """Find out how far a run's delivery came before it was cut off."""
    start = Position(run=sealed.start_run, sequence=sealed.start_sequence, marker=sealed.start_marker)
    if destination.capabilities.transactional:
        found = destination.position(target)
        if found is None and sealed.start_run == 0:
            return start
        if found is None or not found.reaches(start):
            raise DestinationLost(
                f"sync {target.sync}: run {run} was being delivered, and the destination "
                f"{destination.identity} does not hold its watermark any more. --full-refresh "
                "gives that delivery up and writes all records again"
            )
        return found
    if acknowledged is None or destination.capabilities.whole_runs:
        return start
    # The start itself is acknowledged when a delivery begins, with the destination's own measure.
    return Position(run=acknowledged.run, sequence=acknowledged.sequence, marker=acknowledged.marker)


def _bounded(batch: ChangeBatch) -> Iterator[ChangeBatch]:
    """Cut a batch of long records into parts of some `BATCH_BYTES`."""
    rows, size = batch.records.num_rows, batch.records.nbytes
    step = max(1, rows * BATCH_BYTES // size) if size > BATCH_BYTES else max(1, rows)
    for offset in range(0, rows, step):
        yield batch.slice(offset, min(step, rows - offset))


@dataclass(slots=True)
class Delivery:
    """One run's delivery."""

    database: Database
    destination: Destination
    target: Target
    run: int
    sealed: Sealed
    folder: Path
    batch_size: int
    max_failures: int
    progress: Callable[[Progress], None] | None = None
    position: Position = field(init=False)
    failed: int = 0
    """How many records this delivery has set aside; those of an earlier try are not counted."""
    _failed_before: set[int] = field(init=False, default_factory=set)

    def prepare(self) -> None:
        """Make the target fit for the records' fields; no change is written yet."""
        from rundiff.baseline.columns import unify_types

        kind: pa.DataType = pa.null()
        for name, rows in ((UPDATES, self.sealed.updates), (CREATES, self.sealed.creates)):
            if rows:
                kind = unify_types(kind, log_type(self.folder / name, "data"))
        if not pa.types.is_null(kind):
            self.destination.prepare(self.target, pa.schema(list(kind)))

    def go(self, start: Position) -> None:
        """Deliver everything after `start`."""
        self.destination.claim(self.target, start)
        self.position = start
        can = self.destination.capabilities
        if not can.transactional and not can.whole_runs:
            # Moves nothing, but tells where the destination stands: what a recovery cuts back to.
            self.position = self.destination.advance(self.target, start, start)
            self._acknowledge()
        self._failed_before = {
            f.sequence for f in self.database.failures(self.target.sync_id, self.run) if f.sequence > 0
        }
        after = start.sequence if start.run == self.run else 0
        size = min(self.batch_size, can.batch_records or self.batch_size)
        batches = change_batches(self.folder, self.run, self.sealed, size, after)
        for batch in ahead(part for whole in batches for part in _bounded(whole)):
            self._deliver(replace(batch, sealed_at=self.sealed.at))
            self._acknowledge()
            if self.progress is not None:
                self.progress(Progress(phase="delivering", done=batch.last_sequence, total=self.sealed.total))
        self.destination.finish(self.target, self.position)
        self._acknowledge(finished=True)

    def _acknowledge(self, *, finished: bool = False) -> None:
        if self.destination.capabilities.whole_runs and not finished:
            return
        self.database.acknowledge(
            self.target.sync_id,
            self.target.token,
            Acknowledged(self.position.run, self.position.sequence, self.position.marker),
        )

    def _deliver(self, batch: ChangeBatch) -> None:
        """Deliver a batch; halve it until the refused records stand alone.

        One refused record among n costs at most 2 log2(n) + 1 batches.
        """
        try:
            reached = self.destination.deliver(self.target, batch, self.position)
        except RecordsRefused as error:
            rows = batch.records.num_rows
            if rows == 1:
                self._pass_over(batch, str(error))
                return
            self._deliver(batch.slice(0, rows // 2))
            self._deliver(batch.slice(rows // 2, rows - rows // 2))
            return
        aside = reached.not_written if isinstance(reached, Delivered) else ()
        if aside:
            self._set_aside(batch, aside)
        self._written_after_all(batch.first_sequence, reached.sequence, {item.sequence for item in aside})
        self.position = Position(run=reached.run, sequence=reached.sequence, marker=reached.marker)
        if aside:
            self._refuse_too_many(aside[-1].error)
        if isinstance(reached, Delivered) and reached.stopped is not None:
            self._acknowledge()
            raise DestinationError(self._stopped(reached.stopped))

    def _written_after_all(self, first: int, last: int, aside: set[int]) -> None:
        """Forget what an earlier try before a crash set aside, where it was written now."""
        again = [s for s in self._failed_before if first <= s <= last and s not in aside]
        if again:
            self.database.drop_failures(self.target.sync_id, self.target.token, self.run, again)

    def _pass_over(self, batch: ChangeBatch, reason: str) -> None:
        self._set_aside(batch, [NotWritten(sequence=batch.first_sequence, error=reason)])
        reached = Position(run=self.run, sequence=batch.first_sequence, marker=self.position.marker)
        self.position = self.destination.advance(self.target, self.position, reached)
        self._refuse_too_many(reason)

    def _set_aside(self, batch: ChangeBatch, items: Sequence[NotWritten]) -> None:
        now = datetime.now(UTC)
        rows = pa.array([item.sequence - batch.first_sequence for item in items], pa.int64())
        keys = values(batch.records.column("primary_key").take(rows))
        signatures = batch.records.column("primary_key_signature").take(rows).to_pylist()
        self.database.add_failures(
            self.target.sync_id,
            self.target.token,
            [
                Failure(
                    run=self.run,
                    sequence=item.sequence,
                    primary_key_signature=signature,
                    destination_action=str(batch.action),
                    primary_key=json.dumps(key, default=str),
                    error=item.error,
                    outcome="unknown" if item.unknown else "refused",
                    created_at=now,
                    updated_at=now,
                )
                for item, key, signature in zip(items, keys, signatures, strict=True)
            ],
        )
        self.failed += len(items)

    def _refuse_too_many(self, last: str) -> None:
        if self.failed <= self.max_failures:
            return
        self._acknowledge()
        raise DestinationError(
            self._stopped(
                f"{self.failed:,} records were refused or have no known outcome, more than max_failures = "
                f"{self.max_failures:,}; the last one: {last}"
            )
        )

    def _stopped(self, why: str) -> str:
        done = self.position.sequence if self.position.run == self.run else 0
        left = self.sealed.total - done
        return (
            f"sync {self.target.sync}: {why.rstrip('. ')}. Run {self.run} stopped with {left:,} of "
            f"{self.sealed.total:,} changes to go; the next run goes on there"
        )
