"""Parquet files that are encoded beside the work of who writes them, with the native core on all cores.

Arrow encodes a file on one core, and the native core puts files together without touching their pages: so each row
group becomes a file of its own in memory, several at a time. Without the native core, one thread lets Arrow write one
row group after the other. Readers see a file like any other.

The core (`parquet` 60) declares that floating-point numbers are in IEEE 754's total order, which not every reader
knows: those pass over the least and greatest values of such columns. So files that have them are left to Arrow.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa

from rundiff.signing import signer_name

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["GROUP_BYTES", "RowGroups"]

GROUP_BYTES = 32 << 20
"""Of a batch with more values than this, row groups have about as much."""
_MOST_THREADS = 4
"""More would keep hundreds of megabytes under way, several files being written at a time."""


class RowGroups:
    """A Parquet file that is written into a stream; `options` are those of `pyarrow.parquet.ParquetWriter`.

    The stream is not closed, and nothing else may be done to it before `end` or `abandon`. An error of one row group
    may be raised by a later call: `OSError` where Arrow can't encode it, or what the stream raises. All calls raise
    one from then on, so that no file ends without it; it can only be abandoned.
    """

    def __init__(self, stream: BinaryIO, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self._stream = stream
        self._schema = schema
        self._options = options
        self._under_way: deque[Future[pa.Array | None]] = deque()
        self._broken: BaseException | None = None
        self._writer: pq.ParquetWriter | None = None
        self._sink = _Sink(stream)
        self._joined: Any = None
        self._begun = False
        threads = 1
        if signer_name() == "native" and not (
            options.get("write_statistics", True) is True and _has_floats(schema)
        ):
            from rundiff import _native

            self._joined = _native.JoinedParquet()
            threads = min(_native.threads(), _MOST_THREADS)
        self._at_once = threads + 1
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="rundiff-parquet")

    def write(self, rows: pa.Table, most: int) -> None:
        """Append rows as row groups of at most `most` rows."""
        self._refuse_broken()
        for part in _parts(rows, most):
            if len(self._under_way) == self._at_once:
                self._take()
            self._under_way.append(self._threads.submit(self._encoded, part))

    def end(self) -> None:
        """Write what is under way, and the footer."""
        self._refuse_broken()
        try:
            while self._under_way:
                self._take()
            if self._begun:
                self._stream.write(self._joined.end())
            else:
                self._arrows_writer().close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop. A file that was not ended has no footer: nobody takes it for a whole one."""
        self._threads.shutdown(cancel_futures=True)
        self._under_way.clear()
        if self._writer is not None and self._writer.is_open:
            # Arrow's writer writes a footer when it goes, too: into nowhere.
            self._sink.cut = True
            with suppress(Exception):
                self._writer.close()

    def _take(self) -> None:
        try:
            file = self._under_way.popleft().result()
            if file is not None:
                self._stream.write(self._joined.append(file))
                self._begun = True
        except (pa.ArrowException, ValueError) as error:
            self._broken = error
            raise OSError(f"a row group can't be encoded ({error})") from error
        except BaseException as error:
            self._broken = error
            raise

    def _refuse_broken(self) -> None:
        if self._broken is not None:
            raise OSError(f"a part of the file could not be written ({self._broken})") from self._broken

    def _encoded(self, rows: pa.Table) -> pa.Array | None:
        import pyarrow.parquet as pq

        if self._joined is None:
            self._arrows_writer().write_table(rows, row_group_size=rows.num_rows)
            return None
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, self._schema, **self._options) as writer:
            writer.write_table(rows, row_group_size=rows.num_rows)
        file = sink.getvalue()
        return pa.Array.from_buffers(pa.uint8(), file.size, [None, file])

    def _arrows_writer(self) -> pq.ParquetWriter:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(self._sink, self._schema, **self._options)
        return self._writer


class _Sink(io.RawIOBase):
    """Passes on what is written, until it is cut off."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self.cut = False
        self._stream = stream
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        count = len(data)
        if not self.cut:
            self._stream.write(data)
        self._written += count
        return count


def _has_floats(kind: pa.DataType | pa.Schema) -> bool:
    types = [field.type for field in kind] if isinstance(kind, pa.Schema) else _members(kind)
    return any(pa.types.is_floating(each) or _has_floats(each) for each in types)


def _members(kind: pa.DataType) -> list[pa.DataType]:
    if isinstance(kind, pa.BaseExtensionType):
        return [kind.storage_type]
    return [kind.field(at).type for at in range(kind.num_fields)]


def _parts(rows: pa.Table, most: int) -> Iterator[pa.Table]:
    """Cut rows into parts of about the same length, none longer than `most` or than some `GROUP_BYTES`."""
    count = max(1, -(-rows.num_rows // most), -(-rows.nbytes // GROUP_BYTES))
    step = max(1, -(-rows.num_rows // count))
    for start in range(0, rows.num_rows, step):
        yield rows.slice(start, step)
