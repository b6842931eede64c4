"""The PostgreSQL database: syncs, runs, leases, failures and write records in tables of a server.

Every method is one transaction that begins with the sync's row: its lock orders the writers, and its
token refuses those that were succeeded (docs/decisions/0008-postgresql-database.md).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rundiff.copies import InUse
from rundiff.database.contract import Acknowledged, Failure, StoredRun, StoredSync
from rundiff.database.joined import JoinedTables, Statements
from rundiff.database.logs import LogFolders, LogFormat, WriteLog
from rundiff.database.migrating import require_current
from rundiff.database.postgresql_failures import FailureTable
from rundiff.database.postgresql_leases import Leases, has_changed, statements
from rundiff.database.postgresql_rows import as_json, plain_row, run_of, sync_of, utc
from rundiff.database.server import Address, Server, clean
from rundiff.errors import Fenced
from rundiff.model import RunKind, RunStatus
from rundiff.servers import server_version

if TYPE_CHECKING:
    import psycopg

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["PostgresqlDatabase"]

T = TypeVar("T")

_UNFINISHED = [str(s) for s in (RunStatus.READING, RunStatus.SEALED, RunStatus.DELIVERING)]
_ENDLESS = 2**63 - 1


class PostgresqlDatabase:
    """Syncs, runs, leases, acknowledgements, failures and write records on a server.

    `url` is `postgresql://USER:PASSWORD@HOST:PORT/NAME` with libpq's parameters, and with `schema` and
    `lease_seconds` (60 by default). Raises `ConfigurationError`, `MissingDriver` or `StorageError`.
    """

    def __init__(self, url: str) -> None:
        self.address = Address.parse(url)
        self._server = Server(self.address)
        self._in_use = InUse()
        names = ("rundiff_syncs", "rundiff_runs", "rundiff_failures")
        self._syncs, self._runs, self._failures = map(self.address.table, names)
        self._records = self.address.table("sync_write_records")
        self.joined = JoinedTables(
            joined=self.address.table("rundiff_joined_runs"),
            shares_of=self.address.table("rundiff_shares"),
            syncs=self._syncs,
            runs=self._runs,
            transact=self._for_sync,
            now=self.now,
        )
        self._aside = FailureTable(failures=self._failures, records=self._records)
        self._held = Leases(self._server, self.address, self.joined)
        try:
            require_current(self._server, self.address)
        except BaseException:
            self.close()
            raise

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts after `acquire` or `heartbeat`."""
        return self.address.lease_seconds

    @property
    def place(self) -> str:
        """The URL without secrets."""
        return self.address.place

    @property
    def version(self) -> str:
        """The server's, and whether a pooler stands before it."""
        return self._server.ask(server_version)

    def close(self) -> None:
        """Close the connections, and let go of the local copies of write logs."""
        self._in_use.release()
        self._held.close()
        self._server.close()

    def now(self) -> datetime:
        """Read the server's clock."""
        return utc(self._server.rows("SELECT clock_timestamp() AS now")[0]["now"])

    def write_log(self, folders: LogFolders, form: LogFormat) -> WriteLog:
        """Give the tables of write records, with copies of their files in local folders."""
        from rundiff.database.postgresql_log import PostgresqlLog

        return PostgresqlLog(self, self._server, (folders, form), self._in_use)

    def fenced(self, sync_id: str, token: int, work: Callable[[Cursor], T]) -> T:
        """Do one transaction for a sync, unless a higher token was given out."""
        return self._checked((sync_id, token), work, first=True)

    def fenced_last(self, sync_id: str, token: int, work: Callable[[Cursor], T]) -> T:
        """Do the same, but lock the sync's row only when all is done: for work that may take long."""
        return self._checked((sync_id, token), work, first=False)

    def _checked(self, whose: tuple[str, int], work: Callable[[Cursor], T], *, first: bool) -> T:
        change = uuid.uuid4()

        def checked(cursor: Cursor) -> T:
            if first:
                self._check(cursor, (*whose, change))
            result = work(cursor)
            if not first:
                self._check(cursor, (*whose, change))
            return result

        return self._server.transact(
            checked, lambda cursor: has_changed(cursor, self._syncs, (whose[0], change))
        )

    def _check(self, cursor: Cursor, change: tuple[str, int, uuid.UUID]) -> None:
        sync_id, token, mark = change
        # A process that is stopped in mid-transaction shall not keep its successors from the row: the
        # server ends its session when it was silent for the time of a lease.
        found = cursor.execute(
            f"UPDATE {self._syncs} SET last_change = %s WHERE sync_id = %s AND token = %s"
            " RETURNING set_config('idle_in_transaction_session_timeout', %s, true)",
            [mark, sync_id, token, str(round(self.lease_seconds * 1000))],
        )
        if found.rowcount == 0:
            raise _fenced()

    # Syncs

    def find(self, name: str) -> StoredSync | None:
        """Find a sync by its name."""
        rows = self._server.rows(f"SELECT * FROM {self._syncs} WHERE name = %s", [clean(name)])
        return sync_of(rows[0]) if rows else None

    def get(self, sync_id: str) -> StoredSync:
        """Give a sync that exists."""
        return sync_of(self._server.rows(f"SELECT * FROM {self._syncs} WHERE sync_id = %s", [sync_id])[0])

    def syncs(self) -> Sequence[StoredSync]:
        """List all syncs by name."""
        # By code points, as every other database does: the server's collation may be of any language.
        rows = self._server.rows(f'SELECT * FROM {self._syncs} ORDER BY name COLLATE "C"')
        return [sync_of(row) for row in rows]

    def create(self, sync: StoredSync) -> StoredSync:
        """Store a new sync; if one of that name exists already, give that one."""
        self._server.transact(
            lambda cursor: cursor.execute(
                f"INSERT INTO {self._syncs}"
                " (sync_id, name, source, primary_key, destination, shared_table, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING",
                [
                    sync.sync_id,
                    clean(sync.name),
                    clean(sync.source),
                    json.dumps(sync.primary_key),
                    clean(sync.destination),
                    sync.shared_table,
                    sync.created_at,
                ],
            )
        )
        found = self.find(sync.name)
        assert found is not None  # noqa: S101 -- it was inserted, or stood in the way
        return found

    def describe(self, sync: StoredSync, token: int) -> None:
        """Store a sync's source, primary key, destination and shared_table anew."""
        self.fenced(
            sync.sync_id,
            token,
            lambda cursor: cursor.execute(
                f"UPDATE {self._syncs} SET source = %s, primary_key = %s, destination = %s,"
                " shared_table = %s WHERE sync_id = %s",
                [
                    clean(sync.source),
                    json.dumps(sync.primary_key),
                    clean(sync.destination),
                    sync.shared_table,
                    sync.sync_id,
                ],
            ),
        )

    def set_sync(self, sync: StoredSync, token: int, void: tuple[int, str] | None = None) -> None:
        """Store all of a sync's changeable state; `void` names the runs that no longer count."""

        def write(cursor: Cursor) -> None:
            self._write_sync(cursor, sync)
            if void is None:
                return
            after, reason = void
            runs = cursor.execute(
                f"SELECT run, details FROM {self._runs} WHERE sync_id = %s AND run > %s",
                [sync.sync_id, after],
            ).fetchall()
            cursor.executemany(
                f"UPDATE {self._runs} SET details = %s WHERE sync_id = %s AND run = %s",
                [
                    (json.dumps({**run["details"], "void": reason}), sync.sync_id, run["run"])
                    for run in runs
                    if "void" not in run["details"]
                ],
            )

        self.fenced(sync.sync_id, token, write)

    def _write_sync(self, cursor: Cursor, sync: StoredSync) -> None:
        done = sync.acknowledged
        cursor.execute(
            f"UPDATE {self._syncs} SET established = %s, manifest = %s, generation = %s, acknowledged_run = %s,"
            " acknowledged_sequence = %s, acknowledged_marker = %s, held = %s WHERE sync_id = %s",
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

    def _for_sync(self, sync_id: str, token: int | None, work: Callable[[Statements], T]) -> T:
        if token is None:
            return self._server.transact(lambda cursor: work(statements(cursor)))
        return self.fenced(sync_id, token, lambda cursor: work(statements(cursor)))

    # Leases

    def acquire(
        self,
        sync_id: str,
        holder: str,
        now: datetime,  # noqa: ARG002 -- the server's clock counts
        *,
        over: bool = False,
        joined: str | None = None,
    ) -> int:
        """Take the lease and give its token."""
        return self._held.acquire(sync_id, holder, over=over, joined=joined)

    def heartbeat(self, sync_id: str, token: int, now: datetime) -> None:  # noqa: ARG002 -- as above
        """Keep the lease."""
        if not self._held.renew(sync_id, token):
            raise _fenced()

    def release(self, sync_id: str, token: int) -> None:
        """Give the lease back; nothing happens if it was lost."""
        self._held.release(sync_id, token)

    def holder(self, sync_id: str) -> str | None:
        """Say who holds the lease, since when and until when."""
        return self._held.holder(sync_id)

    # Runs

    def begin_run(self, sync_id: str, token: int, kind: RunKind, now: datetime) -> int:
        """Number a new run."""

        def begin(cursor: Cursor) -> int:
            row = cursor.execute(
                f"UPDATE {self._syncs} SET next_run = next_run + 1 WHERE sync_id = %s RETURNING next_run",
                [sync_id],
            ).fetchone()
            assert row is not None  # noqa: S101 -- its token was just checked
            run = int(row["next_run"]) - 1
            cursor.execute(
                f"INSERT INTO {self._runs} (sync_id, run, kind, status, token, started_at, result, details)"
                " VALUES (%s, %s, %s, 'reading', %s, %s, '{}', '{}')",
                [sync_id, run, str(kind), token, now],
            )
            return run

        return self.fenced(sync_id, token, begin)

    def update_run(self, run: StoredRun) -> None:
        """Store a run's state."""
        self.fenced(run.sync_id, run.token, lambda cursor: self._write_run(cursor, run))

    def _write_run(self, cursor: Cursor, run: StoredRun) -> None:
        cursor.execute(
            f"UPDATE {self._runs} SET status = %s, token = %s, finished_at = %s, result = %s, details = %s,"
            " sealed = %s, manifest = %s WHERE sync_id = %s AND run = %s",
            [
                str(run.status),
                run.token,
                run.finished_at,
                json.dumps(run.result),
                json.dumps(run.details),
                as_json(run.sealed),
                run.manifest,
                run.sync_id,
                run.run,
            ],
        )

    def acknowledge(self, sync_id: str, token: int, position: Acknowledged) -> None:
        """Note how far delivery came, also at the write records."""

        def note(cursor: Cursor) -> None:
            self._written(cursor, sync_id, position.run, position.sequence)
            cursor.execute(
                f"UPDATE {self._syncs} SET acknowledged_run = %s, acknowledged_sequence = %s,"
                " acknowledged_marker = %s WHERE sync_id = %s",
                [position.run, position.sequence, position.marker, sync_id],
            )

        self.fenced(sync_id, token, note)

    def _written(self, cursor: Cursor, sync_id: str, run: int, last: int | None) -> None:
        """Mark a run's records up to a sequence as written, from where the acknowledgement stands."""
        done = cursor.execute(
            f"SELECT acknowledged_run, acknowledged_sequence FROM {self._syncs} WHERE sync_id = %s", [sync_id]
        ).fetchone()
        first = done["acknowledged_sequence"] + 1 if done and done["acknowledged_run"] == run else 1
        cursor.execute(
            f"UPDATE {self._records} SET status = 'written', attempts = attempts + 1, updated_at = now()"
            " WHERE sync_id = %s AND run_id = %s AND sequence BETWEEN %s AND %s AND status = 'pending'",
            [sync_id, run, first, _ENDLESS if last is None else last],
        )

    def commit(self, run: StoredRun, sync: StoredSync, superseded: Sequence[tuple[int, int]]) -> None:
        """Commit a run."""

        def write(cursor: Cursor) -> None:
            if run.manifest is not None:
                self._written(cursor, run.sync_id, run.run, None)
            self._write_run(cursor, run)
            self._write_sync(cursor, sync)
            self.joined.close(statements(cursor), run.sync_id, run.run)
            self._aside.supersede(cursor, run, superseded)

        self.fenced(run.sync_id, run.token, write)

    def run(self, sync_id: str, run: int) -> StoredRun | None:
        """Find a run."""
        rows = self._server.rows(
            f"SELECT * FROM {self._runs} WHERE sync_id = %s AND run = %s", [sync_id, run]
        )
        return run_of(rows[0]) if rows else None

    def runs(self, sync_id: str | None = None, limit: int | None = None) -> Sequence[StoredRun]:
        """List runs, newest first."""
        values: list[Any]
        if sync_id is None:
            query, values = f"SELECT * FROM {self._runs} ORDER BY started_at DESC, run DESC LIMIT %s", [limit]
        else:
            query = f"SELECT * FROM {self._runs} WHERE sync_id = %s ORDER BY run DESC LIMIT %s"
            values = [sync_id, limit]
        return [run_of(row) for row in self._server.rows(query, values)]

    def unfinished(self, sync_id: str) -> Sequence[StoredRun]:
        """List runs that are reading, sealed or delivering, oldest first."""
        rows = self._server.rows(
            f"SELECT * FROM {self._runs} WHERE sync_id = %s AND status = ANY (%s) ORDER BY run",
            [sync_id, _UNFINISHED],
        )
        return [run_of(row) for row in rows]

    # Failures

    def add_failures(self, sync_id: str, token: int, failures: Sequence[Failure]) -> None:
        """Set records aside, also at the write records."""
        self.fenced(sync_id, token, lambda cursor: self._aside.add(cursor, sync_id, failures))

    def drop_failures(self, sync_id: str, token: int, run: int, sequences: Sequence[int]) -> None:
        """Forget entries whose records were written after all."""
        self.fenced(sync_id, token, lambda cursor: self._aside.drop(cursor, sync_id, run, sequences))

    def settle_failures(
        self, sync_id: str, token: int, entries: Sequence[tuple[int, int]], state: str
    ) -> None:
        """Put entries into another state."""
        self.fenced(sync_id, token, lambda cursor: self._aside.settle(cursor, sync_id, entries, state))

    def failures(self, sync_id: str, run: int | None = None) -> Sequence[Failure]:
        """List failures: the open ones, or all those of one run."""
        return self._aside.listed(self._server, sync_id, run)

    def tables(self) -> Mapping[str, list[dict[str, Any]]]:
        """Give syncs, runs and failures as rows, for the SQL views."""
        tables = {"syncs": self._syncs, "runs": self._runs, "failures": self._failures}
        return {
            name: [plain_row(row) for row in self._server.rows(f"SELECT * FROM {table}")]
            for name, table in tables.items()
        }


def _fenced() -> Fenced:
    return Fenced("another run has taken this sync over; this one stops and its result is not used")
