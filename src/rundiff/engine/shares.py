"""Shares: what one batch of a joined run left, as one file.

```
8 bytes     "RDSHARE1"
8 bytes     length of the header, little-endian
header      MessagePack: `ShareHeader`
rows        an Arrow IPC stream of spooled rows, sorted by key signature, then order; none if there are no rows
```

The rows are those that the batch's reading kept, new and changed ones; of the others the header has the
marks by position of the baseline.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rundiff.baseline.columns import conform, unify_types
from rundiff.compare.seen import Seen
from rundiff.durable import sync_file
from rundiff.engine.reading import Contest, Read
from rundiff.engine.spool import Spool
from rundiff.errors import StorageError
from rundiff.sources.contract import ReadEnd

__all__ = ["Share", "open_share", "read_of", "write_share"]

_MAGIC = b"RDSHARE1"
_SLICE = 1 << 16
Flags = npt.NDArray[np.bool_]


class ShareHeader(msgspec.Struct, frozen=True, kw_only=True):
    """All of a share but its rows."""

    manifest: str | None
    """The baseline that the records were looked up in."""
    positions: int
    records: int
    invalid_keys: int
    unreadable: int
    dropped_duplicates: int
    fields: tuple[str, ...]
    samples: dict[str, tuple[str, ...]]
    invalid: tuple[str, ...]
    incomplete: tuple[str, ...]
    pins: dict[str, str]
    rows: int
    read: bytes
    """One bit a position, compressed: the key was read."""
    implied: bytes
    """One bit a position, compressed: the key was read with the same data, in a record that was not kept."""
    contest: bytes = b""
    """`Contest` as an Arrow IPC stream, where records are ranked."""


class Share(msgspec.Struct, frozen=True):
    """An opened share."""

    header: ShareHeader
    _rows: pa.Buffer

    @property
    def read(self) -> Flags:
        """The positions whose keys were read."""
        return _unpacked(self.header.read, self.header.positions)

    @property
    def implied(self) -> Flags:
        """The positions whose keys were read with the same data, in records that were not kept."""
        return _unpacked(self.header.implied, self.header.positions)

    @property
    def contest(self) -> tuple[npt.NDArray[np.int64], pa.Array] | None:
        """The positions and values of ranked records that were not kept, in order of reading."""
        if not self.header.contest:
            return None
        with pa.ipc.open_stream(self.header.contest) as stream:
            table = stream.read_all().combine_chunks()
        batch = table.to_batches()[0]
        return batch.column("position").to_numpy(), batch.column("value")

    def rows(self) -> Iterator[pa.RecordBatch]:
        """The rows that were kept."""
        if self.header.rows:
            with pa.ipc.open_stream(self._rows) as stream:
                yield from stream


def write_share(path: Path, manifest: str | None, read: Read, sinks: tuple[Seen, Spool]) -> None:
    """Write what a reading left, synced to disk."""
    seen, spool = sinks
    header = ShareHeader(
        manifest=manifest,
        positions=len(seen.read),
        records=read.records,
        invalid_keys=read.invalid_keys,
        unreadable=read.unreadable,
        dropped_duplicates=seen.dropped_duplicates,
        fields=tuple(read.fields),
        samples={kind: tuple(texts) for kind, texts in read.samples.items()},
        invalid=tuple(read.invalid),
        incomplete=tuple(read.end.incomplete),
        pins=read.pins,
        rows=spool.rows,
        read=_packed(seen.read),
        implied=_packed(seen.implied),
        contest=_contest(read.contest),
    )
    encoded = msgspec.msgpack.encode(header)
    with path.open("wb") as file:
        file.write(_MAGIC + struct.pack("<Q", len(encoded)) + encoded)
        if spool.rows:
            _write_rows(file, spool)
    sync_file(path)


def _write_rows(file: object, spool: Spool) -> None:
    writer = None
    kind = spool.data_type
    try:
        for batch in spool.ranges():
            data = conform(batch.column("data"), kind)
            fields = [*list(batch.schema)[:-1], pa.field("data", kind)]
            alike = pa.RecordBatch.from_arrays([*batch.columns[:-1], data], schema=pa.schema(fields))
            if writer is None:
                options = pa.ipc.IpcWriteOptions(compression="zstd")
                writer = pa.ipc.new_stream(file, alike.schema, options=options)
            for start in range(0, alike.num_rows, _SLICE):
                writer.write_batch(alike.slice(start, _SLICE))
    finally:
        if writer is not None:
            writer.close()


def open_share(path: Path, batch: str) -> Share:
    """Map a share; raises `StorageError` if the file is none."""
    content = pa.memory_map(str(path)).read_buffer()
    try:
        if content.slice(0, 8).to_pybytes() != _MAGIC:
            raise ValueError("it does not begin like one")
        size = struct.unpack("<Q", content.slice(8, 8).to_pybytes())[0]
        header = msgspec.msgpack.decode(content.slice(16, size).to_pybytes(), type=ShareHeader)
    except (ValueError, struct.error, msgspec.DecodeError) as error:
        raise StorageError(
            f"what batch {batch} left can't be read ({error}); give the run up and begin it anew"
        ) from error
    return Share(header, content.slice(16 + size))


def read_of(share: Share, batch: str) -> Read:
    """Give the counts of a share as those of a reading; its samples name the batch."""
    header = share.header
    return Read(
        records=header.records,
        invalid_keys=header.invalid_keys,
        unreadable=header.unreadable,
        fields=dict.fromkeys(header.fields),
        samples={
            kind: [f"batch {batch}, {text}" for text in texts] for kind, texts in header.samples.items()
        },
        invalid=list(header.invalid),
        end=ReadEnd(incomplete=tuple(f"batch {batch}: {text}" for text in header.incomplete)),
        pins=header.pins,
    )


def _packed(flags: Flags) -> bytes:
    packed: bytes = pa.compress(np.packbits(flags).tobytes(), codec="zstd", asbytes=True)
    return packed


def _unpacked(packed: bytes, positions: int) -> Flags:
    size = -(-positions // 8)
    plain = pa.decompress(packed, decompressed_size=size, codec="zstd", asbytes=True)
    return np.unpackbits(np.frombuffer(plain, dtype=np.uint8), count=positions).view(np.bool_)


def _contest(contest: Contest) -> bytes:
    if not contest.positions:
        return b""
    kind = pa.null()
    for values in contest.values:
        kind = unify_types(kind, values.type)
    columns = [
        pa.array(np.concatenate(contest.positions)),
        pa.concat_arrays([conform(values, kind) for values in contest.values]),
    ]
    batch = pa.RecordBatch.from_arrays(columns, ["position", "value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content
