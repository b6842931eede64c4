"""What becomes of keys that were not read, or that the source marks: deletions, misses, partitions kept."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rundiff.baseline.fields import FIELD_SIGNATURES
from rundiff.baseline.merge import entry_shape, with_shape
from rundiff.baseline.order import argsort, as_signatures, words
from rundiff.baseline.segments import entry_schema
from rundiff.compare.decision import Decision
from rundiff.engine.changeset import ENTRIES, write_entries
from rundiff.engine.comparing import CHUNK, Comparing, Found, digest_change
from rundiff.engine.fieldsignatures import in_entries
from rundiff.engine.log import CREATES, DELETES, LogWriter, log_schema
from rundiff.engine.partitions import as_partitions
from rundiff.engine.renewing import Renewed

__all__ = ["Looked", "find_deletions", "keep_entries"]

_FIRST = 1 << 10
_CHUNK_BYTES = 96 << 20
"""As much of deleted records is in memory at a time, after the first so many of them."""


class Looked(msgspec.Struct, frozen=True):
    """What a run knows of the keys of the baseline, by position."""

    read: npt.NDArray[np.bool_]
    """The key was read."""
    judged: npt.NDArray[np.bool_] | bool
    """The run could tell whether the source has the key: of all, of none, or of some."""
    renewed: Renewed | None = None
    """What the entries are signed with from now on, if otherwise."""


def keep_entries(work: Comparing, *, count: bool, repart: bool) -> int:
    """Write the entries that change without a write record: misses, forgiven misses, partitions, field signatures.

    With `count`, this run's misses count; with `repart`, all live entries get the partitions of
    `work.parting`. Gives how many keys have misses and are neither read nor due after this run.
    """
    baseline = work.baseline
    memory = None if baseline.manifest is None else baseline.manifest.memory
    absent = work.absent
    counted = absent.pending if count else absent.pending[:0]
    gained = work.gained
    if (memory is None or memory.pending == 0) and len(counted) == 0 and not repart and gained is None:
        return 0
    before = baseline.misses()
    after = before.copy()
    live = baseline.live_mask()
    after[work.seen.read] = 0
    after[counted] = absent.misses[: len(counted)]
    touched = live if repart else live & (before != after)
    touched = np.flatnonzero(touched if gained is None else touched | (live & gained))
    if len(touched):
        write_entries(work.folder / ENTRIES, _entries_again(work, touched, after, repart=repart))
    # Those that are due now keep what they had, and are no more pending once they are deleted.
    after[absent.due] = 0
    return int(np.count_nonzero(live & (after > 0)))


def _entries_again(
    work: Comparing, positions: npt.NDArray[np.int64], misses: npt.NDArray[np.uint8], *, repart: bool
) -> Iterator[pa.RecordBatch]:
    """Give the entries at positions with other misses and, if asked for, other partitions."""
    baseline, parting = work.baseline, work.parting
    split = int(np.searchsorted(positions, baseline.base.rows))
    # Within one segment `take` keeps the order of positions.
    for part in (positions[:split], positions[split:]):
        for start in range(0, len(part), CHUNK):
            at = part[start : start + CHUNK]
            batch = baseline.gather(at).combine_chunks().to_batches()[0]
            if work.renewed is not None:
                batch = work.renewed.renew(batch, at)
            else:
                signed = work.field_signatures
                batch = in_entries(batch, None) if signed is None else signed.renew(batch, at)
            columns = {name: batch.column(name) for name in batch.schema.names}
            columns["missed_runs"] = pa.array(misses[at])
            key, fields = columns.pop("primary_key"), columns.pop(FIELD_SIGNATURES, None)
            if repart and parting is not None and parting.partitions is not None:
                columns["partition"] = as_partitions(parting.partitions[at])
            if fields is not None:
                columns[FIELD_SIGNATURES] = fields
            names = None if fields is None else [field.name for field in fields.type]
            schema = entry_schema(key.type, parted="partition" in columns, signed=names)
            yield pa.RecordBatch.from_arrays([*columns.values(), key], schema=schema)


def find_deletions(work: Comparing, found: Found, stale: pa.Table | None = None) -> None:
    """Write the deletions: live keys that a complete reading covered and did not meet, and marked ones.

    `stale` are entries that were deleted before, but that the destination may hold again.
    """
    positions = np.sort(np.concatenate([work.gone, *found.marked]))
    gone, logged = _gone(work, positions, stale)
    found.repeated = gone.num_rows - len(positions)
    if gone.num_rows == 0:
        return
    kind = work.previous.data_type(gone.column("written_run").to_numpy())
    key_type = gone.schema.field("primary_key").type
    schema = log_schema(key_type, key_type if pa.types.is_null(kind) else kind)
    for start in range(0, gone.num_rows, CHUNK):
        # In parts of this length, whatever the records weigh: people approve by this digest.
        part = gone.slice(start, CHUNK).combine_chunks().to_batches()[0]
        found.digest.update(words(part.column("primary_key_signature")).tobytes())
        found.digest.update(words(part.column("data_signature")).tobytes())
        digest_change(found.whole_digest, Decision.DELETE, part)
    with LogWriter(work.folder / DELETES) as writer:
        start, step = 0, _FIRST
        while start < gone.num_rows:
            batch = gone.slice(start, step).combine_chunks().to_batches()[0]
            signatures = batch.column("primary_key_signature")
            if pa.types.is_null(kind):
                data = pa.nulls(batch.num_rows, key_type)
            else:
                written = batch.column("written_run").to_numpy().astype(np.int64)
                data = work.previous.fetch(
                    logged.slice(start, batch.num_rows).combine_chunks(), written, kind
                )
            start += batch.num_rows
            # What records weigh is known from those before.
            step = min(CHUNK, max(1, _CHUNK_BYTES * batch.num_rows // max(1, data.nbytes)))
            writer.write(
                pa.RecordBatch.from_arrays(
                    [
                        as_signatures(words(signatures)),
                        batch.column("data_signature"),
                        batch.column("primary_key"),
                        data,
                        pa.nulls(batch.num_rows, pa.list_(pa.string())),
                    ],
                    schema=schema,
                )
            )
        found.deleted = writer.rows


def _gone(
    work: Comparing, positions: npt.NDArray[np.int64], stale: pa.Table | None
) -> tuple[pa.Table, pa.ChunkedArray]:
    """Gather the entries that go, and the signatures by which the write log knows them, in order.

    The two differ where the run goes over to another signing key.
    """
    gone = work.baseline.gather(positions)
    logged = gone.column("primary_key_signature")
    renewed = work.renewed
    if renewed is not None:
        gone = renewed.renew(gone, positions)
    if stale is not None:
        known = stale.column("primary_key_signature")
        if renewed is not None:
            stale = renewed.rekey(stale)
        wanted = _still_gone(work, stale)
        stale = stale.filter(wanted)
        logged = pa.chunked_array([*logged.chunks, *known.filter(wanted).chunks], known.type)
        shape = entry_shape(gone.schema, stale.schema)
        gone = pa.concat_tables([with_shape(gone, shape), with_shape(stale, shape)])
    order = pa.array(argsort(words(gone.column("primary_key_signature"))))
    return gone.take(order).combine_chunks(), logged.take(order)


def _still_gone(work: Comparing, stale: pa.Table) -> pa.ChunkedArray | pa.Array:
    """Mark deletions to repeat: all but those of keys that this run creates again."""
    created = work.folder / CREATES
    if not created.exists():
        return pa.array(np.ones(stale.num_rows, dtype=np.bool_))
    keys = pq.read_table(created, columns=["primary_key_signature"]).column(0).cast(pa.binary())
    back = pc.is_in(stale.column("primary_key_signature").cast(pa.binary()), value_set=keys)
    return pc.invert(back)
