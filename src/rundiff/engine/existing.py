"""New keys that a policy makes entries of the baseline without a write record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from rundiff.baseline.segments import FLAG_ASSUMED, entries
from rundiff.engine.partitions import as_partitions, record_partitions
from rundiff.errors import PolicyViolation

if TYPE_CHECKING:
    from rundiff.engine.comparing import Comparing, Found

__all__ = ["without_existing"]


def without_existing(
    work: Comparing, batch: pa.RecordBatch, found: Found, extras: list[pa.RecordBatch]
) -> pa.RecordBatch:
    """Take out what a policy makes an entry without a write record."""
    if work.assume:
        extras.append(_assumed(batch, work))
        return batch.slice(0, 0)
    if work.existing is None:
        return batch
    keys = pa.RecordBatch.from_struct_array(batch.column("primary_key"))
    held = work.existing(keys)
    count = int(pc.sum(held).as_py() or 0)
    found.existing += count
    if count and work.policies.on_existing == "fail":
        raise PolicyViolation(
            f"the destination already holds {count:,} or more of the source's keys, and on_existing is fail; "
            "set it to overwrite or keep, or choose another table. Nothing was written"
        )
    if count and work.policies.on_existing == "keep":
        extras.append(_assumed(batch.filter(held), work))
        return batch.filter(pc.invert(held))
    return batch


def _assumed(batch: pa.RecordBatch, work: Comparing) -> pa.RecordBatch:
    signatures = (batch.column("primary_key_signature"), batch.column("data_signature"))
    partition = fields = None
    data = pa.RecordBatch.from_struct_array(batch.column("data"))
    if work.field_signatures is not None:
        fields = work.field_signatures.signer.sign(data, work.signed_fields)
    if work.parting is not None:
        partition = as_partitions(record_partitions(data, work.parting.fields, work.parting.signing_key))
    return entries(
        signatures,
        batch.column("primary_key"),
        written_run=0,
        flags=FLAG_ASSUMED,
        partition=partition,
        fields=fields,
    )
