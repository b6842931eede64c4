"""The embedded database: one SQLite file in WAL mode, every commit synced.

Plain `sqlite3` and not SQLAlchemy, whose import alone takes half of the time that a small sync may
take as a whole (docs/decisions/0002-embedded-database.md).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rundiff.database.contract import Acknowledged, Failure, StoredRun, StoredSync
from rundiff.database.embedded_file import SCHEMA_VERSION, open_file, transaction
from rundiff.database.embedded_rows import as_json, failure_of, run_of, sync_of
from rundiff.database.joined import JoinedTables, Statements
from rundiff.database.logs import FolderLog, LogFolders, LogFormat, WriteLog
from rundiff.errors import Fenced, StorageError, SyncBusy
from rundiff.model import RunKind, RunStatus

__all__ = ["SCHEMA_VERSION", "EmbeddedDatabase"]

T = TypeVar("T")

_UNFINISHED = (RunStatus.READING, RunStatus.SEALED, RunStatus.DELIVERING)


class EmbeddedDatabase:
    """Syncs, runs, leases, acknowledgements and failures in `rundiff.sqlite` of the home directory."""

    lease_seconds = None
    """A process that dies loses its lock on a file; no clock is needed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        names = {"joined": "joined_runs", "shares_of": "shares", "syncs": "syncs", "runs": "runs"}
        self.joined = JoinedTables(**names, transact=self._for_sync, now=self.now)
        self._db = open_file(path)

    @property
    def place(self) -> str:
        """The home directory."""
        return str(self.path.parent)

    @property
    def version(self) -> str:
        """SQLite's."""
        return f"SQLite {sqlite3.sqlite_version}"

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def now(self) -> datetime:
        """Read this machine's clock: no other uses the file."""
        return datetime.now(UTC)

    def write_log(self, folders: LogFolders, form: LogFormat) -> WriteLog:  # noqa: ARG002 -- the contract's signature
        """Give the folders beside the file."""
        return FolderLog(folders)

    @contextmanager
    def _transaction(self, sync_id: str | None = None, token: int | None = None) -> Iterator[None]:
        """One transaction that sees no other's, refused if a higher token was given out."""
        with transaction(self._db, self.path):
            if token is not None:
                row = self._db.execute("SELECT token FROM syncs WHERE sync_id = ?", [sync_id]).fetchone()
                if row is None or row[0] != token:
                    raise Fenced(
                        "another run has taken this sync over; this one stops and its result is not used"
                    )
            yield

    def _rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the database {self.path} can't be read ({error})") from error

    # Syncs

    def find(self, name: str) -> StoredSync | None:
        """Find a sync by its name."""
        rows = self._rows("SELECT * FROM syncs WHERE name = ?", name)
        return sync_of(rows[0]) if rows else None

    def get(self, sync_id: str) -> StoredSync:
        """Give a sync that exists."""
        return sync_of(self._rows("SELECT * FROM syncs WHERE sync_id = ?", sync_id)[0])

    def syncs(self) -> Sequence[StoredSync]:
        """List all syncs by name."""
        return [sync_of(row) for row in self._rows("SELECT * FROM syncs ORDER BY name")]

    def create(self, sync: StoredSync) -> StoredSync:
        """Store a new sync; if one of that name exists already, give that one."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO syncs (sync_id, name, source, primary_key, destination, shared_table, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
                [
                    sync.sync_id,
                    sync.name,
                    sync.source,
                    json.dumps(sync.primary_key),
                    sync.destination,
                    sync.shared_table,
                    sync.created_at.isoformat(),
                ],
            )
        found = self.find(sync.name)
        assert found is not None  # noqa: S101 -- it was inserted, or stood in the way
        return found

    def describe(self, sync: StoredSync, token: int) -> None:
        """Store a sync's source, primary key, destination and shared_table anew."""
        with self._transaction(sync.sync_id, token):
            self._db.execute(
                "UPDATE syncs SET source = ?, primary_key = ?, destination = ?, shared_table = ?"
                " WHERE sync_id = ?",
                [
                    sync.source,
                    json.dumps(sync.primary_key),
                    sync.destination,
                    sync.shared_table,
                    sync.sync_id,
                ],
            )

    def set_sync(self, sync: StoredSync, token: int, void: tuple[int, str] | None = None) -> None:
        """Store all of a sync's changeable state; `void` names the runs that no longer count."""
        with self._transaction(sync.sync_id, token):
            self._write_sync(sync)
            if void is not None:
                self._db.execute(
                    "UPDATE runs SET details = json_set(details, '$.void', ?)"
                    " WHERE sync_id = ? AND run > ? AND json_extract(details, '$.void') IS NULL",
                    [void[1], sync.sync_id, void[0]],
                )

    def _write_sync(self, sync: StoredSync) -> None:
        done = sync.acknowledged
        self._db.execute(
            "UPDATE syncs SET established = ?, manifest = ?, generation = ?, acknowledged_run = ?,"
            " acknowledged_sequence = ?, acknowledged_marker = ?, held = ? WHERE sync_id = ?",
            [
                sync.established,
                sync.manifest,
                sync.generation,
                done and done.run,
                done and done.sequence,
                done and done.marker,
                as_json(sync.held),
                sync.sync_id,
            ],
        )

    def _do(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self._db.execute(sql, values).fetchall()]

    def _for_sync(self, sync_id: str, token: int | None, work: Callable[[Statements], T]) -> T:
        with self._transaction(sync_id, token):
            return work(self._do)

    # Leases

    def acquire(
        self, sync_id: str, holder: str, now: datetime, *, over: bool = False, joined: str | None = None
    ) -> int:
        """Take the lease and give its token."""
        with self._transaction():
            held = None if over else self.holder(sync_id)
            if held is not None:
                raise SyncBusy(held)
            self._db.execute("UPDATE syncs SET token = token + 1 WHERE sync_id = ?", [sync_id])
            token = int(
                self._db.execute("SELECT token FROM syncs WHERE sync_id = ?", [sync_id]).fetchone()[0]
            )
            self._db.execute(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, ?)",
                [sync_id, holder, token, now.isoformat(), now.isoformat()],
            )
            self.joined.admit(self._do, sync_id, token, joined, now)
        return token

    def heartbeat(self, sync_id: str, token: int, now: datetime) -> None:
        """Keep the lease."""
        with self._transaction(sync_id, token):
            self._db.execute(
                "UPDATE leases SET heartbeat_at = ? WHERE sync_id = ?", [now.isoformat(), sync_id]
            )

    def release(self, sync_id: str, token: int) -> None:
        """Give the lease back; nothing happens if it was lost."""
        with self._transaction():
            self._db.execute("DELETE FROM leases WHERE sync_id = ? AND token = ?", [sync_id, token])

    def holder(self, sync_id: str) -> str | None:
        """Say who holds the lease."""
        rows = self._rows("SELECT holder, acquired_at FROM leases WHERE sync_id = ?", sync_id)
        return f"{rows[0]['holder']} since {rows[0]['acquired_at'][:19]}Z" if rows else None

    # Runs

    def begin_run(self, sync_id: str, token: int, kind: RunKind, now: datetime) -> int:
        """Number a new run."""
        with self._transaction(sync_id, token):
            row = self._db.execute("SELECT next_run FROM syncs WHERE sync_id = ?", [sync_id]).fetchone()
            run = int(row[0])
            self._db.execute("UPDATE syncs SET next_run = next_run + 1 WHERE sync_id = ?", [sync_id])
            self._db.execute(
                "INSERT INTO runs (sync_id, run, kind, status, token, started_at, result, details)"
                " VALUES (?, ?, ?, 'reading', ?, ?, '{}', '{}')",
                [sync_id, run, str(kind), token, now.isoformat()],
            )
        return run

    def update_run(self, run: StoredRun) -> None:
        """Store a run's state."""
        with self._transaction(run.sync_id, run.token):
            self._write_run(run)

    def _write_run(self, run: StoredRun) -> None:
        self._db.execute(
            "UPDATE runs SET status = ?, token = ?, finished_at = ?, result = ?, details = ?, sealed = ?,"
            " manifest = ? WHERE sync_id = ? AND run = ?",
            [
                str(run.status),
                run.token,
                run.finished_at and run.finished_at.isoformat(),
                json.dumps(run.result),
                json.dumps(run.details),
                as_json(run.sealed),
                run.manifest,
                run.sync_id,
                run.run,
            ],
        )

    def acknowledge(self, sync_id: str, token: int, position: Acknowledged) -> None:
        """Note how far delivery came."""
        with self._transaction(sync_id, token):
            self._db.execute(
                "UPDATE syncs SET acknowledged_run = ?, acknowledged_sequence = ?, acknowledged_marker = ?"
                " WHERE sync_id = ?",
                [position.run, position.sequence, position.marker, sync_id],
            )

    def commit(self, run: StoredRun, sync: StoredSync, superseded: Sequence[tuple[int, int]]) -> None:
        """Commit a run."""
        with self._transaction(run.sync_id, run.token):
            self._write_run(run)
            self._write_sync(sync)
            self.joined.close(self._do, run.sync_id, run.run)
            self._db.executemany(
                "UPDATE failures SET state = 'superseded', updated_at = ?"
                " WHERE sync_id = ? AND run = ? AND sequence = ?",
                [
                    (run.finished_at and run.finished_at.isoformat(), run.sync_id, number, sequence)
                    for number, sequence in superseded
                ],
            )

    def run(self, sync_id: str, run: int) -> StoredRun | None:
        """Find a run."""
        rows = self._rows("SELECT * FROM runs WHERE sync_id = ? AND run = ?", sync_id, run)
        return run_of(rows[0]) if rows else None

    def runs(self, sync_id: str | None = None, limit: int | None = None) -> Sequence[StoredRun]:
        """List runs, newest first."""
        count = -1 if limit is None else limit
        if sync_id is None:
            rows = self._rows("SELECT * FROM runs ORDER BY started_at DESC, run DESC LIMIT ?", count)
        else:
            rows = self._rows(
                "SELECT * FROM runs WHERE sync_id = ? ORDER BY run DESC LIMIT ?", sync_id, count
            )
        return [run_of(row) for row in rows]

    def unfinished(self, sync_id: str) -> Sequence[StoredRun]:
        """List runs that are reading, sealed or delivering, oldest first."""
        rows = self._rows(
            "SELECT * FROM runs WHERE sync_id = ? AND status IN (?, ?, ?) ORDER BY run",
            sync_id,
            *map(str, _UNFINISHED),
        )
        return [run_of(row) for row in rows]

    # Failures

    def add_failures(self, sync_id: str, token: int, failures: Sequence[Failure]) -> None:
        """Set records aside."""
        with self._transaction(sync_id, token):
            self._db.executemany(
                "INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET error = excluded.error, outcome = excluded.outcome,"
                " state = excluded.state, attempts = attempts + 1, updated_at = excluded.updated_at",
                [
                    (
                        sync_id,
                        f.run,
                        f.sequence,
                        f.primary_key_signature,
                        f.destination_action,
                        f.primary_key,
                        f.error,
                        f.outcome,
                        f.state,
                        f.attempts,
                        f.created_at.isoformat(),
                        f.updated_at.isoformat(),
                    )
                    for f in failures
                ],
            )

    def drop_failures(self, sync_id: str, token: int, run: int, sequences: Sequence[int]) -> None:
        """Forget entries whose records were written after all."""
        with self._transaction(sync_id, token):
            self._db.executemany(
                "DELETE FROM failures WHERE sync_id = ? AND run = ? AND sequence = ?",
                [(sync_id, run, sequence) for sequence in sequences],
            )

    def settle_failures(
        self, sync_id: str, token: int, entries: Sequence[tuple[int, int]], state: str
    ) -> None:
        """Put entries into another state."""
        with self._transaction(sync_id, token):
            self._db.executemany(
                "UPDATE failures SET state = ?, updated_at = ? WHERE sync_id = ? AND run = ? AND sequence = ?",
                [(state, self.now().isoformat(), sync_id, number, sequence) for number, sequence in entries],
            )

    def failures(self, sync_id: str, run: int | None = None) -> Sequence[Failure]:
        """List failures: the open ones, or all those of one run."""
        where, value = ("state = ?", "open") if run is None else ("run = ?", run)
        rows = self._rows(
            f"SELECT * FROM failures WHERE sync_id = ? AND {where} ORDER BY run, sequence", sync_id, value
        )
        return [failure_of(row) for row in rows]

    def tables(self) -> Mapping[str, list[dict[str, Any]]]:
        """Give syncs, runs and failures as rows, for the SQL views."""
        return {
            name: [dict(row) for row in self._rows(f"SELECT * FROM {name}")]
            for name in ("syncs", "runs", "failures")
        }
