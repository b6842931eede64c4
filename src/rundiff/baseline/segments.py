"""Segments: immutable, sorted Arrow IPC files of baseline entries.

One row an entry, sorted by primary key signature: `primary_key_signature` and `data_signature`
(fixed_size_binary[32]), `missed_runs` (uint8: complete runs in a row that did not read the key),
`written_run` (uint32: the run whose write log holds the record's last data), `flags` (uint8),
`partition` (fixed_size_binary[16], where scopes need it: the first half of the signature over the
fields that part the records, zeros where it is not known), `field_signatures` (where a sync asks
for them: a struct of uint64, see `rundiff.baseline.fields`), `primary_key` (a struct of the key fields in
their own types). Batches hold 2^20 rows; each has a checksum (XXH3, 64 bits) over its part of the file,
so that together they cover every byte, verified before anything is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from rundiff.baseline.fields import FIELD_SIGNATURES, signatures_type
from rundiff.baseline.order import SIGNATURE, Words, words
from rundiff.errors import BaselineLost
from rundiff.signing import signer_name

__all__ = [
    "BATCH_ROWS",
    "FLAG_ASSUMED",
    "FLAG_DELETED",
    "FLAG_UNCERTAIN",
    "PARTITION",
    "Segment",
    "SegmentInfo",
    "entries",
    "entry_schema",
    "write_segment",
]

BATCH_ROWS = 1 << 20
_LARGE = 16 << 20
"""Bytes of a file whose checksums are worth several threads."""
FLAG_DELETED = 1
"""In an overlay: the base's entry of this key is gone."""
FLAG_ASSUMED = 2
"""Taken over without proof that the destination holds it (`rebaseline`)."""
FLAG_UNCERTAIN = 4
"""The last delivery's outcome is unknown: differs from everything, counts as present."""


PARTITION = pa.binary(16)
"""The Arrow type of a partition's signature."""


class SegmentInfo(msgspec.Struct, frozen=True):
    """What a manifest says of a segment."""

    name: str
    rows: int
    ends: tuple[int, ...]
    """In bytes: where each batch ends in the file, the last one with the footer; the first begins at 0."""
    checksums: tuple[str, ...]
    """XXH3 (64 bits, hex) of the bytes up to each end, from the one before."""


def entry_schema(
    primary_key: pa.StructType, *, parted: bool = False, signed: Sequence[str] | None = None
) -> pa.Schema:
    """Give the schema of a segment whose keys have this type.

    It has partitions if it is `parted`, and the signatures of the fields that `signed` names, if it is given.
    """
    partition = [pa.field("partition", PARTITION, nullable=False)] if parted else []
    fields = [] if signed is None else [pa.field(FIELD_SIGNATURES, signatures_type(signed))]
    return pa.schema(
        [
            pa.field("primary_key_signature", SIGNATURE, nullable=False),
            pa.field("data_signature", SIGNATURE, nullable=False),
            pa.field("missed_runs", pa.uint8(), nullable=False),
            pa.field("written_run", pa.uint32(), nullable=False),
            pa.field("flags", pa.uint8(), nullable=False),
            *partition,
            *fields,
            pa.field("primary_key", primary_key, nullable=False),
        ]
    )


def entries(
    signatures: tuple[pa.Array, pa.Array],
    primary_key: pa.StructArray,
    written_run: int,
    flags: int = 0,
    partition: pa.Array | None = None,
    fields: pa.StructArray | None = None,
) -> pa.RecordBatch:
    """Build entries of one run from (primary key, data) signatures and key values.

    And, if there are any, from partitions and field signatures.
    """
    n = len(primary_key)
    return pa.RecordBatch.from_arrays(
        [
            signatures[0],
            signatures[1],
            pa.array(np.zeros(n, dtype=np.uint8)),
            pa.array(np.full(n, written_run, dtype=np.uint32)),
            pa.array(np.full(n, flags, dtype=np.uint8)),
            *([] if partition is None else [partition]),
            *([] if fields is None else [fields]),
            primary_key,
        ],
        schema=entry_schema(
            primary_key.type,
            parted=partition is not None,
            signed=None if fields is None else [field.name for field in fields.type],
        ),
    )


def _checksums(content: pa.Buffer, ends: Sequence[int]) -> tuple[str, ...]:
    if content.size > _LARGE and signer_name() == "native":
        # On all cores, where this package of Python's takes one.
        from rundiff import _native

        whole = pa.Array.from_buffers(pa.uint8(), content.size, [None, content])
        return tuple(f"{number:016x}" for number in _native.checksums(whole, ends))
    start = 0
    sums = []
    for end in ends:
        sums.append(xxhash.xxh3_64_hexdigest(memoryview(content)[start:end]))
        start = end
    return tuple(sums)


