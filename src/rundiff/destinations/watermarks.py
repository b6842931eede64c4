"""`_rundiff_watermarks`: how far each sync's deliveries into a table came, and under which token.

One row per sync and table, moved in the transaction that writes a batch, by an update that demands its
own token and the expected position (design section 6): each change lands exactly once, and a worker
that was succeeded is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from rundiff.destinations.contract import Position, Target
from rundiff.destinations.tables import Connection, Dialect, TableName
from rundiff.errors import Fenced

__all__ = ["TABLE", "Watermarks"]

TABLE = "_rundiff_watermarks"


class Watermarks:
    """The marks on one table."""

    def __init__(self, connection: Connection, dialect: Dialect, marks: TableName, table: str) -> None:
        self._connection = connection
        self._dialect = dialect
        self._marks = marks
        self._table = table
        self._found = False

    def position(self, target: Target) -> Position | None:
        """Give the position of this sync, None if it left no mark."""
        found = self._read(target)
        return None if found is None else found[0]

    def strangers(self, target: Target) -> list[str]:
        """Give the ids of the other syncs that left a mark, sorted."""
        if not self._exists():
            return []
        rows = self._connection.rows(
            f'SELECT sync_id FROM {self._name} WHERE "table" = ? AND sync_id <> ? ORDER BY sync_id',
            (self._table, target.sync_id),
        )
        return [row[0] for row in rows]

    def forget(self, sync_ids: Sequence[str]) -> None:
        """Drop the marks of some syncs."""
        if not self._exists():
            return
        with self._connection.transaction():
            for sync_id in sync_ids:
                self._connection.execute(
                    f'DELETE FROM {self._name} WHERE sync_id = ? AND "table" = ?', (sync_id, self._table)
                )

    def claim(self, target: Target, start: Position) -> None:
        """Take the mark over for the target's token, as the contract's `claim` says."""
        with self._connection.transaction():
            if not self._exists():
                self._create()
            found = self._read(target)
            if found is None:
                self._connection.execute(
                    f'INSERT INTO {self._name} (run, sequence, token, sync_id, "table") VALUES (?, ?, ?, ?, ?)',
                    (start.run, start.sequence, target.token, target.sync_id, self._table),
                )
                return
            position, token = found
            self._refuse_claim(target, start, position, token)
            ahead = start if start.reaches(position) else position
            self._connection.execute(
                f'UPDATE {self._name} SET run = ?, sequence = ?, token = ? WHERE sync_id = ? AND "table" = ?',
                (ahead.run, ahead.sequence, target.token, target.sync_id, self._table),
            )

    def move(self, target: Target, expected: Position, reached: Position) -> None:
        """Move the mark on, or raise `Fenced` if it isn't where this worker left it."""
        if self._exists():
            moved = self._connection.execute(
                f'UPDATE {self._name} SET run = ?, sequence = ? WHERE sync_id = ? AND "table" = ? '
                "AND token = ? AND run = ? AND sequence = ?",
                (
                    *(reached.run, reached.sequence, target.sync_id, self._table),
                    *(target.token, expected.run, expected.sequence),
                ),
            )
            if moved == 1:
                return
        raise Fenced(
            f'The watermark of "{target.sync}" on the table "{self._table}" is not at run {expected.run}, sequence '
            f"{expected.sequence}, where this worker left it: another one took over, so this one stops."
        )

    def _refuse_claim(self, target: Target, start: Position, position: Position, token: int) -> None:
        if token > target.token:
            raise Fenced(
                f'A newer worker delivers "{target.sync}" into the table "{self._table}" (token {token}, this one has '
                f"{target.token}): this one stops."
            )
        if token < target.token and not start.reaches(position):
            raise Fenced(
                f'The table "{self._table}" stands at run {position.run}, sequence {position.sequence} of '
                f'"{target.sync}", past run {start.run}, sequence {start.sequence}, where this run would go on: '
                "run again; if the home directory was restored from a backup, with --full-refresh."
            )

    @property
    def _name(self) -> str:
        return self._connection.locate(self._marks)

    def _exists(self) -> bool:
        # Looked up until it is there: a catalogue query for every batch would be felt.
        self._found = self._found or self._connection.shape(self._marks) is not None
        return self._found

    def _create(self) -> None:
        self._connection.execute(
            f"CREATE TABLE {self._name} (sync_id VARCHAR(36) NOT NULL, "
            f'"table" {self._dialect.name_type} NOT NULL, run BIGINT NOT NULL, sequence BIGINT NOT NULL, '
            f'token BIGINT NOT NULL, PRIMARY KEY (sync_id, "table")){self._dialect.created}'
        )

    def _read(self, target: Target) -> tuple[Position, int] | None:
        if not self._exists():
            return None
        rows = self._connection.rows(
            f'SELECT run, sequence, token FROM {self._name} WHERE sync_id = ? AND "table" = ?',
            (target.sync_id, self._table),
        )
        if not rows:
            return None
        run, sequence, token = rows[0]
        return Position(run=run, sequence=sequence), token
