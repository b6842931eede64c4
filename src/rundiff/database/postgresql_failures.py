"""Records that were set aside, in PostgreSQL: their own table, and their status at the write records.

All that changes something is called within a transaction that has checked the sync's token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from rundiff.database.contract import Failure, StoredRun
from rundiff.database.postgresql_rows import failure_of
from rundiff.database.server import Server, clean

if TYPE_CHECKING:
    import psycopg

    Cursor = psycopg.Cursor[dict[str, Any]]

__all__ = ["FailureTable"]


class FailureTable(msgspec.Struct, frozen=True, kw_only=True):
    """The statements on the tables of these names."""

    failures: str
    records: str

    def add(self, cursor: Cursor, sync_id: str, failures: Sequence[Failure]) -> None:
        """Set records aside."""
        cursor.executemany(
            f"INSERT INTO {self.failures} AS f VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (sync_id, run, sequence) DO UPDATE SET error = excluded.error,"
            " outcome = excluded.outcome, state = excluded.state, attempts = f.attempts + 1,"
            " updated_at = excluded.updated_at",
            [
                (
                    sync_id,
                    f.run,
                    f.sequence,
                    f.primary_key_signature,
                    f.destination_action,
                    f.primary_key and clean(f.primary_key),
                    clean(f.error),
                    f.outcome,
                    f.state,
                    f.attempts,
                    f.created_at,
                    f.updated_at,
                )
                for f in failures
            ],
        )
        cursor.executemany(
            f"UPDATE {self.records} SET status = 'failed', error = %s, attempts = attempts + 1,"
            " updated_at = now() WHERE sync_id = %s AND run_id = %s AND sequence = %s",
            [(clean(f.error), sync_id, f.run, f.sequence) for f in failures if f.sequence > 0],
        )

    def drop(self, cursor: Cursor, sync_id: str, run: int, sequences: Sequence[int]) -> None:
        """Forget entries whose records were written after all."""
        which = [sync_id, run, list(sequences)]
        cursor.execute(
            f"DELETE FROM {self.failures} WHERE sync_id = %s AND run = %s AND sequence = ANY (%s)", which
        )
        # The acknowledgement that follows makes them written.
        cursor.execute(
            f"UPDATE {self.records} SET status = 'pending', error = NULL, updated_at = now()"
            " WHERE sync_id = %s AND run_id = %s AND sequence = ANY (%s)",
            which,
        )

    def settle(self, cursor: Cursor, sync_id: str, entries: Sequence[tuple[int, int]], state: str) -> None:
        """Put entries into another state."""
        cursor.executemany(
            f"UPDATE {self.failures} SET state = %s, updated_at = now()"
            " WHERE sync_id = %s AND run = %s AND sequence = %s",
            [(state, sync_id, number, sequence) for number, sequence in entries],
        )

    def supersede(self, cursor: Cursor, run: StoredRun, entries: Sequence[tuple[int, int]]) -> None:
        """Close the entries of keys that a run has written anew, at the time of its end."""
        cursor.executemany(
            f"UPDATE {self.failures} SET state = 'superseded', updated_at = %s"
            " WHERE sync_id = %s AND run = %s AND sequence = %s",
            [(run.finished_at, run.sync_id, number, sequence) for number, sequence in entries],
        )

    def listed(self, server: Server, sync_id: str, run: int | None) -> list[Failure]:
        """List the open ones, or all those of one run."""
        where, value = ("state = %s", "open") if run is None else ("run = %s", run)
        rows = server.rows(
            f"SELECT * FROM {self.failures} WHERE sync_id = %s AND {where} ORDER BY run, sequence",
            [sync_id, value],
        )
        return [failure_of(row) for row in rows]