def write_segment(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> SegmentInfo:
    """Write sorted entries to a new file, durable when this returns; the caller syncs the folder."""
    rows = 0
    ends = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in _regular(batches, schema):
            rows += batch.num_rows
            writer.write_batch(batch)
            ends.append(sink.tell())
    with path.open("rb") as written:
        os.fsync(written.fileno())
    ends[-1:] = [path.stat().st_size]
    with pa.memory_map(str(path)) as source:
        sums = _checksums(source.read_buffer(), ends)
    return SegmentInfo(name=path.name, rows=rows, ends=tuple(ends), checksums=sums)


def _regular(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Cut into batches of exactly `BATCH_ROWS`, but the last."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= BATCH_ROWS:
            table = pa.Table.from_batches(waiting, schema)
            yield table.slice(0, BATCH_ROWS).combine_chunks().to_batches()[0]
            rest = table.slice(BATCH_ROWS)
            waiting, count = rest.to_batches(), rest.num_rows
    if count:
        yield pa.Table.from_batches(waiting, schema).combine_chunks().to_batches()[0]


class Segment:
    """A segment in memory or mapped from a file; rows are addressed by their position from 0."""

    def __init__(self, batches: list[pa.RecordBatch], schema: pa.Schema) -> None:
        self.batches = batches
        self.schema = schema
        lengths = [batch.num_rows for batch in batches]
        self.starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.rows = int(self.starts[-1])

    @classmethod
    def open(cls, path: Path, info: SegmentInfo) -> Segment:
        """Map a file and verify it; raises `BaselineLost` if it is missing or damaged."""
        try:
            source = pa.memory_map(str(path))
        except (OSError, pa.ArrowInvalid) as error:  # the latter for an empty file
            raise BaselineLost(f"segment {info.name} of the baseline can't be opened ({error})") from error
        content = source.read_buffer()
        if content.size != info.ends[-1]:
            raise BaselineLost(
                f"segment {info.name} of the baseline has another length than its manifest says"
            )
        # Before anything is read as Arrow: a damaged file can bring its reader down.
        for number, sums in enumerate(zip(_checksums(content, info.ends), info.checksums, strict=True)):
            if sums[0] != sums[1]:
                raise BaselineLost(f"segment {info.name} of the baseline is damaged in batch {number}")
        reader = pa.ipc.open_file(content)
        batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        return cls(batches, reader.schema)

    @classmethod
    def empty(cls, primary_key: pa.StructType) -> Segment:
        """Give a segment without entries."""
        return cls([], entry_schema(primary_key))

    def column(self, name: str) -> list[pa.Array]:
        """Give one column, batch by batch, without copying."""
        return [batch.column(name) for batch in self.batches]

    def numbers(self, name: str) -> npt.NDArray[np.int64]:
        """Give a column of numbers as one array."""
        if not self.batches:
            return np.empty(0, dtype=np.int64)
        return np.concatenate([column.to_numpy() for column in self.column(name)]).astype(np.int64)

    @property
    def parted(self) -> bool:
        """Whether it holds partitions."""
        return "partition" in self.schema.names

    @property
    def signs_fields(self) -> bool:
        """Whether it holds field signatures."""
        return FIELD_SIGNATURES in self.schema.names

    def numbers_at(self, name: str, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Give a column of numbers at positions in any order."""
        values = np.empty(len(positions), dtype=np.int64)
        for column, inside, rows in self._parts(name, positions):
            values[inside] = column.to_numpy()[rows]
        return values

    def keys_at(self, positions: npt.NDArray[np.int64]) -> Words:
        """Give primary key signatures at positions in any order."""
        matrix = np.empty((len(positions), 4), dtype=">u8")
        for column, inside, rows in self._parts("primary_key_signature", positions):
            matrix[inside] = words(column)[rows]
        return matrix

    def _parts(
        self, name: str, positions: npt.NDArray[np.int64]
    ) -> Iterator[tuple[pa.Array, npt.NDArray[np.bool_], npt.NDArray[np.int64]]]:
        """Give one column, batch by batch, which of the positions are in the batch, and their rows there."""
        at = np.searchsorted(self.starts, positions, side="right") - 1
        for number, column in enumerate(self.column(name)):
            inside = at == number
            yield column, inside, positions[inside] - self.starts[number]

    def take(self, positions: npt.NDArray[np.int64]) -> pa.Table:
        """Gather the entries at ascending positions."""
        parts = []
        bounds = np.searchsorted(positions, self.starts)
        for number, batch in enumerate(self.batches):
            wanted = positions[bounds[number] : bounds[number + 1]] - self.starts[number]
            if len(wanted):
                parts.append(batch.take(pa.array(wanted)))
        return pa.Table.from_batches(parts, self.schema)
