"""How a file is cut into blobs of about 16 kB.

A segment (an Arrow IPC file sorted by key signature) is cut by rows, that is by ranges of signatures: a blob
holds some rows' key signatures, then their data signatures, then the other columns, each in its own width. A
column that is constant in a batch is named in the plan and stands in no blob; a number column with few values
is one byte a row; of texts the lengths are stored, in the smallest width, and not the offsets. All other bytes of the
file (schema, padding, footer, columns of nested types) are the *rest*, which is cut as it is.

The plan knows nothing of Arrow but where bytes go, so that any version of Arrow gives the same file, with the
checksums that its manifest names.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

__all__ = ["BLOB_BYTES", "Column", "DamagedBlobs", "Plan", "Rows", "digest_of_file", "plan_of"]

BLOB_BYTES = 16_320
"""A little below 16 KiB: with the server's header a blob just fits the allocation class of 16,384 bytes."""

_INLINE_BYTES = 8_192
_SMALL_WIDTHS = ((1 << 8, 1), (1 << 16, 2), (1 << 32, 4))
_ARROW = b"ARROW1"

Bytes = npt.NDArray[np.uint8]


class DamagedBlobs(Exception):
    """Blobs don't fit their plan."""


class Column(msgspec.Struct, frozen=True, array_like=True):
    """One buffer of a batch, or the pair of buffers of a text column."""

    kind: str
    """`fixed`: as it is; `same`: all rows like `table`; `coded`: rows are indices into `table`; `text`."""
    start: int
    """In bytes of the file: where the buffer begins; of a text, its offsets."""
    width: int
    """Bytes of one row in the file; of a text, of one offset."""
    table: bytes = b""
    data: int = 0
    """Of a text: where the first row's bytes begin in the file."""
    first: int = 0
    """Of a text: the first offset."""
    lengths: int = 0
    """Of a text: bytes of one length in a blob; 0 when all are `length`."""
    length: int = 0
    size: int = 0
    """Of a text: bytes of all rows."""


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """One batch of the file."""

    rows: int
    step: int
    """Rows in a blob; the last may have fewer."""
    columns: tuple[Column, ...]

    @property
    def blobs(self) -> int:
        """How many blobs it takes."""
        return -(-self.rows // self.step)

    @property
    def claims(self) -> list[tuple[int, int]]:
        """The ranges (start, end) of the file that its columns take, in order."""
        found = []
        for column in self.columns:
            more = 1 if column.kind == "text" else 0
            found.append((column.start, column.start + (self.rows + more) * column.width))
            found.append((column.data, column.data + column.size))
        return sorted(claim for claim in found if claim[0] < claim[1])

    @property
    def span(self) -> tuple[int, int]:
        """From its first byte to the end of its last."""
        claims = self.claims
        return claims[0][0], claims[-1][1]


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What a file consists of."""

    size: int
    """In bytes."""
    digest: str
    """XXH3 (128 bits, hex) of the whole file."""
    batches: tuple[Rows, ...] = ()
    rest: tuple[tuple[int, int], ...] = ()
    """Ranges (start, end) of the file that stand in no column."""
    inline: bytes | None = None
    """The file itself, if it is small."""

    @property
    def blobs(self) -> int:
        """How many blobs there are."""
        return sum(batch.blobs for batch in self.batches) + -(-self._rest_bytes // BLOB_BYTES)

    @property
    def _rest_bytes(self) -> int:
        return sum(end - start for start, end in self.rest)

    def encode(self) -> bytes:
        """Give it as bytes with a checksum before them."""
        body = msgspec.msgpack.encode(self)
        return xxhash.xxh3_64_digest(body) + body

    @classmethod
    def decode(cls, content: bytes) -> Plan:
        """Read it; raises `DamagedBlobs`."""
        if xxhash.xxh3_64_digest(content[8:]) != content[:8]:
            raise DamagedBlobs("its description is damaged")
        try:
            return msgspec.msgpack.decode(content[8:], type=cls)
        except msgspec.DecodeError as error:
            raise DamagedBlobs("its description is of another version of Rundiff") from error


def digest_of_file(path: Path) -> str:
    """XXH3 (128 bits, hex) of a file's bytes."""
    with path.open("rb") as file:
        return xxhash.xxh3_128_hexdigest(_mapped(file.fileno(), path.stat().st_size))


def _mapped(handle: int, size: int) -> Any:
    return mmap.mmap(handle, size, access=mmap.ACCESS_READ) if size else b""


def plan_of(path: Path) -> tuple[Plan, memoryview]:
    """Say how a file is cut, and map it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        content = memoryview(_mapped(file.fileno(), size))
    digest = xxhash.xxh3_128_hexdigest(content)
    if size <= _INLINE_BYTES:
        return Plan(size, digest, inline=bytes(content)), content
    batches = tuple(_batches(content)) if content[: len(_ARROW)] == _ARROW else ()
    gaps = _gaps(batches, size)
    if gaps is None:
        batches, gaps = (), ((0, size),)
    return Plan(size, digest, batches, gaps), content


def _batches(content: memoryview) -> Iterator[Rows]:
    buffer = pa.py_buffer(content)
    try:
        reader = pa.ipc.open_file(buffer)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except pa.ArrowInvalid:
        return  # no Arrow file in spite of its first bytes: all of it is rest
    where = _Where(buffer)
    for batch in batches:
        if batch.num_rows == 0:
            continue
        found = [planned for array in batch.columns for planned in _columns(array, where)]
        columns = tuple(column for column in found if column is not None)
        stored = sum(_stored_width(column, batch.num_rows) for column in columns)
        if stored:
            yield Rows(batch.num_rows, max(1, int(BLOB_BYTES / stored)), columns)


class _Where:
    """Finds buffers of arrays in the mapped file."""

    def __init__(self, whole: pa.Buffer) -> None:
        self._whole = whole
        self.bytes: Bytes = np.frombuffer(whole, np.uint8)

    def start(self, buffer: pa.Buffer | None, size: int) -> int | None:
        """Where a buffer begins, or None if it is not there with that many bytes (compressed, empty)."""
        if buffer is None or size == 0 or buffer.size < size:
            return None
        start = int(buffer.address - self._whole.address)
        return start if start >= 0 and start + size <= self._whole.size else None

    def numbers(self, start: int, count: int, width: int) -> npt.NDArray[Any]:
        """View bytes of the file as little-endian numbers."""
        return self.bytes[start : start + count * width].view(f"<u{width}")


def _columns(array: pa.Array, where: _Where) -> Iterator[Column | None]:
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from _columns(array.storage, where)
    elif array.offset:
        return  # never in a file that a writer has made; it would be rest
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _columns(array.field(index), where)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        yield _text(array, where, 4)
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        yield _text(array, where, 8)
    elif _has_fixed_width(kind):
        yield _fixed(array, where, kind.bit_width // 8)


def _has_fixed_width(kind: pa.DataType) -> bool:
    if pa.types.is_boolean(kind):
        return False  # bits
    return bool(
        pa.types.is_primitive(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_decimal(kind)
    )


def _fixed(array: pa.Array, where: _Where, width: int) -> Column | None:
    start = where.start(array.buffers()[1], len(array) * width)
    if start is None:
        return None
    if width in (1, 2, 4, 8):
        numbers = where.numbers(start, len(array), width)
        if bool((numbers == numbers[0]).all()):
            return Column("same", start, width, numbers[:1].tobytes())
        low, high = int(numbers.min()), int(numbers.max())
        if width > 1 and high - low < 1 << 16:
            values = np.flatnonzero(np.bincount((numbers - low).astype(np.int64))) + low
            if len(values) <= 1 << 8:
                return Column("coded", start, width, values.astype(f"<u{width}").tobytes())
    return Column("fixed", start, width)


def _text(array: pa.Array, where: _Where, width: int) -> Column | None:
    _, offsets, data = array.buffers()
    rows = len(array)
    start = where.start(offsets, (rows + 1) * width)
    if start is None:
        return None
    ends = where.numbers(start, rows + 1, width).view(f"<i{width}")
    first, last = int(ends[0]), int(ends[-1])
    lengths = np.diff(ends)
    if first < 0 or bool((lengths < 0).any()):
        return None
    begin = where.start(data, last)
    if last > first and begin is None:
        return None
    at = 0 if begin is None else begin + first
    if bool((lengths == lengths[0]).all()):
        return Column("text", start, width, data=at, first=first, length=int(lengths[0]), size=last - first)
    most = int(lengths.max())
    small = next((size for limit, size in _SMALL_WIDTHS if most < limit), 8)
    return Column("text", start, width, data=at, first=first, lengths=small, size=last - first)


def _stored_width(column: Column, rows: int) -> float:
    """Mean bytes of a row in a blob."""
    if column.kind == "text":
        return column.lengths + column.size / rows
    return {"fixed": column.width, "coded": 1, "same": 0}[column.kind]


def _gaps(batches: Sequence[Rows], size: int) -> tuple[tuple[int, int], ...] | None:
    """Give what no column claims; None if two columns claim the same bytes, as in no file of a writer."""
    gaps = []
    at = 0
    for start, end in sorted(claim for batch in batches for claim in batch.claims):
        if start < at:
            return None
        if start > at:
            gaps.append((at, start))
        at = end
    if at < size:
        gaps.append((at, size))
    return tuple(gaps)
