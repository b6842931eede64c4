"""What some runs look for in every batch, beside new and changed records.

Marks of deletion, the sentinel, the highest value of the cursor, the partitions that turn up. A run
that asks for none of these has no `Watch` and does nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.order import Halves
from rundiff.compare.marks import Condition, holds, matches_all
from rundiff.engine.partitions import record_partitions
from rundiff.errors import PolicyViolation
from rundiff.signing import SigningKey

__all__ = ["MARKED", "Noticed", "Watch", "Watched"]

MARKED = 4
"""A bit of the spool's `match`: the source marks the record as deleted."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for."""

    deleted_when: Condition | None = None
    sentinel: Mapping[str, Any] | None = None
    cursor: str | None = None
    partition_by: Sequence[str] = ()
    """Note which partitions over these fields turn up."""

    def __bool__(self) -> bool:
        return bool(self.deleted_when or self.sentinel or self.cursor or self.partition_by)

    def marked(self, records: pa.RecordBatch) -> npt.NDArray[np.bool_] | None:
        """Mark the records that the source calls deleted; None if there are none."""
        if self.deleted_when is None:
            return None
        marked = holds(self.deleted_when, records)
        return marked if marked.any() else None

    def notice(self, records: pa.RecordBatch, key: SigningKey | None) -> Noticed:
        """Look at records with valid keys; safe to call from many threads."""
        sentinel = bool(self.sentinel) and matches_all(self.sentinel or {}, records, "sentinel")
        partitions = np.zeros((0, 2), dtype=">u8")
        if self.partition_by:
            found = record_partitions(records, self.partition_by, key)
            partitions = np.unique(found.astype(np.uint64), axis=0).astype(">u8")
        return Noticed(sentinel, self._highest(records), partitions)

    def _highest(self, records: pa.RecordBatch) -> pa.Scalar | None:
        at = -1 if self.cursor is None else records.schema.get_field_index(self.cursor)
        if at < 0 or records.column(at).null_count == records.num_rows:
            return None
        try:
            return pc.max(records.column(at))
        except pa.ArrowNotImplementedError as error:
            raise PolicyViolation(
                f"the cursor {self.cursor} holds values of the type {records.column(at).type}, which have no highest; "
                "choose a field of numbers, text or times"
            ) from error


class Noticed(msgspec.Struct, frozen=True):
    """What one batch showed."""

    sentinel: bool
    highest: pa.Scalar | None
    partitions: Halves


class Watched(msgspec.Struct):
    """What all batches of a reading showed."""

    sentinel: bool = False
    highest: pa.Scalar | None = None
    partitions: list[Halves] = msgspec.field(default_factory=list)

    def add(self, noticed: Noticed | None) -> None:
        """Take one batch in."""
        if noticed is None:
            return
        self.sentinel |= noticed.sentinel
        if len(noticed.partitions):
            self.partitions.append(noticed.partitions)
        highest = noticed.highest
        if highest is None or not highest.is_valid:
            return
        if self.highest is None:
            self.highest = highest
            return
        if not highest.type.equals(self.highest.type):
            # Rows of mappings may change a field's type from batch to batch.
            try:
                highest, self.highest = _alike(highest, self.highest)
            except pa.ArrowException as error:
                raise PolicyViolation(
                    f"the cursor holds values of the types {highest.type} and {self.highest.type}, "
                    "which have no order; choose a field of one type"
                ) from error
        if pc.greater(highest, self.highest).as_py():
            self.highest = highest

    @property
    def all_partitions(self) -> Halves:
        """All partitions that turned up."""
        return np.concatenate(self.partitions) if self.partitions else np.zeros((0, 2), dtype=">u8")


def _alike(left: pa.Scalar, right: pa.Scalar) -> tuple[pa.Scalar, pa.Scalar]:
    try:
        return left, right.cast(left.type)
    except pa.ArrowException:
        return left.cast(right.type), right
