"""The files of change sets in a PostgreSQL table, cut into chunks: stored, fetched whole, or in part.

A file of the log is cut by records, hence by ranges of signatures: each chunk is Arrow IPC by itself and has
its first and last signature beside it, so that a few records need a few chunks. Other files are cut by bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from rundiff.baseline.order import prefixes, words
from rundiff.database.logs import LogFormat, LogPart
from rundiff.database.server import Server
from rundiff.errors import StorageError

if TYPE_CHECKING:
    import psycopg

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["CHUNK_BYTES", "CHUNK_ROWS", "Chunks", "Log", "batches"]

CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20
"""Of Arrow data before compression; a chunk of a single record may be larger. What is copied at once is as
much of JSON, and far from the gigabyte that PostgreSQL takes as one value."""
_FETCH_CHUNKS = 16
_ROW_GROUP = 1 << 17
_WORTH_A_COPY = 0.5
"""Where more than this share of the chunks is needed, all of them are fetched: the copy serves the next run."""
Log = tuple[str, int, str]
"""A sync's id, the number of a run, and which of its change sets."""


class _Needed(msgspec.Struct, frozen=True):
    """The chunks of one file that can hold some keys."""

    chunks: Sequence[int]
    starts: Sequence[int]
    """The row of the file at which each of them begins."""
    records: int
    of: int
    """How many chunks the file has."""


class Chunks(msgspec.Struct, frozen=True):
    """The table of chunks."""

    server: Server
    table: str
    form: LogFormat

    def load(self, cursor: Cursor, log: Log, folder: Path) -> None:
        """Store all files of a folder."""
        for path in sorted(folder.iterdir()):
            pieces = self._by_records(path) if path.name in self.form.files else _by_bytes(path)
            for number, piece in enumerate(pieces):
                cursor.execute(
                    f"INSERT INTO {self.table} (sync_id, run, kind, file, chunk, records, first_signature,"
                    " last_signature, content) VALUES (%s, %s, %s, %s, %s, %s, %b, %b, %b)",
                    [*log, path.name, number, *piece],
                )

    def _by_records(self, path: Path) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        for batch in batches(self.form, path):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            keys = batch.column("primary_key_signature")
            yield batch.num_rows, keys[0].as_py(), keys[-1].as_py(), sink.getvalue().to_pybytes()

    def size(self, log: Log) -> int:
        """Say how many bytes a change set takes."""
        rows = self.server.rows(
            # Of values that are stored apart and not compressed, the length is known without reading them.
            f"SELECT coalesce(sum(octet_length(content)), 0)::bigint AS bytes FROM {self.table}"
            " WHERE sync_id = %s AND run = %s AND kind = %s",
            log,
        )
        return int(rows[0]["bytes"])

    def fetch(self, log: Log, folder: Path) -> None:
        """Write all files of a change set into a folder."""
        names = self.server.rows(
            f"SELECT file, count(*) AS chunks, sum(records) AS records FROM {self.table}"
            " WHERE sync_id = %s AND run = %s AND kind = %s GROUP BY file",
            log,
        )
        for each in names:
            path = folder / Path(each["file"]).name
            contents = self._contents((*log, each["file"]), range(each["chunks"]))
            if path.name in self.form.files:
                self._rebuild(path, contents, int(each["records"]))
            else:
                with path.open("wb") as file:
                    file.writelines(contents)

    def fetch_part(self, log: Log, signatures: pa.Array, folder: Path) -> LogPart | None:
        """Write what can hold these keys into a folder; None, and nothing, where that is much of the log."""
        needed = self._needed(log, np.sort(prefixes(words(signatures))))
        if sum(len(each.chunks) for each in needed.values()) > _WORTH_A_COPY * sum(
            e.of for e in needed.values()
        ):
            return None
        pieces: dict[str, list[tuple[int, int]]] = {}
        for name, each in needed.items():
            if not each.chunks:
                continue
            rows = self._rebuild(folder / name, self._contents((*log, name), each.chunks), each.records)
            pieces[name] = list(zip(rows, each.starts, strict=True))
        return LogPart(folder=folder, pieces=pieces)

    def _needed(self, log: Log, wanted: np.typing.NDArray[np.uint64]) -> dict[str, _Needed]:
        rows = self.server.rows(
            f"SELECT file, chunk, records, first_signature, last_signature FROM {self.table}"
            " WHERE sync_id = %s AND run = %s AND kind = %s AND file = ANY (%s) ORDER BY file, chunk",
            [*log, list(self.form.files)],
            binary=True,
        )
        needed = {}
        for name in dict.fromkeys(row["file"] for row in rows):
            chunks = [row for row in rows if row["file"] == name]
            # By the first 64 bits: a chunk too many does no harm.
            first, last = (
                np.frombuffer(b"".join(row[side][:8] for row in chunks), ">u8").astype(np.uint64)
                for side in ("first_signature", "last_signature")
            )
            hit = np.searchsorted(wanted, first, "left") < np.searchsorted(wanted, last, "right")
            records = np.array([row["records"] for row in chunks], np.int64)
            starts = np.cumsum(records) - records
            needed[name] = _Needed(
                [chunks[at]["chunk"] for at in np.flatnonzero(hit)],
                starts[hit].tolist(),
                int(records[hit].sum()),
                len(chunks),
            )
        return needed

    def _contents(self, file: tuple[str, int, str, str], chunks: Sequence[int]) -> Iterator[bytes]:
        for start in range(0, len(chunks), _FETCH_CHUNKS):
            rows = self.server.rows(
                f"SELECT content FROM {self.table} WHERE sync_id = %s"
                " AND run = %s AND kind = %s AND file = %s AND chunk = ANY (%s) ORDER BY chunk",
                [*file, list(chunks[start : start + _FETCH_CHUNKS])],
                binary=True,
            )
            for row in rows:
                yield row["content"]

    def _rebuild(self, path: Path, contents: Iterator[bytes], records: int) -> list[int]:
        """Write a file of the log anew, in row groups as large as they were; give where each chunk begins."""
        waiting: list[pa.RecordBatch] = []
        starts: list[int] = []
        written = read = 0
        try:
            with self.form.writer(path) as writer:
                for content in contents:
                    starts.append(read)
                    with pa.ipc.open_stream(content) as reader:
                        found = list(reader)
                    waiting += found
                    read += sum(batch.num_rows for batch in found)
                    if read - written >= _ROW_GROUP:
                        written += _write(writer, waiting)
                written += _write(writer, waiting)
        except pa.ArrowException as error:
            raise StorageError(
                f"{path.name} of a write log in the database can't be read ({error}); restore the database from a "
                "backup, then run again"
            ) from error
        if written != records:
            raise StorageError(
                f"{path.name} of a write log in the database has {written:,} records of {records:,}; run again"
            )
        return starts


def batches(form: LogFormat, path: Path) -> Iterator[pa.RecordBatch]:
    """Read a file of the log, which may be missing, in batches of the size of chunks."""
    if path.exists():
        for batch in form.read(path, CHUNK_ROWS):
            yield from _bounded(batch)


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= CHUNK_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _by_bytes(path: Path) -> Iterator[tuple[None, None, None, bytes]]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield None, None, None, piece


def _write(writer: Any, waiting: list[pa.RecordBatch]) -> int:
    rows = 0
    if waiting:
        whole = pa.Table.from_batches(waiting).combine_chunks()
        waiting.clear()
        for batch in whole.to_batches():
            writer.write(batch)
            rows += batch.num_rows
    return rows
