"""Write logs in PostgreSQL: the rows that people query, and the exact records that runs go on from.

JSON gives back neither types nor NaN, so each file of a change set is kept a second time, in chunks of
Arrow IPC that are read back into the same file. The local folder is a copy, named by the seal of what it
was made from, and fetched where it is missing; a few records are fetched without a copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rundiff.copies import InUse
from rundiff.database.flaps import FLAPS, Flaps, described
from rundiff.database.logs import FETCHED, LogFolders, LogFormat, LogPart, remove_others
from rundiff.database.postgresql_chunks import Chunks, Log, batches
from rundiff.database.postgresql_copy import COLUMNS, copy_lines
from rundiff.database.server import Server

if TYPE_CHECKING:
    import psycopg

    from rundiff.database.postgresql import PostgresqlDatabase

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["PostgresqlLog"]

_LOG, _HELD = "log", "held"


class PostgresqlLog:
    """The write logs and held sets of a PostgreSQL database."""

    def __init__(
        self,
        database: PostgresqlDatabase,
        server: Server,
        local: tuple[LogFolders, LogFormat],
        in_use: InUse,
    ) -> None:
        self._in_use = in_use
        self._database = database
        self._server = server
        self._folders, self._form = local
        address = database.address
        self._logs = address.table("rundiff_logs")
        self._chunks = Chunks(server, address.table("rundiff_log_chunks"), self._form)
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
            for batch in batches(self._form, folder / name):
                lines = copy_lines(batch, (*run, action), sequence, self._form.json_text)
                with cursor.copy(copy) as target:
                    target.write(lines)
                sequence += batch.num_rows

    def _load_files(self, cursor: Cursor, log: Log, folder: Path) -> str:
        seal = uuid.uuid4().hex
        cursor.execute(
            f"INSERT INTO {self._logs} (sync_id, run, kind, seal) VALUES (%s, %s, %s, %s)", [*log, seal]
        )
        self._chunks.load(cursor, log, folder)
        return seal

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
        """Name the local copy, which nobody removes from now on."""
        place = self._place(log)
        # What all of a sync's copies are in.
        self._in_use.hold(place.parent.parent)
        return place.with_name(f"{place.name}-{seal}")

    def _local(self, log: Log) -> Path:
        known = self._known.get(log)
        if known is not None and known.exists():
            return known
        seal = self._seal(log)
        if seal is None:
            return self._place(log)
        target = self._copy(log, seal)
        if not target.exists():
            above = self._temporary()
            try:
                fetched = above / "log"
                fetched.mkdir()
                self._chunks.fetch(log, fetched)
                self._adopt(fetched, log, seal)
            finally:
                shutil.rmtree(above, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                # The copies used last are kept.
                os.utime(target)
        self._known[log] = target
        return target

    def _seal(self, log: Log) -> str | None:
        rows = self._server.rows(
            f"SELECT seal FROM {self._logs} WHERE sync_id::text = %s AND run = %s AND kind = %s", log
        )
        return rows[0]["seal"].hex if rows else None

    def _temporary(self) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{FETCHED}{os.getpid()}-", dir=self._folders.root))

    def part(self, sync_id: str, run: int, signatures: pa.Array) -> LogPart:
        """Give the local copy, or else fetch the chunks that can hold these keys; all if it is most of them."""
        log = (sync_id, run, _LOG)
        known, seal = self._known.get(log), None
        if known is None or not known.exists():
            seal = self._seal(log)
        if seal is not None and not self._copy(log, seal).exists():
            folder = self._temporary()
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            part = self._chunks.fetch_part(log, signatures, folder)
            if part is not None:
                return part
        return LogPart(folder=self._local(log))

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

    # Looking and removing

    def to_fetch(self, runs: Sequence[tuple[str, int]]) -> int:
        """Add up the chunks of those that have no local copy."""
        seals: dict[tuple[str, int], str] = {}
        for sync_id in dict.fromkeys(sync_id for sync_id, _ in runs):
            found = self._server.rows(
                f"SELECT run, seal FROM {self._logs} WHERE sync_id = %s AND kind = %s", [sync_id, _LOG]
            )
            seals.update({(sync_id, row["run"]): row["seal"].hex for row in found})
        return sum(
            self._chunks.size((*run, _LOG))
            for run in runs
            if run in seals and not self._copy((*run, _LOG), seals[run]).exists()
        )

    def runs_of(self, sync_id: str, signatures: Sequence[bytes]) -> Set[int] | None:
        """Ask the index."""
        rows = self._server.rows(
            f"SELECT DISTINCT run_id FROM {self._records}"
            " WHERE primary_key_signature = ANY (%s) AND sync_id = %s",
            [list(signatures), sync_id],
        )
        return {row["run_id"] for row in rows}

    def flaps(self, sync_id: str, runs: Sequence[int], below: int | None) -> Flaps:
        """Ask the server; the keys and changed fields of those that are described come after."""
        where = "sync_id = %s AND run_id = ANY (%s)"
        values: list[Any] = [sync_id, list(runs)]
        if below is not None:
            where, values = f"{where} AND primary_key_signature < %s", [*values, below.to_bytes(8, "big")]
        records = (
            "SELECT primary_key_signature AS key, run_id AS run, destination_action = 'delete' AS gone,"
            f" data_signature AS data FROM {self._records} WHERE {where}"
        )
        found = self._server.rows(FLAPS.format(records=records), values)
        details = self._server.rows(
            f"SELECT primary_key_signature AS key, primary_key::text AS shown, changed_fields FROM {self._records}"
            " WHERE primary_key_signature = ANY (%s) AND sync_id = %s AND run_id = ANY (%s)",
            [[row["key"] for row in found], sync_id, list(runs)],
        )
        return described(found, [(bytes(row["key"]), row["shown"], row["changed_fields"]) for row in details])

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
