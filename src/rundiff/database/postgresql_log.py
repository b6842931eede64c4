"""Write logs in PostgreSQL: the rows that people query, and the exact records that runs go on from.

JSON gives back neither types nor NaN, so each file of a change set is kept a second time, in chunks of
Arrow IPC that are read back into the same file. The local folder is a copy, named by the seal of what it
was made from, and fetched where it is missing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rundiff.database.logs import LogFolders, LogFormat, remove_others
from rundiff.database.postgresql_copy import COLUMNS, copy_lines
from rundiff.database.server import Server
from rundiff.errors import StorageError

if TYPE_CHECKING:
    import psycopg

    from rundiff.database.postgresql import PostgresqlDatabase

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["PostgresqlLog"]

CHUNK_ROWS = 4096
CHUNK_BYTES = 8 << 20
"""Of Arrow data before compression; a chunk of a single record may be larger. What is copied at once is as
much of JSON, and far from the gigabyte that PostgreSQL takes as one value."""
_FETCH_CHUNKS = 16
_ROW_GROUP = 1 << 17
_LOG, _HELD = "log", "held"
Log = tuple[str, int, str]
"""A sync's id, the number of a run, and which of its change sets."""


class PostgresqlLog:
    """The write logs and held sets of a PostgreSQL database."""

    def __init__(
        self, database: PostgresqlDatabase, server: Server, local: tuple[LogFolders, LogFormat]
    ) -> None:
        self._database = database
        self._server = server
        self._folders, self._form = local
        address = database.address
        self._logs = address.table("rundiff_logs")
        self._chunks = address.table("rundiff_log_chunks")
        self._records = address.table("sync_write_records")
        self._known: dict[Log, Path] = {}
        """The local copies that this process has made or found."""

    # Keeping

    def seal(self, sync_id: str, run: int, token: int, folder: Path, *, new_action: str) -> Path:
        """Load a run's records and files in one transaction."""
        log = (sync_id, run, _LOG)

        def load(cursor: Cursor) -> str:
            self._remove(cursor, sync_id, [log[1:]])
            self._load_records(cursor, log[:2], folder, new_action)
            return self._load_files(cursor, log, folder)

        return self._adopt(folder, log, self._database.fenced_last(sync_id, token, load))

    def hold(self, sync_id: str, run: int, token: int, folder: Path) -> Path:
        """Load the files in one transaction."""
        log = (sync_id, run, _HELD)

        def load(cursor: Cursor) -> str:
            self._remove(cursor, sync_id, [log[1:]])
            return self._load_files(cursor, log, folder)

        return self._adopt(folder, log, self._database.fenced_last(sync_id, token, load))

    def _load_records(self, cursor: Cursor, run: tuple[str, int], folder: Path, new_action: str) -> None:
        sequence = 1
        copy = f"COPY {self._records} ({', '.join(COLUMNS)}) FROM STDIN"
        for name, action in zip(self._form.files, ("delete", "update", new_action), strict=True):
            for batch in self._batches(folder / name):
                lines = copy_lines(batch, (*run, action), sequence, self._form.json_text)
                with cursor.copy(copy) as target:
                    target.write(lines)
                sequence += batch.num_rows

    def _load_files(self, cursor: Cursor, log: Log, folder: Path) -> str:
        seal = uuid.uuid4().hex
        cursor.execute(
            f"INSERT INTO {self._logs} (sync_id, run, kind, seal) VALUES (%s, %s, %s, %s)", [*log, seal]
        )
        for path in sorted(folder.iterdir()):
            pieces = self._record_chunks(path) if path.name in self._form.files else _byte_chunks(path)
            for number, piece in enumerate(pieces):
                cursor.execute(
                    f"INSERT INTO {self._chunks} (sync_id, run, kind, file, chunk, records, first_signature,"
                    " last_signature, content) VALUES (%s, %s, %s, %s, %s, %s, %b, %b, %b)",
                    [*log, path.name, number, *piece],
                )
        return seal

    def _batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        if path.exists():
            for batch in self._form.read(path, CHUNK_ROWS):
                yield from _bounded(batch)

    def _record_chunks(self, path: Path) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        for batch in self._batches(path):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
                writer.write_batch(batch)
            keys = batch.column("primary_key_signature")
            yield batch.num_rows, keys[0].as_py(), keys[-1].as_py(), sink.getvalue().to_pybytes()

    # Local copies

    def folder(self, sync_id: str, run: int) -> Path:
        """Give the local copy, fetched if need be."""
        return self._local((sync_id, run, _LOG))

    def held(self, sync_id: str, run: int) -> Path:
        """Give the local copy, fetched if need be."""
        return self._local((sync_id, run, _HELD))

    def _place(self, log: Log) -> Path:
        sync_id, run, kind = log
        return self._folders.log(sync_id, run) if kind == _LOG else self._folders.held(sync_id, run)

    def _copy(self, log: Log, seal: str) -> Path:
        place = self._place(log)
        return place.with_name(f"{place.name}-{seal}")

    def _local(self, log: Log) -> Path:
        known = self._known.get(log)
        if known is not None and known.exists():
            return known
        rows = self._server.rows(
            f"SELECT seal FROM {self._logs} WHERE sync_id::text = %s AND run = %s AND kind = %s", log
        )
        if not rows:
            return self._place(log)
        seal = rows[0]["seal"].hex
        target = self._copy(log, seal)
        if not target.exists():
            above = Path(tempfile.mkdtemp(prefix="fetch-", dir=self._folders.root))
            try:
                fetched = above / "log"
                fetched.mkdir()
                self._fetch(log, fetched)
                self._adopt(fetched, log, seal)
            finally:
                shutil.rmtree(above, ignore_errors=True)
        self._known[log] = target
        return target

    def _adopt(self, folder: Path, log: Log, seal: str) -> Path:
        target = self._copy(log, seal)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(folder, target)
        except OSError:
            # Another process has fetched the same meanwhile.
            if not target.exists():
                raise
        self._known[log] = target
        return target

    def _fetch(self, log: Log, folder: Path) -> None:
        names = self._server.rows(
            f"SELECT file, count(*) AS chunks, sum(records) AS records FROM {self._chunks}"
            " WHERE sync_id = %s AND run = %s AND kind = %s GROUP BY file",
            log,
        )
        for each in names:
            path = folder / Path(each["file"]).name
            contents = self._contents((*log, each["file"]), each["chunks"])
            if path.name in self._form.files:
                self._rebuild(path, contents, int(each["records"]))
            else:
                with path.open("wb") as file:
                    file.writelines(contents)

    def _contents(self, file: tuple[str, int, str, str], chunks: int) -> Iterator[bytes]:
        for start in range(0, chunks, _FETCH_CHUNKS):
            rows = self._server.rows(
                f"SELECT content FROM {self._chunks} WHERE sync_id = %s"
                " AND run = %s AND kind = %s AND file = %s AND chunk >= %s AND chunk < %s ORDER BY chunk",
                [*file, start, start + _FETCH_CHUNKS],
                binary=True,
            )
            for row in rows:
                yield row["content"]

    def _rebuild(self, path: Path, contents: Iterator[bytes], records: int) -> None:
        """Write a file of the log anew, in row groups as large as they were."""
        waiting: list[pa.RecordBatch] = []
        written = 0
        try:
            with self._form.writer(path) as writer:
                for content in contents:
                    with pa.ipc.open_stream(content) as reader:
                        waiting += list(reader)
                    if sum(batch.num_rows for batch in waiting) >= _ROW_GROUP:
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

    # Looking and removing

    def runs_of(self, sync_id: str, signatures: Sequence[bytes]) -> Set[int] | None:
        """Ask the index."""
        rows = self._server.rows(
            f"SELECT DISTINCT run_id FROM {self._records}"
            " WHERE primary_key_signature = ANY (%s) AND sync_id = %s",
            [list(signatures), sync_id],
        )
        return {row["run_id"] for row in rows}

    def drop(self, sync_id: str, run: int, token: int) -> None:
        """Remove rows and files."""
        log = (sync_id, run, _LOG)
        self._database.fenced(sync_id, token, lambda cursor: self._remove(cursor, sync_id, [log[1:]]))
        self._known.pop(log, None)
        place = self._place(log)
        for path in place.parent.glob(f"{place.name}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def retain(self, sync_id: str, token: int, runs: Set[int], held: int | None) -> None:
        """Remove the rows and files of all others."""
        keep = {(run, _LOG) for run in runs} | ({(held, _HELD)} if held is not None else set())

        def clear(cursor: Cursor) -> set[Path]:
            known = cursor.execute(
                f"SELECT run, kind, seal FROM {self._logs} WHERE sync_id = %s", [sync_id]
            ).fetchall()
            self._remove(cursor, sync_id, sorted({(row["run"], row["kind"]) for row in known} - keep))
            return {
                self._copy((sync_id, row["run"], row["kind"]), row["seal"].hex)
                for row in known
                if (row["run"], row["kind"]) in keep
            }

        copies = self._database.fenced(sync_id, token, clear)
        for kind in (_LOG, _HELD):
            remove_others(self._place((sync_id, 0, kind)).parent, copies)

    def _remove(self, cursor: Cursor, sync_id: str, logs: Sequence[tuple[int, str]]) -> None:
        for run, kind in logs:
            cursor.execute(
                f"DELETE FROM {self._logs} WHERE sync_id = %s AND run = %s AND kind = %s",
                [sync_id, run, kind],
            )
            if kind == _LOG:
                cursor.execute(
                    f"DELETE FROM {self._records} WHERE sync_id = %s AND run_id = %s", [sync_id, run]
                )


def _bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    if batch.nbytes <= CHUNK_BYTES or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _bounded(batch.slice(0, half))
    yield from _bounded(batch.slice(half))


def _byte_chunks(path: Path) -> Iterator[tuple[None, None, None, bytes]]:
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
