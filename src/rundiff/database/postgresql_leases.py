"""Leases in PostgreSQL: rows that end by the server's clock unless they are renewed."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rundiff.database.joined import JoinedTables, Statements
from rundiff.database.postgresql_rows import holder_of, utc
from rundiff.database.server import Address, Server, clean
from rundiff.errors import SyncBusy

if TYPE_CHECKING:
    import psycopg

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["Leases", "has_changed", "statements"]


def statements(cursor: Cursor) -> Statements:
    """Execute statements that mark their values by `?`, and hold no other one, nor a percent sign."""

    def do(sql: str, values: Sequence[Any] = ()) -> Sequence[Mapping[str, Any]]:
        found = cursor.execute(sql.replace("?", "%s"), values)
        return found.fetchall() if found.description is not None else []

    return do


def has_changed(cursor: Cursor, syncs: str, change: tuple[str, uuid.UUID]) -> bool:
    """Say whether a change of a sync was its last one; waits for one that is still being committed."""
    sync_id, mark = change
    found = cursor.execute(
        f"SELECT last_change FROM {syncs} WHERE sync_id = %s FOR NO KEY UPDATE", [sync_id]
    ).fetchone()
    return found is not None and found["last_change"] == mark


class Leases:
    """Who runs which sync, and until when."""

    def __init__(self, server: Server, address: Address, joined: JoinedTables) -> None:
        self._server = server
        self._joined = joined
        # Of its own, so that a heartbeat never waits for a long transaction; the next one tries again.
        self._beats = Server(address, patience=0)
        self._seconds = address.lease_seconds
        self._syncs, self._leases = address.table("rundiff_syncs"), address.table("rundiff_leases")

    def close(self) -> None:
        """Close the connection of the heartbeats."""
        self._beats.close()

    def acquire(self, sync_id: str, holder: str, *, over: bool, joined: str | None = None) -> int:
        """Take the lease and give its token; raises `SyncBusy` while another runs, unless `over`."""
        # Looked at before the row is locked: the holder may be in the middle of a transaction.
        found = None if over else self.holder(sync_id)
        if found is not None:
            raise SyncBusy(found)
        change = uuid.uuid4()

        def take(cursor: Cursor) -> int:
            cursor.execute(f"SELECT FROM {self._syncs} WHERE sync_id = %s FOR NO KEY UPDATE", [sync_id])
            rows = cursor.execute(self._holding, [sync_id]).fetchall()
            if rows and not over:
                # Another took it in between.
                raise SyncBusy(holder_of(rows[0]))
            row = cursor.execute(
                f"UPDATE {self._syncs} SET token = token + 1, last_change = %s WHERE sync_id = %s RETURNING token",
                [change, sync_id],
            ).fetchone()
            assert row is not None  # noqa: S101 -- the caller has the sync's id from this table
            cursor.execute(
                f"INSERT INTO {self._leases} (sync_id, holder, token, acquired_at, expires_at)"
                " VALUES (%s, %s, %s, clock_timestamp(), clock_timestamp() + make_interval(secs => %s))"
                " ON CONFLICT (sync_id) DO UPDATE SET holder = excluded.holder, token = excluded.token,"
                " acquired_at = excluded.acquired_at, expires_at = excluded.expires_at",
                [sync_id, clean(holder), row["token"], self._seconds],
            )
            token = int(row["token"])
            told = cursor.execute("SELECT clock_timestamp() AS now").fetchone()
            assert told is not None  # noqa: S101 -- a clock gives one row
            self._joined.admit(statements(cursor), sync_id, token, joined, utc(told["now"]))
            return token

        return self._server.transact(take, lambda cursor: has_changed(cursor, self._syncs, (sync_id, change)))

    @property
    def _holding(self) -> str:
        return (
            f"SELECT holder, acquired_at, expires_at FROM {self._leases}"
            " WHERE sync_id = %s AND expires_at > clock_timestamp()"
        )

    def renew(self, sync_id: str, token: int) -> bool:
        """Let the lease last from now on; False if another took it, or it was given back."""
        return self._beats.transact(
            lambda cursor: (
                cursor.execute(
                    f"UPDATE {self._leases} SET expires_at = clock_timestamp() + make_interval(secs => %s)"
                    " WHERE sync_id = %s AND token = %s",
                    [self._seconds, sync_id, token],
                ).rowcount
                > 0
            )
        )

    def release(self, sync_id: str, token: int) -> None:
        """Give the lease back; nothing happens if it was lost."""
        self._server.transact(
            lambda cursor: cursor.execute(
                f"DELETE FROM {self._leases} WHERE sync_id = %s AND token = %s", [sync_id, token]
            )
        )

    def holder(self, sync_id: str) -> str | None:
        """Say who holds the lease, since when and until when."""
        rows = self._server.rows(self._holding, [sync_id])
        return holder_of(rows[0]) if rows else None
