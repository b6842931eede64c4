"""What a destination owes a run.

Duties of a destination:

1. `check` runs before anything is read or written. It refuses names that the destination would
   change (length, case), columns that can't hold the fields' types, and a target that can't be
   written, by `ConfigurationError` or `DestinationError`. It creates nothing.
2. `position` says how far deliveries of this sync came, or None if the destination holds no mark of
   it. `strangers` names other syncs' marks on the same target.
3. `prepare` makes the target fit for a schema (create the table, add columns), outside of any
   transaction that carries changes. It is idempotent.
4. `claim` takes the target over for a fencing token. From then on a holder of a lower token is
   refused with `Fenced`. It is idempotent for the same token.
5. `deliver` writes one batch: records of one action, with contiguous sequences. A transactional
   destination commits the batch together with the new position, by an update that demands its own
   token and the expected position. It returns the position that was reached.
6. A batch that the destination refuses because of its data raises `RecordsRefused`, and nothing of
   it was written. The caller splits it and tries again; a single refused record is passed over by
   `advance`, which moves the position without writing. A destination that is not transactional and
   learns the outcome of each record gives a `Delivered` instead, which names those that were refused,
   and those whose outcome stayed unknown after all repeats under their idempotency keys.
7. Every other failure is a `DestinationError`; the driver's exceptions are translated in one place.
8. Changes are upserts by primary key: an update of a row that is not there inserts it, an insert of
   one that is there overwrites it, a delete of a missing row does nothing. Rows and columns that no
   change names are never touched.
9. `finish` is called once after the last batch of a run's delivery and makes everything visible. It
   is idempotent, and does nothing where each batch is visible at once. A destination of
   `whole_runs` shows nothing of a run before it: its positions are not to be acknowledged until
   then, and a delivery that was broken off starts again at sequence 1 of its run.
10. `close` may be called at any time, more than once.

A destination with markers gives the one that it stands at by `advance(target, start, start)` after
`claim`; an engine that acknowledges it can cut the first batch of a first delivery back, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec
import pyarrow as pa

from rundiff.model import Action

__all__ = [
    "Capabilities",
    "ChangeBatch",
    "Delivered",
    "Destination",
    "NotWritten",
    "Position",
    "Readable",
    "Renaming",
    "Target",
]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a destination can do, asked once at the start of a run."""

    new_action: Action
    """`insert` for tables, `create` for streams and APIs."""
    transactional: bool
    """Commits each batch together with its watermark: each change lands exactly once."""
    upserts: bool
    """Can take a record again without harm."""
    wants_previous: bool
    """Makes use of a delete's last known data and of `changed_fields`."""
    whole_runs: bool = False
    """Shows a run all at once, by `finish`; a broken delivery is repeated from sequence 1."""
    batch_records: int | None = None
    """The most records in one batch; None: as many as `batch_size` says."""
    reads_back: bool = False
    """Keeps `Readable`, too: tells what it holds."""
    renames: bool = False
    """Keeps `Renaming`, too: has columns that can get other names."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far delivery came: all write records of `run` up to `sequence`, and all earlier runs."""

    run: int
    sequence: int
    marker: str | None = None
    """The destination's own measure, such as the length of a file in bytes."""

    def reaches(self, other: Position) -> bool:
        """Say whether this position is at or past another."""
        return (self.run, self.sequence) >= (other.run, other.sequence)


class NotWritten(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a batch that was not written, or may not have been."""

    sequence: int
    error: str
    """One sentence, without the record's values."""
    unknown: bool = False
    """It was sent, and nobody knows what became of it; False: it was refused."""


class Delivered(Position, frozen=True, kw_only=True):
    """A position that was reached with the outcome of each record.

    All records of the batch up to `sequence` were written, but those in `not_written`.
    """

    not_written: tuple[NotWritten, ...] = ()
    stopped: str | None = None
    """Why delivery stopped before the end of the batch, as the sentence of a `DestinationError`."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes, and what."""

    sync_id: str
    sync: str
    primary_key: tuple[str, ...]
    token: int = 0
    """The fencing token of the lease."""


class ChangeBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Write records of one run and one action, in the order of their sequences.

    `records` has the columns `primary_key_signature` and `data_signature` (fixed_size_binary[32]),
    `primary_key` (a struct of the key fields), `data` (a struct of all fields; null where a delete's
    last data is not known), `changed_fields` (list of text; null where not known).
    """

    run: int
    first_sequence: int
    action: Action
    records: pa.RecordBatch
    sealed_at: datetime | None = None
    """When the run was sealed (UTC): the same on every repeat of the batch. None where it is not known."""

    @property
    def last_sequence(self) -> int:
        """The sequence of the last record."""
        return self.first_sequence + int(self.records.num_rows) - 1

    def slice(self, offset: int, length: int) -> ChangeBatch:
        """Give a part of the batch, without copying."""
        return ChangeBatch(
            run=self.run,
            first_sequence=self.first_sequence + offset,
            action=self.action,
            records=self.records.slice(offset, length),
            sealed_at=self.sealed_at,
        )


class Destination(Protocol):
    """A place that changes are delivered to."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def identity(self) -> str:
        """The stored name of this target, without secrets; absolute where it is a path."""

    def check(self, target: Target, fields: Mapping[str, pa.DataType] | None) -> None:
        """Refuse what can't work; `fields` are the source's, None while they are not known."""

    def position(self, target: Target) -> Position | None:
        """Say how far deliveries of this sync came."""

    def strangers(self, target: Target) -> Sequence[str]:
        """Name the sync_ids of other syncs that left a mark on the same target."""

    def existing_keys(self, target: Target, keys: pa.RecordBatch) -> pa.BooleanArray:
        """Say which of these keys the target holds already; all false where it can't know."""

    def prepare(self, target: Target, schema: pa.Schema) -> None:
        """Make the target fit for these fields."""

    def claim(self, target: Target, start: Position) -> None:
        """Take the target over for `target.token`, standing at `start`.

        Raises `Fenced` for a token below the stored one, and for a newer token if the target stands
        past `start`. Under its own token a later position stays as it is.
        """

    def forget(self, target: Target, sync_ids: Sequence[str]) -> None:
        """Drop the marks of syncs that no database knows any more."""

    def deliver(self, target: Target, batch: ChangeBatch, expected: Position) -> Position:
        """Write one batch and give the position reached, as a `Delivered` where outcomes are known one by one."""

    def advance(self, target: Target, expected: Position, reached: Position) -> Position:
        """Move the position past refused records without writing anything."""

    def finish(self, target: Target, reached: Position) -> None:
        """Make the run's delivery visible, once its last batch was delivered; idempotent."""

    def close(self) -> None:
        """Let go of all resources."""


class Renaming(Destination, Protocol):
    """A destination with columns, for fields that got other names."""

    def check_renames(
        self, target: Target, names: Mapping[str, str], fields: Mapping[str, pa.DataType] | None
    ) -> None:
        """Refuse other names, given by the former ones, that the columns can't get; changes nothing.

        Then checks the fields, under their new names, as `check` does.
        """

    def rename(self, target: Target, names: Mapping[str, str]) -> None:
        """Give columns other names; those that have them already, or are not there, stay as they are."""


class Readable(Destination, Protocol):
    """A destination that tells what it holds, for `rundiff verify` and `rundiff adopt`.

    Values come as text, spelled so that two values of one field are the same exactly if their texts are:
    numbers in digits, times in ISO 8601 (with a blank for the `T`, perhaps), binary as `\\x` and hexadecimal
    digits, lists and structs as JSON where that is what it keeps. Null is null.
    """

    def stored(self, target: Target, fields: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Give the row that stands for each record, in any order, as one snapshot.

        The batches have those of `fields` that the target has. Rows of other writers are among them, and a
        key that stands there more than once comes more than once. Raises `DestinationError` if there is no
        such target.
        """

    def newest_run(self, target: Target) -> int | None:
        """Say which is the latest run that its rows carry the number of; None where they carry none."""

    def echo(self, target: Target, records: pa.RecordBatch) -> pa.RecordBatch:
        """Say as what `stored` would give records if they were delivered; writes nothing.

        The batch has those fields of `records` that the target has, in the same rows. Raises
        `RecordsRefused` for values that it would refuse.
        """
